//! The transports of this crate, for the suite and for others' tests.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;

use super::Fixture;
use crate::memory::MemoryNetwork;
use crate::tcp::{TcpConnector, TcpListener};
use crate::{Connector, Listener};

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// TCP on the loopback interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpFixture;

#[async_trait]
impl Fixture for TcpFixture {
    #[expect(clippy::expect_used, reason = "a test without its listener can only fail")]
    async fn listen(&self) -> Box<dyn Listener> {
        Box::new(TcpListener::bind(anywhere()).expect("a free port"))
    }

    fn connector(&self) -> Box<dyn Connector> {
        Box::new(TcpConnector)
    }

    #[expect(clippy::expect_used, reason = "a test without its caller can only fail")]
    async fn mute(&self, address: &str, says: &[u8]) -> Box<dyn Any + Send> {
        let mut caller = tokio::net::TcpStream::connect(address).await.expect("a connection");
        caller.write_all(says).await.expect("a few bytes");
        Box::new(caller)
    }
}

/// A memory network of its own.
#[derive(Clone, Debug, Default)]
pub struct MemoryFixture {
    network: MemoryNetwork,
}

#[async_trait]
impl Fixture for MemoryFixture {
    #[expect(clippy::expect_used, reason = "a test without its listener can only fail")]
    async fn listen(&self) -> Box<dyn Listener> {
        Box::new(self.network.listen(anywhere()).expect("a free port"))
    }

    fn connector(&self) -> Box<dyn Connector> {
        Box::new(self.network.connector())
    }

    #[expect(clippy::expect_used, reason = "a test without its caller can only fail")]
    async fn mute(&self, address: &str, says: &[u8]) -> Box<dyn Any + Send> {
        let connector = self.network.connector();
        let mut caller = connector.connect(address, Duration::from_secs(10)).await.expect("a connection");
        caller.stream.write_all(says).await.expect("a few bytes");
        Box::new(caller)
    }
}
