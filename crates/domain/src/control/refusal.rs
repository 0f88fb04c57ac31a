//! What can stand in the way of a command.

use std::net::SocketAddr;
use std::time::Duration;

use super::no_undo::NoUndo;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, MappingId, NodeId};
use crate::meta::{Position, StreamId};
use crate::time::Timestamp;

/// Why a command was refused. Nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The actor may not do this.
    #[error("not allowed: {what}")]
    Forbidden {
        /// What is not allowed, as a rule.
        what: &'static str,
    },
    /// No such client.
    #[error("there is no client {client}")]
    ClientUnknown {
        /// Which.
        client: ClientId,
    },
    /// The client is blocked.
    #[error("client {client} is blocked: {reason}")]
    ClientBlocked {
        /// Which.
        client: ClientId,
        /// Why it was.
        reason: String,
    },
    /// The id of a new client is in use.
    #[error("client {client} exists already")]
    ClientExists {
        /// Which.
        client: ClientId,
    },
    /// No such invite.
    #[error("there is no such invite")]
    InviteUnknown,
    /// The invite let somebody in already.
    #[error("the invite was used already")]
    InviteUsed {
        /// Which.
        invite: InviteId,
    },
    /// The invite was not used in time.
    #[error("the invite expired at {at}")]
    InviteExpired {
        /// Which.
        invite: InviteId,
        /// When.
        at: Timestamp,
    },
    /// The invite was taken back.
    #[error("the invite was revoked")]
    InviteRevoked {
        /// Which.
        invite: InviteId,
    },
    /// The server enrols nobody without an invite.
    #[error("an invite is needed to enrol")]
    InviteRequired,
    /// The id or secret of a new invite is in use.
    #[error("invite {invite} exists already")]
    InviteExists {
        /// Which.
        invite: InviteId,
    },
    /// No such mapping.
    #[error("there is no mapping {mapping}")]
    MappingUnknown {
        /// Which.
        mapping: MappingId,
    },
    /// The id of a new mapping is in use.
    #[error("mapping {mapping} exists already")]
    MappingExists {
        /// Which.
        mapping: MappingId,
    },
    /// The mapping's time has run out.
    #[error("mapping {mapping} has expired")]
    MappingExpired {
        /// Which.
        mapping: MappingId,
    },
    /// The mapping is switched off.
    #[error("mapping {mapping} is disabled")]
    MappingDisabled {
        /// Which.
        mapping: MappingId,
    },
    /// Another mapping of the target client has this name.
    #[error("the name {name} is taken by {mapping}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        mapping: MappingId,
    },
    /// Another mapping has this public port.
    #[error("port {port} is taken by another mapping")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The server does not give this port.
    #[error("port {port} is not among the ports {first} to {last} that the server gives")]
    PortOutOfRange {
        /// The port.
        port: u16,
        /// The first that it gives.
        first: u16,
        /// The last that it gives.
        last: u16,
    },
    /// All ports are taken.
    #[error("all ports from {first} to {last} are taken")]
    NoPortFree {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The client listens there for another mapping.
    #[error("{listen} is taken by {mapping} of the same client")]
    ListenTaken {
        /// Where.
        listen: SocketAddr,
        /// Who has it.
        mapping: MappingId,
    },
    /// No such code, or a wrong proof: who guesses is not told which.
    #[error("there is no such code")]
    CodeUnknown,
    /// Another client redeemed it, or its mapping is gone.
    #[error("the code was used already")]
    CodeUsed {
        /// Which.
        code: CodeId,
    },
    /// The code was not redeemed in time.
    #[error("the code expired at {at}")]
    CodeExpired {
        /// Which.
        code: CodeId,
        /// When.
        at: Timestamp,
    },
    /// The code was taken back.
    #[error("the code was revoked")]
    CodeRevoked {
        /// Which.
        code: CodeId,
    },
    /// The id or lookup part of a new code is in use.
    #[error("a code with this id or lookup part exists already")]
    CodeExists,
    /// No such key.
    #[error("there is no key {key}")]
    KeyUnknown {
        /// Which.
        key: KeyId,
    },
    /// The id or token of a new key is in use.
    #[error("key {key} exists already")]
    KeyExists {
        /// Which.
        key: KeyId,
    },
    /// No such node.
    #[error("there is no node {node}")]
    NodeUnknown {
        /// Which.
        node: NodeId,
    },
    /// Something was declared expired before its time.
    #[error("its time has not run out")]
    NotDue,
    /// It has changed since whoever asks has looked.
    #[error("{of} is at version {current} by now")]
    VersionMismatch {
        /// What.
        of: StreamId,
        /// Its version.
        current: u64,
    },
    /// The log was trimmed as far already.
    #[error("that the log was trimmed up to {until} can't be noted: it was up to {trimmed}")]
    TrimNoted {
        /// The last position that should have gone now.
        until: Position,
        /// The last one that went.
        trimmed: Position,
    },
    /// A command of the past can't be undone.
    #[error(transparent)]
    NoUndo(#[from] NoUndo),
    /// A limit is reached.
    #[error("{used} of {limit} {} are in use", quota.noun())]
    Quota {
        /// Which.
        quota: Quota,
        /// How many there may be.
        limit: u64,
        /// How many there are.
        used: u64,
    },
    /// A value is not one that can be had.
    #[error("{field}: {rule}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it must be like.
        rule: String,
    },
}

