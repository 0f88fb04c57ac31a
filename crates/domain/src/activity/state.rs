//! The fold of the activity log. Everything in it is bounded: the log is where the past is.

use serde::{Deserialize, Serialize};

use super::{AuthFailure, Session, Usage};
use crate::events::ActivityEvent as Event;
use crate::ids::{ClientId, LogId, MappingId, SessionId};
use crate::limits::{
    AUTH_FAILURES_KEPT_MAX, CLOSED_SESSIONS_MAX, CLOSED_SESSIONS_PER_CLIENT_MAX, USAGE_KEPT_MAX,
};
use crate::maps::{Map, Set, Table};
use crate::meta::{EventMeta, Position};
use crate::text::PublicKey;

/// What the activity log amounts to. Cloning takes constant time: the maps are persistent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivityState {
    pub(super) log: Option<LogId>,
    open: Table<SessionId, Session>,
    open_of: Map<ClientId, SessionId>,
    /// By client and the position at which it closed.
    closed: Table<(ClientId, Position), Session>,
    closed_order: Map<Position, ClientId>,
    closed_ids: Map<SessionId, (ClientId, Position)>,
    usage: Map<MappingId, (Usage, Position)>,
    /// Each of `usage` once, by a position at which it had traffic: its last, or one before. So traffic moves
    /// nothing here; who looks for the one without traffic for longest puts those right that it meets.
    usage_order: Set<(Position, MappingId)>,
    failures: Table<Position, AuthFailure>,
}

impl ActivityState {
    /// The sessions that are open, by id.
    pub fn open_sessions(&self) -> impl Iterator<Item = &Session> {
        self.open.values()
    }

    /// The open session of a client.
    pub fn open_session_of(&self, client: ClientId) -> Option<&Session> {
        self.open_of.get(&client).and_then(|id| self.open.get(id))
    }

    /// A session, open or closed not long ago.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.open.get(&id).or_else(|| self.closed_ids.get(&id).and_then(|at| self.closed.get(at)))
    }

    /// The sessions of a client that closed last, the latest last; at most
    /// [`CLOSED_SESSIONS_PER_CLIENT_MAX`].
    pub fn closed_sessions_of(&self, client: ClientId) -> impl Iterator<Item = &Session> {
        self.closed.range((client, Position(0))..=(client, Position(u64::MAX))).map(|(_, session)| session)
    }

    /// The session of a client that closed last, and the position at which it did.
    pub fn last_closed_of(&self, client: ClientId) -> Option<(Position, &Session)> {
        let of_client = (client, Position(0))..=(client, Position(u64::MAX));
        self.closed.range(of_client).next_back().map(|((_, position), session)| (*position, session))
    }

    /// Failed authentications with this key, the latest last, and their positions.
    pub fn auth_failures_of(
        &self,
        key: PublicKey,
    ) -> impl DoubleEndedIterator<Item = (Position, &AuthFailure)> {
        let failures = self.failures.iter().map(|(position, failure)| (*position, failure));
        failures.filter(move |(_, failure)| failure.identity == Some(key))
    }

    /// All sessions that are remembered, open and closed, by id.
    pub fn sessions(&self) -> Vec<&Session> {
        let mut all: Vec<_> = self.open.values().chain(self.closed.values()).collect();
        all.sort_unstable_by_key(|session| session.id);
        all
    }

    /// What passed through a mapping.
    pub fn usage(&self, mapping: MappingId) -> Usage {
        self.usage.get(&mapping).map(|(usage, _)| *usage).unwrap_or_default()
    }

    /// Failed authentications, the latest last; at most [`AUTH_FAILURES_KEPT_MAX`].
    pub fn auth_failures(&self) -> impl DoubleEndedIterator<Item = &AuthFailure> {
        self.failures.values()
    }

    pub(super) fn apply(&mut self, event: &Event, at: &EventMeta) {
        match event {
            Event::LogCreated(event) => self.log = Some(event.log),
            Event::SessionOpened(event) => {
                let session = Session {
                    id: event.session,
                    client: event.client,
                    node: event.node,
                    address: event.address,
                    transport: event.transport.clone(),
                    release: event.release.clone(),
                    opened_at: at.recorded_at,
                    closed: None,
                };
                self.open_of.insert_mut(event.client, event.session);
                self.open.insert_mut(event.session, session);
            }
            Event::SessionClosed(event) => self.close(event.session, event.reason.clone(), at),
            Event::SessionExpired(event) => self.close(event.session, "lost with its node".into(), at),
            Event::UsageRecorded(event) => {
                let mapping = event.mapping;
                if !self.usage.contains_key(&mapping) {
                    self.usage.insert_mut(mapping, (Usage::default(), at.position));
                    self.usage_order.insert_mut((at.position, mapping));
                }
                if let Some((usage, last)) = self.usage.get_mut(&mapping) {
                    usage.bytes_in = usage.bytes_in.saturating_add(event.bytes_in);
                    usage.bytes_out = usage.bytes_out.saturating_add(event.bytes_out);
                    usage.tunnels = usage.tunnels.saturating_add(event.tunnels);
                    usage.refused = usage.refused.saturating_add(event.refused);
                    usage.last_at = at.recorded_at;
                    *last = at.position;
                }
                while self.usage.size() > USAGE_KEPT_MAX {
                    let Some((noted, mapping)) = self.usage_order.first().copied() else { break };
                    self.usage_order.remove_mut(&(noted, mapping));
                    match self.usage.get(&mapping) {
                        Some((_, last)) if *last > noted => self.usage_order.insert_mut((*last, mapping)),
                        _ => {
                            self.usage.remove_mut(&mapping);
                        }
                    }
                }
            }
            Event::AuthFailed(event) => {
                let failure = AuthFailure {
                    at: at.recorded_at,
                    address: event.address,
                    identity: event.identity,
                    reason: event.reason.clone(),
                };
                self.failures.insert_mut(at.position, failure);
                while self.failures.size() > AUTH_FAILURES_KEPT_MAX {
                    let Some(oldest) = self.failures.first().map(|(position, _)| *position) else { break };
                    self.failures.remove_mut(&oldest);
                }
            }
        }
    }

    fn close(&mut self, id: SessionId, reason: String, at: &EventMeta) {
        let Some(mut session) = self.open.take(&id) else { return };
        let client = session.client;
        if self.open_of.get(&client) == Some(&id) {
            self.open_of.remove_mut(&client);
        }
        session.closed = Some((at.recorded_at, reason));
        self.closed.insert_mut((client, at.position), session);
        self.closed_order.insert_mut(at.position, client);
        self.closed_ids.insert_mut(id, (client, at.position));
        self.forget_closed(client);
    }

    fn forget_closed(&mut self, client: ClientId) {
        let of_client = (client, Position(0))..=(client, Position(u64::MAX));
        let count = self.closed.range(of_client.clone()).count();
        if count > CLOSED_SESSIONS_PER_CLIENT_MAX {
            let oldest = self.closed.range(of_client).next().map(|((_, position), _)| *position);
            if let Some(position) = oldest {
                self.forget(client, position);
            }
        }
        while self.closed_order.size() > CLOSED_SESSIONS_MAX {
            let Some((position, client)) = self.closed_order.first().map(|(at, client)| (*at, *client))
            else {
                break;
            };
            self.forget(client, position);
        }
    }

    fn forget(&mut self, client: ClientId, position: Position) {
        if let Some(session) = self.closed.get(&(client, position)) {
            self.closed_ids.remove_mut(&session.id);
        }
        self.closed.remove_mut(&(client, position));
        self.closed_order.remove_mut(&position);
    }
}
