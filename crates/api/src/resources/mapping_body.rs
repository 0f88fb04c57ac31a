//! Mappings as the API shows and takes them.

use std::net::SocketAddr;

use poem_openapi::types::{Example, MaybeUndefined};
use poem_openapi::{Enum, Object};
use underpass_control::NewMapping;
use underpass_domain::{
    ClientId, ControlState, Ingress, IngressRequest, Mapping, MappingOptions, MappingStatus, OptionsChange,
    Seal, Target, Timestamp, Usage,
};

use super::example;
use crate::live::{LiveEnd, LiveServing};
use crate::problem::Problem;

/// Whether tunnels are sealed between the node and the client, or between the clients.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "Seal")]
pub(crate) enum SealBody {
    /// As the program thinks best, which is sealed.
    Auto,
    /// Sealed, or no tunnel.
    On,
    /// Not sealed.
    Off,
}

impl From<SealBody> for Seal {
    fn from(seal: SealBody) -> Self {
        match seal {
            SealBody::Auto => Self::Auto,
            SealBody::On => Self::On,
            SealBody::Off => Self::Off,
        }
    }
}

impl From<Seal> for SealBody {
    fn from(seal: Seal) -> Self {
        match seal {
            Seal::Auto => Self::Auto,
            Seal::On => Self::On,
            Seal::Off => Self::Off,
        }
    }
}

/// Where traffic enters.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(crate) enum IngressKind {
    /// A public TCP port of the server.
    Port,
    /// A local TCP port of a client.
    Client,
}

/// Whether a mapping is switched on.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "MappingStatus")]
pub(crate) enum StatusBody {
    /// On.
    Active,
    /// Off. It keeps its name and port.
    Disabled,
}

/// How one end of a mapping is doing.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(crate) enum ServingBody {
    /// It listens.
    Listening,
    /// The target is dialled when asked.
    Offered,
    /// Another program has the port; it is tried again.
    PortInUse,
    /// The client's own rules forbid the target.
    Denied,
    /// Something else is wrong.
    Failed,
}

/// What a node or client says of its end of a mapping.
#[derive(Object, Clone, Debug)]
#[oai(rename = "MappingEnd", example, skip_serializing_if_is_none)]
pub(crate) struct EndBody {
    /// The client; absent for the public port of this node.
    client: Option<String>,
    /// How it is doing there.
    state: ServingBody,
    /// Where it listens, or what is wrong.
    detail: Option<String>,
}

impl Example for EndBody {
    fn example() -> Self {
        Self { client: None, state: ServingBody::Listening, detail: Some("0.0.0.0:20017".into()) }
    }
}

impl From<LiveEnd> for EndBody {
    fn from(end: LiveEnd) -> Self {
        let state = match end.state {
            LiveServing::Listening => ServingBody::Listening,
            LiveServing::Offered => ServingBody::Offered,
            LiveServing::PortInUse => ServingBody::PortInUse,
            LiveServing::Denied => ServingBody::Denied,
            LiveServing::Failed => ServingBody::Failed,
        };
        Self { client: end.client.map(|id| id.to_string()), state, detail: end.detail }
    }
}

/// What passed through a mapping so far, on all nodes.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Usage", example, skip_serializing_if_is_none)]
pub(crate) struct UsageBody {
    /// Bytes from callers to the target.
    bytes_in: u64,
    /// Bytes from the target to callers.
    bytes_out: u64,
    /// Tunnels that ended.
    tunnels: u64,
    /// Callers that were refused.
    refused: u64,
    /// When something was counted last.
    last_at: Option<String>,
}

impl Example for UsageBody {
    fn example() -> Self {
        Self {
            bytes_in: 5_120,
            bytes_out: 1_048_576,
            tunnels: 12,
            refused: 0,
            last_at: Some(example::AT.into()),
        }
    }
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            tunnels: usage.tunnels,
            refused: usage.refused,
            last_at: Some(usage.last_at).filter(|at| *at > Timestamp(0)).map(|at| at.to_string()),
        }
    }
}

/// What is going on with a mapping just now, as far as this node knows.
#[derive(Object, Clone, Debug)]
#[oai(rename = "MappingLive", example)]
pub(crate) struct LiveBody {
    /// What the node and the clients say of it.
    pub(super) ends: Vec<EndBody>,
    /// Tunnels that run through this node.
    pub(super) tunnels: u64,
}

impl Example for LiveBody {
    fn example() -> Self {
        Self { ends: vec![EndBody::example()], tunnels: 3 }
    }
}

