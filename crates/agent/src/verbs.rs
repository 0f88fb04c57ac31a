//! What one can ask an agent to do, whether it runs in this process or another.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use underpass_domain::{ClientId, MappingId, NodeId, Seal, Timestamp};

use crate::error::ErrorReport;
use crate::events::AgentEvent;

/// Offer a target on a public port of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expose {
    /// `PORT`, `HOST:PORT` or `[IPV6]:PORT`; without a host 127.0.0.1.
    pub target: String,
    /// The public port; the server picks one when `None`.
    #[serde(default)]
    pub port: Option<u16>,
    /// The mapping's name; derived from the target when `None`.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether the way from the server to this client is sealed.
    pub seal: Seal,
    /// Connections at once.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// A tunnel on which nothing passes for so many seconds ends.
    #[serde(default)]
    pub idle_timeout_s: Option<u32>,
}

/// What came of [`Expose`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The mapping, new or found again.
    pub mapping: MappingId,
    /// `HOST:PORT` that callers connect to.
    pub public: String,
    /// The normalised target.
    pub target: String,
    /// The mapping's name.
    pub name: String,
}

/// Let one other client reach a target, end to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// As in [`Expose::target`].
    pub target: String,
    /// How long the code can be redeemed; the server's default when `None`.
    #[serde(default)]
    pub activation: Option<Duration>,
    /// How long the access lasts after that; the server's default when `None`.
    #[serde(default)]
    pub access: Option<Duration>,
}

/// What came of [`Share`]. The code is the only copy of its secret half outside the state folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The connection code, to be handed to one person.
    pub code: String,
    /// Until when it can be redeemed.
    pub expires_at: Timestamp,
    /// The normalised target.
    pub target: String,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("expires_at", &self.expires_at)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Redeem a code and listen for callers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The connection code.
    pub code: String,
    /// Where to listen; when `None`, where it was listened before, else a free port of 127.0.0.1.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// What came of [`Connect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The mapping, new or found again.
    pub mapping: MappingId,
    /// Where this client listens.
    pub listen: SocketAddr,
    /// Always `end-to-end`: the pair met through a code.
    pub sealed: String,
}

/// One mapping, as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingInfo {
    /// Its id.
    pub mapping: MappingId,
    /// Its name.
    pub name: String,
    /// `port` or `client`.
    pub ingress: String,
    /// Where callers connect, `HOST:PORT`.
    pub entrance: String,
    /// Where tunnels lead, `HOST:PORT` as the target client sees it.
    pub target: String,
    /// The name of the client that dials the target.
    pub target_client: String,
    /// The name of the client that listens, when one does.
    pub listen_client: Option<String>,
    /// What this client is for it: `target`, `listen` or `both`.
    pub role: String,
    /// `auto`, `on` or `off`.
    pub seal: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Connections at once.
    pub max_connections: Option<u32>,
    /// `active` or `disabled`.
    pub status: String,
    /// What keeps it from being served, when something does.
    pub problem: Option<String>,
}

/// How the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Us.
    pub client: ClientId,
    /// Our name.
    pub name: String,
    /// The server's addresses.
    pub server: Vec<String>,
    /// The node at the other end, while the link stands.
    pub node: Option<NodeId>,
    /// What carries the link.
    pub transport: Option<String>,
    /// Since when it stands.
    pub connected_at: Option<Timestamp>,
    /// Why it does not stand.
    pub last_error: Option<String>,
    /// Mappings that are served here, as listener or as target.
    pub mappings: usize,
    /// Tunnels that run.
    pub tunnels: usize,
    /// Data channels that wait for work: those that bring tunnels here, those that take callers from here.
    pub parked: (usize, usize),
}

/// The verbs. An [`AgentHandle`](crate::AgentHandle) does them in this process, a
/// [`LocalClient`](crate::local::LocalClient) in the process that owns the state folder.
///
/// Every verb waits for the link, at most the agent's patience, and fails with `link.unreachable` after it.
/// Writing verbs can be repeated: they find what they made before.
#[async_trait]
pub trait Verbs: Send + Sync {
    /// Offers a target on a public port, or adopts the mapping that does so already.
    async fn expose(&self, expose: Expose) -> Result<Opened, ErrorReport>;
    /// Makes a connection code.
    async fn share(&self, share: Share) -> Result<Shared, ErrorReport>;
    /// Redeems a connection code, or adopts the mapping made of it before.
    async fn connect(&self, connect: Connect) -> Result<Connected, ErrorReport>;
    /// All mappings of this client.
    async fn list(&self) -> Result<Vec<MappingInfo>, ErrorReport>;
    /// Removes a mapping, by id or name, and takes its target off the allow list.
    async fn remove(&self, mapping: &str) -> Result<MappingId, ErrorReport>;
    /// How the agent is; never waits for the link.
    async fn status(&self) -> Result<Status, ErrorReport>;
    /// The events of one mapping, oldest first, as JSON objects of the log.
    async fn history(&self, mapping: &str) -> Result<Vec<Value>, ErrorReport>;
    /// The agent's events from now on.
    async fn events(&self) -> Result<EventStream, ErrorReport>;
}

/// Events from an agent in this process or another.
#[derive(Debug)]
pub enum EventStream {
    /// This process.
    Here(crate::events::Events),
    /// Another process.
    There(crate::local::RemoteEvents),
}

impl EventStream {
    /// The next event; `None` when that agent has ended.
    pub async fn next(&mut self) -> Option<AgentEvent> {
        match self {
            Self::Here(events) => events.next().await,
            Self::There(events) => events.next().await,
        }
    }
}
