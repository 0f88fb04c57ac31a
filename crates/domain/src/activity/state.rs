//! The fold of the activity log. Everything in it is bounded: the log is where the past is.

use serde::{Deserialize, Serialize};

use super::carry::Carries;
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
    pub(super) open: Table<SessionId, Session>,
    pub(super) open_of: Map<ClientId, SessionId>,
    /// By client and the position at which it closed.
    pub(super) closed: Table<(ClientId, Position), Session>,
    pub(super) closed_order: Map<Position, ClientId>,
    closed_ids: Map<SessionId, (ClientId, Position)>,
    pub(super) usage: Map<MappingId, (Usage, Position)>,
    pub(super) usage_order: Set<(Position, MappingId)>,
    pub(super) failures: Table<Position, AuthFailure>,
    pub(super) carries: Carries,
}

/// How much is remembered.
pub(super) struct Bounds {
    pub(super) closed_per_client: usize,
    pub(super) closed: usize,
    pub(super) usage: usize,
    pub(super) failures: usize,
}

impl Bounds {
    const RELEASED: Self = Self {
        closed_per_client: CLOSED_SESSIONS_PER_CLIENT_MAX,
        closed: CLOSED_SESSIONS_MAX,
        usage: USAGE_KEPT_MAX,
        failures: AUTH_FAILURES_KEPT_MAX,
    };
}

/// Reading.
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
}

/// Writing.
impl ActivityState {
    pub(super) fn apply(&mut self, event: &Event, at: &EventMeta) {
        self.apply_within(event, at, &Bounds::RELEASED);
    }

    /// With bounds of one's own, so that tests reach them.
    pub(super) fn apply_within(&mut self, event: &Event, at: &EventMeta, bounds: &Bounds) {
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
                self.open_of.remove_mut(&event.client);
                self.put_open(session);
            }
            Event::SessionClosed(event) => self.close(event.session, event.reason.clone(), at, bounds),
            Event::SessionExpired(event) => {
                self.close(event.session, "lost with its node".into(), at, bounds);
            }
            Event::UsageRecorded(event) => {
                let mut usage = self.usage(event.mapping);
                usage.bytes_in = usage.bytes_in.saturating_add(event.bytes_in);
                usage.bytes_out = usage.bytes_out.saturating_add(event.bytes_out);
                usage.tunnels = usage.tunnels.saturating_add(event.tunnels);
                usage.refused = usage.refused.saturating_add(event.refused);
                usage.last_at = at.recorded_at;
                self.put_usage(event.mapping, usage, at.position, bounds);
            }
            Event::AuthFailed(event) => {
                let failure = AuthFailure {
                    at: at.recorded_at,
                    address: event.address,
                    identity: event.identity,
                    reason: event.reason.clone(),
                };
                self.put_failure(failure, at.position, bounds);
            }

            Event::CarryStarted(event) => self.carry_started(event, at),
            // The rest of a carry whose beginning was deleted: it was given up, and another one says all.
            Event::SessionCarried(_) | Event::UsageCarried(_) | Event::AuthFailureCarried(_)
                if !self.carries.runs() => {}
            Event::SessionCarried(event) => self.session_carried(event, bounds),
            Event::UsageCarried(event) => self.usage_carried(event, bounds),
            Event::AuthFailureCarried(event) => self.auth_failure_carried(event, bounds),
            Event::CarryFinished(event) => self.carry_finished(event, at),
            Event::LogTrimmed(event) => self.log_trimmed(event),
            // What it cut off was never in this state.
            Event::LogRepaired(_) => {}
        }
    }

    /// A session whose opening was deleted from the log is not known; its carry says how it ended.
    fn close(&mut self, id: SessionId, reason: String, at: &EventMeta, bounds: &Bounds) {
        let Some(mut session) = self.open.get(&id).cloned() else { return };
        session.closed = Some((at.recorded_at, reason));
        self.carries.session_closed(session.client, id, at.position);
        self.take_open(id);
        self.put_closed(session, at.position, bounds);
    }

    /// A client has one open session, the one it got last.
    pub(super) fn put_open(&mut self, session: Session) {
        if !self.open_of.contains_key(&session.client) {
            self.open_of.insert_mut(session.client, session.id);
        }
        self.open.insert_mut(session.id, session);
    }

    fn take_open(&mut self, id: SessionId) {
        let Some(client) = self.open.get(&id).map(|session| session.client) else { return };
        self.open.remove_mut(&id);
        if self.open_of.get(&client) == Some(&id) {
            self.open_of.remove_mut(&client);
        }
        self.carries.open_done(client, id);
    }

    /// Takes a session out, open or closed.
    pub(super) fn take_session(&mut self, id: SessionId) {
        self.take_open(id);
        if let Some((client, at)) = self.closed_ids.get(&id).copied() {
            self.forget(client, at);
        }
    }

    pub(super) fn put_closed(&mut self, session: Session, at: Position, bounds: &Bounds) {
        let client = session.client;
        self.closed_ids.insert_mut(session.id, (client, at));
        self.closed.insert_mut((client, at), session);
        self.closed_order.insert_mut(at, client);
        self.forget_closed(client, bounds);
    }

    fn forget_closed(&mut self, client: ClientId, bounds: &Bounds) {
        let of_client = (client, Position(0))..=(client, Position(u64::MAX));
        let count = self.closed.range(of_client.clone()).count();
        if count > bounds.closed_per_client {
            let oldest = self.closed.range(of_client).next().map(|((_, position), _)| *position);
            if let Some(position) = oldest {
                self.forget(client, position);
            }
        }
        while self.closed_order.size() > bounds.closed {
            let Some((position, client)) = self.closed_order.first().map(|(at, client)| (*at, *client))
            else {
                break;
            };
            self.forget(client, position);
        }
    }

    fn forget(&mut self, client: ClientId, position: Position) {
        let id = self.closed.get(&(client, position)).map(|session| session.id);
        if let Some(id) = id.filter(|id| self.closed_ids.get(id) == Some(&(client, position))) {
            self.closed_ids.remove_mut(&id);
        }
        self.closed.remove_mut(&(client, position));
        self.closed_order.remove_mut(&position);
        self.carries.closed_done(position);
    }

    pub(super) fn put_usage(&mut self, mapping: MappingId, usage: Usage, at: Position, bounds: &Bounds) {
        if let Some((_, before)) = self.usage.get(&mapping).copied() {
            self.usage_order.remove_mut(&(before, mapping));
            self.carries.usage_moved(mapping, before, at);
        }
        self.usage_order.insert_mut((at, mapping));
        self.usage.insert_mut(mapping, (usage, at));
        while self.usage.size() > bounds.usage {
            let Some((position, mapping)) = self.usage_order.first().copied() else { break };
            self.usage_order.remove_mut(&(position, mapping));
            self.usage.remove_mut(&mapping);
            self.carries.usage_done(mapping, position);
        }
    }

    pub(super) fn put_failure(&mut self, failure: AuthFailure, at: Position, bounds: &Bounds) {
        self.failures.insert_mut(at, failure);
        while self.failures.size() > bounds.failures {
            let Some(oldest) = self.failures.first().map(|(position, _)| *position) else { break };
            self.failures.remove_mut(&oldest);
            self.carries.failure_done(oldest);
        }
    }
}
