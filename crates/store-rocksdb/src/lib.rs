//! The storage traits on RocksDB.
//!
//! [`RocksStore`] is a store in one folder, of one process. What a call has acknowledged is on disk; what
//! a read shows is on disk, too.
//!
//! # How it works
//!
//! One thread writes. It takes all that waits in its queue, checks each guard against what is stored plus
//! what the group has already decided, puts all of it into one `WriteBatch`, has RocksDB write and sync
//! that, and only then answers. So many commits share one sync, and each has a revision of its own.
//! RocksDB shows a batch to readers after its sync, so no reader needs the writer.
//!
//! Point reads and short scans run on the thread that asks: they take microseconds from the cache and at
//! worst a few blocks from disk. Longer scans run on tokio's threads for blocking work.
//!
//! # The folder
//!
//! | file | holds |
//! |---|---|
//! | `FORMAT` | what this folder is, and in which format |
//! | `HEAD` | the head mark: a revision that the store had reached for certain |
//! | `underpass.lock` | is locked while the store is open |
//! | `db/` | RocksDB |
//!
//! RocksDB refuses damage in the middle of its log (recovery mode `TolerateCorruptedTailRecords`), but can't
//! tell a lost tail from no tail. The head mark can: it is written at most a second after a commit and at
//! a clean close, and a store that stands before its mark isn't opened ([`OpenError::RolledBack`]). What was
//! acknowledged in the last second before a crash *and* torn off the files afterwards is beyond it.
//!
//! # When the disk fails
//!
//! A write or sync that fails is never tried again: nobody knows which pages it has dropped. The commits of
//! that group are [`Indeterminate`](underpass_store::StoreError::Indeterminate), every later write is
//! `Unavailable` until the store is opened anew, and reads go on.
//!
//! The store opens itself anew as soon as the disk takes something again (a full disk on which somebody has made
//! room). It goes on only if everything is there that had been acknowledged. Where that is not so, or where what
//! is stored is damaged, it stays as it is and says so: a person has to look.

mod backup;
mod folder;
mod head;
mod layout;
mod measure;
mod open;
mod queue;
mod records;
mod reopen;
mod stage;
mod store;
mod writer;
#[cfg(test)]
mod writer_tests;

pub use backup::BackupError;
pub use measure::{DatabaseMeasures, Level, Measures, SYNC_BOUNDS_US};
pub use open::{OpenError, RocksOptions};
pub use store::RocksStore;
