//! What a node tells its control plane.

use std::time::Duration;

use underpass_domain::NodeId;

use crate::lease::LEASE_TTL_DEFAULT;

/// Settings of [`Control::open`](crate::Control::open).
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// This node. The id belongs to the data folder: whoever opens the folder next takes over from whoever
    /// had it before.
    pub node: NodeId,
    /// What people call this node.
    pub node_name: String,
    /// The version of the program, for `node.started`.
    pub version: String,
    /// The public ports that may be given out, both ends included.
    pub ports: (u16, u16),
    /// How clients become known.
    pub enrolment: Enrolment,
    /// Whether this node serves clients. A control plane that is opened for an administrator's command alone
    /// records no start and no stop of a node, expires nothing and reaps nothing.
    pub serving: bool,
    /// How long the node lease lives without renewal. Raised to what the store can do.
    pub lease_ttl: Duration,
}

impl ControlOptions {
    /// Defaults: public ports 20000 to 29999, enrolment by invite, a lease of [`LEASE_TTL_DEFAULT`].
    pub fn new(node: NodeId, node_name: impl Into<String>) -> Self {
        Self {
            node,
            node_name: node_name.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ports: (20_000, 29_999),
            enrolment: Enrolment::Invite,
            serving: true,
            lease_ttl: LEASE_TTL_DEFAULT,
        }
    }
}

/// How an unknown client becomes known. A client that is known already may always come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Anybody who reaches the node.
    Open,
    /// Whoever has an invite.
    Invite,
    /// Nobody.
    Closed,
}
