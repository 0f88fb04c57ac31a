//! What a transport is.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{AcceptError, Channel, ConnectError, HandshakeError};

/// Where connections come in.
///
/// # Contract
///
/// 1. `accept` does no more than take a connection: it waits for nobody who has connected already.
/// 2. It can be dropped at any time; no connection is lost by that.
/// 3. When file descriptors run out it pauses and goes on by itself; when one caller's connection fails it
///    takes the next. An error means that the listener is of no more use.
/// 4. Dropping the listener frees its address. Channels made through it live on.
///
/// `testkit::conformance!` checks all this.
#[async_trait]
pub trait Listener: Send + Debug {
    /// The next connection.
    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError>;

    /// Where it listens, with the port that the system chose if it was asked to.
    fn local_addr(&self) -> SocketAddr;
}

/// A connection that was accepted and has said nothing yet.
#[async_trait]
pub trait Incoming: Send + Debug {
    /// Who calls.
    fn peer(&self) -> SocketAddr;

    /// Does what the transport needs before bytes can flow. May take as long as the caller likes: run it in a
    /// job of its own and with a deadline.
    async fn handshake(self: Box<Self>) -> Result<Channel, HandshakeError>;
}

/// The side that connects.
#[async_trait]
pub trait Connector: Send + Sync + Debug {
    /// The transport's name, e.g. `tcp`.
    fn name(&self) -> &'static str;

    /// A channel to `address` (`HOST:PORT`, an IPv6 host in brackets), within `deadline` over all.
    async fn connect(&self, address: &str, deadline: Duration) -> Result<Channel, ConnectError>;
}
