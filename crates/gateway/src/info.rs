//! Mappings as clients are told of them.

use std::sync::PoisonError;

use underpass_domain::{ClientId, Ingress, Mapping, MappingStatus, Timestamp};
use underpass_wire::link::{IngressKind, MappingInfo, MappingStatus as WireStatus};

use crate::desired::{role, seal};
use crate::gateway::Shared;
use crate::live::{AppliedState, ListenerState, applied_of};

/// A mapping as one of its clients is told, with what is wrong with it just now.
pub(crate) fn mapping_info(shared: &Shared, mapping: &Mapping, client: ClientId) -> MappingInfo {
    let view = shared.control.state();
    let name = |client| view.state.client(client).map(|client| client.name.clone()).unwrap_or_default();
    let (ingress, public) = match mapping.ingress {
        Ingress::Client { client, listen } => {
            let listening = applied_of(shared, client, mapping.id).filter(|_| listen.port() == 0);
            let public = match listening {
                Some((AppliedState::Listening, address)) if !address.is_empty() => address,
                _ => listen.to_string(),
            };
            (IngressKind::Client, public)
        }
        Ingress::Port { port } => (IngressKind::Port, format!("{}:{port}", shared.options.public_host)),
        _ => (IngressKind::Unspecified, String::new()),
    };
    MappingInfo {
        id: mapping.id.as_bytes().to_vec(),
        name: mapping.name.clone(),
        ingress: ingress.into(),
        public,
        target: mapping.target.address.clone(),
        target_client: name(mapping.target.client),
        listen_client: mapping.listener().map(name).unwrap_or_default(),
        role: role(mapping, client).into(),
        status: match mapping.status {
            MappingStatus::Active => WireStatus::Active,
            MappingStatus::Disabled => WireStatus::Disabled,
        }
        .into(),
        trouble: trouble(shared, mapping).unwrap_or_default(),
        seal: seal(mapping.options.seal).into(),
        created_at_ms: milliseconds(mapping.created_at),
        expires_at_ms: mapping.options.expires_at.map(milliseconds),
        max_connections: mapping.options.max_connections,
    }
}

pub(crate) fn milliseconds(at: Timestamp) -> u64 {
    at.0
}

/// Why callers of a mapping get no tunnel just now, as far as is known here.
fn trouble(shared: &Shared, mapping: &Mapping) -> Option<String> {
    let listener = shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).get(&mapping.id).cloned();
    match listener {
        Some(ListenerState::PortInUse) => {
            return Some("the public port is in use by another program".to_owned());
        }
        Some(ListenerState::Failed(error)) => return Some(format!("the public port: {error}")),
        Some(ListenerState::Listening(_)) | None => {}
    }
    for client in mapping.listener().into_iter().chain([mapping.target.client]) {
        if shared.links.get(client).is_none() {
            let what = if client == mapping.target.client { "target" } else { "listening" };
            return Some(format!("the {what} client is not connected"));
        }
        match applied_of(shared, client, mapping.id) {
            Some((AppliedState::PortInUse, message)) => {
                return Some(format!("the port to listen on is in use: {message}"));
            }
            Some((AppliedState::Denied, message)) => return Some(format!("the target is denied: {message}")),
            Some((AppliedState::Failed, message)) => return Some(message),
            Some((AppliedState::Listening | AppliedState::Offered, _)) | None => {}
        }
    }
    None
}
