//! What a node tells its control plane.

use std::path::PathBuf;
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
    /// What becomes of old frames.
    pub keep: KeepOptions,
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
            keep: KeepOptions::default(),
        }
    }
}

/// What becomes of old frames.
#[derive(Clone, Debug)]
pub struct KeepOptions {
    /// How long activity stays in the log.
    pub activity: Duration,
    /// How often everything that is remembered of it is said again, so that the log can be cut there.
    pub carry_every: Duration,
    /// How often it is looked whether something is to be done.
    pub look_every: Duration,
    /// The folder with frames that were cut off. What is in it can be read.
    pub archive: Option<PathBuf>,
    /// Whether frames go there before they are cut off. Otherwise activity that is cut off is gone, and the control
    /// log is never cut.
    pub archiving: bool,
    /// Whether frames of the control log that no start needs are moved to the archive: for stores that should stay
    /// small.
    pub trim_control: bool,
}

impl Default for KeepOptions {
    /// Activity stays for 90 days; no archive.
    fn default() -> Self {
        Self {
            activity: Duration::from_hours(24 * 90),
            carry_every: Duration::from_hours(24 * 90) / CARRIES_PER_AGE,
            look_every: Duration::from_hours(1),
            archive: None,
            archiving: true,
            trim_control: false,
        }
    }
}

/// Carries in the time for which activity is kept. A log is cut at a carry, so it holds up to one part more than it
/// must; each carry repeats what is remembered.
pub const CARRIES_PER_AGE: u32 = 8;

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
