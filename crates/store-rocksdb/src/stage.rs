//! One group of commits on its way to disk.

use std::collections::HashMap;

use rocksdb::{DB, WriteBatch};
use underpass_store::{
    Batch, Change, Commit, Entry, Key, LeaseId, Leases, Limits, Revision, StoreError, Write,
};

use crate::layout;
use crate::queue::Written;

/// What a group has decided so far. Later requests of the group are decided on top of it; nobody else sees
/// it before it is on disk.
pub(crate) struct Stage<'a> {
    db: &'a DB,
    leases: &'a mut Leases,
    revision: Revision,
    last_lease: i64,
    batch: WriteBatch,
    /// The revisions of the entries that the group has written (`None`: deleted).
    written: HashMap<Key, Option<Revision>>,
    commits: Vec<Batch>,
}

/// A group that is ready to be written.
pub(crate) struct Staged {
    pub(crate) batch: WriteBatch,
    pub(crate) revision: Revision,
    pub(crate) last_lease: i64,
    /// What watchers will be told.
    pub(crate) commits: Vec<Batch>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(db: &'a DB, leases: &'a mut Leases, revision: Revision, last_lease: i64) -> Self {
        Self {
            db,
            leases,
            revision,
            last_lease,
            batch: WriteBatch::default(),
            written: HashMap::new(),
            commits: Vec::new(),
        }
    }

    /// Decides a commit. An error means that it has left no trace in the group.
    pub(crate) fn commit(
        &mut self,
        op: &'static str,
        commit: Commit,
        limits: &Limits,
    ) -> Result<Written, StoreError> {
        commit.check(limits)?;
        let (guards, writes) = commit.into_parts();
        let mut failed = Vec::new();
        for (key, guard) in guards {
            let current = self.revision_of(&key)?;
            if !guard.holds(current) {
                failed.push((key, current));
            }
        }
        if !failed.is_empty() {
            return Ok(Written::Conflict(failed));
        }
        let mut effective = Vec::with_capacity(writes.len());
        for write in writes {
            if let Some(lease) = write.lease()
                && !self.leases.contains(lease)
            {
                return Err(StoreError::LeaseGone { op, lease });
            }
            let absent = matches!(&write, Write::Delete { .. }) && self.revision_of(write.key())?.is_none();
            if !absent {
                effective.push(write);
            }
        }
        let changed = !effective.is_empty();
        self.apply(effective);
        Ok(Written::Done { revision: self.revision, changed })
    }

    /// Gives out a lease. Its ttl runs from the answer, which renews it.
    pub(crate) fn grant(
        &mut self,
        ttl: std::time::Duration,
        now: tokio::time::Instant,
    ) -> Result<LeaseId, StoreError> {
        let lease = LeaseId(self.last_lease + 1);
        self.leases.grant(lease, ttl, now)?;
        self.last_lease = lease.0;
        self.batch.put(layout::lease_key(lease), layout::encode_lease(ttl.as_secs()));
        Ok(lease)
    }

    /// Ends a lease and its entries.
    pub(crate) fn end_lease(&mut self, lease: LeaseId) {
        let Some(keys) = self.leases.end(lease) else {
            return;
        };
        self.batch.delete(layout::lease_key(lease));
        for key in &keys {
            self.batch.delete(layout::attached_key(lease, key));
        }
        self.apply(keys.into_iter().map(|key| Write::Delete { key }).collect());
    }

    /// Ends all leases that have run out by `now`.
    pub(crate) fn end_due_leases(&mut self, now: tokio::time::Instant) {
        while let Some(lease) = self.leases.due(now) {
            self.end_lease(lease);
        }
    }

    /// Bytes to be written so far.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    pub(crate) fn finish(mut self) -> Staged {
        if !self.batch.is_empty() {
            self.batch.put(layout::HEAD, layout::encode_head(self.revision, self.last_lease));
        }
        Staged {
            batch: self.batch,
            revision: self.revision,
            last_lease: self.last_lease,
            commits: self.commits,
        }
    }

    /// Does writes that all change something, in one revision.
    fn apply(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        self.revision = Revision(self.revision.0 + 1);
        let revision = self.revision;
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            let key = write.key().clone();
            self.reattach(&key, write.lease());
            match write {
                Write::Put { key, value, lease } => {
                    self.batch.put(layout::entry_key(&key), layout::encode_entry(revision, lease, &value));
                    self.written.insert(key.clone(), Some(revision));
                    changes.push(Change::Put(Entry { key, value, revision, lease }));
                }
                Write::Delete { key } => {
                    self.batch.delete(layout::entry_key(&key));
                    self.written.insert(key.clone(), None);
                    changes.push(Change::Deleted(key));
                }
            }
        }
        self.commits.push(Batch { revision, changes });
    }

    fn reattach(&mut self, key: &Key, lease: Option<LeaseId>) {
        let before = self.leases.holder(key);
        if before == lease {
            return;
        }
        if let Some(before) = before {
            self.batch.delete(layout::attached_key(before, key));
        }
        if let Some(lease) = lease {
            self.batch.put(layout::attached_key(lease, key), b"");
        }
        self.leases.attach(key, lease);
    }

    fn revision_of(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        if let Some(written) = self.written.get(key) {
            return Ok(*written);
        }
        let stored =
            self.db.get_pinned(layout::entry_key(key)).map_err(|error| read_error("commit", key, error))?;
        stored
            .map(|stored| layout::decode_revision(&stored))
            .transpose()
            .map_err(|source| StoreError::Corrupt { key: key.clone(), source })
    }
}

/// What a failed read of `key` means to callers.
pub(crate) fn read_error(op: &'static str, key: &Key, error: rocksdb::Error) -> StoreError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::Corrupt { key: key.clone(), source: error.into() },
        _ => StoreError::unavailable(op, error),
    }
}
