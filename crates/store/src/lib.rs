//! The storage traits, the in-memory backend and the conformance suite.
//!
//! Four traits say what the rest of Underpass may expect of storage, each in numbered promises:
//!
//! | trait | is for |
//! |---|---|
//! | [`KvStore`] | ordered bytes by key |
//! | [`CasStore`] | several writes at once, under guards |
//! | [`ExpirableStore`] | entries that die with a lease |
//! | [`WatchableStore`] | being told of commits |
//!
//! They are used behind `Arc<dyn Store>`: the configuration chooses the backend, and a call costs a disk
//! write or a round trip, beside which a virtual call is nothing.
//!
//! [`MemoryStore`] is the reference. A backend is done when the suite in `testkit` (cargo feature
//! `testkit`) is green on it. [`History`] and [`Leases`] are building blocks for backends that have no
//! watches or leases of their own.

mod cas;
mod commit;
mod error;
mod expirable;
mod history;
mod key;
mod kv;
mod leases;
pub mod limits;
mod memory;
#[cfg(test)]
mod memory_suite;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod watch;
mod watchable;

pub use cas::CasStore;
pub use commit::{Commit, Guard, Outcome, Write};
pub use error::{BoxError, Retry, StoreError};
pub use expirable::{ExpirableStore, Renewal};
pub use history::{History, HistoryOptions, HistoryWatch};
pub use key::{Entry, Key, LeaseId, Revision};
pub use kv::KvStore;
pub use leases::Leases;
pub use limits::Limits;
pub use memory::{MemoryOptions, MemoryStore};
pub use watch::{Batch, Change, Watch, WatchSource};
pub use watchable::WatchableStore;

/// All four traits: what `control` and `eventlog` take as `Arc<dyn Store>`.
pub trait Store: CasStore + WatchableStore + ExpirableStore {}

impl<S: CasStore + WatchableStore + ExpirableStore + ?Sized> Store for S {}
