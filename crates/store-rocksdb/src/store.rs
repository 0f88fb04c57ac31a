//! The store that callers hold.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{DB, ReadOptions};
use tokio::sync::oneshot;
use underpass_store::{
    CasStore, Commit, Entry, ExpirableStore, History, Key, KvStore, LeaseId, Limits, Outcome, Renewal,
    Revision, StoreError, Watch, WatchableStore,
};

use crate::backup::BackupError;
use crate::layout;
use crate::measure::{Counters, Measures};
use crate::open::{Database, OpenError, Opened, RocksOptions};
use crate::queue::{Queue, Reply, Request, Written};
use crate::stage::read_error;
use crate::writer::{Durable, Writer, synced};

/// Scans of up to so many entries run on the thread that asks. That many small entries take less time
/// than the way to another thread.
const SCAN_INLINE_MAX: usize = 16;

/// A store in a folder. See the [crate](crate).
///
/// [`close`](Self::close) it in the end. Dropping it does the same, but blocks the thread until all is
/// written and the folder is free.
pub struct RocksStore {
    shared: Arc<Shared>,
    /// `None` only while it is being dropped.
    queue: Option<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What readers and the writer share.
pub(crate) struct Shared {
    db: RwLock<Option<DB>>,
    pub(crate) revision: AtomicU64,
    pub(crate) history: Arc<History>,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    /// RocksDB's folder.
    database: PathBuf,
}

impl RocksStore {
    /// Opens the store in the folder `path`, or makes one if the folder is empty or missing. Blocks while
    /// RocksDB goes through its log: seconds after a crash under load.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, OpenError> {
        Self::open_with(path, options, synced())
    }

