//! Groups of tasks that stop together.
//!
//! Every task of the project belongs to one group ([`Tasks`]); `clippy.toml` bans `tokio::spawn`. A group
//! knows two kinds of tasks:
//!
//! - **essential** ones, without which the program can't go on: if one fails, panics or ends before it was
//!   told to, the group's `fatal` token is cancelled and the program shuts down cleanly;
//! - **jobs**, which come and go (one connection, one request): whatever happens to a job is logged and stays
//!   with the job.
//!
//! The server owns one group per stage and drains them in this order: listeners (nothing new comes in),
//! relays (what runs may finish), reactors and projections (read models catch up), store.

mod guarded;
mod tasks;

pub use tasks::{Drained, Tasks};
