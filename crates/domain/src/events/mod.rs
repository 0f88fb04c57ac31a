//! What can happen, and how it is kept.
//!
//! Each kind of event has a number and a name for good, and a payload struct for each version
//! ([`v1`], [`v2`]). To change a payload:
//!
//! 1. add the struct to a module `v<n + 1>`, and `From<v<n>::…>` for it,
//! 2. in the table below, make it the payload of its row and append the one before as `older`,
//! 3. run the tests with `UPDATE_SCHEMAS=1`; they write the new schema and the new fixtures.
//!
//! Old structs, schemas and fixtures stay for good: every event ever written must read back.

mod schema;
mod sentences;
#[cfg(test)]
mod tests;
pub mod v1;
pub mod v2;

use serde::Serialize;

pub use schema::{UNCHANGEABLE, schema_files};

use crate::aggregate::DomainEvent;
use crate::codec::{self, DecodeError, EncodeError, PAYLOAD_CODEC};
use crate::meta::{LogName, StreamId};

/// One kind of event in one version of its payload.
#[derive(Clone, Copy, Debug)]
pub struct EventKind {
    /// The number on disk; for good.
    pub number: u16,
    /// The name, `mapping.created`; for good.
    pub name: &'static str,
    /// The version of the payload.
    pub version: u16,
    /// Whether this is the version that is written today.
    pub newest: bool,
    /// The log it belongs to.
    pub log: LogName,
    /// The JSON Schema of the payload in this version.
    pub schema: fn() -> serde_json::Value,
    /// A payload of this very version as JSON, without lifting it.
    pub payload_to_json: fn(&[u8]) -> Result<serde_json::Value, DecodeError>,
    /// A payload of this very version, decoded and encoded again.
    pub payload_again: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

/// Either way through the codec failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// On the way in.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// On the way out.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Defines the events of a log from a table: number, variant, name, stream, the newest version and its
/// payload, older versions and theirs (`, older 1: v1::MappingCreated`).
macro_rules! events {
    (
        $(#[$doc:meta])* $event:ident in $log:ident, registered as $kinds:ident;
        $($(#[$row_doc:meta])* $number:literal $variant:ident $name:literal $stream:tt
            $version:literal: $payload:path $(, older $old_version:literal: $old_payload:path)*;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $event {
            $($(#[$row_doc])* $variant($payload),)*
        }

        impl DomainEvent for $event {
            fn kind(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $number,)*
                }
            }

            fn version(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $version,)*
                }
            }

            fn stream(&self) -> StreamId {
                match self {
                    $(Self::$variant(payload) => stream!(payload, $stream),)*
                }
            }

            fn encode(&self) -> Result<Vec<u8>, EncodeError> {
                match self {
                    $(Self::$variant(payload) => codec::encode(payload),)*
                }
            }

            fn decode(kind: u16, version: u16, codec: u8, payload: &[u8]) -> Result<Self, DecodeError> {
                if codec != PAYLOAD_CODEC {
                    return Err(DecodeError::UnknownCodec { codec });
                }
                match (kind, version) {
                    $(
                        ($number, $version) => codec::decode(payload).map(Self::$variant),
                        $(($number, $old_version) => {
                            let old: $old_payload = codec::decode(payload)?;
                            Ok(Self::$variant(old.into()))
                        })*
                    )*
                    _ => Err(DecodeError::Unknown { kind, version }),
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn to_json(&self) -> serde_json::Value {
                match self {
                    $(Self::$variant(payload) => json(payload),)*
                }
            }

            fn sentence(&self) -> String {
                match self {
                    $(Self::$variant(payload) => sentences::Sentence::sentence(payload),)*
                }
            }
        }

        $(impl From<$payload> for $event {
            fn from(payload: $payload) -> Self {
                Self::$variant(payload)
            }
        })*

        const $kinds: &[EventKind] = &[$(
            row!($log, $number, $name, $version, true, $payload),
            $(row!($log, $number, $name, $old_version, false, $old_payload),)*
        )*];
    };
}

macro_rules! row {
    ($log:ident, $number:literal, $name:literal, $version:literal, $newest:literal, $payload:path) => {
        EventKind {
            number: $number,
            name: $name,
            version: $version,
            newest: $newest,
            log: LogName::$log,
            schema: schema::of::<$payload>,
            payload_to_json: |bytes| codec::decode::<$payload>(bytes).map(|payload| json(&payload)),
            payload_again: |bytes| Ok(codec::encode(&codec::decode::<$payload>(bytes)?)?),
        }
    };
}

macro_rules! stream {
    ($payload:ident, log) => {{
        let _ = $payload;
        StreamId::LOG
    }};
    ($payload:ident, $field:ident) => {
        $payload.$field.into()
    };
}

/// Payloads have text keys and no floats, so this can't fail; `null` would be seen by the fixtures.
fn json(payload: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(payload).unwrap_or_default()
}

events! {
    /// What can happen in the control log.
    ControlEvent in Control, registered as CONTROL_KINDS;
    /// A log began.
    1 LogCreated "log.created" log 1: v1::LogCreated;
    /// An invite was issued.
    10 InviteIssued "invite.issued" invite 1: v1::InviteIssued;
    /// An invite was used.
    11 InviteUsed "invite.used" invite 1: v1::InviteUsed;
    /// An invite was revoked.
    12 InviteRevoked "invite.revoked" invite 1: v1::InviteRevoked;
    /// An invite was not used in time.
    13 InviteExpired "invite.expired" invite 1: v1::InviteExpired;
    /// A client became known.
    20 ClientEnrolled "client.enrolled" client 1: v1::ClientEnrolled;
    /// A client got another name.
    21 ClientRenamed "client.renamed" client 1: v1::ClientRenamed;
    /// A client was blocked.
    22 ClientBlocked "client.blocked" client 1: v1::ClientBlocked;
    /// A client is no longer blocked.
    23 ClientUnblocked "client.unblocked" client 1: v1::ClientUnblocked;
    /// A client was removed.
    24 ClientRemoved "client.removed" client 1: v1::ClientRemoved;
    /// A mapping was made.
    30 MappingCreated "mapping.created" mapping 1: v1::MappingCreated;
    /// A mapping was changed.
    31 MappingChanged "mapping.changed" mapping 1: v1::MappingChanged;
    /// A disabled mapping is served again.
    32 MappingEnabled "mapping.enabled" mapping 1: v1::MappingEnabled;
    /// A mapping is no longer served.
    33 MappingDisabled "mapping.disabled" mapping 1: v1::MappingDisabled;
    /// A mapping was removed.
    34 MappingRemoved "mapping.removed" mapping 1: v1::MappingRemoved;
    /// The time of a mapping ran out.
    35 MappingExpired "mapping.expired" mapping 1: v1::MappingExpired;
    /// A removed mapping is back.
    36 MappingRestored "mapping.restored" mapping 1: v1::MappingRestored;
    /// A connection code was issued.
    40 CodeIssued "code.issued" code 1: v1::CodeIssued;
    /// A connection code was redeemed.
    41 CodeRedeemed "code.redeemed" code 1: v1::CodeRedeemed;
    /// A connection code was revoked.
    42 CodeRevoked "code.revoked" code 1: v1::CodeRevoked;
    /// A connection code was not redeemed in time.
    43 CodeExpired "code.expired" code 1: v1::CodeExpired;
    /// An API key was issued.
    50 KeyIssued "key.issued" key 1: v1::KeyIssued;
    /// An API key was revoked.
    51 KeyRevoked "key.revoked" key 1: v1::KeyRevoked;
    /// The time of an API key ran out.
    52 KeyExpired "key.expired" key 1: v1::KeyExpired;
    /// A node started.
    60 NodeStarted "node.started" node 1: v1::NodeStarted;
    /// A node stopped.
    61 NodeStopped "node.stopped" node 1: v1::NodeStopped;
    /// What lies before a position was deleted on purpose.
    70 LogTrimmed "log.trimmed" log 1: v1::LogTrimmed;
    /// What lay behind a position was damaged and was cut off.
    71 LogRepaired "log.repaired" log 1: v1::LogRepaired;
}

events! {
    /// What can happen in the activity log.
    ActivityEvent in Activity, registered as ACTIVITY_KINDS;
    /// A log began.
    1 LogCreated "log.created" log 1: v1::LogCreated;
    /// A link was established.
    100 SessionOpened "session.opened" session 2: v2::SessionOpened, older 1: v1::SessionOpened;
    /// A link ended.
    101 SessionClosed "session.closed" session 1: v1::SessionClosed;
    /// A link ended without anybody saying so.
    102 SessionExpired "session.expired" session 1: v1::SessionExpired;
    /// What passed through a mapping.
    110 UsageRecorded "usage.recorded" mapping 1: v1::UsageRecorded;
    /// Somebody failed to prove who they are.
    120 AuthFailed "auth.failed" log 1: v1::AuthFailed;
    /// A carry began.
    130 CarryStarted "carry.started" log 1: v1::CarryStarted;
    /// A session, said again.
    131 SessionCarried "session.carried" session 1: v1::SessionCarried;
    /// What passed through a mapping, said again.
    132 UsageCarried "usage.carried" mapping 1: v1::UsageCarried;
    /// A failed authentication, said again.
    133 AuthFailureCarried "auth_failure.carried" log 1: v1::AuthFailureCarried;
    /// A carry is whole.
    134 CarryFinished "carry.finished" log 1: v1::CarryFinished;
    /// What lies before a position was deleted on purpose.
    135 LogTrimmed "log.trimmed" log 1: v1::LogTrimmed;
    /// What lay behind a position was damaged and was cut off.
    140 LogRepaired "log.repaired" log 1: v1::LogRepaired;
}

/// Every kind of event in every version, by log, number and version.
pub fn registry() -> &'static [EventKind] {
    const REGISTRY: [EventKind; CONTROL_KINDS.len() + ACTIVITY_KINDS.len()] = {
        let mut all = [CONTROL_KINDS[0]; CONTROL_KINDS.len() + ACTIVITY_KINDS.len()];
        let mut index = 0_usize;
        while index < all.len() {
            all[index] = match index.checked_sub(CONTROL_KINDS.len()) {
                None => CONTROL_KINDS[index],
                Some(index) => ACTIVITY_KINDS[index],
            };
            index += 1;
        }
        all
    };
    &REGISTRY
}

/// An event of whichever log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyEvent {
    /// Of the control log.
    Control(ControlEvent),
    /// Of the activity log.
    Activity(ActivityEvent),
}

impl AnyEvent {
    /// See [`DomainEvent::name`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Control(event) => event.name(),
            Self::Activity(event) => event.name(),
        }
    }

    /// See [`DomainEvent::to_json`].
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Control(event) => event.to_json(),
            Self::Activity(event) => event.to_json(),
        }
    }

    /// See [`DomainEvent::sentence`].
    pub fn sentence(&self) -> String {
        match self {
            Self::Control(event) => event.sentence(),
            Self::Activity(event) => event.sentence(),
        }
    }
}

/// Decodes an event of a log that is known at run time only.
pub fn decode_any(
    log: LogName,
    kind: u16,
    version: u16,
    codec: u8,
    payload: &[u8],
) -> Result<AnyEvent, DecodeError> {
    match log {
        LogName::Control => ControlEvent::decode(kind, version, codec, payload).map(AnyEvent::Control),
        LogName::Activity => ActivityEvent::decode(kind, version, codec, payload).map(AnyEvent::Activity),
    }
}
