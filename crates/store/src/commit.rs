//! What is written at once.

use std::collections::HashSet;

use bytes::Bytes;

use crate::limits::COMMIT_OP_BYTES;
use crate::{Key, LeaseId, Limits, Revision, StoreError};

/// Writes that happen together if all guards hold.
///
/// ```
/// use underpass_store::{Commit, Guard, Key, Revision};
///
/// let commit = Commit::new()
///     .guard("log/control/h", Guard::At(Revision(7)))
///     .put("log/control/h", "head")
///     .put("log/control/e/8", "frame");
/// assert_eq!(commit.writes().len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    guards: Vec<(Key, Guard)>,
    writes: Vec<Write>,
}

/// What must be so for a commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// There is no entry at the key.
    Absent,
    /// The entry at the key was last written by this commit.
    At(Revision),
}

impl Guard {
    /// Whether the guard holds where the entry was last written at `current`.
    pub fn holds(self, current: Option<Revision>) -> bool {
        match self {
            Self::Absent => current.is_none(),
            Self::At(revision) => current == Some(revision),
        }
    }
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Puts a value at a key, whatever was there before.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// The lease that the entry dies with; `None` takes it off any lease.
        lease: Option<LeaseId>,
    },
    /// Takes the entry at a key away, if there is one.
    Delete {
        /// Where.
        key: Key,
    },
}

impl Write {
    /// Where it writes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The lease it writes under.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Put { lease, .. } => *lease,
            Self::Delete { .. } => None,
        }
    }
}

impl Commit {
    /// Nothing yet. A commit without a write is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the commit happen only if `guard` holds at `key`. One guard a key.
    pub fn guard(mut self, key: impl Into<Key>, guard: Guard) -> Self {
        self.guards.push((key.into(), guard));
        self
    }

    /// Puts `value` at `key`, on no lease. One write a key.
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Puts `value` at `key`, to die with `lease`. One write a key.
    pub fn put_leased(mut self, key: impl Into<Key>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Deletes the entry at `key`, if there is one. One write a key.
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// The guards, in the order they were added.
    pub fn guards(&self) -> &[(Key, Guard)] {
        &self.guards
    }

    /// The writes, in the order they were added.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Guards and writes, for backends.
    pub fn into_parts(self) -> (Vec<(Key, Guard)>, Vec<Write>) {
        (self.guards, self.writes)
    }

    /// The size that [`Limits::commit_bytes_max`] bounds: keys and values, the keys of guards twice
    /// (a backend may have to name them again to ask how they failed), and [`COMMIT_OP_BYTES`] for each
    /// guard and write.
    pub fn bytes(&self) -> usize {
        let guards = self.guards.iter().map(|(key, _)| 2 * key.len() + COMMIT_OP_BYTES);
        let writes = self.writes.iter().map(|write| {
            let value = match write {
                Write::Put { value, .. } => value.len(),
                Write::Delete { .. } => 0,
            };
            write.key().len() + value + COMMIT_OP_BYTES
        });
        guards.chain(writes).sum()
    }

    /// Whether the commit keeps the rules of [`CasStore::commit`](crate::CasStore::commit). Every backend
    /// asks this first, so that all refuse the same.
    pub fn check(&self, limits: &Limits) -> Result<(), StoreError> {
        let op = "commit";
        let refuse = |rule| Err(StoreError::Refused { op, rule });
        if self.writes.is_empty() {
            return refuse("a commit writes something");
        }
        if self.writes.len() > limits.commit_ops_max || self.guards.len() > limits.commit_ops_max {
            return refuse("a commit has no more than commit_ops_max writes and guards each");
        }
        if self.bytes() > limits.commit_bytes_max {
            return refuse("a commit is no larger than commit_bytes_max");
        }
        let mut guarded = HashSet::with_capacity(self.guards.len());
        for (key, _) in &self.guards {
            limits.check_key(op, key)?;
            if !guarded.insert(key) {
                return refuse("a key is guarded once in a commit");
            }
        }
        let mut written = HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            limits.check_key(op, write.key())?;
            if let Write::Put { value, .. } = write {
                limits.check_value(op, value.len())?;
            }
            if !written.insert(write.key()) {
                return refuse("a key is written once in a commit");
            }
        }
        Ok(())
    }
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// All writes happened, in this revision.
    Committed(Revision),
    /// No write happened. The guards that failed, in the order they were added, each with the revision
    /// that the entry has now (`None`: there is none).
    Conflict(Vec<(Key, Option<Revision>)>),
}

impl Outcome {
    /// The revision, if it was committed.
    pub fn committed(&self) -> Option<Revision> {
        match self {
            Self::Committed(revision) => Some(*revision),
            Self::Conflict(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_counts_keys_values_and_framing() {
        let commit = Commit::new().guard("abc", Guard::Absent).put("abc", "12345").delete("z");
        assert_eq!(commit.bytes(), (2 * 3 + 64) + (3 + 5 + 64) + (1 + 64));
    }

    #[test]
    fn a_guard_holds_only_at_its_revision() {
        assert!(Guard::Absent.holds(None));
        assert!(!Guard::Absent.holds(Some(Revision(1))));
        assert!(Guard::At(Revision(2)).holds(Some(Revision(2))));
        assert!(!Guard::At(Revision(2)).holds(Some(Revision(3))));
        assert!(!Guard::At(Revision(2)).holds(None));
    }
}
