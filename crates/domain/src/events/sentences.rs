//! What happened, said to people.

use super::{v1, v2};

/// A payload that can say what happened.
pub(super) trait Sentence {
    fn sentence(&self) -> String;
}

macro_rules! sentences {
    ($($version:ident::$payload:ident($event:ident) => $sentence:expr;)*) => {$(
        impl Sentence for $version::$payload {
            fn sentence(&self) -> String {
                let $event = self;
                $sentence
            }
        }
    )*};
}

sentences! {
    v1::LogCreated(event) => format!("log {} created", event.log);
    v1::InviteIssued(event) => {
        let label = event.label.as_ref().map(|label| format!(" for {label:?}")).unwrap_or_default();
        format!("invite {}{label} issued, good until {}", event.invite, event.expires_at)
    };
    v1::InviteUsed(event) => format!("invite {} used by {}", event.invite, event.client);
    v1::InviteRevoked(event) => format!("invite {} revoked", event.invite);
    v1::InviteExpired(event) => format!("invite {} expired unused", event.invite);
    v1::ClientEnrolled(event) => format!("client {} enrolled as {}", event.name, event.client);
    v1::ClientRenamed(event) => format!("{} renamed to {}", event.client, event.name);
    v1::ClientBlocked(event) => format!("{} blocked: {}", event.client, event.reason);
    v1::ClientUnblocked(event) => format!("{} unblocked", event.client);
    v1::ClientRemoved(event) => format!("client {} removed", event.name);
    v1::MappingCreated(event) => format!(
        "mapping {} created: {} -> {} at {}{}",
        event.name, way_in(&event.ingress), event.target, event.client, with(&event.options),
    );
    v1::MappingChanged(event) => format!(
        "mapping {} changed: {} -> {}{}",
        event.name, way_in(&event.ingress), event.target, with(&event.options),
    );
    v1::MappingEnabled(event) => format!("mapping {} enabled", event.name);
    v1::MappingDisabled(event) => format!("mapping {} disabled", event.name);
    v1::MappingRemoved(event) => format!("mapping {} removed", event.name);
    v1::MappingExpired(event) => format!("mapping {} expired", event.name);
    v1::MappingRestored(event) => format!(
        "mapping {} restored: {} -> {} at {}{}{}",
        event.name, way_in(&event.ingress), event.target, event.client, with(&event.options),
        if event.enabled { "" } else { ", disabled" },
    );
    v1::CodeIssued(event) => format!(
        "code {} issued for {} at {}, to be redeemed until {}",
        event.lookup, event.target, event.client, event.activate_until,
    );
    v1::CodeRedeemed(event) => format!("{} redeemed by {}, became {}", event.code, event.client, event.mapping);
    v1::CodeRevoked(event) => format!("{} revoked", event.code);
    v1::CodeExpired(event) => format!("{} expired unredeemed", event.code);
    v1::KeyIssued(event) => {
        let label = event.label.as_ref().map(|label| format!(" for {label:?}")).unwrap_or_default();
        let until = event.expires_at.map(|until| format!(", good until {until}")).unwrap_or_default();
        let scopes: Vec<_> = event.scopes.iter().map(scope).collect();
        format!("{}{label} issued with {}{until}", event.key, scopes.join(", "))
    };
    v1::KeyRevoked(event) => format!("{} revoked", event.key);
    v1::KeyExpired(event) => format!("{} expired", event.key);
    v1::NodeStarted(event) => format!("node {} started with version {}", event.name, event.version);
    v1::NodeStopped(event) => format!("{} stopped", event.node);
    v2::SessionOpened(event) => {
        let release = event.release.as_ref().map(|release| format!(", release {release}")).unwrap_or_default();
        format!(
            "{} linked to {} from {} over {}{release}",
            event.client, event.node, event.address, event.transport,
        )
    };
    v1::SessionClosed(event) => format!("link of {} closed: {}", event.client, event.reason);
    v1::SessionExpired(event) => format!("link of {} lost with its node", event.client);
    v1::UsageRecorded(event) => format!(
        "{}: {} bytes in, {} bytes out, {} tunnels, {} refused",
        event.mapping, event.bytes_in, event.bytes_out, event.tunnels, event.refused,
    );
    v1::AuthFailed(event) => {
        let identity = event.identity.map(|key| format!(" with key {key}")).unwrap_or_default();
        format!("authentication from {}{identity} failed: {}", event.address, event.reason)
    };
    v1::CarryStarted(event) => format!("what log {} amounts to is said again from here on", event.log);
    v1::SessionCarried(event) => {
        let closed = event.closed.as_ref().map(|end| format!(", closed at {}: {}", end.at, end.reason));
        format!(
            "carried: {} linked to {} from {} over {} at {}{}",
            event.client, event.node, event.address, event.transport, event.opened_at,
            closed.unwrap_or_default(),
        )
    };
    v1::UsageCarried(event) => format!(
        "carried: {}: {} bytes in, {} bytes out, {} tunnels, {} refused, until {}",
        event.mapping, event.bytes_in, event.bytes_out, event.tunnels, event.refused, event.last_at,
    );
    v1::AuthFailureCarried(event) => {
        let identity = event.identity.map(|key| format!(" with key {key}")).unwrap_or_default();
        format!("carried: authentication from {}{identity} failed at {}: {}", event.address, event.at, event.reason)
    };
    v1::CarryFinished(event) => format!("the carry that began at {} is whole", event.started);
    v1::LogTrimmed(event) => format!("everything up to {} was deleted, its last hash is {}", event.until, event.hash);
    v1::LogRepaired(event) => format!(
        "the log was repaired: it was cut off before {}, {} positions were lost, what is before has the hash {}: {}",
        event.cut_from, event.lost, event.cut_hash, event.reason,
    );
}

fn way_in(ingress: &v1::Ingress) -> String {
    match ingress {
        v1::Ingress::Client { client, listen } => format!("{listen} at {client}"),
        v1::Ingress::Port { port } => format!("port {port}"),
    }
}

/// The options that are not as usual.
fn with(options: &v1::Options) -> String {
    let seal = match options.seal {
        v1::Seal::Auto | v1::Seal::On => None,
        v1::Seal::Off => Some("not sealed".to_owned()),
    };
    let connections = options.max_connections.map(|max| format!("at most {max} connections"));
    let idle = options.idle_timeout_s.map(|seconds| format!("idle for {seconds} s at most"));
    let until = options.expires_at.map(|until| format!("until {until}"));
    let said = [seal, connections, idle, until].into_iter().flatten();
    said.fold(String::new(), |text, option| text + ", " + &option)
}

fn scope(scope: &v1::Scope) -> String {
    match scope {
        v1::Scope::Admin => "admin".into(),
        v1::Scope::Read => "read".into(),
        v1::Scope::Audit => "audit".into(),
        v1::Scope::Metrics => "metrics".into(),
        v1::Scope::User(user) => format!("user:{user}"),
    }
}
