//! What one call changes: decided and written in one transaction of SQLite, and only then known to anybody.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use underpass_store::{
    Batch, Change, Entry, Guard, Key, LeaseId, Leases, Outcome, Revision, StoreError, Write,
};

use crate::table::{self, Head, signed};

/// A transaction under way. Dropped, it is rolled back and has left no trace.
pub(crate) struct Changing<'a> {
    transaction: Transaction<'a>,
    pub(crate) head: Head,
    before: Revision,
    /// What watchers are told once it is durable.
    pub(crate) batches: Vec<Batch>,
}

/// What a transaction that has happened has left for memory to catch up with.
pub(crate) struct Changed {
    pub(crate) head: Head,
    pub(crate) batches: Vec<Batch>,
}

/// Nothing was written.
pub(crate) fn failed(op: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| StoreError::unavailable(op, error)
}

impl<'a> Changing<'a> {
    pub(crate) fn begin(
        connection: &'a mut Connection,
        op: &'static str,
        head: Head,
    ) -> Result<Self, StoreError> {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(op))?;
        Ok(Self { transaction, head, before: head.revision, batches: Vec::new() })
    }

    /// Guards first, then leases, then writes: a conflict comes before a lease that is gone.
    pub(crate) fn commit(
        &mut self,
        op: &'static str,
        leases: &Leases,
        guards: Vec<(Key, Guard)>,
        writes: Vec<Write>,
    ) -> Result<Outcome, StoreError> {
        let mut broken = Vec::new();
        for (key, guard) in guards {
            let current = table::revision_of(&self.transaction, &key).map_err(failed(op))?;
            if !guard.holds(current) {
                broken.push((key, current));
            }
        }
        if !broken.is_empty() {
            return Ok(Outcome::Conflict(broken));
        }
        if let Some(lease) = writes.iter().filter_map(Write::lease).find(|lease| !leases.contains(*lease)) {
            return Err(StoreError::LeaseGone { op, lease });
        }
        self.apply(writes).map_err(failed(op))?;
        Ok(Outcome::Committed(self.head.revision))
    }

    /// Takes away a lease and what hangs on it: one commit, if anything does.
    pub(crate) fn end_lease(&mut self, lease: LeaseId, keys: Vec<Key>) -> rusqlite::Result<()> {
        self.transaction.execute("DELETE FROM leases WHERE id = ?", [lease.0])?;
        self.apply(keys.into_iter().map(|key| Write::Delete { key }).collect())
    }

    pub(crate) fn grant(&mut self, ttl_s: u64) -> rusqlite::Result<LeaseId> {
        self.head.last_lease += 1;
        let ttl_s = i64::try_from(ttl_s).unwrap_or(i64::MAX);
        self.transaction.execute("INSERT INTO leases VALUES (?, ?)", params![self.head.last_lease, ttl_s])?;
        Ok(LeaseId(self.head.last_lease))
    }

    /// Does writes in one revision; only those that change something count.
    fn apply(&mut self, writes: Vec<Write>) -> rusqlite::Result<()> {
        let revision = Revision(self.head.revision.0 + 1);
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let mut put = self
                        .transaction
                        .prepare_cached("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)")?;
                    let lease_id = lease.map(|lease| lease.0);
                    put.execute(params![key.as_bytes(), &value[..], signed(revision), lease_id])?;
                    changes.push(Change::Put(Entry { key, value, revision, lease }));
                }
                Write::Delete { key } => {
                    let mut delete = self.transaction.prepare_cached("DELETE FROM entries WHERE key = ?")?;
                    if delete.execute([key.as_bytes()])? > 0 {
                        changes.push(Change::Deleted(key));
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.head.revision = revision;
            self.batches.push(Batch { revision, changes });
        }
        Ok(())
    }

    /// Makes it durable. An error here leaves open whether it happened.
    pub(crate) fn finish(self, op: &'static str) -> Result<Changed, StoreError> {
        let Self { transaction, head, before, batches } = self;
        debug_assert!(head.revision >= before);
        transaction
            .execute(
                "UPDATE head SET revision = ?, last_lease = ?",
                params![signed(head.revision), head.last_lease],
            )
            .map_err(failed(op))?;
        transaction.commit().map_err(|error| StoreError::indeterminate(op, error))?;
        Ok(Changed { head, batches })
    }
}
