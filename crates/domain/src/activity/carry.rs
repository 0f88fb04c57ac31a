//! Carries: what the log amounts to, said again in the log, so that what lies before can be deleted.
//!
//! A carry is a block of events from `carry.started` to `carry.finished`. A fold that begins at its first event
//! and has seen nothing before is, at its last event, equal to one that has seen everything. Events of other
//! commands may stand between its own.
//!
//! Why that is so: each thing that is remembered at the first event is said again, absolutely, or is forgotten
//! before its turn comes; what is new since is seen by both. What both have, they keep in the same order, since
//! what is said again keeps the position by which it is ordered. So the bounds drop the same from both, if only
//! the fold that began late never keeps what the other has dropped: of a mapping that was dropped and is used
//! again, it would know a sum that is too large. Therefore mappings are said again from the one used last
//! backwards: whatever was used later than a mapping that is known is then known too, and drops it in time.
//! Sessions and failures never change once they are ordered, so their order does not matter: whatever both know
//! at the end are the newest of all.

use serde::{Deserialize, Serialize};

use super::state::{ActivityState, Bounds};
use super::{AuthFailure, Session, Usage};
use crate::events::{ActivityEvent as Event, v1};
use crate::ids::{ClientId, MappingId, SessionId};
use crate::limits::FINISHED_CARRIES_MAX;
use crate::maps::{Map, Set};
use crate::meta::{EventMeta, Position};
use crate::time::Timestamp;

/// The carry that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningCarry {
    /// The position of its `carry.started`.
    pub started: Position,
    /// When that was recorded.
    pub started_at: Timestamp,
    /// How much it has not said yet.
    pub left: usize,
}

/// A carry that has said all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedCarry {
    /// The position of its `carry.started`. What lies before can be deleted.
    pub started: Position,
    /// When that was recorded.
    pub started_at: Timestamp,
    /// The position of its `carry.finished`. A fold that began at `started` is right from here on.
    pub finished: Position,
    /// When that was recorded.
    pub finished_at: Timestamp,
}

/// Everything about carries and trimming that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Carries {
    pub(super) running: Option<Running>,
    /// By `finished`.
    pub(super) finished: Map<Position, FinishedCarry>,
    pub(super) trimmed: Position,
    pub(super) whole_from: Position,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    started: Position,
    started_at: Timestamp,
    left: Left,
}

/// What was remembered when the carry began, is so still, and has not been said again. It never grows, so a
/// carry comes to its end whatever happens meanwhile. Made of indexes that are there anyway: clones of
/// persistent maps, which cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Left {
    usage: Set<(Position, MappingId)>,
    open: Map<ClientId, SessionId>,
    closed: Map<Position, ClientId>,
    failures: Set<Position>,
}

impl Left {
    fn size(&self) -> usize {
        self.usage.size() + self.open.size() + self.closed.size() + self.failures.size()
    }
}

/// What happens to things, as far as the running carry is concerned. Whatever changes or drops what is
/// remembered tells it.
impl Carries {
    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// A mapping was used; it is ordered by another position now.
    pub(super) fn usage_moved(&mut self, mapping: MappingId, before: Position, now: Position) {
        if let Some(left) = self.left()
            && left.usage.remove_mut(&(before, mapping))
        {
            left.usage.insert_mut((now, mapping));
        }
    }

    /// A mapping is forgotten, or was said again.
    pub(super) fn usage_done(&mut self, mapping: MappingId, at: Position) {
        if let Some(left) = self.left() {
            left.usage.remove_mut(&(at, mapping));
        }
    }

    /// An open session closed.
    pub(super) fn session_closed(&mut self, client: ClientId, session: SessionId, at: Position) {
        if self.open_done(client, session)
            && let Some(left) = self.left()
        {
            left.closed.insert_mut(at, client);
        }
    }

    /// An open session closed or was said again.
    pub(super) fn open_done(&mut self, client: ClientId, session: SessionId) -> bool {
        let Some(left) = self.left() else { return false };
        left.open.get(&client) == Some(&session) && left.open.remove_mut(&client)
    }

    /// A closed session is forgotten, or was said again.
    pub(super) fn closed_done(&mut self, at: Position) {
        if let Some(left) = self.left() {
            left.closed.remove_mut(&at);
        }
    }

    /// A failed authentication is forgotten, or was said again.
    pub(super) fn failure_done(&mut self, at: Position) {
        if let Some(left) = self.left() {
            left.failures.remove_mut(&at);
        }
    }

    fn left(&mut self) -> Option<&mut Left> {
        self.running.as_mut().map(|running| &mut running.left)
    }

    fn finish(&mut self, started: Position, at: &EventMeta) {
        let Some(running) = self.running.take_if(|running| running.started == started) else { return };
        let finished = FinishedCarry {
            started,
            started_at: running.started_at,
            finished: at.position,
            finished_at: at.recorded_at,
        };
        self.finished.insert_mut(at.position, finished);
        while self.finished.size() > FINISHED_CARRIES_MAX {
            let Some(oldest) = self.finished.first().map(|(position, _)| *position) else { break };
            self.finished.remove_mut(&oldest);
        }
    }

    fn trim(&mut self, until: Position) {
        self.trimmed = self.trimmed.max(until);
        let gone = self.finished.values().filter(|carry| carry.started <= self.trimmed);
        let gone: Vec<_> = gone.map(|carry| carry.finished).collect();
        for finished in gone {
            self.finished.remove_mut(&finished);
        }
        if let Some((_, oldest)) = self.finished.first() {
            self.whole_from = oldest.finished;
        }
    }
}

