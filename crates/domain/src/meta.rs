//! Who, when and where: what accompanies commands and events.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{
    ClientId, CodeId, CommandId, InvalidId, InviteId, KeyId, MappingId, NodeId, SessionId, UserId,
};
use crate::text::text_serde;
use crate::time::Timestamp;

/// One of the two logs of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// Clients, mappings, codes, invites, keys, nodes. Kept.
    Control,
    /// Sessions, usage totals, failed authentications. Trimmed by age.
    Activity,
}

impl LogName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Control, Self::Activity];

    /// The name in text and in keys of the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Activity => "activity",
        }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not what it should name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// Not a log.
    #[error("a log is `control` or `activity`")]
    Log,
    /// Not a position.
    #[error("a position is a number, alone or after `control:` or `activity:`")]
    Position,
    /// Not an actor.
    #[error("an actor is `system`, `operator`, or a node, client or key as in `client/client_01…`")]
    Actor,
    /// Not a stream.
    #[error("a stream is `log`, or an entity and its id as in `mapping/mapping_01…`")]
    Stream,
    /// The id in it is wrong.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

impl FromStr for LogName {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::ALL.into_iter().find(|log| log.as_str() == text).ok_or(InvalidText::Log)
    }
}

text_serde!(LogName as u8, |log| *log as u8, |number| {
    LogName::ALL.get(usize::from(number)).copied().ok_or(InvalidText::Log)
}, pattern "^(control|activity)$");

/// The number of an event in its log: dense, from 1. 0 is before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Position {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        // `parse` alone would take a sign.
        if !text.bytes().all(|symbol| symbol.is_ascii_digit()) {
            return Err(InvalidText::Position);
        }
        text.parse().map(Self).map_err(|_| InvalidText::Position)
    }
}

/// A plain number, whatever else this type may come to say.
impl schemars::JsonSchema for Position {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Position".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        u64::json_schema(generator)
    }
}

/// A position that says in which log. Text: `control:1842`; a bare number means `control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The log.
    pub log: LogName,
    /// The position in it.
    pub position: Position,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log, self.position)
    }
}

impl FromStr for LogPosition {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let (log, position) = match text.split_once(':') {
            Some((log, position)) => (log.parse()?, position),
            None => (LogName::Control, text),
        };
        Ok(Self { log, position: position.parse()? })
    }
}

text_serde!(LogPosition as (LogName, u64), |at| (at.log, at.position.0), |(log, position)| {
    Ok::<_, InvalidText>(LogPosition { log, position: Position(position) })
}, pattern "^((control|activity):)?[0-9]+$");

/// Who wants something done. Text: `client/client_01…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// The program itself: expiry, reactors.
    System,
    /// Whoever may read the data folder.
    Operator,
    /// A node.
    Node(NodeId),
    /// An enrolled client, proven by its key.
    Client(ClientId),
    /// Who holds this API key.
    Key(KeyId),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Operator => f.write_str("operator"),
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Client(id) => write!(f, "client/{id}"),
            Self::Key(id) => write!(f, "key/{id}"),
        }
    }
}

impl FromStr for Actor {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Ok(match text.split_once('/') {
            None if text == "system" => Self::System,
            None if text == "operator" => Self::Operator,
            Some(("node", id)) => Self::Node(id.parse()?),
            Some(("client", id)) => Self::Client(id.parse()?),
            Some(("key", id)) => Self::Key(id.parse()?),
            _ => return Err(InvalidText::Actor),
        })
    }
}

impl Actor {
    /// The actor as a number for its kind and 16 bytes of id (zero where there is none): what
    /// records and snapshots keep.
    pub const fn to_parts(self) -> (u8, [u8; 16]) {
        match self {
            Self::System => (0, [0; 16]),
            Self::Operator => (1, [0; 16]),
            Self::Node(id) => (2, *id.as_bytes()),
            Self::Client(id) => (3, *id.as_bytes()),
            Self::Key(id) => (4, *id.as_bytes()),
        }
    }

    /// The inverse of [`Actor::to_parts`].
    pub const fn from_parts(kind: u8, id: [u8; 16]) -> Option<Self> {
        Some(match kind {
            0 => Self::System,
            1 => Self::Operator,
            2 => Self::Node(NodeId::from_bytes(id)),
            3 => Self::Client(ClientId::from_bytes(id)),
            4 => Self::Key(KeyId::from_bytes(id)),
            _ => return None,
        })
    }
}

text_serde!(Actor as (u8, [u8; 16]), |actor| actor.to_parts(), |(kind, id)| {
    Actor::from_parts(kind, id).ok_or(InvalidText::Actor)
}, pattern "^(system|operator|(node|client|key)/[a-z]+_[0-9a-z]{26})$");

/// What accompanies a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The same id again is the same command.
    pub id: CommandId,
    /// Who asks.
    pub actor: Actor,
    /// From which address, where there is one.
    pub source: Option<IpAddr>,
    /// The request that this belongs to, as its sender calls it.
    pub correlation: Option<[u8; 16]>,
    /// The event that made a reactor send this.
    pub causation: Option<LogPosition>,
    /// When the command is decided. Deadlines are judged by it.
    pub now: Timestamp,
}

