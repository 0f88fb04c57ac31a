//! The client's side: it keeps a link to the server, listens for callers and dials targets.
//!
//! - [`StateDir`]: who this client is, in a folder; [`join`] makes it known to a server.
//! - [`Agent`]: the running thing. It keeps the link (made again with growing pauses when lost), applies the
//!   state that the server wants (by difference: what stays the same is not touched), dials targets that this
//!   user offered and nothing else, and seals what passes, end to end where two clients met through a code.
//! - [`Verbs`]: what one can ask of it, in this process ([`AgentHandle`]) or through the local socket
//!   ([`local`]).
//! - [`AgentError`] and [`CODES`]: what can go wrong, with what to do about it.

mod agent;
mod allow;
mod backoff;
mod claim;
mod core;
mod desired;
mod dial;
mod error;
mod events;
mod join;
mod link;
mod listen;
pub mod local;
mod once;
mod pair;
mod parked;
mod pool;
mod serving;
mod session;
mod share;
mod state;
mod sync;
mod target;
mod tunnel;
mod verbs;
mod window;

pub use agent::{Agent, AgentOptions, Timing};
pub use allow::{TargetAddress, TargetRange};
pub use error::{AgentError, CODES, ErrorReport, ExitClass};
pub use events::{AgentEvent, Events};
pub use join::{JoinOptions, Joined, join};
pub use share::AgentHandle;
pub use state::{ServerFile, StateDir};
pub use verbs::{Connect, Connected, EventStream, Expose, MappingInfo, Opened, Share, Shared, Status, Verbs};
