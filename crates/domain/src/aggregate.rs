//! The shape of rules over a log, and of its events.

use std::error::Error;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{DecodeError, EncodeError};
use crate::ids::{ClientId, CodeId, InviteId, KeyId, LogId, MappingId, NodeId, SessionId};
use crate::meta::{EventMeta, LogName, Meta, StreamId};

/// What can happen in a log.
pub trait DomainEvent: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The number of its kind on disk.
    fn kind(&self) -> u16;

    /// The version of the payload that [`encode`](Self::encode) writes: always the newest.
    fn version(&self) -> u16;

    /// The entity that it belongs to.
    fn stream(&self) -> StreamId;

    /// The payload, in the encoding [`PAYLOAD_CODEC`](crate::PAYLOAD_CODEC).
    fn encode(&self) -> Result<Vec<u8>, EncodeError>;

    /// Reads every version ever released and lifts it to the newest.
    fn decode(kind: u16, version: u16, codec: u8, payload: &[u8]) -> Result<Self, DecodeError>;

    /// The name of its kind, `mapping.created`.
    fn name(&self) -> &'static str;

    /// The payload as JSON, as the newest schema describes it.
    fn to_json(&self) -> serde_json::Value;

    /// What happened, for people: `mapping web created: port 20017 -> 127.0.0.1:3000 at client_01…`.
    fn sentence(&self) -> String;
}

/// Rules over a whole log. No clock, no randomness, no I/O: what a decision needs to know comes in
/// with the command.
pub trait Aggregate:
    Default + Clone + Debug + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// Which log.
    const LOG: LogName;

    /// What can be asked for. Serialisable, so that a repeated command id can be compared with what
    /// it was first used for.
    type Command: Clone + Debug + Send + Sync + Serialize + 'static;

    /// What can happen.
    type Event: DomainEvent;

    /// What can stand in the way.
    type Refusal: Error + Clone + Send + Sync + 'static;

    /// What follows from `command` in this state.
    fn decide(&self, meta: &Meta, command: &Self::Command) -> Result<Decision<Self::Event>, Self::Refusal>;

    /// The state after `event`. Total: an event in the log is a fact and can't be refused.
    fn evolve(&mut self, event: &Self::Event, at: &EventMeta);

    /// The first event of a new log.
    fn genesis(log: LogId) -> Self::Event;

    /// The id of the log that this state was folded from; `None` before its first event.
    fn log_id(&self) -> Option<LogId>;
}

/// What follows from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<E> {
    /// What happens, in this order and as a whole. Empty: it is already so.
    pub events: Vec<E>,
    /// What the answer is about.
    pub subject: Subject,
}

impl<E> Decision<E> {
    /// Something happens.
    pub fn new(subject: impl Into<Subject>, events: Vec<E>) -> Self {
        Self { events, subject: subject.into() }
    }

    /// One thing happens.
    pub fn one(subject: impl Into<Subject>, event: E) -> Self {
        Self::new(subject, vec![event])
    }

    /// Nothing happens: it is already so.
    pub fn already(subject: impl Into<Subject>) -> Self {
        Self::new(subject, Vec::new())
    }
}

/// What the answer to a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Nothing that has an id.
    None,
    /// A client.
    Client(ClientId),
    /// A mapping.
    Mapping(MappingId),
    /// A connection code.
    Code(CodeId),
    /// An invite.
    Invite(InviteId),
    /// A session.
    Session(SessionId),
    /// A node.
    Node(NodeId),
    /// An API key.
    Key(KeyId),
}

macro_rules! subjects {
    ($($id:ident => $variant:ident),* $(,)?) => {$(
        impl From<$id> for Subject {
            fn from(id: $id) -> Self {
                Self::$variant(id)
            }
        }
    )*};
}

subjects! {
    ClientId => Client,
    MappingId => Mapping,
    CodeId => Code,
    InviteId => Invite,
    SessionId => Session,
    NodeId => Node,
    KeyId => Key,
}
