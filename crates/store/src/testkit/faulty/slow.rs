//! A store far away.

use std::time::Duration;

use async_trait::async_trait;

use super::decorated::{Call, Decorated, Decorator};
use crate::{Batch, Revision, StoreError, Watch, WatchSource};

/// A store whose calls, and batches of watches, take a while.
pub type Slow<S> = Decorated<S, Slowness>;

#[derive(Debug)]
pub struct Slowness(Duration);

impl<S> Slow<S> {
    /// Every call takes `delay` on its way there and `delay` on its way back, as on a network.
    pub fn new(store: S, delay: Duration) -> Self {
        Self { store, decorator: Slowness(delay) }
    }
}

#[async_trait]
impl<S: Send + Sync> Decorator<S> for Slowness {
    async fn before(&self, _store: &S, _call: Call) -> Result<(), StoreError> {
        tokio::time::sleep(self.0).await;
        Ok(())
    }

    async fn after(&self, _store: &S, _call: Call) -> Result<(), StoreError> {
        tokio::time::sleep(self.0).await;
        Ok(())
    }

    fn watch(&self, watch: Watch, _after: Revision) -> Result<Watch, StoreError> {
        Ok(Watch::new(SlowWatch { watch, delay: self.0, arrived: None }))
    }
}

struct SlowWatch {
    watch: Watch,
    delay: Duration,
    /// Here, but not shown yet: it must outlive the future that waits.
    arrived: Option<Batch>,
}

#[async_trait]
impl WatchSource for SlowWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let batch = match self.arrived.take() {
            Some(batch) => batch,
            None => self.watch.next().await?,
        };
        self.arrived = Some(batch.clone());
        tokio::time::sleep(self.delay).await;
        self.arrived = None;
        Ok(batch)
    }
}