/// The lasting rule from an ingress to a target.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Mapping", example, skip_serializing_if_is_none)]
pub(crate) struct MappingBody {
    /// Its id.
    id: String,
    /// The user it belongs to, if any.
    owner: Option<String>,
    /// Unique among the mappings of the target client.
    name: String,
    /// Where traffic enters.
    ingress: IngressKind,
    /// The public port, for the ingress `port`.
    port: Option<u16>,
    /// The client that listens, for the ingress `client`.
    listen_client: Option<String>,
    /// Where it listens, for the ingress `client`.
    listen: Option<String>,
    /// The client that dials the target.
    target_client: String,
    /// What it dials, `host:port`.
    target: String,
    /// Whether tunnels are sealed.
    seal: SealBody,
    /// Connections at a time; absent: as many as the server allows.
    max_connections: Option<u32>,
    /// Seconds without a byte after which a tunnel ends; absent: as the server has it.
    idle_timeout_s: Option<u32>,
    /// When the mapping ends; absent: never.
    expires_at: Option<String>,
    /// Whether it is switched on.
    status: StatusBody,
    /// Whether tunnels may be opened through it: it is on, not past its time, and nobody in it is blocked.
    serves: bool,
    /// The connection code it came from.
    code: Option<String>,
    /// Since when it exists.
    created_at: String,
    /// Who made it.
    created_by: String,
    /// What passed through it so far; only when one mapping is shown.
    pub(super) usage: Option<UsageBody>,
    /// What is going on just now; only when one mapping is shown by a node that serves.
    pub(super) live: Option<LiveBody>,
    /// Changes with each change.
    pub(super) version: u64,
}

impl Example for MappingBody {
    fn example() -> Self {
        Self {
            id: example::MAPPING.into(),
            owner: None,
            name: "web".into(),
            ingress: IngressKind::Port,
            port: Some(20_017),
            listen_client: None,
            listen: None,
            target_client: example::CLIENT.into(),
            target: "127.0.0.1:3000".into(),
            seal: SealBody::Auto,
            max_connections: Some(100),
            idle_timeout_s: None,
            expires_at: None,
            status: StatusBody::Active,
            serves: true,
            code: None,
            created_at: example::AT.into(),
            created_by: format!("client/{}", example::CLIENT),
            usage: Some(UsageBody::example()),
            live: Some(LiveBody::example()),
            version: 1,
        }
    }
}

impl MappingBody {
    pub(super) fn new(state: &ControlState, mapping: &Mapping, now: Timestamp) -> Self {
        let (ingress, port, listen_client, listen) = match mapping.ingress {
            Ingress::Client { client, listen } => {
                (IngressKind::Client, None, Some(client.to_string()), Some(listen.to_string()))
            }
            _ => (IngressKind::Port, mapping.port(), None, None),
        };
        let status = match mapping.status {
            MappingStatus::Active => StatusBody::Active,
            MappingStatus::Disabled => StatusBody::Disabled,
        };
        Self {
            id: mapping.id.to_string(),
            owner: mapping.owner.map(|id| id.to_string()),
            name: mapping.name.clone(),
            ingress,
            port,
            listen_client,
            listen,
            target_client: mapping.target.client.to_string(),
            target: mapping.target.address.clone(),
            seal: mapping.options.seal.into(),
            max_connections: mapping.options.max_connections,
            idle_timeout_s: mapping.options.idle_timeout_s,
            expires_at: mapping.options.expires_at.map(|at| at.to_string()),
            status,
            serves: state.serves(mapping, now),
            code: mapping.code.map(|id| id.to_string()),
            created_at: mapping.created_at.to_string(),
            created_by: mapping.created_by.to_string(),
            usage: None,
            live: None,
            version: mapping.version,
        }
    }
}

/// A page of mappings.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct MappingPage {
    /// The position that is shown.
    pub(super) position: String,
    /// In the order of ids.
    pub(super) items: Vec<MappingBody>,
    /// What to send as `after` for the next page.
    pub(super) next: Option<String>,
}

impl Example for MappingPage {
    fn example() -> Self {
        let item = MappingBody { usage: None, live: None, ..MappingBody::example() };
        Self { position: example::POSITION.into(), items: vec![item], next: None }
    }
}

/// A mapping to make.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example, skip_serializing_if_is_none)]
pub(crate) struct CreateMapping {
    /// 1 to 63 letters, digits, `-`, `_` and `.`. Absent: `port-` and the port of the target.
    name: Option<String>,
    /// Where traffic enters.
    ingress: IngressKind,
    /// The public port, for the ingress `port`. Absent: the server picks one.
    port: Option<u16>,
    /// The client that listens, for the ingress `client`.
    listen_client: Option<String>,
    /// Where it listens, `ip:port`, for the ingress `client`. Port 0: any.
    listen: Option<String>,
    /// The client that dials the target.
    target_client: String,
    /// What it dials: `host:port`, or a port of its own machine.
    target: String,
    /// Whether tunnels are sealed. Absent: `auto`.
    seal: Option<SealBody>,
    /// Connections at a time. Absent: as many as the server allows.
    max_connections: Option<u32>,
    /// Seconds without a byte after which a tunnel ends. Absent: as the server has it.
    idle_timeout_s: Option<u32>,
    /// When the mapping ends, RFC 3339. Absent: never.
    expires_at: Option<String>,
    /// Take the mapping of the same client, kind and name (or target) if there is one, instead of making
    /// another. Absent: no.
    adopt: Option<bool>,
}

