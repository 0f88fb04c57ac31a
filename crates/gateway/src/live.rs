//! What is going on right now, for people to look at. Nothing here is in the log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::PoisonError;

use serde::Serialize;
use underpass_domain::{ClientId, MappingId, Position, SessionId, Timestamp};
use underpass_wire::link::{Applied, ResultStatus};

use crate::gateway::Shared;
use crate::tunnels::Tunnel;

/// Links, tunnels and listeners of a node, at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Live {
    /// The clients that are connected, in the order of their ids.
    pub links: Vec<LinkInfo>,
    /// What clients said of mappings they should serve.
    pub applied: Vec<AppliedInfo>,
    /// The tunnels that run or are being opened, oldest first.
    pub tunnels: Vec<TunnelInfo>,
    /// How the public port of each mapping is doing.
    pub listeners: BTreeMap<MappingId, ListenerState>,
    /// Channels that have proved nothing yet.
    pub unauthenticated: usize,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkInfo {
    /// Whose it is.
    pub client: ClientId,
    /// The session it is the life of.
    pub session: SessionId,
    /// Where the client comes from.
    pub address: SocketAddr,
    /// By which transport.
    pub transport: String,
    /// Since when.
    pub since: Timestamp,
    /// Target channels that lie parked here.
    pub parked: usize,
    /// Caller channels, busy ones included.
    pub caller_channels: usize,
    /// Caller channels that the client says lie parked there.
    pub parked_at_client: u32,
    /// What the client has applied; 0 before its first report.
    pub applied: Position,
    /// What it should have applied.
    pub desired: Position,
}

/// What one client said of one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppliedInfo {
    /// The mapping.
    pub mapping: MappingId,
    /// The client.
    pub client: ClientId,
    /// Whether it works there.
    pub state: AppliedState,
    /// The address listened on, or why it doesn't work.
    pub message: String,
}

/// Whether a mapping works at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AppliedState {
    /// The client listens for it.
    Listening,
    /// The client dials its target when asked.
    Offered,
    /// The port to listen on is taken.
    PortInUse,
    /// The client's own rules forbid the target.
    Denied,
    /// It can't be served, for another reason.
    Failed,
}

/// How the listener of a public port is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub enum ListenerState {
    /// It listens at this address.
    Listening(SocketAddr),
    /// Another program has the port. It is tried again.
    PortInUse,
    /// The port can't be bound, for this reason. It is tried again.
    Failed(String),
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TunnelInfo {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// The mapping it belongs to.
    pub mapping: MappingId,
    /// The listening client, where there is one.
    pub listener: Option<ClientId>,
    /// The target's client.
    pub target: ClientId,
    /// Who called, as the ingress saw it.
    pub caller: String,
    /// Since when.
    pub since: Timestamp,
    /// Bytes from the caller so far.
    pub bytes_in: u64,
    /// Bytes to the caller so far.
    pub bytes_out: u64,
}

/// Looks around.
pub(crate) fn live(shared: &Shared) -> Live {
    let mut live = Live {
        listeners: shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        unauthenticated: shared.strangers.len(),
        ..Live::default()
    };
    let view = shared.control.state();
    for link in shared.links.all() {
        // What a client says of mappings it has no part in is its own invention.
        let takes_part = |mapping: MappingId| {
            view.state.mapping(mapping).is_some_and(|mapping| mapping.involves(link.client))
        };
        let applied = link.applied();
        live.links.push(LinkInfo {
            client: link.client,
            session: link.session,
            address: link.address,
            transport: link.transport.clone(),
            since: link.since,
            parked: link.park.len(),
            caller_channels: link.caller_channels(),
            parked_at_client: link.parked_at_client(),
            applied: Position(applied.position),
            desired: link.desired.borrow().position,
        });
        let own = results(&applied).filter(|(mapping, ..)| takes_part(*mapping));
        live.applied.extend(own.map(|(mapping, state, message)| AppliedInfo {
            mapping,
            client: link.client,
            state,
            message: message.to_owned(),
        }));
    }
    live.links.sort_by_key(|link| link.client);
    live.applied.sort_by_key(|applied| (applied.mapping, applied.client));
    live.tunnels.extend(shared.tunnels.all().iter().map(|tunnel| info(tunnel)));
    live.tunnels.sort_by_key(|tunnel| tunnel.since);
    live
}

/// What a client last said of a mapping, if it is connected and has said anything.
pub(crate) fn applied_of(
    shared: &Shared,
    client: ClientId,
    mapping: MappingId,
) -> Option<(AppliedState, String)> {
    let applied = shared.links.get(client)?.applied();
    results(&applied).find(|(id, ..)| *id == mapping).map(|(_, state, message)| (state, message.to_owned()))
}

fn results(applied: &Applied) -> impl Iterator<Item = (MappingId, AppliedState, &str)> {
    applied.results.iter().filter_map(|result| {
        let mapping = MappingId::from_bytes(result.mapping.as_slice().try_into().ok()?);
        let state = match result.status() {
            ResultStatus::Listening => AppliedState::Listening,
            ResultStatus::Offered => AppliedState::Offered,
            ResultStatus::PortInUse => AppliedState::PortInUse,
            ResultStatus::Denied => AppliedState::Denied,
            ResultStatus::Failed => AppliedState::Failed,
            ResultStatus::Unspecified => return None,
        };
        Some((mapping, state, result.message.as_str()))
    })
}

fn info(tunnel: &Tunnel) -> TunnelInfo {
    let (bytes_in, bytes_out) = tunnel.carried();
    TunnelInfo {
        id: tunnel.id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
        mapping: tunnel.mapping,
        listener: tunnel.listener,
        target: tunnel.target,
        caller: tunnel.caller.clone(),
        since: tunnel.since,
        bytes_in,
        bytes_out,
    }
}
