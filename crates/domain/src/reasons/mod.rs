//! Why something is as it is: what stands in the way of a mapping, why a client is not linked, what became of
//! a secret. Pure, like decisions: what is known comes in, findings come out, each with the events behind it.

mod clients;
mod mappings;
mod secrets;
#[cfg(test)]
mod tests;

use crate::activity::ActivityState;
use crate::control::ControlState;
use crate::events::ControlEvent;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, MappingId};
use crate::meta::{Entity, LogName, LogPosition, Position, StreamId};
use crate::time::Timestamp;
use crate::{Aggregate, DomainEvent};

/// Something that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its stable name, for programs; `docs/findings.md` lists all.
    pub code: &'static str,
    /// What it is, for people.
    pub sentence: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
    /// The events behind it, oldest first.
    pub events: Vec<LogPosition>,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    /// What it is called, where it has a name.
    pub name: Option<String>,
    /// Whether callers of a mapping are served. `None`: it is no mapping.
    pub answers: Option<bool>,
    /// Never empty.
    pub findings: Vec<Finding>,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What there is.
    pub state: &'a ControlState,
    /// Links, open and past.
    pub activity: &'a ActivityState,
    /// When it is asked.
    pub now: Timestamp,
    /// The control events of the streams that [`streams_behind`] names, oldest first.
    pub history: &'a [(Position, ControlEvent)],
    /// What goes on at the node that is asked. `None`: no server runs.
    pub live: Option<&'a LiveMapping>,
}

/// What goes on with a mapping at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveMapping {
    /// How its ends are doing.
    pub ends: Vec<LiveEnd>,
    /// Tunnels that run.
    pub tunnels: u64,
}

/// How one end of a mapping is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveEnd {
    /// At which client; `None`: at the public port of the node.
    pub client: Option<ClientId>,
    /// What is wrong there; `None`: nothing.
    pub trouble: Option<LiveTrouble>,
    /// More about it.
    pub detail: Option<String>,
}

/// What is wrong with an end of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveTrouble {
    /// Another program has the port.
    PortInUse,
    /// The client's own rules forbid the target.
    Denied,
    /// Something else.
    Failed,
}

/// The streams of the control log that say why a thing is as it is: its own, and those of what it rests on.
pub fn streams_behind(state: &ControlState, of: StreamId) -> Vec<StreamId> {
    let mut streams = vec![of];
    if let (Entity::Mapping, Some(mapping)) = (of.entity, state.mapping(MappingId::from_bytes(of.id))) {
        streams.push(mapping.target.client.into());
        streams.extend(mapping.listener().map(StreamId::from));
    }
    streams
}

/// Why a mapping does not answer, a client is not linked, or a code, invite or key is no good. `None`: nothing is
/// known of it, or it is none of these.
pub fn reasons(evidence: &Evidence<'_>, of: StreamId) -> Option<Reasons> {
    match of.entity {
        Entity::Mapping => evidence.mapping(MappingId::from_bytes(of.id)),
        Entity::Client => evidence.client(ClientId::from_bytes(of.id)),
        Entity::Code => evidence.code(CodeId::from_bytes(of.id)),
        Entity::Invite => evidence.invite(InviteId::from_bytes(of.id)),
        Entity::Key => evidence.key(KeyId::from_bytes(of.id)),
        Entity::Log | Entity::User | Entity::Session | Entity::Node => None,
    }
}

impl Finding {
    fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), hint: None, events: Vec::new() }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the control event behind it, which can perhaps be undone.
    fn undone_by(mut self, at: Option<Position>) -> Self {
        if let Some(at) = at {
            self.hint = Some(format!("take it back: underpass undo {at}"));
        }
        self.by(at)
    }

    fn by(mut self, at: Option<Position>) -> Self {
        let log = ControlState::LOG;
        self.events.extend(at.map(|position| LogPosition { log, position }));
        self
    }

    fn by_activity(mut self, at: Position) -> Self {
        self.events.push(LogPosition { log: LogName::Activity, position: at });
        self
    }
}

impl<'a> Evidence<'a> {
    /// The newest event of a stream that is one of these.
    fn newest(
        &self,
        of: impl Into<StreamId>,
        wanted: impl Fn(&ControlEvent) -> bool,
    ) -> Option<(Position, &'a ControlEvent)> {
        let of = of.into();
        let found = self.history.iter().rev().find(|(_, event)| event.stream() == of && wanted(event));
        found.map(|(at, event)| (*at, event))
    }

    /// A client as people call it.
    fn called(&self, client: ClientId) -> String {
        match self.state.client(client) {
            Some(known) => format!("client {} ({client})", known.name),
            None => client.to_string(),
        }
    }
}
