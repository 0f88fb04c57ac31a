//! The resources of the API, a file each.

#![allow(clippy::unused_async, reason = "the macro for routes awaits every handler")]

pub(crate) mod backups;
pub(crate) mod clients;
pub(crate) mod codes;
pub(crate) mod difference;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod invites;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod mapping_body;
pub(crate) mod mappings;
pub(crate) mod nodes;
pub(crate) mod sessions;
pub(crate) mod snapshots;
pub(crate) mod system;
pub(crate) mod trimming;
pub(crate) mod undo;

use poem_openapi::types::Example;
use poem_openapi::{Object, Tags};
use underpass_domain::LogPosition;

use crate::problem::Problem;

/// Groups of operations.
#[derive(Tags)]
pub(crate) enum Tag {
    /// Enrolled machines: who may listen and who may be reached.
    Clients,
    /// The lasting rules from an ingress to a target.
    Mappings,
    /// One-time codes by which one client lets another reach one target. Clients make them (`underpass share`)
    /// and redeem them (`underpass connect`), because the secret half must never reach the server; here they
    /// are listed and revoked.
    Codes,
    /// One-time strings that let a new client enrol.
    Invites,
    /// Keys to this API.
    Keys,
    /// Links of clients, open and past.
    Sessions,
    /// Running servers.
    Nodes,
    /// What happened: the event logs, replay and verification.
    Events,
    /// The server itself.
    System,
}

/// What a command has done.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct Done {
    /// The position at which the outcome can be read (`?at=`).
    pub position: String,
    /// `false`: it was so already, and nothing was written.
    pub changed: bool,
}

impl Example for Done {
    fn example() -> Self {
        Self { position: "control:1842".into(), changed: true }
    }
}

/// What every executed command answers.
pub(crate) fn done<E>(committed: &underpass_eventlog::Committed<E>, at: LogPosition) -> Done {
    Done { position: at.to_string(), changed: committed.positions.is_some() && !committed.repeated }
}

/// An id in a path. One that doesn't parse names nothing.
pub(crate) fn id<I: std::str::FromStr>(code: &'static str, what: &str, text: &str) -> Result<I, Problem> {
    text.parse().map_err(|_| Problem::not_found(code, what, text))
}

/// Ids as they look, for examples.
pub(crate) mod example {
    pub(crate) const CLIENT: &str = "client_01k9yq4w3ee7tr5m0b8n2c6xvd";
    pub(crate) const LISTENER: &str = "client_01k9yq8f1rfe6bqkz4t9s7h3jm";
    pub(crate) const MAPPING: &str = "mapping_01k9yqa2v8e91s5xg3hjk4dpcz";
    pub(crate) const CODE: &str = "code_01k9yqbx6tfw4vnm82r7z0c1ek";
    pub(crate) const INVITE: &str = "invite_01k9yqd5mjekbt3a9w6h8y2svf";
    pub(crate) const KEY: &str = "key_01k9yqeng4fxcrs07d5p1m9tzb";
    pub(crate) const SESSION: &str = "session_01k9yqg7q2f3mav6ke4nb8t5xj";
    pub(crate) const NODE: &str = "node_01k9yqhs0we5rr2h7c9z3d8fgm";
    pub(crate) const AT: &str = "2026-11-23T18:04:05.123Z";
    pub(crate) const LATER: &str = "2026-11-30T18:04:05.123Z";
    pub(crate) const POSITION: &str = "control:1842";
}
