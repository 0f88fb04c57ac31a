//! Channels within the process, for tests: the same contract without sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::{
    AcceptError, BindError, Channel, ConnectError, Connector, HandshakeError, Incoming, Listener, Stream,
};

/// The transport's name.
pub const NAME: &str = "memory";

/// How many bytes one direction of a channel holds: about what a socket does.
const PIPE_BYTES: usize = 64 * 1024;

/// How many connections wait to be accepted, as in the kernel's backlog for TCP.
const BACKLOG: usize = 1024;

/// Ports that the network chooses itself begin here.
const FIRST_FREE_PORT: u16 = 49_152;

/// Two ends of one channel.
pub fn pair() -> (Channel, Channel) {
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    let there = SocketAddr::from(([127, 0, 0, 1], 2));
    let (one, other) = tokio::io::duplex(PIPE_BYTES);
    (channel(one, there), channel(other, here))
}

fn channel(stream: DuplexStream, peer: SocketAddr) -> Channel {
    Channel { stream: Stream::Other(Box::new(stream)), peer, transport: NAME }
}

/// A network of its own: addresses mean something only inside it. A clone is the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    inner: Arc<Mutex<Network>>,
}

#[derive(Debug, Default)]
struct Network {
    listeners: HashMap<SocketAddr, mpsc::Sender<MemoryIncoming>>,
    ports_taken: u16,
}

impl Network {
    /// A port that nobody was given lately. Goes round after some sixteen thousand.
    fn free_port(&mut self) -> u16 {
        let port = FIRST_FREE_PORT + self.ports_taken % (u16::MAX - FIRST_FREE_PORT);
        self.ports_taken = self.ports_taken.wrapping_add(1);
        port
    }
}

impl MemoryNetwork {
    /// A network where nobody listens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on `address`; port 0 lets the network choose.
    pub fn listen(&self, mut address: SocketAddr) -> Result<MemoryListener, BindError> {
        let (sender, accepts) = mpsc::channel(BACKLOG);
        let mut network = self.lock();
        if address.port() == 0 {
            let port = network.free_port();
            address.set_port(port);
        }
        if network.listeners.contains_key(&address) {
            return Err(BindError::InUse { address });
        }
        network.listeners.insert(address, sender);
        Ok(MemoryListener { network: self.clone(), accepts, address })
    }

    /// Connects to listeners of this network.
    pub fn connector(&self) -> MemoryConnector {
        MemoryConnector { network: self.clone() }
    }

    /// Every change under the lock is one insertion or removal, so a panic elsewhere leaves nothing half-done.
    fn lock(&self) -> std::sync::MutexGuard<'_, Network> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens in a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryListener {
    network: MemoryNetwork,
    accepts: mpsc::Receiver<MemoryIncoming>,
    address: SocketAddr,
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.address);
    }
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        match self.accepts.recv().await {
            Some(incoming) => Ok(Box::new(incoming)),
            None => Err(AcceptError::Closed { address: self.address }),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[derive(Debug)]
struct MemoryIncoming {
    stream: DuplexStream,
    peer: SocketAddr,
}

#[async_trait]
impl Incoming for MemoryIncoming {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    async fn handshake(self: Box<Self>) -> Result<Channel, HandshakeError> {
        Ok(channel(self.stream, self.peer))
    }
}

/// Connects in a [`MemoryNetwork`].
#[derive(Clone, Debug)]
pub struct MemoryConnector {
    network: MemoryNetwork,
}

#[async_trait]
impl Connector for MemoryConnector {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn connect(&self, address: &str, deadline: Duration) -> Result<Channel, ConnectError> {
        let owned = || address.to_owned();
        let to: SocketAddr = address.parse().map_err(|_| ConnectError::Address { address: owned() })?;
        let (sender, from) = {
            let mut network = self.network.lock();
            let from = SocketAddr::from(([127, 0, 0, 1], network.free_port()));
            (network.listeners.get(&to).cloned(), from)
        };
        let sender = sender.ok_or_else(|| ConnectError::Refused { address: owned() })?;
        let (here, there) = tokio::io::duplex(PIPE_BYTES);
        match tokio::time::timeout(deadline, sender.send(MemoryIncoming { stream: there, peer: from })).await
        {
            Ok(Ok(())) => Ok(channel(here, to)),
            Ok(Err(_)) => Err(ConnectError::Refused { address: owned() }),
            Err(_) => Err(ConnectError::TimedOut { address: owned(), deadline }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_pair_is_connected() {
        let (mut one, mut other) = pair();
        one.stream.write_all(b"hello").await.unwrap();
        one.stream.shutdown().await.unwrap();
        let mut read = String::new();
        other.stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
    }

    #[tokio::test]
    async fn an_address_is_taken_once_and_free_again() {
        let network = MemoryNetwork::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let listener = network.listen(address).unwrap();
        assert!(network.listen(address).unwrap_err().is_in_use());
        drop(listener);
        network.listen(address).unwrap();
    }

    #[tokio::test]
    async fn networks_are_separate() {
        let listener = MemoryNetwork::new().listen(SocketAddr::from(([127, 0, 0, 1], 80))).unwrap();
        let elsewhere = MemoryNetwork::new().connector();
        let address = listener.local_addr().to_string();
        let error = elsewhere.connect(&address, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }
}
