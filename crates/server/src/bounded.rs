//! Connections to the API, so many at a time.
//!
//! The HTTP library takes every connection there is, and asks again at once when the system has no descriptor
//! for it. Both would take from links and tunnels what they need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time; more wait in the listener's queue. Browsers and programs keep a few each, event streams
/// are bounded on their own.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Between two attempts to take a connection when the system refuses.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections while there are fewer than a number of them.
pub(crate) struct Bounded<A> {
    acceptor: A,
    places: Arc<Semaphore>,
}

impl<A> Bounded<A> {
    pub(crate) fn new(acceptor: A, connections_max: usize) -> Self {
        Self { acceptor, places: Arc::new(Semaphore::new(connections_max)) }
    }
}

impl<A: Acceptor> Acceptor for Bounded<A> {
    type Io = Placed<A::Io>;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.acceptor.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        match self.acceptor.accept().await {
            Ok((io, local, remote, scheme)) => Ok((Placed { io, _place: place }, local, remote, scheme)),
            Err(error) => {
                tracing::debug!(%error, "a connection to the API can't be taken");
                tokio::time::sleep(REFUSED_PAUSE).await;
                Err(error)
            }
        }
    }
}

/// A connection and its place, which is free again when it is dropped.
pub(crate) struct Placed<T> {
    io: T,
    _place: OwnedSemaphorePermit,
}

impl<T: AsyncRead + Unpin> AsyncRead for Placed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Placed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use poem::listener::TcpAcceptor;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_limit_waits_for_another_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        let mut bounded = Bounded::new(acceptor, 2);
        let mut callers = Vec::new();
        for _ in 0..3 {
            callers.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, _, _, _) = bounded.accept().await.unwrap();
        let _second = bounded.accept().await.unwrap();
        let short = Duration::from_millis(100);
        assert!(tokio::time::timeout(short, bounded.accept()).await.is_err(), "there is no place");
        drop(first);
        let third = tokio::time::timeout(Duration::from_secs(10), bounded.accept()).await;
        assert!(third.unwrap().is_ok(), "and it was not lost");
    }
}
