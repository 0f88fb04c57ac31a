//! What a gateway is told at its start.

use std::time::Duration;

use underpass_wire::noise::StaticKey;

/// How a gateway behaves. [`GatewayOptions::new`] gives values that fit a server on the internet.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The installation's link key: what invites pin.
    pub link_key: StaticKey,
    /// The host name or address under which public ports are reached, for people; empty when nobody knows.
    pub public_host: String,
    /// From accepting a channel to the first authenticated message on it, all steps together.
    pub handshake_deadline: Duration,
    /// Channels that have not proved anything yet. One more closes the oldest of them, never an
    /// authenticated one.
    pub unauthenticated_max: usize,
    /// Links at once. More clients are refused; those that are connected stay.
    pub links_max: usize,
    /// Time between two pings of ours.
    pub ping_every: Duration,
    /// A link that said nothing for this long is dead.
    pub ping_timeout: Duration,
    /// Parked target channels that a client always has.
    pub parked_min: usize,
    /// Parked target channels that a busy client has at most.
    pub parked_max: usize,
    /// A parked channel is asked for a sign of life this often.
    pub keepalive_every: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
    /// How long a target client may take to connect to its target, once it has been asked.
    pub open_deadline: Duration,
    /// How long a caller waits for a free channel of a client that is connected.
    pub channel_wait: Duration,
    /// How long a ticket is good for.
    pub ticket_ttl: Duration,
    /// Usage of running tunnels is written down this often.
    pub usage_every: Duration,
}

impl GatewayOptions {
    /// The usual values.
    pub fn new(link_key: StaticKey) -> Self {
        Self {
            link_key,
            public_host: String::new(),
            handshake_deadline: Duration::from_secs(10),
            // 2 KiB of state each, and far below any limit on file descriptors that a server has.
            unauthenticated_max: 4096,
            links_max: 20_000,
            ping_every: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(30),
            parked_min: 2,
            parked_max: 64,
            keepalive_every: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            // The agent gives its target 10 s; two more let its answer arrive.
            open_deadline: Duration::from_secs(12),
            channel_wait: Duration::from_secs(5),
            ticket_ttl: Duration::from_secs(10),
            usage_every: Duration::from_mins(1),
        }
    }
}
