//! The traits.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use underpass_store::{
    BoxError, CasStore, Change, Commit, Entry, ExpirableStore, History, HistoryOptions, Key, KvStore,
    LeaseId, Leases, Limits, Outcome, Renewal, Revision, StoreError, Watch, WatchableStore,
};

use crate::change::{Changing, failed};
use crate::table::{self, Head};

/// A store in a file.
pub(crate) struct SqliteStore {
    inner: Arc<Inner>,
    /// Ends leases whether anybody calls or not.
    sweeping: Mutex<JoinSet<()>>,
}

struct Inner {
    open: Mutex<Option<Open>>,
    history: Arc<History>,
    /// A lease has come that may run out before all others.
    granted: Notify,
}

/// What there is while the store is open. All calls take turns.
struct Open {
    connection: Connection,
    head: Head,
    leases: Leases,
}

impl SqliteStore {
    pub(crate) fn open(path: &Path) -> Result<Self, BoxError> {
        let connection = table::open(path)?;
        let head = table::head(&connection)?;
        let leases = table::leases(&connection, Instant::now())?;
        let inner = Arc::new(Inner {
            history: History::new(head.revision, HistoryOptions::default()),
            open: Mutex::new(Some(Open { connection, head, leases })),
            granted: Notify::new(),
        });
        let mut sweeping = JoinSet::new();
        sweeping.spawn(Arc::clone(&inner).sweep());
        Ok(Self { inner, sweeping: Mutex::new(sweeping) })
    }

    /// Waits for the call under way; the file can be opened again when this returns.
    pub(crate) async fn close(&self) {
        self.sweeping.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let inner = Arc::clone(&self.inner);
        let _ = tokio::task::spawn_blocking(move || inner.close(&mut inner.lock())).await;
    }

    /// Runs a call where it may block. Once begun it goes on, also if nobody waits for it any more.
    async fn call<T: Send + 'static>(
        &self,
        op: &'static str,
        call: impl FnOnce(&Inner, &mut Open) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let called = tokio::task::spawn_blocking(move || {
            let mut open = inner.lock();
            let state = open.as_mut().ok_or_else(|| StoreError::unavailable(op, "the store is closed"))?;
            let result = call(&inner, state);
            if matches!(result, Err(StoreError::Indeterminate { .. })) {
                // What is in memory and what is on disk may differ now: only opening anew tells.
                inner.close(&mut open);
            }
            result
        });
        called.await.unwrap_or_else(|error| Err(StoreError::indeterminate(op, error)))
    }

    async fn write(&self, op: &'static str, commit: Commit) -> Result<(Outcome, bool), StoreError> {
        commit.check(&self.limits())?;
        self.call(op, move |inner, open| {
            open.end_due(inner)?;
            let before = open.head.revision;
            let (guards, writes) = commit.into_parts();
            let outcome =
                open.change(inner, op, |changing, leases| changing.commit(op, leases, guards, writes))?;
            Ok((outcome, open.head.revision > before))
        })
        .await
    }

    async fn write_always(&self, op: &'static str, commit: Commit) -> Result<(Revision, bool), StoreError> {
        match self.write(op, commit).await? {
            (Outcome::Committed(revision), changed) => Ok((revision, changed)),
            (Outcome::Conflict(_), _) => unreachable!("there was no guard"),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, open: &mut Option<Open>) {
        self.history.close();
        *open = None;
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            let inner = Arc::clone(&self);
            let swept = tokio::task::spawn_blocking(move || {
                let mut open = inner.lock();
                let state = open.as_mut()?;
                let ended = state.end_due(&inner);
                let next = state.leases.next_deadline();
                if ended.is_err() {
                    inner.close(&mut open);
                }
                ended.ok().map(|()| next)
            });
            let Ok(Some(deadline)) = swept.await else { return };
            let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {}
                () = self.granted.notified() => {}
            }
        }
    }
}

