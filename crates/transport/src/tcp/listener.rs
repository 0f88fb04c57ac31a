//! Accepting TCP connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::{NAME, prepare};
use crate::{AcceptError, BindError, Channel, HandshakeError, Incoming, Listener, Stream};

/// How many connections the kernel keeps for us until we accept them. The kernel caps it (`somaxconn`).
const BACKLOG: u32 = 1024;

/// How long accepting rests when file descriptors or memory ran out: short enough that callers in the backlog
/// hardly notice, long enough not to burn a core meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a TCP port.
#[derive(Debug)]
pub struct TcpListener {
    inner: tokio::net::TcpListener,
    address: SocketAddr,
    /// Accepting rests until then. Kept here so that a cancelled and repeated `accept` rests as well.
    rests_until: Option<Instant>,
    /// Whether the last attempt found no descriptors: told once, not each time.
    exhausted: bool,
}

impl TcpListener {
    /// Listens on `address`. Port 0 lets the system choose; [`Listener::local_addr`] tells which.
    ///
    /// A port whose last listener has just ended can be bound at once. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError::of(address, source);
        let socket =
            if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        let inner = socket.listen(BACKLOG).map_err(failed)?;
        let address = inner.local_addr().map_err(failed)?;
        Ok(Self { inner, address, rests_until: None, exhausted: false })
    }

    /// As [`Listener::accept`], for who wants the socket itself. It is not yet prepared.
    pub async fn accept_tcp(&mut self) -> Result<(TcpStream, SocketAddr), AcceptError> {
        loop {
            if let Some(until) = self.rests_until {
                tokio::time::sleep_until(until).await;
                self.rests_until = None;
            }
            let error = match self.inner.accept().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.exhausted) {
                        tracing::info!(address = %self.address, "accepting again");
                    }
                    return Ok(accepted);
                }
                Err(error) => error,
            };
            match Whose::of(&error) {
                Whose::Caller => tracing::debug!(%error, "a caller was gone before it was accepted"),
                Whose::Machine => {
                    if !std::mem::replace(&mut self.exhausted, true) {
                        tracing::warn!(address = %self.address, %error, "accepting pauses");
                    }
                    self.rests_until = Some(Instant::now() + EXHAUSTED_PAUSE);
                }
                Whose::Listener => {
                    return Err(AcceptError::Broken { address: self.address, source: error });
                }
            }
        }
    }
}

/// Whose trouble a failed accept is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Caller,
    Machine,
    Listener,
}

impl Whose {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Machine,
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) => {
                Self::Listener
            }
            // Linux passes errors of the new connection on here (see accept(2)): network down, protocol
            // error, refused by a firewall, aborted.
            _ => Self::Caller,
        }
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let (stream, peer) = self.accept_tcp().await?;
        Ok(Box::new(TcpIncoming { stream, peer }))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[derive(Debug)]
struct TcpIncoming {
    stream: TcpStream,
    peer: SocketAddr,
}

#[async_trait]
impl Incoming for TcpIncoming {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// TCP's own handshake is over, and there is no other.
    async fn handshake(self: Box<Self>) -> Result<Channel, HandshakeError> {
        let Self { stream, peer } = *self;
        prepare(&stream).map_err(|source| HandshakeError::Io { peer, source })?;
        Ok(Channel { stream: Stream::Tcp(stream), peer, transport: NAME })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    // C47
    #[tokio::test]
    async fn c47_a_port_in_use_is_called_that() {
        let listener = TcpListener::bind(anywhere()).unwrap();
        let address = listener.local_addr();
        let error = TcpListener::bind(address).unwrap_err();
        assert!(error.is_in_use());
        assert_eq!(error.to_string(), format!("{address} is in use by another program"));
    }

    #[tokio::test]
    async fn a_foreign_address_is_called_that() {
        // TEST-NET-1 belongs to no machine.
        let error = TcpListener::bind(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_port_can_be_bound_again_at_once() {
        let mut listener = TcpListener::bind(anywhere()).unwrap();
        let address = listener.local_addr();
        let caller = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept_tcp().await.unwrap();
        // Closing this side first leaves the connection in TIME-WAIT on the listener's port.
        drop((accepted, listener));
        let mut end = [0];
        assert_eq!(tokio::io::AsyncReadExt::read(&mut { caller }, &mut end).await.unwrap(), 0);
        assert_eq!(TcpListener::bind(address).unwrap().local_addr(), address);
    }

    #[tokio::test]
    async fn sockets_have_no_delay_and_keepalive() {
        let mut listener = TcpListener::bind(anywhere()).unwrap();
        let _caller = TcpStream::connect(listener.local_addr()).await.unwrap();
        let channel = listener.accept().await.unwrap().handshake().await.unwrap();
        let tcp = channel.stream.tcp().unwrap();
        assert!(tcp.nodelay().unwrap());
        assert!(socket2::SockRef::from(tcp).keepalive().unwrap());
    }

    #[test]
    fn running_out_of_descriptors_is_nobodys_fault() {
        let whose = |errno: Errno| Whose::of(&errno.into());
        assert_eq!(whose(Errno::MFILE), Whose::Machine);
        assert_eq!(whose(Errno::NFILE), Whose::Machine);
        assert_eq!(whose(Errno::CONNABORTED), Whose::Caller);
        assert_eq!(whose(Errno::PERM), Whose::Caller);
        assert_eq!(whose(Errno::BADF), Whose::Listener);
    }
}
