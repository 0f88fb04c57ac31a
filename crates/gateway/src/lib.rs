//! Client links on a node, and the tunnels that are opened over them.
//!
//! [`Gateway`] accepts what clients dial: **links**, on which a client proves its key, is told what it should
//! serve and asks for changes, and **data channels**, which carry tunnels. It pushes desired state, keeps
//! a few channels of each client parked, joins channels to tunnels and ends tunnels whose mapping is over.
//!
//! | module | one idea |
//! |---|---|
//! | `accept` | every channel has a handshake of its own, a deadline, and a place among the strangers |
//! | `handshake` | who is there: Noise, `Hello`, enrolment, one generic refusal |
//! | `session` | the life of one link: reading, writing, pings, its beginning and end in the log |
//! | `outbox` | what is to be sent on a link, in lanes |
//! | `desired` | what each client should serve, pushed whole when it changes; what is over ends |
//! | `commands`, `requests`, `info` | what clients ask for, run beside each other, each id once |
//! | `envelopes` | messages between two clients that share a mapping |
//! | `tickets` | what admits a data channel, once |
//! | `channel`, `park` | data channels, and those that wait for work |
//! | `open` | a tunnel to a target: channel, request, answer |
//! | `dial` | tunnels that a listening client asks for, forwarded unread |
//! | `tunnels`, `limits`, `usage` | what runs, how much of it may, what it carried |
//! | `live` | all that for people to look at |
//!
//! No lock is held across an await, and every queue, set and wait here has a bound.

mod accept;
mod channel;
mod commands;
mod desired;
mod dial;
mod envelopes;
mod error;
mod gateway;
mod handshake;
mod info;
mod limits;
mod link;
mod links;
mod live;
mod open;
mod options;
mod outbox;
mod park;
mod requests;
mod session;
mod tickets;
mod tunnels;
mod unauthenticated;
mod usage;

pub use error::OpenError;
pub use gateway::Gateway;
pub use live::{AppliedInfo, AppliedState, LinkInfo, ListenerState, Live, TunnelInfo};
pub use open::OpenTunnel;
pub use options::GatewayOptions;
pub use tunnels::TunnelId;
