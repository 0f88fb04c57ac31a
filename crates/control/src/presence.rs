//! Which client is connected to which node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use underpass_domain::{ClientId, NodeId, SessionId};
use underpass_store::{Commit, Guard, Key, Outcome, Revision, Store, StoreError};
use underpass_tasks::Tasks;

use crate::commit::commit;
use crate::error::ControlError;
use crate::lease::{Held, NodeLease};

/// The prefix of presence keys: `presence/<client id>`.
const PRESENCE_PREFIX: &str = "presence/";

/// Missing entries that are written in one round: a renewal of the lease must not wait for more. The next round
/// comes within seconds.
const MISSING_MAX: usize = 200;

/// Where a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The node that holds the link.
    pub node: NodeId,
    /// The session of the link.
    pub session: SessionId,
}

/// The links this node has announced, and how to announce and withdraw them.
#[derive(Debug)]
pub(crate) struct Announcer {
    store: Arc<dyn Store>,
    node: NodeId,
    tasks: Tasks,
    /// One entry per link of this node; the gateway bounds their number.
    announced: Mutex<HashMap<SessionId, Announced>>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    client: ClientId,
    session: SessionId,
    /// Of the entry as this node wrote it; `None` while it is being written.
    revision: Option<Revision>,
}

/// An announced link. Dropping it withdraws the announcement, but never one that somebody else, or a later
/// link of the same client, has made in the meantime.
#[derive(Debug)]
#[must_use = "the announcement is withdrawn when this is dropped"]
pub struct PresenceGuard {
    announcer: Arc<Announcer>,
    session: SessionId,
}

impl PresenceGuard {
    /// The session that was announced.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Withdraws the announcement and waits until that is done.
    pub async fn withdraw(self) -> Result<(), ControlError> {
        let Some(announced) = self.announcer.forget(self.session) else { return Ok(()) };
        self.announcer.delete(announced).await.map_err(ControlError::unavailable)
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let Some(announced) = self.announcer.forget(self.session) else { return };
        // Without a runtime the program is at its end, and the entry goes with the lease.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let owner = Arc::clone(&self.announcer);
        let job = move |_| async move { owner.delete(announced).await };
        self.announcer.tasks.spawn_job("withdraw presence", job);
    }
}

impl Announcer {
    pub(crate) fn new(store: Arc<dyn Store>, node: NodeId, tasks: Tasks) -> Self {
        Self { store, node, tasks, announced: Mutex::new(HashMap::new()) }
    }

    /// Notes a link of this node. Its entry is written by whoever comes first: [`Announcer::announce`], or the
    /// next renewal of the lease.
    pub(crate) fn connected(self: &Arc<Self>, client: ClientId, session: SessionId) -> PresenceGuard {
        self.lock().insert(session, Announced { client, session, revision: None });
        PresenceGuard { announcer: Arc::clone(self), session }
    }

    /// Writes the entry of a client, over whatever was there: the newest link counts.
    pub(crate) async fn announce(&self, lease: &NodeLease, session: SessionId) -> Result<(), ControlError> {
        let held = lease.held().ok_or_else(ControlError::no_lease)?;
        let Some(client) = self.lock().get(&session).map(|it| it.client) else { return Ok(()) };
        let put = Commit::new().guard(lease.key().clone(), Guard::At(held.revision)).put_leased(
            presence_key(client),
            self.value(session)?,
            held.lease,
        );
        match commit(&*self.store, &put).await.map_err(ControlError::unavailable)? {
            Outcome::Committed(revision) => {
                self.written(session, revision);
                Ok(())
            }
            Outcome::Conflict(_) => Err(ControlError::no_lease()),
        }
    }

