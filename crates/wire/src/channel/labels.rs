//! The key schedule of data channels and tunnels, as constants.
//!
//! `HKDF` is that of `underpass_pipeline::derive`: HKDF-SHA256 over a secret, with a context and a label.
//!
//! | key | secret | context | label |
//! |---|---|---|---|
//! | channel secret | the ticket's key | the link's handshake hash | [`CHANNEL`] |
//! | channel, agent to node | channel secret | none | [`CHANNEL_AGENT_TO_NODE`] |
//! | channel, node to agent | channel secret | none | [`CHANNEL_NODE_TO_AGENT`] |
//! | tunnel, agent to node | channel secret | tunnel id | [`TUNNEL_AGENT_TO_NODE`] |
//! | tunnel, node to agent | channel secret | tunnel id | [`TUNNEL_NODE_TO_AGENT`] |
//! | end to end, listen to target client | pair root | tunnel id, `seq` (8 bytes, big-endian) | [`PAIR_LISTEN_TO_TARGET`] |
//! | end to end, target to listen client | pair root | tunnel id, `seq` (8 bytes, big-endian) | [`PAIR_TARGET_TO_LISTEN`] |
//!
//! A pair root seals each `seq` once: the listen client counts up, the target client remembers which it has
//! seen within [`PAIR_SEQ_WINDOW`].

/// Channel secret.
pub const CHANNEL: &str = "underpass channel v1";
/// Records of the channel itself, agent to node.
pub const CHANNEL_AGENT_TO_NODE: &str = "a2n";
/// Records of the channel itself, node to agent.
pub const CHANNEL_NODE_TO_AGENT: &str = "n2a";
/// Records of a tunnel, agent to node.
pub const TUNNEL_AGENT_TO_NODE: &str = "tunnel a2n";
/// Records of a tunnel, node to agent.
pub const TUNNEL_NODE_TO_AGENT: &str = "tunnel n2a";
/// Records of an end-to-end tunnel, listen client to target client.
pub const PAIR_LISTEN_TO_TARGET: &str = "pair l2t";
/// Records of an end-to-end tunnel, target client to listen client.
pub const PAIR_TARGET_TO_LISTEN: &str = "pair t2l";

/// How far back the target client remembers the numbers of a pair's tunnels. Tunnels that are opened at the
/// same time overtake each other, but not by thousands.
pub const PAIR_SEQ_WINDOW: u64 = 4096;
