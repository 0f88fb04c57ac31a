//! What happened, said to people.

use super::v1;

/// A payload that can say what happened.
pub(super) trait Sentence {
    fn sentence(&self) -> String;
}

macro_rules! sentences {
    ($($payload:ident($event:ident) => $sentence:expr;)*) => {$(
        impl Sentence for v1::$payload {
            fn sentence(&self) -> String {
                let $event = self;
                $sentence
            }
        }
    )*};
}

sentences! {
    LogCreated(event) => format!("log {} created", event.log);
    InviteIssued(event) => {
        let label = event.label.as_ref().map(|label| format!(" for {label:?}")).unwrap_or_default();
        format!("invite {}{label} issued, good until {}", event.invite, event.expires_at)
    };
    InviteUsed(event) => format!("invite {} used by {}", event.invite, event.client);
    InviteRevoked(event) => format!("invite {} revoked", event.invite);
    InviteExpired(event) => format!("invite {} expired unused", event.invite);
    ClientEnrolled(event) => format!("client {} enrolled as {}", event.name, event.client);
    ClientRenamed(event) => format!("{} renamed to {}", event.client, event.name);
    ClientBlocked(event) => format!("{} blocked: {}", event.client, event.reason);
    ClientUnblocked(event) => format!("{} unblocked", event.client);
    ClientRemoved(event) => format!("client {} removed", event.name);
    MappingCreated(event) => format!(
        "mapping {} created: {} -> {} at {}{}",
        event.name, way_in(&event.ingress), event.target, event.client, with(&event.options),
    );
    MappingChanged(event) => format!(
        "mapping {} changed: {} -> {}{}",
        event.name, way_in(&event.ingress), event.target, with(&event.options),
    );
    MappingEnabled(event) => format!("mapping {} enabled", event.name);
    MappingDisabled(event) => format!("mapping {} disabled", event.name);
    MappingRemoved(event) => format!("mapping {} removed", event.name);
    MappingExpired(event) => format!("mapping {} expired", event.name);
    MappingRestored(event) => format!(
        "mapping {} restored: {} -> {} at {}{}{}",
        event.name, way_in(&event.ingress), event.target, event.client, with(&event.options),
        if event.enabled { "" } else { ", disabled" },
    );
    CodeIssued(event) => format!(
        "code {} issued for {} at {}, to be redeemed until {}",
        event.lookup, event.target, event.client, event.activate_until,
    );
    CodeRedeemed(event) => format!("{} redeemed by {}, became {}", event.code, event.client, event.mapping);
    CodeRevoked(event) => format!("{} revoked", event.code);
    CodeExpired(event) => format!("{} expired unredeemed", event.code);
    KeyIssued(event) => {
        let label = event.label.as_ref().map(|label| format!(" for {label:?}")).unwrap_or_default();
        let until = event.expires_at.map(|until| format!(", good until {until}")).unwrap_or_default();
        let scopes: Vec<_> = event.scopes.iter().map(scope).collect();
        format!("{}{label} issued with {}{until}", event.key, scopes.join(", "))
    };
    KeyRevoked(event) => format!("{} revoked", event.key);
    KeyExpired(event) => format!("{} expired", event.key);
    NodeStarted(event) => format!("node {} started with version {}", event.name, event.version);
    NodeStopped(event) => format!("{} stopped", event.node);
    SessionOpened(event) => format!(
        "{} linked to {} from {} over {}",
        event.client, event.node, event.address, event.transport,
    );
    SessionClosed(event) => format!("link of {} closed: {}", event.client, event.reason);
    SessionExpired(event) => format!("link of {} lost with its node", event.client);
    UsageRecorded(event) => format!(
        "{}: {} bytes in, {} bytes out, {} tunnels, {} refused",
        event.mapping, event.bytes_in, event.bytes_out, event.tunnels, event.refused,
    );
    AuthFailed(event) => {
        let identity = event.identity.map(|key| format!(" with key {key}")).unwrap_or_default();
        format!("authentication from {}{identity} failed: {}", event.address, event.reason)
    };
    CarryStarted(event) => format!("what log {} amounts to is said again from here on", event.log);
    SessionCarried(event) => {
        let closed = event.closed.as_ref().map(|end| format!(", closed at {}: {}", end.at, end.reason));
        format!(
            "carried: {} linked to {} from {} over {} at {}{}",
            event.client, event.node, event.address, event.transport, event.opened_at,
            closed.unwrap_or_default(),
        )
    };
    UsageCarried(event) => format!(
        "carried: {}: {} bytes in, {} bytes out, {} tunnels, {} refused, until {}",
        event.mapping, event.bytes_in, event.bytes_out, event.tunnels, event.refused, event.last_at,
    );
    AuthFailureCarried(event) => {
        let identity = event.identity.map(|key| format!(" with key {key}")).unwrap_or_default();
        format!("carried: authentication from {}{identity} failed at {}: {}", event.address, event.at, event.reason)
    };
    CarryFinished(event) => format!("the carry that began at {} is whole", event.started);
    LogTrimmed(event) => format!("everything up to {} was deleted, its last hash is {}", event.until, event.hash);
    LogRepaired(event) => format!(
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
