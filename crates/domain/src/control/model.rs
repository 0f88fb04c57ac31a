//! The things that the control log is about, as they are now.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::address::{InvalidAddress, normalise_address};
use crate::events::v1;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, MappingId, NodeId, UserId};
use crate::meta::Actor;
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

/// An enrolled identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// What it calls itself. Not unique.
    pub name: String,
    /// Its X25519 key, by which it is known.
    pub public_key: PublicKey,
    /// What it says about its machine.
    pub platform: String,
    /// Whether it is let in.
    pub status: ClientStatus,
    /// Since when it is known.
    pub enrolled_at: Timestamp,
    /// The invite it came with.
    pub invite: Option<InviteId>,
    /// Events of its stream so far.
    pub version: u64,
}

impl Client {
    /// Whether it is not blocked.
    pub fn is_active(&self) -> bool {
        self.status == ClientStatus::Active
    }
}

/// Whether a client is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientStatus {
    /// It is.
    Active,
    /// It is not.
    Blocked {
        /// Why.
        reason: String,
    },
}

/// The lasting rule from an ingress to a target. Removed and expired ones are gone from the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Its id.
    pub id: MappingId,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// Unique among the mappings of the target client.
    pub name: String,
    /// Where traffic enters.
    pub ingress: Ingress,
    /// Where it goes.
    pub target: Target,
    /// How.
    pub options: MappingOptions,
    /// Whether it is switched on.
    pub status: MappingStatus,
    /// The connection code it came from.
    pub code: Option<CodeId>,
    /// Since when it exists.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Actor,
    /// Events of its stream so far.
    pub version: u64,
}

impl Mapping {
    /// The client that listens, for a client ingress.
    pub fn listener(&self) -> Option<ClientId> {
        match self.ingress {
            Ingress::Client { client, .. } => Some(client),
            Ingress::Port { .. } => None,
        }
    }

    /// The public port, for a port ingress.
    pub fn port(&self) -> Option<u16> {
        match self.ingress {
            Ingress::Port { port } => Some(port),
            Ingress::Client { .. } => None,
        }
    }

    /// Whether the client listens for it or dials its target.
    pub fn involves(&self, client: ClientId) -> bool {
        self.target.client == client || self.listener() == Some(client)
    }

    /// Whether its time has run out.
    pub fn is_past(&self, now: Timestamp) -> bool {
        self.options.expires_at.is_some_and(|end| end <= now)
    }
}

/// Where a mapping's traffic enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ingress {
    /// A local TCP port of a client.
    Client {
        /// The listen client.
        client: ClientId,
        /// Where it listens. Port 0: the client takes any.
        listen: SocketAddr,
    },
    /// A public TCP port of the server.
    Port {
        /// The port.
        port: u16,
    },
}

/// Where a mapping's traffic goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The client that dials.
    pub client: ClientId,
    /// What it dials: `host:port`.
    pub address: String,
}

impl Target {
    /// With the address in its one form; see [`normalise_address`].
    pub fn parse(client: ClientId, address: &str) -> Result<Self, InvalidAddress> {
        Ok(Self { client, address: normalise_address(address)? })
    }
}

/// Whether a mapping is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappingStatus {
    /// On.
    Active,
    /// Off. It keeps its name and port.
    Disabled,
}

/// Whether tunnels are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seal {
    /// As the program thinks best, which is sealed.
    #[default]
    Auto,
    /// Sealed, or no tunnel.
    On,
    /// Not sealed.
    Off,
}

impl Seal {
    /// Whether tunnels are to be sealed.
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

/// How a mapping is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingOptions {
    /// Whether tunnels are sealed.
    pub seal: Seal,
    /// Connections at a time. `None`: as many as the server allows.
    pub max_connections: Option<u32>,
    /// Seconds without a byte after which a tunnel ends. `None`: as the server has it.
    pub idle_timeout_s: Option<u32>,
    /// When the mapping ends. `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// A change of [`MappingOptions`], made to what they are when it is decided: two changes of two options can't
/// undo each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptionsChange {
    /// Whether tunnels are sealed. `None`: as it is.
    pub seal: Option<Seal>,
    /// Connections at a time. `None`: as it is; `Some(None)`: as many as the server allows.
    pub max_connections: Option<Option<u32>>,
    /// Seconds without a byte. `None`: as it is; `Some(None)`: as the server has it.
    pub idle_timeout_s: Option<Option<u32>>,
    /// When the mapping ends. `None`: as it is; `Some(None)`: never.
    pub expires_at: Option<Option<Timestamp>>,
}

impl OptionsChange {
    /// The options after the change.
    pub fn of(&self, old: &MappingOptions) -> MappingOptions {
        MappingOptions {
            seal: self.seal.unwrap_or(old.seal),
            max_connections: self.max_connections.unwrap_or(old.max_connections),
            idle_timeout_s: self.idle_timeout_s.unwrap_or(old.idle_timeout_s),
            expires_at: self.expires_at.unwrap_or(old.expires_at),
        }
    }
}

/// A connection code: one client offers one target to whoever redeems it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Its id.
    pub id: CodeId,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// The client that offers the target.
    pub client: ClientId,
    /// The part it is looked up by.
    pub lookup: String,
    /// The hash of what proves its secret part.
    pub redeem_hash: Digest32,
    /// What the client dials, `host:port`.
    pub target: String,
    /// Until when it can be redeemed.
    pub activate_until: Timestamp,
    /// Seconds of access, from the redemption on.
    pub access_s: u64,
    /// Options of the mapping it becomes.
    pub options: MappingOptions,
    /// What became of it.
    pub status: CodeStatus,
    /// Since when it exists.
    pub issued_at: Timestamp,
    /// Events of its stream so far.
    pub version: u64,
}

