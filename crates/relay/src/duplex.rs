//! A stream that goes both ways, and its two halves.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp;

/// Anything that reads and writes. Implemented for all that qualify.
pub trait AsyncDuplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncDuplex for T {}

/// A stream that goes both ways. TCP is told apart, because the kernel can move its bytes itself.
pub enum Duplex {
    /// A TCP connection.
    Tcp(TcpStream),
    /// Any other stream.
    Other(Box<dyn AsyncDuplex>),
}

impl Duplex {
    /// Wraps a stream that isn't TCP.
    pub fn other(stream: impl AsyncDuplex + 'static) -> Self {
        Self::Other(Box::new(stream))
    }

    /// The TCP connection, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Other(_) => None,
        }
    }

    /// Waits until a read of a TCP connection would not. Other streams answer at once.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Other(_) => Ok(()),
        }
    }

    /// Both halves, for use side by side in one task.
    pub(crate) fn halves(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Other(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Other(read), WriteHalf::Other(write))
            }
        }
    }

    /// Makes the close that follows a reset, where the stream knows such a thing.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only on a socket that is gone already.
            let _ = stream.set_zero_linger();
        }
    }
}

impl From<TcpStream> for Duplex {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            Self::Other(_) => f.write_str("Other(..)"),
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The reading half of a [`Duplex`].
pub(crate) enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Other(tokio::io::ReadHalf<&'a mut Box<dyn AsyncDuplex>>),
}

impl ReadHalf<'_> {
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            Self::Other(_) => None,
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Other(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// The writing half of a [`Duplex`].
pub(crate) enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Other(tokio::io::WriteHalf<&'a mut Box<dyn AsyncDuplex>>),
}

impl WriteHalf<'_> {
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            Self::Other(_) => None,
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Other(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Other(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Other(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
