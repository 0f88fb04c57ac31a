//! The recent commits of a store, for its watchers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Batch, Change, Key, Revision, StoreError, Watch, WatchSource};

/// What a change takes beside its key and value, roughly.
const CHANGE_BYTES: usize = 96;

/// How much of the past a [`History`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Most commits.
    pub commits_max: usize,
    /// Most bytes, roughly; the last commit is kept however large it is.
    pub bytes_max: usize,
}

impl Default for HistoryOptions {
    /// Seconds of full load, hours of a quiet day. Values share their memory with the store where it has
    /// them in memory.
    fn default() -> Self {
        Self { commits_max: 4096, bytes_max: 16 * 1024 * 1024 }
    }
}

/// A ring of recent commits that any number of watchers read at their own pace. Who falls behind the ring
/// is told so; nobody is waited for.
#[derive(Debug)]
pub struct History {
    options: HistoryOptions,
    ring: Mutex<Ring>,
    /// Counts what watchers ought to look at.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Every commit after this one is in the ring.
    reaches: Revision,
    closed: bool,
}

impl History {
    /// A history that knows nothing up to `start` and everything pushed after it.
    pub fn new(start: Revision, options: HistoryOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            ring: Mutex::new(Ring { batches: VecDeque::new(), bytes: 0, reaches: start, closed: false }),
            changed: watch::Sender::new(0),
        })
    }

    /// Adds a commit. It must be readable by now and newer than all before it.
    pub fn push(&self, batch: Batch) {
        let mut ring = self.ring();
        debug_assert!(ring.batches.back().is_none_or(|last| last.revision < batch.revision));
        ring.bytes += bytes_of(&batch);
        ring.batches.push_back(Arc::new(batch));
        while ring.batches.len() > 1
            && (ring.batches.len() > self.options.commits_max || ring.bytes > self.options.bytes_max)
        {
            if let Some(oldest) = ring.batches.pop_front() {
                ring.bytes -= bytes_of(&oldest);
                ring.reaches = oldest.revision;
            }
        }
        drop(ring);
        self.ring_bell();
    }

    /// Ends all watches, once they have been told what is there.
    pub fn close(&self) {
        self.ring().closed = true;
        self.ring_bell();
    }

    /// Forgets everything up to `at`, commits included that were never pushed. Watchers that have not come so far
    /// are told so.
    pub fn forget(&self, at: Revision) {
        let mut ring = self.ring();
        ring.batches.clear();
        ring.bytes = 0;
        ring.reaches = ring.reaches.max(at);
        drop(ring);
        self.ring_bell();
    }

    /// A watch over what comes after `after`. See [`WatchableStore`](crate::WatchableStore).
    pub fn watch(self: &Arc<Self>, prefix: Key, after: Revision) -> Result<HistoryWatch, StoreError> {
        let ring = self.ring();
        if ring.closed {
            return Err(closed());
        }
        ring.check(after)?;
        drop(ring);
        Ok(HistoryWatch { changed: self.changed.subscribe(), history: Arc::clone(self), prefix, after })
    }

    fn ring_bell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics between two writes to the ring, so a poisoned one is whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn check(&self, after: Revision) -> Result<(), StoreError> {
        if after < self.reaches {
            return Err(StoreError::Compacted { after, oldest: self.reaches });
        }
        Ok(())
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.changes.iter().map(|change| CHANGE_BYTES + change.key().len() + value_bytes(change)).sum()
}

fn value_bytes(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.value.len(),
        Change::Deleted(_) => 0,
    }
}

fn closed() -> StoreError {
    StoreError::unavailable("watch", "the store is closed")
}

/// A watch over a [`History`]: where one watcher stands in it.
#[derive(Debug)]
pub struct HistoryWatch {
    history: Arc<History>,
    changed: watch::Receiver<u64>,
    prefix: Key,
    after: Revision,
}