impl Example for CreateMapping {
    fn example() -> Self {
        Self {
            name: Some("web".into()),
            ingress: IngressKind::Port,
            port: Some(20_017),
            listen_client: None,
            listen: None,
            target_client: example::CLIENT.into(),
            target: "127.0.0.1:3000".into(),
            seal: Some(SealBody::Auto),
            max_connections: Some(100),
            idle_timeout_s: None,
            expires_at: None,
            adopt: None,
        }
    }
}

impl CreateMapping {
    pub(super) fn into_new(self) -> Result<NewMapping, Problem> {
        let client = parse::<ClientId>("target_client", &self.target_client)?;
        let target = Target::parse(client, &self.target)
            .map_err(|error| Problem::invalid("target", error.to_string()))?;
        let ingress = match (self.ingress, self.port, self.listen_client, self.listen) {
            (IngressKind::Port, port, None, None) => IngressRequest::Port { port },
            (IngressKind::Port, _, Some(_), _) => {
                return Err(Problem::invalid(
                    "listen_client",
                    "only the ingress `client` has a listening client",
                ));
            }
            (IngressKind::Port, _, _, Some(_)) => {
                return Err(Problem::invalid("listen", "only the ingress `client` listens on a client"));
            }
            (IngressKind::Client, None, Some(client), Some(listen)) => IngressRequest::Client {
                client: parse("listen_client", &client)?,
                listen: parse::<SocketAddr>("listen", &listen)?,
            },
            (IngressKind::Client, Some(_), _, _) => {
                return Err(Problem::invalid("port", "only the ingress `port` has a public port"));
            }
            (IngressKind::Client, _, None, _) => {
                return Err(Problem::invalid(
                    "listen_client",
                    "the ingress `client` needs a listening client",
                ));
            }
            (IngressKind::Client, _, _, None) => {
                return Err(Problem::invalid("listen", "the ingress `client` needs an address to listen on"));
            }
        };
        let expires_at = self.expires_at.map(|text| parse::<Timestamp>("expires_at", &text)).transpose()?;
        let options = MappingOptions {
            seal: self.seal.map_or(Seal::Auto, Seal::from),
            max_connections: self.max_connections,
            idle_timeout_s: self.idle_timeout_s,
            expires_at,
        };
        let adopt = self.adopt.unwrap_or(false);
        Ok(NewMapping { owner: None, name: self.name, ingress, target, options, adopt })
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::invalid(field, format!("{field}: {error}")))
}

/// What to change of a mapping. What is absent stays as it is; `null` takes an option away.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example)]
pub(crate) struct ChangeMapping {
    /// Another name.
    #[oai(skip_serializing_if_is_none)]
    pub(super) name: Option<String>,
    /// Another target of the same client.
    #[oai(skip_serializing_if_is_none)]
    pub(super) target: Option<String>,
    /// Whether tunnels are sealed.
    #[oai(skip_serializing_if_is_none)]
    seal: Option<SealBody>,
    /// Connections at a time; `null`: as many as the server allows.
    max_connections: MaybeUndefined<u32>,
    /// Seconds without a byte after which a tunnel ends; `null`: as the server has it.
    idle_timeout_s: MaybeUndefined<u32>,
    /// When the mapping ends, RFC 3339; `null`: never.
    expires_at: MaybeUndefined<String>,
}

impl Example for ChangeMapping {
    fn example() -> Self {
        Self {
            name: None,
            target: Some("127.0.0.1:3001".into()),
            seal: None,
            max_connections: MaybeUndefined::Value(20),
            idle_timeout_s: MaybeUndefined::Undefined,
            expires_at: MaybeUndefined::Null,
        }
    }
}

impl ChangeMapping {
    pub(super) fn options(&self) -> Result<OptionsChange, Problem> {
        let expires_at = match &self.expires_at {
            MaybeUndefined::Undefined => None,
            MaybeUndefined::Null => Some(None),
            MaybeUndefined::Value(text) => Some(Some(parse::<Timestamp>("expires_at", text)?)),
        };
        Ok(OptionsChange {
            seal: self.seal.map(Seal::from),
            max_connections: changed(&self.max_connections),
            idle_timeout_s: changed(&self.idle_timeout_s),
            expires_at,
        })
    }
}

/// What is absent stays; `null` takes it away.
#[expect(clippy::option_option, reason = "absent, `null` and a value are three things")]
fn changed<T: Copy>(field: &MaybeUndefined<T>) -> Option<Option<T>> {
    match field {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(*value)),
    }
}
