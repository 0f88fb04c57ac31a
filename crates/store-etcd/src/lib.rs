//! The storage traits on etcd.
//!
//! [`EtcdStore`] is a store below a prefix of an etcd cluster, which many nodes share. What a call has
//! acknowledged is with a majority of the members; what a read shows is, too: all reads are linearizable.
//!
//! | trait | on etcd |
//! |---|---|
//! | [`KvStore`](underpass_store::KvStore) | ranges, puts and deletes; a revision is etcd's own, and counts what others write, too |
//! | [`CasStore`](underpass_store::CasStore) | one transaction: guards are comparisons, and its other branch reads how the guarded entries stand |
//! | [`ExpirableStore`](underpass_store::ExpirableStore) | etcd's leases |
//! | [`WatchableStore`](underpass_store::WatchableStore) | etcd's watches, taken up again when they break |
//!
//! # What etcd doesn't promise
//!
//! - *When it doesn't answer, nobody knows what it has done.* A write that may have happened is
//!   [`Indeterminate`](underpass_store::StoreError::Indeterminate), one that can't have happened is
//!   [`Unavailable`](underpass_store::StoreError::Unavailable); which error is which stands in `verdict.rs`.
//!   Reads, and writes that are the same done twice, are tried again within the deadline, at other members too.
//! - *A lease lives at least its ttl.* A new leader starts every ttl anew.
//! - *A watch is a bell.* Releases of 3.4 before 3.4.42 lose events in rare cases; who watches looks every few
//!   seconds, too.
//! - *Compaction is somebody else's.* Etcd keeps its history until it is told to forget
//!   (`--auto-compaction-retention`); this crate tells it nothing, since the cluster may have other users.
//!
//! # Testing
//!
//! With the cargo feature `testkit`, the module `testkit` starts servers and clusters of etcd on loopback.

mod batches;
mod call;
mod commit;
mod lease;
mod link;
mod namespace;
mod open;
mod options;
mod scan;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod verdict;
mod watch;

pub use open::OpenError;
pub use options::{Credentials, EtcdOptions, Tls};
pub use store::EtcdStore;