/// What is known of an event beside its payload, as far as folds need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// Its position in its log.
    pub position: Position,
    /// When it was recorded; never before its predecessor.
    pub recorded_at: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// From which address.
    pub source: Option<IpAddr>,
    /// Its number among the events of its stream, from 1.
    pub stream_version: u64,
}

/// What kinds of things have a stream of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// The log itself.
    Log,
    /// A user.
    User,
    /// A client.
    Client,
    /// A mapping.
    Mapping,
    /// A connection code.
    Code,
    /// An invite.
    Invite,
    /// A session.
    Session,
    /// A node.
    Node,
    /// An API key.
    Key,
}

impl Entity {
    /// All of them; the index is the number that records keep.
    pub const ALL: [Self; 9] = [
        Self::Log,
        Self::User,
        Self::Client,
        Self::Mapping,
        Self::Code,
        Self::Invite,
        Self::Session,
        Self::Node,
        Self::Key,
    ];

    /// The name in the text of a stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::User => UserId::PREFIX,
            Self::Client => ClientId::PREFIX,
            Self::Mapping => MappingId::PREFIX,
            Self::Code => CodeId::PREFIX,
            Self::Invite => InviteId::PREFIX,
            Self::Session => SessionId::PREFIX,
            Self::Node => NodeId::PREFIX,
            Self::Key => KeyId::PREFIX,
        }
    }

    /// The number that records keep.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Entity::number`].
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// All events of one entity. Text: `mapping/mapping_01…`; the log's own stream is `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// What it is.
    pub entity: Entity,
    /// Which one. Zero for the log's own stream: there is one in each log.
    pub id: [u8; 16],
}

impl StreamId {
    /// The stream of what concerns the log as a whole, or nothing that has an id.
    pub const LOG: Self = Self { entity: Entity::Log, id: [0; 16] };
}

macro_rules! streams {
    ($($id:ident => $entity:ident),* $(,)?) => {
        $(impl From<$id> for StreamId {
            fn from(id: $id) -> Self {
                Self { entity: Entity::$entity, id: *id.as_bytes() }
            }
        })*

        impl fmt::Display for StreamId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.entity {
                    Entity::Log => f.write_str("log"),
                    $(Entity::$entity => {
                        write!(f, "{}/{}", self.entity.as_str(), $id::from_bytes(self.id))
                    })*
                }
            }
        }

        impl FromStr for StreamId {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                match text.split_once('/') {
                    None if text == "log" => Ok(Self::LOG),
                    $(Some(($id::PREFIX, id)) => Ok($id::from_str(id)?.into()),)*
                    _ => Err(InvalidText::Stream),
                }
            }
        }
    };
}

streams! {
    UserId => User,
    ClientId => Client,
    MappingId => Mapping,
    CodeId => Code,
    InviteId => Invite,
    SessionId => Session,
    NodeId => Node,
    KeyId => Key,
}

text_serde!(StreamId as (u8, [u8; 16]), |stream| (stream.entity.number(), stream.id), |(entity, id)| {
    let entity = Entity::from_number(entity).ok_or(InvalidText::Stream)?;
    Ok::<_, InvalidText>(StreamId { entity, id })
}, pattern "^(log|[a-z]+/[a-z]+_[0-9a-z]{26})$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_name_their_log_and_a_bare_number_means_control() {
        let at = LogPosition { log: LogName::Activity, position: Position(77) };
        assert_eq!(at.to_string(), "activity:77");
        assert_eq!("activity:77".parse(), Ok(at));
        assert_eq!("1842".parse(), Ok(LogPosition { log: LogName::Control, position: Position(1842) }));
        for wrong in ["", ":", "control:", "control:+1", "-1", "other:1", "18446744073709551616"] {
            assert!(wrong.parse::<LogPosition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn actors_come_back_from_their_text_and_their_parts() {
        let id = [9; 16];
        for actor in [
            Actor::System,
            Actor::Operator,
            Actor::Node(NodeId::from_bytes(id)),
            Actor::Client(ClientId::from_bytes(id)),
            Actor::Key(KeyId::from_bytes(id)),
        ] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
            let (kind, id) = actor.to_parts();
            assert_eq!(Actor::from_parts(kind, id), Some(actor));
        }
        assert!("client/node_00000000000000000000000000".parse::<Actor>().is_err());
        assert_eq!("anybody".parse::<Actor>(), Err(InvalidText::Actor));
        assert_eq!(Actor::from_parts(5, id), None);
    }

    #[test]
    fn streams_come_back_from_their_text_and_their_numbers() {
        for entity in Entity::ALL {
            assert_eq!(Entity::from_number(entity.number()), Some(entity));
            let id = if entity == Entity::Log { [0; 16] } else { [5; 16] };
            let stream = StreamId { entity, id };
            assert_eq!(stream.to_string().parse(), Ok(stream));
        }
        assert_eq!(
            StreamId::from(MappingId::from_bytes([0; 16])).to_string(),
            "mapping/mapping_00000000000000000000000000"
        );
        assert!("mapping/client_00000000000000000000000000".parse::<StreamId>().is_err());
    }
}
