//! Being told of commits.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Key, KvStore, Revision, StoreError, Watch};

/// Watches over a prefix.
///
/// Meant as a bell, not as the truth: a follower rings up from it and reads the log. Watch as little as
/// possible (one head key): a backend may keep or carry only so much.
///
/// # Contract
///
/// 1. A watch gives one [`Batch`](crate::Batch) for each commit after `after` that changed something under
///    `prefix`, in the order of the commits: none missing, none doubled, none split. Only the changes under
///    the prefix are in it. The empty prefix is everything.
/// 2. A batch is given once its commit is durable, and reads that start afterwards see it.
/// 3. Where the history no longer reaches back to `after`, `watch` or the next
///    [`next`](crate::Watch::next) answers [`StoreError::Compacted`]: read again, and watch from there.
///    Watching after [`KvStore::revision`] as just read always works. A store keeps its history for as long
///    as it likes, and not beyond a restart.
/// 4. An `after` that lies ahead is waited for; what comes before it is not shown.
/// 5. A watcher that stops reading costs a bounded amount of memory and holds up nobody.
/// 6. Watches end with [`StoreError::Unavailable`] when the store is closed.
///
/// # Implementing
///
/// Run `testkit::watchable!` (cargo feature `testkit`). A backend without a history of its own uses
/// [`History`](crate::History).
#[async_trait]
pub trait WatchableStore: KvStore {
    /// Watches what later commits change under `prefix`.
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError>;
}

#[async_trait]
impl<S: WatchableStore + ?Sized> WatchableStore for Arc<S> {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        (**self).watch(prefix, after).await
    }
}
