//! What each client should serve, and the end of what is over.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_control::{Control, View};
use underpass_domain::{
    Aggregate as _, ClientId, ClientStatus, ControlState, Ingress, Mapping, MappingId, Position, Seal,
    Timestamp,
};
use underpass_wire::link::{self as wire, Desired, DesiredMapping, IngressKind, MappingRole};

use crate::gateway::Shared;
use crate::link::{Goodbye, Link};

/// How often the state is looked at without a change of the log: so long may a mapping outlive its time where
/// the event that ends it is late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one client should serve, as of a position.
#[derive(Debug, Default)]
pub(crate) struct Desires {
    pub position: Position,
    /// The mappings and their versions, in id order: two of these are the same exactly if the client's
    /// messages would be.
    fingerprint: Vec<(MappingId, u64)>,
    pub message: Desired,
}

/// What a client should serve now.
pub(crate) fn of_client(control: &Control, client: ClientId) -> Desires {
    let view = control.state();
    let mappings = view.state.desired(client, control.now());
    Frame { state: &view.state, epoch: view.epoch, position: view.position }.desires(client, &mappings)
}

/// Follows the control log: pushes desired state that has changed, ends links of clients that may not have
/// one any more, and tunnels of mappings that are not served any more.
pub(crate) async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.control.changes();
    let mut seen = None;
    loop {
        changes.mark_unchanged();
        seen = Some(apply(&shared, seen));
        tokio::select! {
            () = stop.cancelled() => return,
            told = changes.changed() => if told.is_err() {
                // The log is closed: nothing changes any more, and what is known goes on being served.
                return stop.cancelled().await;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What was applied last: the state, and when.
type Seen = (Arc<View<ControlState>>, Timestamp);

/// Applies what is touched since the last time, so that a change costs the same however many mappings there are.
/// What no change touches is looked at in turn by who is here, not by what is known: links and tunnels.
fn apply(shared: &Shared, seen: Option<Seen>) -> Seen {
    let (view, now) = (shared.control.state(), shared.now());
    let state = &view.state;
    let frame = Frame { state, epoch: view.epoch, position: view.position };
    let Some((before, then)) = seen else {
        for link in shared.links.all() {
            frame.apply_to(&link, now);
        }
        return (view, now);
    };
    let touched = state.touched_since(&before.state, then, now);
    for link in touched.clients.iter().filter_map(|client| shared.links.get(*client)) {
        frame.apply_to(&link, now);
    }
    if before.position == view.position {
        // Nothing has happened for a while. A client may have been blocked while its link came up, and a mapping
        // switched off while its tunnel did: they were not here to be found when that was applied.
        for link in shared.links.all() {
            frame.end_if_unwanted(&link);
        }
        shared.tunnels.stop_where(|tunnel| !frame.is_served(tunnel.mapping, now));
    } else if !touched.mappings.is_empty() {
        shared.tunnels.stop_where(|tunnel| {
            touched.mappings.contains(&tunnel.mapping) && !frame.is_served(tunnel.mapping, now)
        });
    }
    (view, now)
}

impl Desires {
    /// Whether a client would do the same on either.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

fn fingerprint(mappings: &[&Mapping]) -> Vec<(MappingId, u64)> {
    let mut fingerprint: Vec<_> = mappings.iter().map(|mapping| (mapping.id, mapping.version)).collect();
    fingerprint.sort_unstable();
    fingerprint
}

/// One moment of the log.
struct Frame<'a> {
    state: &'a ControlState,
    epoch: u64,
    position: Position,
}

impl Frame<'_> {
    fn is_served(&self, mapping: MappingId, now: Timestamp) -> bool {
        self.state.mapping(mapping).is_some_and(|mapping| self.state.serves(mapping, now))
    }

    /// Ends the link of a client that may not have one any more, or tells the client what to serve now.
    fn apply_to(&self, link: &Link, now: Timestamp) {
        if self.end_if_unwanted(link) {
            return;
        }
        let mappings = self.state.desired(link.client, now);
        // Most changes concern few clients, and a comparison costs less than a message.
        let same = link.desired.borrow().fingerprint == fingerprint(&mappings);
        if !same {
            link.update_desired(Arc::new(self.desires(link.client, &mappings)));
        }
    }

    fn end_if_unwanted(&self, link: &Link) -> bool {
        let goodbye = match self.state.client(link.client).map(|client| &client.status) {
            Some(ClientStatus::Active) => return false,
            Some(ClientStatus::Blocked { .. }) => Goodbye::Blocked,
            None => Goodbye::Removed,
        };
        link.end(goodbye);
        true
    }

    fn desires(&self, client: ClientId, mappings: &[&Mapping]) -> Desires {
        let message = Desired {
            log_id: self.state.log_id().map(|id| id.0.to_vec()).unwrap_or_default(),
            epoch: self.epoch,
            position: self.position.0,
            mappings: mappings.iter().map(|mapping| self.mapping(client, mapping)).collect(),
        };
        Desires { position: self.position, fingerprint: fingerprint(mappings), message }
    }

    fn mapping(&self, client: ClientId, mapping: &Mapping) -> DesiredMapping {
        let key =
            |client| self.state.client(client).map(|client| client.public_key.0.to_vec()).unwrap_or_default();
        let id = |client: ClientId| client.as_bytes().to_vec();
        let (target, listener) = (mapping.target.client, mapping.listener());
        let (ingress, listen, port) = match mapping.ingress {
            Ingress::Client { listen, .. } => (IngressKind::Client, listen.to_string(), 0),
            Ingress::Port { port } => (IngressKind::Port, String::new(), u32::from(port)),
            // A kind of a newer release reaches no client of this one.
            _ => (IngressKind::Unspecified, String::new(), 0),
        };
        let code = mapping.code.and_then(|code| self.state.code(code));
        DesiredMapping {
            id: mapping.id.as_bytes().to_vec(),
            name: mapping.name.clone(),
            ingress: ingress.into(),
            listen,
            port,
            target: mapping.target.address.clone(),
            target_client: id(target),
            target_key: key(target),
            listen_client: listener.map(id).unwrap_or_default(),
            listen_key: listener.map(key).unwrap_or_default(),
            seal: seal(mapping.options.seal).into(),
            max_connections: mapping.options.max_connections,
            idle_timeout_s: mapping.options.idle_timeout_s,
            role: role(mapping, client).into(),
            code_lookup: code.map(|code| code.lookup.clone()).unwrap_or_default(),
            expires_at_ms: mapping.options.expires_at.map(|end| end.0),
        }
    }
}

/// What a client is for a mapping.
pub(crate) fn role(mapping: &Mapping, client: ClientId) -> MappingRole {
    match (mapping.target.client == client, mapping.listener() == Some(client)) {
        (true, true) => MappingRole::Both,
        (true, false) => MappingRole::Target,
        (false, true) => MappingRole::Listen,
        (false, false) => MappingRole::Unspecified,
    }
}

pub(crate) fn seal(seal: Seal) -> wire::Seal {
    match seal {
        Seal::Auto => wire::Seal::Auto,
        Seal::On => wire::Seal::On,
        Seal::Off => wire::Seal::Off,
    }
}