impl Open {
    /// Changes the database, then memory, then tells watchers: nobody learns of what is not durable.
    fn change<T>(
        &mut self,
        inner: &Inner,
        op: &'static str,
        change: impl FnOnce(&mut Changing<'_>, &Leases) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut changing = Changing::begin(&mut self.connection, op, self.head)?;
        let result = change(&mut changing, &self.leases)?;
        if changing.head.revision == self.head.revision && changing.head.last_lease == self.head.last_lease {
            return Ok(result);
        }
        let changed = changing.finish(op)?;
        self.head = changed.head;
        for batch in changed.batches {
            for change in &batch.changes {
                let lease = match change {
                    Change::Put(entry) => entry.lease,
                    Change::Deleted(_) => None,
                };
                self.leases.attach(change.key(), lease);
            }
            inner.history.push(batch);
        }
        Ok(result)
    }

    fn end(&mut self, inner: &Inner, op: &'static str, lease: LeaseId) -> Result<(), StoreError> {
        let Some(keys) = self.leases.end(lease) else { return Ok(()) };
        // From here on memory knows of no lease: if the disk does not follow, only opening anew helps.
        let uncertain = |error: StoreError| StoreError::indeterminate(op, error);
        let mut changing = Changing::begin(&mut self.connection, op, self.head).map_err(uncertain)?;
        changing.end_lease(lease, keys).map_err(|error| StoreError::indeterminate(op, error))?;
        // Also if nothing hung on it: the lease itself must not come back.
        let changed = changing.finish(op).map_err(uncertain)?;
        self.head = changed.head;
        changed.batches.into_iter().for_each(|batch| inner.history.push(batch));
        Ok(())
    }

    fn end_due(&mut self, inner: &Inner) -> Result<(), StoreError> {
        while let Some(lease) = self.leases.due(Instant::now()) {
            self.end(inner, "expire", lease)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl KvStore for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.limits().check_key("get", key)?;
        let key = key.clone();
        self.call("get", move |_, open| table::get(&open.connection, &key).map_err(failed("get"))).await
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.limits().check_bound("scan", from)?;
        self.limits().check_bound("scan", to)?;
        let (from, to) = (from.clone(), to.clone());
        self.call("scan", move |_, open| {
            table::scan(&open.connection, &from, &to, limit).map_err(failed("scan"))
        })
        .await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        Ok(self.write_always("put", Commit::new().put(key, value)).await?.0)
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        let (revision, changed) = self.write_always("delete", Commit::new().delete(key)).await?;
        Ok(changed.then_some(revision))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.call("revision", |_, open| Ok(open.head.revision)).await
    }

    fn limits(&self) -> Limits {
        Limits::COMMON
    }
}

#[async_trait]
impl CasStore for SqliteStore {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        Ok(self.write("commit", commit).await?.0)
    }
}

#[async_trait]
impl ExpirableStore for SqliteStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl = self.limits().lease_ttl("grant", ttl)?;
        let lease = self
            .call("grant", move |inner, open| {
                let lease = open.change(inner, "grant", |changing, _| {
                    changing.grant(ttl.as_secs()).map_err(failed("grant"))
                })?;
                // After the sync: the ttl counts from the answer.
                open.leases.grant(lease, ttl, Instant::now())?;
                Ok(lease)
            })
            .await?;
        self.inner.granted.notify_one();
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.call("renew", move |inner, open| {
            open.end_due(inner)?;
            Ok(open.leases.renew(lease, Instant::now()))
        })
        .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call("revoke", move |inner, open| open.end(inner, "revoke", lease)).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        Ok(self.write_always("put_leased", Commit::new().put_leased(key, value, lease)).await?.0)
    }
}

#[async_trait]
impl WatchableStore for SqliteStore {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.limits().check_bound("watch", &prefix)?;
        Ok(self.inner.history.watch(prefix, after)?.into())
    }
}