impl HistoryWatch {
    /// The next batch, if it is there already.
    pub fn try_next(&mut self) -> Result<Option<Batch>, StoreError> {
        // Seen first, looked at second: what is pushed in between rings again.
        self.changed.mark_unchanged();
        let ring = self.history.ring();
        ring.check(self.after)?;
        let start = ring.batches.partition_point(|batch| batch.revision <= self.after);
        for batch in ring.batches.range(start..) {
            // What doesn't concern this watcher moves it forward, too: a quiet prefix stays within reach.
            self.after = batch.revision;
            let concerns = |change: &&Change| change.key().starts_with(&self.prefix);
            if batch.changes.iter().any(|change| concerns(&change)) {
                let changes = batch.changes.iter().filter(concerns).cloned().collect();
                return Ok(Some(Batch { revision: batch.revision, changes }));
            }
        }
        if ring.closed { Err(closed()) } else { Ok(None) }
    }

    /// Waits until [`try_next`](Self::try_next) is worth calling again.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        self.changed.changed().await.map_err(|_| closed())
    }
}

#[async_trait]
impl WatchSource for HistoryWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            self.changed().await?;
        }
    }
}

impl From<HistoryWatch> for Watch {
    fn from(watch: HistoryWatch) -> Self {
        Self::new(watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_falls_behind_the_ring_is_told_how_far_it_reaches() {
        let history = History::new(Revision(0), HistoryOptions { commits_max: 2, bytes_max: usize::MAX });
        let mut behind = history.watch(Key::open(), Revision(0)).unwrap();
        for revision in 1..=3 {
            history.push(batch(revision, "k"));
        }
        assert!(matches!(
            behind.try_next(),
            Err(StoreError::Compacted { after: Revision(0), oldest: Revision(1) })
        ));
        let mut within = history.watch(Key::open(), Revision(1)).unwrap();
        assert_eq!(within.try_next().unwrap(), Some(batch(2, "k")));
        assert_eq!(within.try_next().unwrap(), Some(batch(3, "k")));
        assert_eq!(within.try_next().unwrap(), None);
    }

    #[test]
    fn the_ring_is_bounded_in_bytes_but_keeps_the_last_commit() {
        let history = History::new(Revision(0), HistoryOptions { commits_max: 100, bytes_max: 1 });
        history.push(batch(1, "k"));
        history.push(batch(2, "k"));
        assert!(history.watch(Key::open(), Revision(0)).is_err());
        let mut watch = history.watch(Key::open(), Revision(1)).unwrap();
        assert_eq!(watch.try_next().unwrap(), Some(batch(2, "k")));
        assert_eq!(history.ring().bytes, CHANGE_BYTES + 1);
    }

    #[test]
    fn a_watcher_of_a_quiet_prefix_that_looks_now_and_then_stays_within_reach() {
        let history = History::new(Revision(0), HistoryOptions { commits_max: 2, bytes_max: usize::MAX });
        let mut quiet = history.watch(Key::from("quiet"), Revision(0)).unwrap();
        for revision in 1..=10 {
            history.push(batch(revision, "noise"));
            assert_eq!(quiet.try_next().unwrap(), None);
        }
        history.push(batch(11, "quiet"));
        assert_eq!(quiet.try_next().unwrap(), Some(batch(11, "quiet")));
    }

    #[tokio::test]
    async fn a_closed_history_gives_the_rest_and_then_ends() {
        let history = History::new(Revision(4), HistoryOptions::default());
        let mut watch = Watch::from(history.watch(Key::open(), Revision(4)).unwrap());
        history.push(batch(5, "k"));
        history.close();
        assert_eq!(watch.next().await.unwrap(), batch(5, "k"));
        assert!(matches!(watch.next().await, Err(StoreError::Unavailable { .. })));
        assert!(history.watch(Key::open(), Revision(5)).is_err());
    }

    fn batch(revision: u64, key: &str) -> Batch {
        Batch { revision: Revision(revision), changes: vec![Change::Deleted(Key::from(key))] }
    }
}
