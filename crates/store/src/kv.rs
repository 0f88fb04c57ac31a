//! Reading and writing single entries.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Entry, Key, Limits, Revision, StoreError};

/// Ordered bytes by key.
///
/// # Contract
///
/// 1. A write that has returned is seen by every read that starts afterwards, through whatever handle.
///    On a durable backend it is on disk (or with a quorum) by then; reads never show what is not.
/// 2. Every write has a [`Revision`], greater than those of all writes before it. An entry carries the
///    revision of its last write.
/// 3. [`scan`](Self::scan) gives the entries of `[from, to)` in ascending order of their keys, as they all
///    were at one instant, the first `limit` of them. Fewer than `limit` means: that was all. An empty
///    `from` is the beginning, an empty `to` the end; where `to` is not behind `from`, nothing is there.
/// 4. Deleting what is absent writes nothing, has no revision and is seen by no watcher.
/// 5. A value may be empty, and is then still there. Keys and values are any bytes; the empty key names
///    no entry.
/// 6. What goes beyond [`limits`](Self::limits) is [`StoreError::Refused`], and nothing was written.
/// 7. [`revision`](Self::revision) is never ahead of reads: what has a revision up to it is seen by reads
///    that start afterwards. So who takes the revision, then reads, then watches after that revision
///    misses nothing (and may be told again what it has read).
/// 8. Dropping the future of a write leaves it open whether the write happened, or will.
///
/// # Implementing
///
/// Run `testkit::kv!` (cargo feature `testkit`).
#[async_trait]
pub trait KvStore: Send + Sync + Debug {
    /// The entry at `key`.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// The first `limit` entries of `[from, to)`. The caller's limit bounds the memory this takes.
    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Puts `value` at `key`, on no lease, whatever was there before.
    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError>;

    /// Deletes the entry at `key`. `None`: it was absent.
    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError>;

    /// The revision that the store stands at.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// How large things may be.
    fn limits(&self) -> Limits;
}

#[async_trait]
impl<S: KvStore + ?Sized> KvStore for Arc<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        (**self).get(key).await
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        (**self).scan(from, to, limit).await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        (**self).put(key, value).await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        (**self).delete(key).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        (**self).revision().await
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }
}
