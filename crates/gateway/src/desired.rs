//! What each client should serve, and the end of what is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_control::Control;
use underpass_domain::{
    Aggregate as _, ClientId, ClientStatus, ControlState, Ingress, Mapping, MappingId, Position, Seal,
};
use underpass_wire::link::{self as wire, Desired, DesiredMapping, IngressKind, MappingRole};

use crate::gateway::Shared;
use crate::link::Goodbye;

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
    loop {
        changes.mark_unchanged();
        apply(&shared);
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

fn apply(shared: &Shared) {
    let view = shared.control.state();
    let (state, now) = (&view.state, shared.now());
    let mut links = shared.links.all();
    links.retain(|link| match state.client(link.client).map(|client| &client.status) {
        Some(ClientStatus::Active) => true,
        Some(ClientStatus::Blocked { .. }) => {
            link.end(Goodbye::Blocked);
            false
        }
        None => {
            link.end(Goodbye::Removed);
            false
        }
    });

    // One walk over the mappings for all clients together.
    let linked: HashSet<ClientId> = links.iter().map(|link| link.client).collect();
    let mut served = HashSet::new();
    let mut of_client: HashMap<ClientId, Vec<&Mapping>> = HashMap::new();
    for mapping in state.mappings().filter(|mapping| state.serves(mapping, now)) {
        served.insert(mapping.id);
        let target = mapping.target.client;
        for client in mapping.listener().filter(|listener| *listener != target).into_iter().chain([target]) {
            if linked.contains(&client) {
                of_client.entry(client).or_default().push(mapping);
            }
        }
    }

    let frame = Frame { state, epoch: view.epoch, position: view.position };
    for link in links {
        let mappings = of_client.remove(&link.client).unwrap_or_default();
        // Most changes concern few clients, and a comparison costs less than a message.
        let same = link.desired.borrow().fingerprint == fingerprint(&mappings);
        if !same {
            link.update_desired(Arc::new(frame.desires(link.client, &mappings)));
        }
    }

    shared.tunnels.stop_where(|tunnel| !served.contains(&tunnel.mapping));
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
