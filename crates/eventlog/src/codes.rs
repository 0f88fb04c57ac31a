//! Numbers that stand for names on disk. A number, once given, keeps its meaning for good.
//!
//! Entities and actors are numbered by `domain`; logs and subjects here.

use underpass_domain::{
    Actor, ClientId, CodeId, Entity, InviteId, KeyId, LogName, MappingId, NodeId, SessionId, StreamId,
    Subject,
};

use crate::frame::FrameError;

/// A number and 16 bytes: how a stream, an actor and a subject stand in a record.
pub(crate) type Tagged = [u8; 17];

pub(crate) const fn log_number(log: LogName) -> u8 {
    match log {
        LogName::Control => 1,
        LogName::Activity => 2,
    }
}

pub(crate) const fn log_name(number: u8) -> Option<LogName> {
    match number {
        1 => Some(LogName::Control),
        2 => Some(LogName::Activity),
        _ => None,
    }
}

pub(crate) fn from_stream(stream: StreamId) -> Tagged {
    tagged(stream.entity.number(), &stream.id)
}

pub(crate) fn to_stream(bytes: &Tagged) -> Result<StreamId, FrameError> {
    let (number, id) = untagged(bytes);
    let entity = Entity::from_number(number).ok_or(FrameError::Newer("a kind of stream"))?;
    Ok(StreamId { entity, id })
}

pub(crate) fn from_actor(actor: Actor) -> Tagged {
    let (number, id) = actor.to_parts();
    tagged(number, &id)
}

pub(crate) fn to_actor(bytes: &Tagged) -> Result<Actor, FrameError> {
    let (number, id) = untagged(bytes);
    Actor::from_parts(number, id).ok_or(FrameError::Newer("a kind of actor"))
}

/// A subject has the number of its entity; 0, the log's own, says that there is none.
pub(crate) fn from_subject(subject: Subject) -> Tagged {
    let (entity, id) = match subject {
        Subject::None => (Entity::Log, [0; 16]),
        Subject::Client(id) => (Entity::Client, *id.as_bytes()),
        Subject::Mapping(id) => (Entity::Mapping, *id.as_bytes()),
        Subject::Code(id) => (Entity::Code, *id.as_bytes()),
        Subject::Invite(id) => (Entity::Invite, *id.as_bytes()),
        Subject::Session(id) => (Entity::Session, *id.as_bytes()),
        Subject::Node(id) => (Entity::Node, *id.as_bytes()),
        Subject::Key(id) => (Entity::Key, *id.as_bytes()),
    };
    tagged(entity.number(), &id)
}

pub(crate) fn to_subject(bytes: &Tagged) -> Result<Subject, FrameError> {
    let (number, id) = untagged(bytes);
    Ok(match Entity::from_number(number) {
        Some(Entity::Log) => Subject::None,
        Some(Entity::Client) => Subject::Client(ClientId::from_bytes(id)),
        Some(Entity::Mapping) => Subject::Mapping(MappingId::from_bytes(id)),
        Some(Entity::Code) => Subject::Code(CodeId::from_bytes(id)),
        Some(Entity::Invite) => Subject::Invite(InviteId::from_bytes(id)),
        Some(Entity::Session) => Subject::Session(SessionId::from_bytes(id)),
        Some(Entity::Node) => Subject::Node(NodeId::from_bytes(id)),
        Some(Entity::Key) => Subject::Key(KeyId::from_bytes(id)),
        Some(Entity::User) | None => return Err(FrameError::Newer("a kind of subject")),
    })
}

fn tagged(number: u8, id: &[u8; 16]) -> Tagged {
    let mut bytes = [0; 17];
    bytes[0] = number;
    bytes[1..].copy_from_slice(id);
    bytes
}

fn untagged(bytes: &Tagged) -> (u8, [u8; 16]) {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[1..]);
    (bytes[0], id)
}
