//! Entries that die with a lease.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Key, KvStore, LeaseId, Revision, StoreError};

/// Leases: what somebody must keep alive, or it goes away.
///
/// Presence lives here. A node takes one lease, writes under it which clients are linked to it, and renews
/// it as its heartbeat; if the node dies, its entries follow. Take a lease for each node, not for each
/// client: backends end about a thousand leases a second, and a lease may hold any number of entries.
///
/// # Contract
///
/// Let `t` be the instant at which the last successful `grant` or `renew` returned.
///
/// 1. The entries of the lease are there at least until `t + ttl`.
/// 2. They are gone at `t + ttl + expiry_slack` at the latest ([`Limits::expiry_slack`]). A new leader of
///    the store, or opening a store anew, may start the ttl again from then; the promise holds in between.
/// 3. All entries of a lease go in one commit, which watchers see as deletions, whether anybody reads or
///    not. Nothing tells such a deletion from one by hand.
/// 4. `renew` of a lease that is gone answers [`Renewal::Gone`] and brings nothing back.
/// 5. The last write of an entry decides its lease: a plain put takes it off its lease, a leased put
///    moves it to that lease.
/// 6. Writing under a lease that is gone is [`StoreError::LeaseGone`], and nothing was written.
/// 7. A lease id is never given twice, and a lease without entries runs out like any other.
///
/// A ttl is rounded up to whole seconds, and to [`Limits::lease_ttl_min`]; beyond
/// [`LEASE_TTL_MAX`](crate::limits::LEASE_TTL_MAX) it is refused. Granting makes no revision.
///
/// [`Limits::expiry_slack`]: crate::Limits::expiry_slack
/// [`Limits::lease_ttl_min`]: crate::Limits::lease_ttl_min
///
/// # Implementing
///
/// Run `testkit::expirable!` (cargo feature `testkit`): real time, leases of two seconds, all cases at once.
#[async_trait]
pub trait ExpirableStore: KvStore {
    /// A new lease.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Starts the ttl of a lease again.
    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError>;

    /// Ends the lease and its entries now. A lease that is gone is revoked already.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Puts `value` at `key`, to die with `lease`.
    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError>;
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Renewal {
    /// The full ttl runs again.
    Renewed,
    /// The lease has run out or was revoked, and its entries with it. Take a new one.
    Gone,
}

#[async_trait]
impl<S: ExpirableStore + ?Sized> ExpirableStore for Arc<S> {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        (**self).grant(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        (**self).renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        (**self).revoke(lease).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        (**self).put_leased(key, value, lease).await
    }
}
