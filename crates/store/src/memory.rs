//! The in-memory backend: the reference for all others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Batch, CasStore, Change, Commit, Entry, ExpirableStore, History, HistoryOptions, HistoryWatch, Key,
    KvStore, LeaseId, Leases, Limits, Outcome, Renewal, Revision, StoreError, Watch, WatchSource,
    WatchableStore, Write,
};

/// What a [`MemoryStore`] may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryOptions {
    /// How much watchers may fall behind.
    pub history: HistoryOptions,
}

/// A store that is gone with the process. A clone is another handle to the same store.
///
/// Leases run on tokio's clock, which tests can pause. No task ends them: every call first ends what is
/// due, and a waiting watch wakes for it, so nobody can tell the difference.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    leases: Leases,
    last_lease: i64,
    history: Arc<History>,
    closed: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with(MemoryOptions::default())
    }

    /// An empty store with options.
    pub fn with(options: MemoryOptions) -> Self {
        Self(Arc::new(Mutex::new(State {
            entries: BTreeMap::new(),
            revision: Revision(0),
            leases: Leases::new(),
            last_lease: 0,
            history: History::new(Revision(0), options.history),
            closed: false,
        })))
    }

    /// Ends the store: all later calls, and watches that have nothing left to tell, answer
    /// [`StoreError::Unavailable`].
    pub fn close(&self) {
        let mut state = lock(&self.0);
        state.closed = true;
        state.history.close();
    }

    fn state(&self, op: &'static str) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = lock(&self.0);
        if state.closed {
            return Err(StoreError::unavailable(op, "the store is closed"));
        }
        state.end_due_leases();
        Ok(state)
    }

    fn write(&self, op: &'static str, write: Write) -> Result<(Revision, bool), StoreError> {
        let mut state = self.state(op)?;
        if let Some(lease) = write.lease()
            && !state.leases.contains(lease)
        {
            return Err(StoreError::LeaseGone { op, lease });
        }
        let before = state.revision;
        let revision = state.apply([write]);
        Ok((revision, revision > before))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics between two writes to the state, so a poisoned one is whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Does `writes` in one revision, if they change anything, and gives the revision of the store.
    fn apply(&mut self, writes: impl IntoIterator<Item = Write>) -> Revision {
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    self.leases.attach(&key, lease);
                    let entry = Entry { key: key.clone(), value, revision, lease };
                    self.entries.insert(key, entry.clone());
                    changes.push(Change::Put(entry));
                }
                Write::Delete { key } => {
                    if self.entries.remove(&key).is_some() {
                        self.leases.attach(&key, None);
                        changes.push(Change::Deleted(key));
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.history.push(Batch { revision, changes });
        }
        self.revision
    }

    fn end_due_leases(&mut self) {
        let now = Instant::now();
        while let Some(lease) = self.leases.due(now) {
            self.end_lease(lease);
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        let keys = self.leases.end(lease).unwrap_or_default();
        self.apply(keys.into_iter().map(|key| Write::Delete { key }));
    }

    fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.entries.get(key).map(|entry| entry.revision)
    }
}

#[async_trait]
impl KvStore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.limits().check_key("get", key)?;
        Ok(self.state("get")?.entries.get(key).cloned())
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.limits().check_bound("scan", from)?;
        self.limits().check_bound("scan", to)?;
        let state = self.state("scan")?;
        let end = if to.is_empty() {
            Bound::Unbounded
        } else if from < to {
            Bound::Excluded(to)
        } else {
            return Ok(Vec::new());
        };
        let range = state.entries.range::<Key, _>((Bound::Included(from), end));
        Ok(range.take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.limits().check_key("put", key)?;
        self.limits().check_value("put", value.len())?;
        Ok(self.write("put", Write::Put { key: key.clone(), value, lease: None })?.0)
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.limits().check_key("delete", key)?;
        let (revision, changed) = self.write("delete", Write::Delete { key: key.clone() })?;
        Ok(changed.then_some(revision))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.state("revision")?.revision)
    }

    fn limits(&self) -> Limits {
        Limits::COMMON
    }
}

#[async_trait]
impl CasStore for MemoryStore {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        commit.check(&self.limits())?;
        let mut state = self.state("commit")?;
        let (guards, writes) = commit.into_parts();
        let failed: Vec<_> = guards
            .into_iter()
            .filter_map(|(key, guard)| {
                let current = state.revision_of(&key);
                (!guard.holds(current)).then_some((key, current))
            })
            .collect();
        if !failed.is_empty() {
            return Ok(Outcome::Conflict(failed));
        }
        for lease in writes.iter().filter_map(Write::lease) {
            if !state.leases.contains(lease) {
                return Err(StoreError::LeaseGone { op: "commit", lease });
            }
        }
        Ok(Outcome::Committed(state.apply(writes)))
    }
}

#[async_trait]
impl ExpirableStore for MemoryStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl = self.limits().lease_ttl("grant", ttl)?;
        let mut state = self.state("grant")?;
        let lease = LeaseId(state.last_lease + 1);
        state.leases.grant(lease, ttl, Instant::now())?;
        state.last_lease = lease.0;
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        Ok(self.state("renew")?.leases.renew(lease, Instant::now()))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.state("revoke")?.end_lease(lease);
        Ok(())
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.limits().check_key("put_leased", key)?;
        self.limits().check_value("put_leased", value.len())?;
        Ok(self.write("put_leased", Write::Put { key: key.clone(), value, lease: Some(lease) })?.0)
    }
}

#[async_trait]
impl WatchableStore for MemoryStore {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.limits().check_bound("watch", &prefix)?;
        let watch = self.state("watch")?.history.watch(prefix, after)?;
        Ok(Watch::new(MemoryWatch { state: Arc::clone(&self.0), watch }))
    }
}

/// A watch that also ends leases, as nobody else may be there to do it.
struct MemoryWatch {
    state: Arc<Mutex<State>>,
    watch: HistoryWatch,
}

#[async_trait]
impl WatchSource for MemoryWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            let deadline = {
                let mut state = lock(&self.state);
                state.end_due_leases();
                state.leases.next_deadline()
            };
            if let Some(batch) = self.watch.try_next()? {
                return Ok(batch);
            }
            // An entry under a new, earlier lease is a commit, and a commit wakes every watch.
            match deadline {
                Some(deadline) => tokio::select! {
                    changed = self.watch.changed() => changed?,
                    () = tokio::time::sleep_until(deadline) => {}
                },
                None => self.watch.changed().await?,
            }
        }
    }
}