    pub(crate) fn open_with(path: &Path, options: RocksOptions, durable: Durable) -> Result<Self, OpenError> {
        let Opened { folder, database } = Opened::open(path, options)?;
        let Database { db, options: opened_with, revision, last_lease, leases, head } = database;
        let counters = Counters::default();
        counters.opened(opened_with);
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(db)),
            revision: AtomicU64::new(revision.0),
            history: History::new(revision, options.history),
            limits: Limits::COMMON,
            counters,
            database: folder.database(),
        });
        let (queue, receiver) = Queue::new();
        let writer = Writer {
            shared: Arc::clone(&shared),
            queue: receiver,
            folder,
            leases,
            revision,
            last_lease,
            head,
            durable,
            failed: None,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { shared, queue: Some(queue), writer: Mutex::new(Some(writer)) })
    }

    /// Finishes the writes that were asked for before, and releases the folder: it can be opened again as
    /// soon as this returns. Later calls answer [`StoreError::Unavailable`]. Closing twice is fine.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if let Some(queue) = &self.queue
            && queue.send("close", Request::Close { reply }).await.is_ok()
        {
            // An error means that another close was first, and is done.
            let _ = closed.await;
        }
    }

    /// Copies the store into a folder that is empty or new, while it is in use: what was acknowledged before is in
    /// the copy, what is asked for meanwhile waits. On the same file system RocksDB's files are linked, so that this
    /// takes as long as writing out what is in memory.
    ///
    /// The copy is a store of its own, at the revision that is answered. Leases are copied as well and begin anew
    /// when it is opened.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        let gone = || BackupError::Store("it is closed".to_owned());
        let (reply, made) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        let request = Request::Backup { to: to.to_owned(), reply };
        queue.send("backup", request).await.map_err(|error| BackupError::Store(error.to_string()))?;
        made.await.unwrap_or_else(|_| Err(gone()))
    }

    /// What there is to say of the store. Looks at files, on a thread for that: a disk that hangs holds up nobody else.
    pub async fn measure(&self) -> Measures {
        let (shared, queue) = (Arc::clone(&self.shared), self.waiting() as u64);
        let measure = move || {
            let open = shared.open();
            shared.counters.measure(open.as_ref(), &shared.database, queue)
        };
        tokio::task::spawn_blocking(measure).await.unwrap_or_default()
    }

    /// Requests in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, Queue::waiting)
    }

    async fn ask<T>(
        &self,
        op: &'static str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(|| closed(op))?;
        queue.send(op, request(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(StoreError::indeterminate(op, "the writer has gone away")))
    }

    async fn write(&self, op: &'static str, commit: Commit) -> Result<Written, StoreError> {
        self.ask(op, |reply| Request::Write { op, commit, reply }).await
    }

    /// A write without guards.
    async fn write_always(&self, op: &'static str, commit: Commit) -> Result<(Revision, bool), StoreError> {
        match self.write(op, commit).await? {
            Written::Done { revision, changed } => Ok((revision, changed)),
            Written::Conflict(_) => {
                Err(StoreError::Refused { op, rule: "a write without guards has no conflict" })
            }
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // The writer ends when nobody can ask any more.
        drop(self.queue.take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the writer of the store has panicked");
        }
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksStore").field("revision", &self.shared.revision).finish_non_exhaustive()
    }
}

fn closed(op: &'static str) -> StoreError {
    StoreError::unavailable(op, "the store is closed")
}

impl Shared {
    /// RocksDB, for as long as it is needed; `None` once it is closed. Never held across an await.
    pub(crate) fn open(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for readers and closes RocksDB.
    pub(crate) fn close(&self) {
        self.history.close();
        self.suspend();
    }

    /// The same for a while: watchers stay, reads fail until [`Shared::resume`].
    pub(crate) fn suspend(&self) {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(db) = db {
            db.cancel_all_background_work(true);
        }
    }

    /// Shows RocksDB to readers, at this revision.
    pub(crate) fn resume(&self, db: DB, revision: Revision) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
        self.revision.store(revision.0, Ordering::Release);
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let open = self.open();
        let db = open.as_ref().ok_or_else(|| closed("get"))?;
        let stored = db.get_pinned(layout::entry_key(key)).map_err(|error| read_error("get", key, error))?;
        stored.map(|stored| decode(key.clone(), &stored)).transpose()
    }

    fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let open = self.open();
        let db = open.as_ref().ok_or_else(|| closed("scan"))?;
        let (first, end) = layout::entry_range(from, to);
        if first >= end {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        // A replay reads everything once; what others read often must survive it.
        options.fill_cache(limit <= SCAN_INLINE_MAX);
        let mut iterator = db.raw_iterator_opt(options);
        iterator.seek(first);
        let mut entries = Vec::new();
        while entries.len() < limit {
            let Some((key, stored)) = iterator.item() else {
                break;
            };
            entries.push(decode(layout::key_of_entry(key), stored)?);
            iterator.next();
        }
        let reached = entries.last().map_or(from, |entry| &entry.key);
        iterator.status().map_err(|error| read_error("scan", reached, error))?;
        Ok(entries)
    }
}

fn decode(key: Key, stored: &[u8]) -> Result<Entry, StoreError> {
    layout::decode_entry(key.clone(), stored).map_err(|source| StoreError::Corrupt { key, source })
}

#[async_trait]
impl KvStore for RocksStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.limits().check_key("get", key)?;
        self.shared.get(key)
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.limits().check_bound("scan", from)?;
        self.limits().check_bound("scan", to)?;
        if limit <= SCAN_INLINE_MAX {
            return self.shared.scan(from, to, limit);
        }
        let (shared, from, to) = (Arc::clone(&self.shared), from.clone(), to.clone());
        tokio::task::spawn_blocking(move || shared.scan(&from, &to, limit))
            .await
            .unwrap_or_else(|error| Err(StoreError::unavailable("scan", error)))
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.limits().check_key("put", key)?;
        self.limits().check_value("put", value.len())?;
        Ok(self.write_always("put", Commit::new().put(key, value)).await?.0)
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.limits().check_key("delete", key)?;
        let (revision, changed) = self.write_always("delete", Commit::new().delete(key)).await?;
        Ok(changed.then_some(revision))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        if self.shared.open().is_none() {
            return Err(closed("revision"));
        }
        Ok(Revision(self.shared.revision.load(Ordering::Acquire)))
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl CasStore for RocksStore {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        commit.check(&self.limits())?;
        Ok(match self.write("commit", commit).await? {
            Written::Done { revision, .. } => Outcome::Committed(revision),
            Written::Conflict(failed) => Outcome::Conflict(failed),
        })
    }
}

#[async_trait]
impl ExpirableStore for RocksStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl = self.limits().lease_ttl("grant", ttl)?;
        self.ask("grant", |reply| Request::Grant { ttl, reply }).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.ask("renew", |reply| Request::Renew { lease, reply }).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask("revoke", |reply| Request::Revoke { lease, reply }).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.limits().check_key("put_leased", key)?;
        self.limits().check_value("put_leased", value.len())?;
        Ok(self.write_always("put_leased", Commit::new().put_leased(key, value, lease)).await?.0)
    }
}

#[async_trait]
impl WatchableStore for RocksStore {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.limits().check_bound("watch", &prefix)?;
        Ok(self.shared.history.watch(prefix, after)?.into())
    }
}
