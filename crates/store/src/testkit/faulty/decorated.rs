//! What all decorators share: the four traits once.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    CasStore, Commit, Entry, ExpirableStore, Key, KvStore, LeaseId, Limits, Outcome, Renewal, Revision,
    StoreError, Watch, WatchableStore,
};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Get,
    Scan,
    Put,
    Delete,
    Revision,
    Commit,
    Grant,
    Renew,
    Revoke,
    PutLeased,
    Watch,
}

impl Call {
    /// Whether it may leave a trace, so that its outcome may be unknown.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::Scan | Self::Revision | Self::Watch)
    }

    /// As errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Scan => "scan",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Revision => "revision",
            Self::Commit => "commit",
            Self::Grant => "grant",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::PutLeased => "put_leased",
            Self::Watch => "watch",
        }
    }
}

/// What happens around the calls of a store.
#[async_trait]
pub trait Decorator<S>: Send + Sync + Debug {
    /// Before a call. An error is the answer, and the call is not made.
    async fn before(&self, _store: &S, _call: Call) -> Result<(), StoreError> {
        Ok(())
    }

    /// After a call that succeeded. An error is the answer, though the call was made.
    async fn after(&self, _store: &S, _call: Call) -> Result<(), StoreError> {
        Ok(())
    }

    /// What becomes of a commit on its way to the store.
    fn commit(&self, commit: Commit) -> Commit {
        commit
    }

    /// What a read of one entry shows.
    fn entry(&self, _key: &Key, entry: Option<Entry>) -> Option<Entry> {
        entry
    }

    /// Whether a watch may start here, and what it is then.
    fn watch(&self, watch: Watch, _after: Revision) -> Result<Watch, StoreError> {
        Ok(watch)
    }
}

/// A store with a decorator.
#[derive(Debug)]
pub struct Decorated<S, D> {
    pub(super) store: S,
    pub(super) decorator: D,
}

impl<S, D> Decorated<S, D> {
    /// The store underneath, for what must not be disturbed.
    pub fn inner(&self) -> &S {
        &self.store
    }
}

impl<S: KvStore, D: Decorator<S>> Decorated<S, D> {
    async fn around<T>(
        &self,
        call: Call,
        made: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.decorator.before(&self.store, call).await?;
        let answer = made.await?;
        self.decorator.after(&self.store, call).await?;
        Ok(answer)
    }
}

#[async_trait]
impl<S: KvStore, D: Decorator<S>> KvStore for Decorated<S, D> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let entry = self.around(Call::Get, self.store.get(key)).await?;
        Ok(self.decorator.entry(key, entry))
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.around(Call::Scan, self.store.scan(from, to, limit)).await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.around(Call::Put, self.store.put(key, value)).await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.around(Call::Delete, self.store.delete(key)).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.around(Call::Revision, self.store.revision()).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[async_trait]
impl<S: CasStore, D: Decorator<S>> CasStore for Decorated<S, D> {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        let commit = self.decorator.commit(commit);
        self.around(Call::Commit, self.store.commit(commit)).await
    }
}

#[async_trait]
impl<S: ExpirableStore, D: Decorator<S>> ExpirableStore for Decorated<S, D> {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.around(Call::Grant, self.store.grant(ttl)).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.around(Call::Renew, self.store.renew(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.around(Call::Revoke, self.store.revoke(lease)).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.around(Call::PutLeased, self.store.put_leased(key, value, lease)).await
    }
}

#[async_trait]
impl<S: WatchableStore, D: Decorator<S>> WatchableStore for Decorated<S, D> {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        let watch = self.around(Call::Watch, self.store.watch(prefix, after)).await?;
        self.decorator.watch(watch, after)
    }
}
