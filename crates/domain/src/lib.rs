//! Ids, commands, events, decisions and read models: no I/O, no clock, no randomness.
//!
//! Everything that must be true of an installation is decided here, by pure functions over a fold of
//! the log. A [`ControlState`] (or [`ActivityState`]) is what the events so far amount to; a command
//! is judged against it by [`Aggregate::decide`] and becomes events or a refusal; events change it by
//! [`Aggregate::evolve`], which can't fail. Since commands are decided one after another at the head
//! of the log, a rule over many entities ("a port is used once") holds by construction.
//!
//! Time and randomness are arguments ([`Meta::now`], ids inside commands). The traits [`Clock`] and
//! [`Random`] are how the layers above get them.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound of the domain, with its reason |
//! | [`events`] | payloads by version, the registry of kinds, their schemas |
//! | [`reasons`] | why a mapping does not answer, a client is not linked, a secret is no good |
//! | [`codec`] | the one place that knows how payloads and snapshots become bytes |

mod activity;
mod address;
mod aggregate;
pub mod codec;
mod control;
pub mod events;
mod ids;
pub mod limits;
mod maps;
mod meta;
mod names;
mod random;
pub mod reasons;
#[cfg(any(test, feature = "testkit"))]
pub mod testing;
mod text;
mod time;

pub use activity::{
    ActivityCommand, ActivityRefusal, ActivityState, AuthFailure, FinishedCarry, RunningCarry, Session, Usage,
};
pub use address::{InvalidAddress, normalise_address};
pub use aggregate::{Aggregate, Decision, DomainEvent, Subject};
pub use codec::{DecodeError, EncodeError, PAYLOAD_CODEC};
pub use control::{
    ApiKey, Change, ChangeKind, Client, ClientStatus, Code, CodeStatus, ControlCommand, ControlState,
    Difference, FieldChange, Ingress, IngressRequest, Invite, InviteStatus, Mapping, MappingOptions,
    MappingStatus, NoUndo, Node, OptionsChange, Past, Quota, Refusal, RefusalClass, Scope, Seal, Target,
    Touched,
};
pub use events::{ActivityEvent, AnyEvent, ControlEvent, EventKind, decode_any, registry};
pub use ids::{
    ClientId, CodeId, CommandId, InvalidId, InviteId, KeyId, LogId, MappingId, NodeId, SessionId, UserId,
};
pub use meta::{Actor, Entity, EventMeta, InvalidText, LogName, LogPosition, Meta, Position, StreamId};
pub use names::{InvalidName, check_name};
pub use random::{Random, RandomFailed};
pub use text::{Digest32, InvalidBytes, PublicKey};
pub use time::{Clock, InvalidTimestamp, Timestamp};
