//! A store that forgets its history.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::decorated::{Decorated, Decorator};
use crate::{Batch, KvStore, Revision, StoreError, Watch, WatchSource};

/// A store that kills its watches when it is told to.
pub type Compacting<S> = Decorated<S, Compaction>;

#[derive(Debug)]
pub struct Compaction {
    /// What lies before is gone.
    oldest: Arc<watch::Sender<Revision>>,
}

impl<S: KvStore> Compacting<S> {
    /// Forgets nothing yet.
    pub fn new(store: S) -> Self {
        Self { store, decorator: Compaction { oldest: Arc::new(watch::Sender::new(Revision(0))) } }
    }

    /// Forgets all up to now: every running watch ends with [`StoreError::Compacted`], whether it has fallen
    /// behind or not, and none can be started before the present revision.
    pub async fn compact(&self) -> Result<Revision, StoreError> {
        let now = self.store.revision().await?;
        self.decorator.oldest.send_replace(now);
        Ok(now)
    }
}

impl<S: Send + Sync> Decorator<S> for Compaction {
    fn watch(&self, watch: Watch, after: Revision) -> Result<Watch, StoreError> {
        let mut compacted = self.oldest.subscribe();
        let oldest = *compacted.borrow_and_update();
        if after < oldest {
            return Err(StoreError::Compacted { after, oldest });
        }
        Ok(Watch::new(CompactedWatch { watch, compacted, after }))
    }
}

struct CompactedWatch {
    watch: Watch,
    compacted: watch::Receiver<Revision>,
    after: Revision,
}

#[async_trait]
impl WatchSource for CompactedWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        tokio::select! {
            biased;
            compacted = self.compacted.changed() => {
                compacted.map_err(|error| StoreError::unavailable("watch", error))?;
                // Stays so: the next call answers the same.
                self.compacted.mark_changed();
                let oldest = *self.compacted.borrow();
                Err(StoreError::Compacted { after: self.after, oldest })
            }
            batch = self.watch.next() => {
                let batch = batch?;
                self.after = batch.revision;
                Ok(batch)
            }
        }
    }
}