impl Code {
    /// What became of it, with the passing of time taken into account.
    pub fn status_at(&self, now: Timestamp) -> CodeStatus {
        match self.status {
            CodeStatus::Open if self.activate_until <= now => CodeStatus::Expired,
            status => status,
        }
    }
}

/// What became of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodeStatus {
    /// It can be redeemed.
    Open,
    /// It was.
    Redeemed {
        /// By whom.
        by: ClientId,
        /// The mapping it became.
        mapping: MappingId,
    },
    /// It was taken back.
    Revoked,
    /// It was not redeemed in time.
    Expired,
}

/// An invite: allows one enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Its id.
    pub id: InviteId,
    /// The hash of its secret.
    pub secret_hash: Digest32,
    /// Until when it can be used.
    pub expires_at: Timestamp,
    /// What it is for.
    pub label: Option<String>,
    /// What became of it.
    pub status: InviteStatus,
    /// Since when it exists.
    pub issued_at: Timestamp,
    /// Who issued it.
    pub issued_by: Actor,
    /// Events of its stream so far.
    pub version: u64,
}

impl Invite {
    /// What became of it, with the passing of time taken into account.
    pub fn status_at(&self, now: Timestamp) -> InviteStatus {
        match self.status {
            InviteStatus::Open if self.expires_at <= now => InviteStatus::Expired,
            status => status,
        }
    }
}

/// What became of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InviteStatus {
    /// It can be used.
    Open,
    /// It was.
    Used {
        /// By the client it let in.
        by: ClientId,
    },
    /// It was taken back.
    Revoked,
    /// It was not used in time.
    Expired,
}

/// A key to the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// The hash of its token.
    pub hash: Digest32,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What it is for.
    pub label: Option<String>,
    /// Until when it is good. `None`: until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// Whether it was taken back.
    pub revoked: bool,
    /// Whether its time ran out and that was noted.
    pub expired: bool,
    /// Since when it exists.
    pub issued_at: Timestamp,
    /// Events of its stream so far.
    pub version: u64,
}

impl ApiKey {
    /// Whether it opens anything.
    pub fn is_good(&self, now: Timestamp) -> bool {
        !self.revoked && !self.expired && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Scope {
    /// Everything.
    Admin,
    /// Read everything but the audit trail.
    Read,
    /// Read the audit trail.
    Audit,
    /// Read metrics.
    Metrics,
    /// Everything about one user's own things.
    User(UserId),
}

/// A running server, or one that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version_text: String,
    /// When it last started.
    pub started_at: Timestamp,
    /// When it stopped; `None` while it runs, or when it never said so.
    pub stopped_at: Option<Timestamp>,
}

impl From<&v1::Ingress> for Ingress {
    fn from(ingress: &v1::Ingress) -> Self {
        match *ingress {
            v1::Ingress::Client { client, listen } => Self::Client { client, listen },
            v1::Ingress::Port { port } => Self::Port { port },
        }
    }
}

impl From<&Ingress> for v1::Ingress {
    fn from(ingress: &Ingress) -> Self {
        match *ingress {
            Ingress::Client { client, listen } => Self::Client { client, listen },
            Ingress::Port { port } => Self::Port { port },
        }
    }
}

impl From<&v1::Options> for MappingOptions {
    fn from(options: &v1::Options) -> Self {
        let seal = match options.seal {
            v1::Seal::Auto => Seal::Auto,
            v1::Seal::On => Seal::On,
            v1::Seal::Off => Seal::Off,
        };
        let v1::Options { seal: _, max_connections, idle_timeout_s, expires_at } = *options;
        Self { seal, max_connections, idle_timeout_s, expires_at }
    }
}

impl From<&MappingOptions> for v1::Options {
    fn from(options: &MappingOptions) -> Self {
        let seal = match options.seal {
            Seal::Auto => v1::Seal::Auto,
            Seal::On => v1::Seal::On,
            Seal::Off => v1::Seal::Off,
        };
        let MappingOptions { seal: _, max_connections, idle_timeout_s, expires_at } = *options;
        Self { seal, max_connections, idle_timeout_s, expires_at }
    }
}

impl From<v1::Actor> for Actor {
    fn from(actor: v1::Actor) -> Self {
        match actor {
            v1::Actor::System => Self::System,
            v1::Actor::Operator => Self::Operator,
            v1::Actor::Node(node) => Self::Node(node),
            v1::Actor::Client(client) => Self::Client(client),
            v1::Actor::Key(key) => Self::Key(key),
        }
    }
}

impl From<Actor> for v1::Actor {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::System => Self::System,
            Actor::Operator => Self::Operator,
            Actor::Node(node) => Self::Node(node),
            Actor::Client(client) => Self::Client(client),
            Actor::Key(key) => Self::Key(key),
        }
    }
}

impl From<v1::Scope> for Scope {
    fn from(scope: v1::Scope) -> Self {
        match scope {
            v1::Scope::Admin => Self::Admin,
            v1::Scope::Read => Self::Read,
            v1::Scope::Audit => Self::Audit,
            v1::Scope::Metrics => Self::Metrics,
            v1::Scope::User(user) => Self::User(user),
        }
    }
}

impl From<Scope> for v1::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Admin => Self::Admin,
            Scope::Read => Self::Read,
            Scope::Audit => Self::Audit,
            Scope::Metrics => Self::Metrics,
            Scope::User(user) => Self::User(user),
        }
    }
}