/// Reading.
impl ActivityState {
    /// The carry that is under way.
    pub fn running_carry(&self) -> Option<RunningCarry> {
        self.carries.running.as_ref().map(|running| RunningCarry {
            started: running.started,
            started_at: running.started_at,
            left: running.left.size(),
        })
    }

    /// The carries that said all, the latest last; at most [`FINISHED_CARRIES_MAX`], and none that begins where
    /// the log was trimmed.
    pub fn finished_carries(&self) -> impl DoubleEndedIterator<Item = &FinishedCarry> {
        self.carries.finished.values()
    }

    /// The newest carry that had said all at this time. What lies before its first event can be deleted, where
    /// it has not been: the log may begin with this very carry already.
    pub fn last_carry_before(&self, time: Timestamp) -> Option<FinishedCarry> {
        self.finished_carries().rev().find(|carry| carry.finished_at <= time).copied()
    }

    /// The last position that was noted as deleted from this log on purpose; 0: none was.
    pub fn trimmed(&self) -> Position {
        self.carries.trimmed
    }

    /// The first position as of which this log can still say what it amounts to: the end of the carry that the
    /// log begins with since it was trimmed. 0: it was not.
    pub fn whole_from(&self) -> Position {
        self.carries.whole_from
    }

    /// What the running carry says next. `None`: there is none.
    pub(super) fn next_carried(&self, limit: usize) -> Option<Vec<Event>> {
        let left = &self.carries.running.as_ref()?.left;
        let usage = left.usage.iter().rev().filter_map(|(_, mapping)| self.carried_usage(*mapping));
        let open = left.open.values().filter_map(|session| self.carried_open(*session));
        let closed = left.closed.iter().filter_map(|(at, client)| self.carried_closed(*client, *at));
        let failures = left.failures.iter().filter_map(|at| self.carried_failure(*at));
        Some(usage.chain(open).chain(closed).chain(failures).take(limit).collect())
    }

    fn carried_usage(&self, mapping: MappingId) -> Option<Event> {
        let (Usage { bytes_in, bytes_out, tunnels, refused, last_at }, position) =
            *self.usage.get(&mapping)?;
        let carried = v1::UsageCarried { mapping, bytes_in, bytes_out, tunnels, refused, last_at, position };
        Some(carried.into())
    }

    fn carried_open(&self, session: SessionId) -> Option<Event> {
        self.open.get(&session).map(|session| carried_session(session, None))
    }

    fn carried_closed(&self, client: ClientId, at: Position) -> Option<Event> {
        self.closed.get(&(client, at)).map(|session| carried_session(session, Some(at)))
    }

    fn carried_failure(&self, position: Position) -> Option<Event> {
        let AuthFailure { at, address, identity, reason } = self.failures.get(&position)?.clone();
        Some(v1::AuthFailureCarried { position, at, address, identity, reason }.into())
    }
}

fn carried_session(session: &Session, closed_at: Option<Position>) -> Event {
    let end = session.closed.clone().zip(closed_at);
    v1::SessionCarried {
        session: session.id,
        client: session.client,
        node: session.node,
        address: session.address,
        transport: session.transport.clone(),
        release: session.release.clone(),
        opened_at: session.opened_at,
        closed: end.map(|((at, reason), position)| v1::SessionEnd { at, position, reason }),
    }
    .into()
}

/// Writing. What is said again replaces what is known of it; where everything was seen, that is the same.
impl ActivityState {
    pub(super) fn carry_started(&mut self, event: &v1::CarryStarted, at: &EventMeta) {
        self.log.get_or_insert(event.log);
        let mut failures = Set::default();
        for (at, _) in self.failures.iter() {
            failures.insert_mut(*at);
        }
        let left = Left {
            usage: self.usage_order.clone(),
            open: self.open_of.clone(),
            closed: self.closed_order.clone(),
            failures,
        };
        self.carries.running = Some(Running { started: at.position, started_at: at.recorded_at, left });
    }

    pub(super) fn session_carried(&mut self, event: &v1::SessionCarried, bounds: &Bounds) {
        self.take_session(event.session);
        let session = Session {
            id: event.session,
            client: event.client,
            node: event.node,
            address: event.address,
            transport: event.transport.clone(),
            release: event.release.clone(),
            opened_at: event.opened_at,
            closed: event.closed.as_ref().map(|end| (end.at, end.reason.clone())),
        };
        match &event.closed {
            Some(end) => self.put_closed(session, end.position, bounds),
            None => self.put_open(session),
        }
    }

    pub(super) fn usage_carried(&mut self, event: &v1::UsageCarried, bounds: &Bounds) {
        let usage = Usage {
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            tunnels: event.tunnels,
            refused: event.refused,
            last_at: event.last_at,
        };
        self.put_usage(event.mapping, usage, event.position, bounds);
        self.carries.usage_done(event.mapping, event.position);
    }

    pub(super) fn auth_failure_carried(&mut self, event: &v1::AuthFailureCarried, bounds: &Bounds) {
        let failure = AuthFailure {
            at: event.at,
            address: event.address,
            identity: event.identity,
            reason: event.reason.clone(),
        };
        self.put_failure(failure, event.position, bounds);
        self.carries.failure_done(event.position);
    }

    pub(super) fn carry_finished(&mut self, event: &v1::CarryFinished, at: &EventMeta) {
        self.carries.finish(event.started, at);
    }

    pub(super) fn log_trimmed(&mut self, event: &v1::LogTrimmed) {
        self.carries.trim(event.until);
    }
}