/// What is counted and limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quota {
    /// Clients of the installation.
    Clients,
    /// Mappings in which a client takes part.
    Mappings,
    /// Open codes of a client.
    Codes,
    /// Open invites.
    Invites,
    /// Good keys.
    Keys,
}

impl Quota {
    fn noun(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Mappings => "mappings of the client",
            Self::Codes => "open codes of the client",
            Self::Invites => "open invites",
            Self::Keys => "API keys",
        }
    }
}

/// What a refusal means for who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalClass {
    /// It is not there. 404.
    NotFound,
    /// It can't be as things are; they may change. 409.
    Conflict,
    /// It is not as whoever asks has seen it. 412.
    Stale,
    /// The actor may not. 403.
    Forbidden,
    /// A limit is reached. 403.
    Quota,
    /// A value can't be had. 422.
    Invalid {
        /// Which value.
        field: &'static str,
    },
}

impl Refusal {
    /// The stable code, for programs. Each has a page in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::ClientUnknown { .. } => "client.unknown",
            Self::ClientBlocked { .. } => "client.blocked",
            Self::ClientExists { .. } => "client.exists",
            Self::InviteUnknown => "invite.unknown",
            Self::InviteUsed { .. } => "invite.used",
            Self::InviteExpired { .. } => "invite.expired",
            Self::InviteRevoked { .. } => "invite.revoked",
            Self::InviteRequired => "invite.required",
            Self::InviteExists { .. } => "invite.exists",
            Self::MappingUnknown { .. } => "mapping.not_found",
            Self::MappingExists { .. } => "mapping.exists",
            Self::MappingExpired { .. } => "mapping.expired",
            Self::MappingDisabled { .. } => "mapping.disabled",
            Self::NameTaken { .. } => "name.taken",
            Self::PortTaken { .. } => "port.taken",
            Self::PortOutOfRange { .. } => "port.out_of_range",
            Self::NoPortFree { .. } => "port.none_free",
            Self::ListenTaken { .. } => "listen.taken",
            Self::CodeUnknown => "code.unknown",
            Self::CodeUsed { .. } => "code.used",
            Self::CodeExpired { .. } => "code.expired",
            Self::CodeRevoked { .. } => "code.revoked",
            Self::CodeExists => "code.exists",
            Self::KeyUnknown { .. } => "key.not_found",
            Self::KeyExists { .. } => "key.exists",
            Self::NodeUnknown { .. } => "node.not_found",
            Self::NotDue => "expiry.not_due",
            Self::VersionMismatch { .. } => "version.mismatch",
            Self::TrimNoted { .. } => "trim.noted",
            Self::NoUndo(why) => why.code(),
            Self::Quota { quota: Quota::Clients, .. } => "quota.clients",
            Self::Quota { quota: Quota::Mappings, .. } => "quota.mappings",
            Self::Quota { quota: Quota::Codes, .. } => "quota.codes",
            Self::Quota { quota: Quota::Invites, .. } => "quota.invites",
            Self::Quota { quota: Quota::Keys, .. } => "quota.keys",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// What it means for who asked.
    pub fn class(&self) -> RefusalClass {
        match self {
            Self::ClientUnknown { .. }
            | Self::InviteUnknown
            | Self::MappingUnknown { .. }
            | Self::CodeUnknown
            | Self::KeyUnknown { .. }
            | Self::NodeUnknown { .. } => RefusalClass::NotFound,
            Self::Forbidden { .. } | Self::ClientBlocked { .. } | Self::InviteRequired => {
                RefusalClass::Forbidden
            }
            Self::ClientExists { .. }
            | Self::InviteUsed { .. }
            | Self::InviteExpired { .. }
            | Self::InviteRevoked { .. }
            | Self::InviteExists { .. }
            | Self::MappingExists { .. }
            | Self::MappingExpired { .. }
            | Self::MappingDisabled { .. }
            | Self::NameTaken { .. }
            | Self::PortTaken { .. }
            | Self::NoPortFree { .. }
            | Self::ListenTaken { .. }
            | Self::CodeUsed { .. }
            | Self::CodeExpired { .. }
            | Self::CodeRevoked { .. }
            | Self::CodeExists
            | Self::KeyExists { .. }
            | Self::NotDue
            | Self::TrimNoted { .. }
            | Self::NoUndo(_) => RefusalClass::Conflict,
            Self::VersionMismatch { .. } => RefusalClass::Stale,
            Self::Quota { .. } => RefusalClass::Quota,
            Self::PortOutOfRange { .. } => RefusalClass::Invalid { field: "port" },
            Self::Invalid { field, .. } => RefusalClass::Invalid { field },
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ClientUnknown { .. } => "join the server with a fresh invite: underpass join INVITE".into(),
            Self::ClientBlocked { .. } => "ask who runs the server to unblock it".into(),
            Self::InviteUnknown
            | Self::InviteUsed { .. }
            | Self::InviteExpired { .. }
            | Self::InviteRevoked { .. }
            | Self::InviteRequired => "ask who runs the server for a fresh one: underpass invite".into(),
            Self::MappingExpired { .. } => "its name and port are free in a moment; try again".into(),
            Self::MappingDisabled { mapping } => {
                format!("enable it, or give it up: underpass rm {mapping}")
            }
            Self::NameTaken { mapping, .. } | Self::ListenTaken { mapping, .. } => {
                format!("take another one, or give that up: underpass rm {mapping}")
            }
            Self::PortTaken { .. } => "ask for another port, or for none: the server picks one".into(),
            Self::PortOutOfRange { first, last, .. } => {
                format!("ask for a port from {first} to {last}, or for none: the server picks one")
            }
            Self::NoPortFree { .. } => {
                "remove mappings that are not needed, or widen `ports` in the configuration".into()
            }
            Self::CodeUnknown => {
                "check the code for mistakes, or ask for a fresh one: underpass share".into()
            }
            Self::CodeUsed { .. } | Self::CodeExpired { .. } | Self::CodeRevoked { .. } => {
                "ask for a fresh code: underpass share".into()
            }
            Self::Quota { quota: Quota::Codes, .. } => {
                "revoke codes that are not needed, or wait until they expire".into()
            }
            Self::Quota { .. } => "remove what is not needed".into(),
            Self::NoUndo(why) => return why.hint(),
            Self::VersionMismatch { .. } => "read it again and decide anew".into(),
            Self::Forbidden { .. }
            | Self::ClientExists { .. }
            | Self::InviteExists { .. }
            | Self::MappingUnknown { .. }
            | Self::MappingExists { .. }
            | Self::CodeExists
            | Self::KeyUnknown { .. }
            | Self::KeyExists { .. }
            | Self::NodeUnknown { .. }
            | Self::NotDue
            | Self::TrimNoted { .. }
            | Self::Invalid { .. } => return None,
        })
    }

    pub(super) fn invalid(field: &'static str, rule: impl Into<String>) -> Self {
        Self::Invalid { field, rule: rule.into() }
    }

    /// A duration that must lie within limits.
    pub(super) fn out_of(field: &'static str, min: Duration, max: Duration) -> Self {
        Self::invalid(field, format!("from {} to {} seconds", min.as_secs(), max.as_secs()))
    }
}
