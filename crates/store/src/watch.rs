//! What watchers see.

use std::fmt;

use async_trait::async_trait;

use crate::{Entry, Key, Revision, StoreError};

/// What one commit changed, as far as it is under the watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit.
    pub revision: Revision,
    /// At least one change, one for each key.
    pub changes: Vec<Change>,
}

/// One changed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry as it was written.
    Put(Entry),
    /// The entry at this key was taken away, by a write or because its lease ended.
    Deleted(Key),
}

impl Change {
    /// Where it changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted(key) => key,
        }
    }
}

/// A running watch; see [`WatchableStore::watch`](crate::WatchableStore::watch). Dropping it ends it.
pub struct Watch(Box<dyn WatchSource>);

impl Watch {
    /// A watch of a backend.
    pub fn new(source: impl WatchSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next batch. Dropping the future loses nothing: the next call gives the same batch.
    ///
    /// An error ends the watch: [`StoreError::Compacted`] where the watcher is too far behind,
    /// [`StoreError::Unavailable`] where the store has gone away.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        self.0.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Where a watch gets its batches: what a backend implements.
#[async_trait]
pub trait WatchSource: Send {
    /// See [`Watch::next`]; must not lose a batch when its future is dropped.
    async fn next(&mut self) -> Result<Batch, StoreError>;
}
