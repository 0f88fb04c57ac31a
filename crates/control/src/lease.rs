//! The node lease: who holds it may write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_domain::NodeId;
use underpass_eventlog::Fence;
use underpass_store::{Commit, Guard, Key, LeaseId, Outcome, Renewal, Revision, Store, StoreError};

use crate::commit::commit;

/// How long a node that stopped renewing is still believed in. Ten seconds let a node stall for a while and
/// let others take over its clients within the ten seconds that are promised.
pub const LEASE_TTL_DEFAULT: Duration = Duration::from_secs(10);

/// Renewals in one time to live: two may fail before the lease is in danger.
const RENEWALS_PER_TTL: u32 = 3;

/// The prefix of node keys: `node/<node id>`.
pub(crate) const NODE_PREFIX: &str = "node/";

/// Why the node lease could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// Another process runs under this node's id. This one must not go on.
    #[error("another process has taken over the id of this node")]
    TakenOver,
    /// The store did not answer.
    #[error("the store did not answer")]
    Store(#[from] StoreError),
}

/// What is held at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub lease: LeaseId,
    /// Of the node key as it was written under this lease: the fence.
    pub revision: Revision,
    /// Believed until then. Counted from before the renewal was sent, so it ends early rather than late.
    until: Instant,
}

/// The lease of this node and the key on it.
#[derive(Debug)]
pub(crate) struct NodeLease {
    store: Arc<dyn Store>,
    key: Key,
    /// Names this run of the program, so that it knows its own write again.
    value: Bytes,
    ttl: Duration,
    held: Mutex<Held>,
    /// Whether the store failed the last time it was asked to write.
    away: AtomicBool,
}

/// What became of one round of keeping the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Renewed,
    /// It was lost and there is a new one: fence anew, announce anew.
    Regained,
}

impl NodeLease {
    /// Takes the lease for `node`, from whoever had it before. The id of a node belongs to its data folder, and
    /// only one process at a time has the folder: an earlier holder is dead or about to be fenced off.
    pub(crate) async fn take(
        store: Arc<dyn Store>,
        node: NodeId,
        run: [u8; 16],
        ttl: Duration,
    ) -> Result<Self, LeaseLost> {
        let ttl = ttl.max(store.limits().lease_ttl_min);
        let key = node_key(node);
        let value = Bytes::from(format!("{node} {}", data_encoding::HEXLOWER.encode(&run)));
        let before = store.get(&key).await?;
        let guard = before.as_ref().map_or(Guard::Absent, |entry| Guard::At(entry.revision));
        let held = write(&*store, &key, &value, ttl, guard).await?;
        if let Some(earlier) = before.and_then(|entry| entry.lease) {
            // Presence of the earlier run goes with its lease. If this fails it runs out by itself.
            if let Err(error) = store.revoke(earlier).await {
                tracing::debug!(%error, "the lease of the earlier run stays until it runs out");
            }
        }
        Ok(Self { store, key, value, ttl, held: Mutex::new(held), away: AtomicBool::new(false) })
    }

    /// What is held, while it is.
    pub(crate) fn held(&self) -> Option<Held> {
        let held = *self.lock();
        (Instant::now() < held.until).then_some(held)
    }

    /// The guard that every write of this node carries.
    pub(crate) fn fence(&self) -> Fence {
        Fence { key: self.key.clone(), revision: self.lock().revision }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Waits for the time of the next renewal. `false`: it is time to stop.
    pub(crate) async fn pause(&self, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(self.ttl / RENEWALS_PER_TTL) => true,
        }
    }

    /// Renews the lease, or takes a new one where it is gone. A store that doesn't answer in the time that a
    /// lease lives is as good as away; whatever an abandoned attempt still does, the next one finds out.
    pub(crate) async fn renew(&self) -> Result<Round, LeaseLost> {
        let renewed = tokio::time::timeout(self.ttl, self.try_renew()).await.unwrap_or_else(|late| {
            let error = StoreError::unavailable("renew", late);
            Err(error.into())
        });
        self.set_away(renewed.is_err());
        renewed
    }

    /// Whether the store failed the last time it was asked to write.
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub(crate) fn set_away(&self, away: bool) {
        if self.away.swap(away, Ordering::Relaxed) != away {
            if away {
                tracing::error!(
                    "the store is away: tunnels go on, changes are refused, sessions are spooled"
                );
            } else {
                tracing::warn!("the store is back");
            }
        }
    }

    async fn try_renew(&self) -> Result<Round, LeaseLost> {
        let lease = self.lock().lease;
        let asked = Instant::now();
        match self.store.renew(lease).await? {
            Renewal::Renewed => {
                self.lock().until = asked + self.ttl;
                Ok(Round::Renewed)
            }
            Renewal::Gone => {
                // Nothing may be written under the old fence while a new one is being made.
                self.lock().until = asked;
                tracing::warn!("the node lease is gone; no changes until there is a new one");
                let guard = match self.store.get(&self.key).await? {
                    None => Guard::Absent,
                    Some(entry) if entry.value == self.value => Guard::At(entry.revision),
                    Some(_) => return Err(LeaseLost::TakenOver),
                };
                let held = write(&*self.store, &self.key, &self.value, self.ttl, guard).await?;
                *self.lock() = held;
                Ok(Round::Regained)
            }
        }
    }

    /// Gives the lease back; what hangs on it goes.
    pub(crate) async fn give_back(&self) -> Result<(), StoreError> {
        let lease = {
            let mut held = self.lock();
            held.until = Instant::now();
            held.lease
        };
        self.store.revoke(lease).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a node. It exists while the node holds its lease.
pub(crate) fn node_key(node: NodeId) -> Key {
    Key::from(format!("{NODE_PREFIX}{node}").into_bytes())
}

async fn write(
    store: &dyn Store,
    key: &Key,
    value: &Bytes,
    ttl: Duration,
    guard: Guard,
) -> Result<Held, LeaseLost> {
    let asked = Instant::now();
    let lease = store.grant(ttl).await?;
    let put = Commit::new().guard(key.clone(), guard).put_leased(key.clone(), value.clone(), lease);
    let revision = match commit(store, &put).await? {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict(_) => match store.get(key).await? {
            // An attempt whose outcome was unknown did happen.
            Some(entry) if entry.value == *value && entry.lease == Some(lease) => entry.revision,
            _ => return Err(LeaseLost::TakenOver),
        },
    };
    Ok(Held { lease, revision, until: asked + ttl })
}
