//! etcd for tests: real servers on loopback, in folders of their own.
//!
//! They need the program `etcd` (Debian: `etcd-server`) on the `PATH`. A test that needs one and can't have it
//! fails. Servers end with their value, and at the latest with the process that started them, however that ends.

#![allow(clippy::missing_panics_doc, reason = "a test that can't go on has failed")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod cluster;
mod pki;
mod process;
mod server;

pub use cluster::EtcdCluster;
pub use pki::Pki;
pub use server::{EtcdServer, Setup};
