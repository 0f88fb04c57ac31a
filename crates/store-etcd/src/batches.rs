//! From what a watch of etcd sends to batches.
//!
//! An answer of a watch holds the changes of one revision, or of up to a thousand when it catches up; a large
//! answer comes in fragments, cut anywhere. Within a watch the revisions rise, and one revision is never spread
//! over two answers (`mvcc/watcher_group.go`, `eventBatch.add`, cuts between revisions only). So a revision is
//! whole when a later one begins, or when an answer ends.

use std::collections::VecDeque;

use underpass_store::{Batch, Change, Revision};

/// Puts batches together.
#[derive(Debug)]
pub(crate) struct Batches {
    /// Everything up to here was given, or lies before the watch.
    told: Revision,
    whole: VecDeque<Batch>,
    /// The revision that may go on in the next fragment.
    open: Option<Batch>,
}

impl Batches {
    /// For a watch of what comes after `after`.
    pub(crate) fn new(after: Revision) -> Self {
        Self { told: after, whole: VecDeque::new(), open: None }
    }

    /// Takes one change. What was told already is dropped: releases before 3.4.38 sometimes send again what
    /// lies before the start of a watch (#15271, #20221).
    pub(crate) fn add(&mut self, revision: Revision, change: Change) {
        match &mut self.open {
            Some(open) if open.revision == revision => return open.changes.push(change),
            Some(_) => self.end(),
            None => {}
        }
        let last = self.whole.back().map_or(self.told, |batch| batch.revision);
        if revision > last {
            self.open = Some(Batch { revision, changes: vec![change] });
        }
    }

    /// An answer is complete.
    pub(crate) fn end(&mut self) {
        self.whole.extend(self.open.take());
    }

    /// The next batch, which counts as told from now on.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        let batch = self.whole.pop_front()?;
        self.told = batch.revision;
        Some(batch)
    }

    /// Where to go on after an interruption: what is not whole comes again.
    pub(crate) fn interrupted(&mut self) -> Revision {
        self.open = None;
        self.whole.back().map_or(self.told, |batch| batch.revision)
    }
}

#[cfg(test)]
mod tests {
    use underpass_store::Key;

    use super::*;

    fn deleted(key: &str) -> Change {
        Change::Deleted(Key::from(key))
    }

    fn batch(revision: u64, keys: &[&str]) -> Batch {
        Batch { revision: Revision(revision), changes: keys.iter().map(|key| deleted(key)).collect() }
    }

    fn drain(batches: &mut Batches) -> Vec<Batch> {
        std::iter::from_fn(|| batches.next()).collect()
    }

    #[test]
    fn a_revision_in_fragments_is_one_batch() {
        let mut batches = Batches::new(Revision(1));
        batches.add(Revision(2), deleted("a"));
        assert_eq!(drain(&mut batches), []);
        batches.add(Revision(2), deleted("b"));
        batches.end();
        assert_eq!(drain(&mut batches), [batch(2, &["a", "b"])]);
    }

    #[test]
    fn an_answer_of_many_revisions_is_many_batches() {
        let mut batches = Batches::new(Revision(1));
        for (revision, key) in [(2, "a"), (2, "b"), (5, "a"), (6, "c")] {
            batches.add(Revision(revision), deleted(key));
        }
        // The last one may go on in the next fragment.
        assert_eq!(drain(&mut batches), [batch(2, &["a", "b"]), batch(5, &["a"])]);
        batches.add(Revision(6), deleted("d"));
        batches.end();
        assert_eq!(drain(&mut batches), [batch(6, &["c", "d"])]);
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut batches = Batches::new(Revision(3));
        for revision in [2, 3, 3, 4] {
            batches.add(Revision(revision), deleted("a"));
        }
        batches.end();
        assert_eq!(drain(&mut batches), [batch(4, &["a"])]);
        batches.add(Revision(4), deleted("a"));
        batches.end();
        assert_eq!(drain(&mut batches), []);
    }

    #[test]
    fn an_interruption_takes_back_what_was_not_whole() {
        let mut batches = Batches::new(Revision(1));
        batches.add(Revision(2), deleted("a"));
        batches.end();
        batches.add(Revision(3), deleted("a"));
        assert_eq!(batches.interrupted(), Revision(2));
        batches.add(Revision(3), deleted("a"));
        batches.add(Revision(3), deleted("b"));
        batches.end();
        assert_eq!(drain(&mut batches), [batch(2, &["a"]), batch(3, &["a", "b"])]);
    }
}
