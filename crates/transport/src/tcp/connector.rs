//! Making TCP connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{NAME, prepare};
use crate::{Channel, ConnectError, Connector, Stream};

/// How many addresses of one name are tried. More than a few say the name is a trick or a mistake.
const ADDRESSES_MAX: usize = 8;

/// Connects to TCP ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl TcpConnector {
    /// A connector.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Connector for TcpConnector {
    fn name(&self) -> &'static str {
        NAME
    }

    /// A name with several addresses is tried address by address; each gets an even share of the time that is
    /// left, so that one which swallows packets doesn't use up the others' time.
    async fn connect(&self, address: &str, deadline: Duration) -> Result<Channel, ConnectError> {
        check(address)?;
        let ends = Instant::now() + deadline;
        let timed_out = || ConnectError::TimedOut { address: address.to_owned(), deadline };
        let resolved = timeout_at(ends, tokio::net::lookup_host(address)).await.map_err(|_| timed_out())?;
        let resolved: Vec<SocketAddr> = resolved
            .map_err(|source| ConnectError::Name { address: address.to_owned(), source })?
            .take(ADDRESSES_MAX)
            .collect();

        let mut failure = None;
        for (index, peer) in resolved.iter().enumerate() {
            let others = u32::try_from(resolved.len() - index).unwrap_or(1);
            let share = ends.saturating_duration_since(Instant::now()) / others;
            match timeout_at(Instant::now() + share, open(*peer)).await {
                Ok(Ok(stream)) => {
                    return Ok(Channel { stream: Stream::Tcp(stream), peer: *peer, transport: NAME });
                }
                Ok(Err(error)) => failure = Some(ConnectError::of(address, deadline, error)),
                Err(_) => failure = Some(timed_out()),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Name {
            address: address.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        }))
    }
}

async fn open(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(peer).await?;
    prepare(&stream)?;
    Ok(stream)
}

/// A malformed address is told apart from a name that doesn't resolve: the first needs a person.
fn check(address: &str) -> Result<(), ConnectError> {
    let fits =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if fits { Ok(()) } else { Err(ConnectError::Address { address: address.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn nobody_there_is_refused() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let error = TcpConnector.connect(&address, DEADLINE).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_no_address_is_called_that() {
        for address in ["", "host", ":80", "host:", "host:http", "host:70000"] {
            let error = TcpConnector.connect(address, DEADLINE).await.unwrap_err();
            assert!(matches!(error, ConnectError::Address { .. }), "{address}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_its_addresses_are_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Where `localhost` is ::1 as well, nobody listens there: the next address is tried.
        let channel = TcpConnector.connect(&format!("localhost:{port}"), DEADLINE).await.unwrap();
        assert_eq!(channel.peer, listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn the_deadline_holds() {
        // A full backlog answers nobody.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&anywhere.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _fills_it = [std::net::TcpStream::connect(address).unwrap()];
        let mut waits = Vec::new();
        let error = loop {
            match TcpConnector.connect(&address.to_string(), Duration::from_millis(200)).await {
                Ok(channel) => waits.push(channel),
                Err(error) => break error,
            }
            assert!(waits.len() < 10, "the backlog never fills");
        };
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    }
}
