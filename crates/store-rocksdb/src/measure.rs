//! What a store can say of itself while it works.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rocksdb::statistics::Ticker;
use rocksdb::{DB, Options, properties};

/// Upper bounds of the classes in which syncs are counted, in microseconds: from a disk with a battery to one that
/// somebody else keeps busy.
pub const SYNC_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000];

/// Counted since the store was opened, over all times it opened itself anew.
#[derive(Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    bytes: AtomicU64,
    /// Syncs by class; the last one is beyond all bounds.
    syncs: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    sync_us: AtomicU64,
    failures: AtomicU64,
    reopened: AtomicU64,
    /// 1 while nothing is written.
    failed: AtomicU64,
    /// What RocksDB counts; with it, it would be lost when RocksDB is opened anew.
    statistics: Mutex<Option<Options>>,
}

impl Counters {
    pub(crate) fn opened(&self, options: Options) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = Some(options);
    }

    /// A group is on disk.
    pub(crate) fn synced(&self, commits: usize, bytes: usize, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(commits as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sync_us.fetch_add(took, Ordering::Relaxed);
        let class = SYNC_BOUNDS_US.iter().position(|bound| took <= *bound).unwrap_or(SYNC_BOUNDS_US.len());
        if let Some(class) = self.syncs.get(class) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed.store(1, Ordering::Relaxed);
    }

    pub(crate) fn is_reopened(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }
}

/// A store at one moment. Counters begin with the opening of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Commits that have changed something and are on disk.
    pub commits: u64,
    /// Bytes of the groups they were written in.
    pub bytes: u64,
    /// Groups by how long write and sync took: one class for each of [`SYNC_BOUNDS_US`], and one beyond.
    pub syncs: [u64; SYNC_BOUNDS_US.len() + 1],
    /// The time of all of them, in microseconds.
    pub sync_us: u64,
    /// Requests that wait for the writer.
    pub queue: u64,
    /// Writes that the disk has failed.
    pub failures: u64,
    /// Times that the store opened itself anew after that.
    pub reopened: u64,
    /// Whether nothing is written at the moment, because of such a failure.
    pub failed: bool,
    /// RocksDB; `None` while it is closed or opened anew.
    pub database: Option<DatabaseMeasures>,
}

/// RocksDB at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseMeasures {
    /// Files of its write-ahead log: what a start after a crash goes through.
    pub wal_bytes: u64,
    /// Memory of what is not in tables yet.
    pub memtable_bytes: u64,
    /// Files and bytes of each level, from 0 to the last one that has any.
    pub levels: Vec<Level>,
    /// Bytes that compactions have yet to go through, as RocksDB estimates them.
    pub compaction_pending_bytes: u64,
    /// Whether writes wait until compactions have caught up.
    pub writes_stopped: bool,
    /// Bytes a second to which writes are held back meanwhile; 0 where they are not.
    pub delayed_write_rate: u64,
    /// The time that writes were stopped or held back since RocksDB was opened, in microseconds.
    pub stall_us: u64,
    /// Flushes and compactions that have failed since RocksDB was opened.
    pub background_errors: u64,
}

/// What lies on a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Tables.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

impl Counters {
    /// All of it. `folder` is RocksDB's.
    pub(crate) fn measure(&self, db: Option<&DB>, folder: &Path, queue: u64) -> Measures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Measures {
            commits: read(&self.commits),
            bytes: read(&self.bytes),
            syncs: std::array::from_fn(|class| self.syncs.get(class).map_or(0, read)),
            sync_us: read(&self.sync_us),
            queue,
            failures: read(&self.failures),
            reopened: read(&self.reopened),
            failed: read(&self.failed) == 1,
            database: db.map(|db| self.database(db, folder)),
        }
    }

    fn database(&self, db: &DB, folder: &Path) -> DatabaseMeasures {
        let property = |name| db.property_int_value(name).ok().flatten().unwrap_or_default();
        let statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        DatabaseMeasures {
            wal_bytes: wal_bytes(folder),
            memtable_bytes: property(properties::SIZE_ALL_MEM_TABLES),
            levels: levels(db),
            compaction_pending_bytes: property(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            writes_stopped: property(properties::IS_WRITE_STOPPED) == 1,
            delayed_write_rate: property(properties::ACTUAL_DELAYED_WRITE_RATE),
            stall_us: statistics.as_ref().map_or(0, |options| options.get_ticker_count(Ticker::StallMicros)),
            background_errors: property(properties::BACKGROUND_ERRORS),
        }
    }
}

/// RocksDB has no property for it: the files are counted.
fn wal_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let logs = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn levels(db: &DB) -> Vec<Level> {
    let mut levels = Vec::new();
    for file in db.live_files().unwrap_or_default() {
        let Ok(level) = usize::try_from(file.level) else { continue };
        if levels.len() <= level {
            levels.resize(level + 1, Level::default());
        }
        if let Some(level) = levels.get_mut(level) {
            level.files += 1;
            level.bytes += file.size as u64;
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use underpass_store::{Key, KvStore};

    use super::*;
    use crate::{RocksOptions, RocksStore};

    #[tokio::test]
    async fn what_is_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = RocksStore::open(&path, RocksOptions::default()).unwrap();
        let before = store.measure().await;
        assert_eq!((before.commits, before.bytes, before.syncs.iter().sum::<u64>()), (0, 0, 0));
        for number in 0..10_u8 {
            store.put(&Key::from(vec![number]), vec![number; 10_000].into()).await.unwrap();
        }
        store.delete(&Key::from("absent")).await.unwrap();
        let after = store.measure().await;
        assert_eq!(
            (after.commits, after.syncs.iter().sum::<u64>()),
            (10, 10),
            "what changes nothing isn't one"
        );
        assert!(after.bytes > 100_000 && after.bytes < 110_000, "{after:?}");
        assert!(after.sync_us > 0 && !after.failed && after.queue == 0, "{after:?}");
        let database = after.database.unwrap();
        assert!(database.wal_bytes > 100_000 && database.memtable_bytes > 100_000, "{database:?}");
        assert_eq!((database.levels.len(), database.writes_stopped, database.stall_us), (0, false, 0));
        store.close().await;
        assert_eq!(store.measure().await.database, None);

        // After a start, what was in the log is in a table.
        let store = RocksStore::open(&path, RocksOptions::default()).unwrap();
        let measures = store.measure().await;
        assert_eq!(measures.commits, 0);
        let database = measures.database.unwrap();
        assert_eq!(database.levels.iter().map(|level| level.files).sum::<u64>(), 1, "{database:?}");
        assert!(database.wal_bytes < 10_000, "{database:?}");
    }

    #[test]
    fn syncs_are_counted_by_class() {
        let counters = Counters::default();
        for micros in [0, 100, 101, 1_000_000, 1_000_001, u64::MAX] {
            counters.synced(1, 0, Duration::from_micros(micros));
        }
        let counts = counters.measure(None, Path::new("/nonexistent"), 0).syncs;
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
