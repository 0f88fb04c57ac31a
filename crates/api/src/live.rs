//! What the API shows of links and tunnels that live on this node.

use std::net::SocketAddr;

use underpass_domain::{ClientId, MappingId, SessionId, Timestamp};
use underpass_gateway::{AppliedState, Gateway, ListenerState};

/// A link of a client to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveLink {
    /// Whose it is.
    pub client: ClientId,
    /// Its session.
    pub session: SessionId,
    /// Where the client comes from.
    pub address: SocketAddr,
    /// Over which transport.
    pub transport: String,
    /// Since when.
    pub since: Timestamp,
    /// Data channels that wait for tunnels.
    pub parked: usize,
}

/// How one end of a mapping is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveEnd {
    /// The client; `None` for a public port of this node.
    pub client: Option<ClientId>,
    /// How it is doing there.
    pub state: LiveServing,
    /// Where it listens, or what went wrong.
    pub detail: Option<String>,
}

/// Whether a mapping works where it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveServing {
    /// It listens.
    Listening,
    /// The target is dialled when asked.
    Offered,
    /// Another program has the port.
    PortInUse,
    /// The client's own rules forbid the target.
    Denied,
    /// Something else is wrong.
    Failed,
}

/// A tunnel that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTunnel {
    /// Of which mapping.
    pub mapping: MappingId,
    /// Who called.
    pub caller: String,
    /// Since when.
    pub since: Timestamp,
    /// Bytes from the caller so far.
    pub bytes_in: u64,
    /// Bytes to the caller so far.
    pub bytes_out: u64,
}

/// What lives on this node. The gateway is one; a control plane that is opened without listeners has none.
pub trait LiveState: Send + Sync {
    /// The links of this node.
    fn links(&self) -> Vec<LiveLink>;

    /// What is known of the ends of a mapping.
    fn ends(&self, mapping: MappingId) -> Vec<LiveEnd>;

    /// The tunnels that run.
    fn tunnels(&self) -> Vec<LiveTunnel>;

    /// Ends the link of a client. `false`: it has none on this node.
    fn disconnect(&self, client: ClientId, reason: &str) -> bool;
}

impl LiveState for Gateway {
    fn links(&self) -> Vec<LiveLink> {
        let links = self.live().links.into_iter().map(|link| LiveLink {
            client: link.client,
            session: link.session,
            address: link.address,
            transport: link.transport,
            since: link.since,
            parked: link.parked,
        });
        links.collect()
    }

    fn ends(&self, mapping: MappingId) -> Vec<LiveEnd> {
        let live = self.live();
        let listener = live.listeners.get(&mapping).map(|state| match state {
            ListenerState::Listening(address) => (LiveServing::Listening, Some(address.to_string())),
            ListenerState::PortInUse => (LiveServing::PortInUse, None),
            ListenerState::Failed(why) => (LiveServing::Failed, Some(why.clone())),
        });
        let here = listener.map(|(state, detail)| LiveEnd { client: None, state, detail });
        let applied = live.applied.into_iter().filter(|it| it.mapping == mapping).map(|it| LiveEnd {
            client: Some(it.client),
            state: match it.state {
                AppliedState::Listening => LiveServing::Listening,
                AppliedState::Offered => LiveServing::Offered,
                AppliedState::PortInUse => LiveServing::PortInUse,
                AppliedState::Denied => LiveServing::Denied,
                _ => LiveServing::Failed,
            },
            detail: Some(it.message).filter(|message| !message.is_empty()),
        });
        here.into_iter().chain(applied).collect()
    }

    fn tunnels(&self) -> Vec<LiveTunnel> {
        let tunnels = self.live().tunnels.into_iter().map(|tunnel| LiveTunnel {
            mapping: tunnel.mapping,
            caller: tunnel.caller,
            since: tunnel.since,
            bytes_in: tunnel.bytes_in,
            bytes_out: tunnel.bytes_out,
        });
        tunnels.collect()
    }

    fn disconnect(&self, client: ClientId, reason: &str) -> bool {
        Self::disconnect(self, client, reason)
    }
}
