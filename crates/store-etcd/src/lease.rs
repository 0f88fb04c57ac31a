//! Leases: etcd's own.
//!
//! etcd counts a ttl from when its leader has done the grant or renewal, the promise from when the caller has
//! heard of it. So leases are granted one second longer (etcd's unit) than was asked for. Its leader looks for
//! leases that have run out each half second and revokes up to 1000 a second of them, each by a proposal of its
//! own: the entries of a lease go in one commit.
//!
//! A new leader starts every ttl anew, as does a server that is started again: a lease lives *at least* its
//! ttl. Who must not go on without its lease stops by its own clock, and is fenced by a guard.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error};
use underpass_store::{LeaseId, Limits, Renewal, StoreError};

use crate::call::{Failed, Kind};
use crate::store::Shared;
use crate::verdict::lease_is_gone;

/// What is granted beyond the ttl that was asked for.
const GRACE_S: i64 = 1;

/// What etcd with its own defaults can do, less the room for our prefix.
pub(crate) const LIMITS: Limits = Limits::COMMON;

pub(crate) async fn grant(shared: &Shared, ttl: Duration) -> Result<LeaseId, StoreError> {
    let ttl = shared.limits.lease_ttl("grant", ttl)?;
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX - GRACE_S) + GRACE_S;
    let request = |client: Arc<Client>| async move { client.lease_client().grant(seconds, None).await };
    // A lease that was granted and not heard of runs out by itself: nothing hangs on it.
    let granted = shared.ask("grant", Kind::Repeatable, request).await?;
    Ok(LeaseId(granted.id()))
}

pub(crate) async fn renew(shared: &Shared, lease: LeaseId) -> Result<Renewal, StoreError> {
    let request = |client: Arc<Client>| async move {
        match client.lease_client().keep_alive(lease.0).await {
            Ok(_) => Ok(Renewal::Renewed),
            // The client's word for an answer with no time to live.
            Err(Error::LeaseKeepAliveError(text)) if text == "lease not found" => Ok(Renewal::Gone),
            Err(error) => Err(error),
        }
    };
    match shared.server.call(Kind::Repeatable, request).await {
        Err(Failed::Answer(error)) if lease_is_gone(&error) => Ok(Renewal::Gone),
        renewed => renewed.map_err(|failed| failed.into_store("renew", Kind::Repeatable)),
    }
}

pub(crate) async fn revoke(shared: &Shared, lease: LeaseId) -> Result<(), StoreError> {
    let request = |client: Arc<Client>| async move { client.lease_client().revoke(lease.0).await };
    match shared.server.call(Kind::Repeatable, request).await {
        Ok(_) => Ok(()),
        Err(Failed::Answer(error)) if lease_is_gone(&error) => Ok(()),
        Err(failed) => Err(failed.into_store("revoke", Kind::Repeatable)),
    }
}