    /// Writes the entries that are missing since the store was away, except of clients that have gone elsewhere
    /// since.
    pub(crate) async fn announce_missing(&self, lease: &NodeLease) -> Result<(), StoreError> {
        let missing: Vec<_> = {
            let announced = self.lock();
            let missing = announced.values().filter(|it| it.revision.is_none());
            missing.take(MISSING_MAX).copied().collect()
        };
        for Announced { client, session, .. } in missing {
            let Some(held) = lease.held() else { return Ok(()) };
            let key = presence_key(client);
            let guard = match self.store.get(&key).await? {
                None => Guard::Absent,
                // Of an earlier link of the client.
                Some(entry) if node_of(&entry.value) == Some(self.node) => Guard::At(entry.revision),
                Some(_) => continue,
            };
            self.put_again(lease, held, client, session, guard).await?;
        }
        Ok(())
    }

    fn written(&self, session: SessionId, revision: Revision) -> bool {
        let mut announced = self.lock();
        // Of two writes that crossed, the later one stands.
        announced.get_mut(&session).map(|it| it.revision = it.revision.max(Some(revision))).is_some()
    }

    /// Announces all links anew after the lease was lost, except of clients that have gone elsewhere since.
    pub(crate) async fn announce_again(&self, lease: &NodeLease) -> Result<(), StoreError> {
        let Some(held) = lease.held() else { return Ok(()) };
        let links: Vec<_> = self.lock().iter().map(|(session, it)| (*session, it.client)).collect();
        for (session, client) in links {
            self.put_again(lease, held, client, session, Guard::Absent).await?;
        }
        Ok(())
    }

    async fn put_again(
        &self,
        lease: &NodeLease,
        held: Held,
        client: ClientId,
        session: SessionId,
        guard: Guard,
    ) -> Result<(), StoreError> {
        let key = presence_key(client);
        let Ok(value) = self.value(session) else { return Ok(()) };
        let put = Commit::new()
            .guard(lease.key().clone(), Guard::At(held.revision))
            .guard(key.clone(), guard)
            .put_leased(key, value, held.lease);
        if let Outcome::Committed(revision) = commit(&*self.store, &put).await?
            && !self.written(session, revision)
        {
            // The link ended meanwhile, and its guard couldn't know of this entry.
            self.delete(Announced { client, session, revision: Some(revision) }).await?;
        }
        Ok(())
    }

    /// Where a client is connected, as the store knows.
    pub(crate) async fn present(&self, client: ClientId) -> Option<Presence> {
        match self.store.get(&presence_key(client)).await {
            Ok(entry) => serde_json::from_slice(&entry?.value).ok(),
            Err(error) => {
                tracing::warn!(%client, %error, "presence can't be read");
                None
            }
        }
    }

    /// Whether this node has a link with this session.
    pub(crate) fn has(&self, session: SessionId) -> bool {
        self.lock().contains_key(&session)
    }

    fn value(&self, session: SessionId) -> Result<Bytes, ControlError> {
        let presence = Presence { node: self.node, session };
        serde_json::to_vec(&presence).map(Bytes::from).map_err(ControlError::unavailable)
    }

    fn forget(&self, session: SessionId) -> Option<Announced> {
        self.lock().remove(&session)
    }

    /// Deletes an entry at the revision that was written, so never one that somebody else wrote since.
    async fn delete(&self, announced: Announced) -> Result<(), StoreError> {
        let key = presence_key(announced.client);
        let revision = match announced.revision {
            Some(revision) => revision,
            // It is unknown whether it was written: look whose is there.
            None => match self.store.get(&key).await? {
                Some(entry) if session_of(&entry.value) == Some(announced.session) => entry.revision,
                _ => return Ok(()),
            },
        };
        let delete = Commit::new().guard(key.clone(), Guard::At(revision)).delete(key);
        commit(&*self.store, &delete).await.map(|_| ())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Announced>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn session_of(value: &[u8]) -> Option<SessionId> {
    serde_json::from_slice::<Presence>(value).ok().map(|presence| presence.session)
}

fn node_of(value: &[u8]) -> Option<NodeId> {
    serde_json::from_slice::<Presence>(value).ok().map(|presence| presence.node)
}

fn presence_key(client: ClientId) -> Key {
    Key::from(format!("{PRESENCE_PREFIX}{client}").into_bytes())
}
