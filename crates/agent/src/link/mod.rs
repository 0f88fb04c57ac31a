//! The link: making it, keeping it, making it again.

mod connect;
mod keep;
mod run;

pub(crate) use connect::{ConnectFailure, Introduced, Link, connect, introduce};
pub(crate) use keep::keep;
