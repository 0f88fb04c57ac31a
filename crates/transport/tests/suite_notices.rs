//! The conformance suite notices what it is after: each transport here breaks one promise.
//!
//! Time is paused, so that what never comes is too slow at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use underpass_transport::testkit::{Fixture, MemoryFixture, suite};
use underpass_transport::{
    AcceptError, Channel, ConnectError, Connector, HandshakeError, Incoming, Listener, Stream,
};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// `accept` pauses after it took a connection.
    Forgetful,
    /// `accept` waits for the caller's first byte.
    Patient,
    /// Writing never blocks.
    Bottomless,
    /// One byte arrives changed.
    Corrupting,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    sound: MemoryFixture,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, sound: MemoryFixture::default() }
    }
}

#[async_trait]
impl Fixture for Faulty {
    async fn listen(&self) -> Box<dyn Listener> {
        Box::new(FaultyListener { fault: self.fault, sound: self.sound.listen().await })
    }

    fn connector(&self) -> Box<dyn Connector> {
        Box::new(FaultyConnector { fault: self.fault, sound: self.sound.connector() })
    }

    async fn mute(&self, address: &str, says: &[u8]) -> Box<dyn Any + Send> {
        self.sound.mute(address, says).await
    }
}

#[derive(Debug)]
struct FaultyListener {
    fault: Fault,
    sound: Box<dyn Listener>,
}

#[async_trait]
impl Listener for FaultyListener {
    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let incoming = self.sound.accept().await?;
        match self.fault {
            Fault::Forgetful => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(incoming)
            }
            Fault::Patient => {
                let mut channel = incoming.handshake().await.unwrap();
                let mut first = [0];
                let _ = channel.stream.read_exact(&mut first).await;
                Ok(Box::new(Ready(channel)))
            }
            Fault::Bottomless | Fault::Corrupting => Ok(incoming),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.sound.local_addr()
    }
}

#[derive(Debug)]
struct Ready(Channel);

#[async_trait]
impl Incoming for Ready {
    fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    async fn handshake(self: Box<Self>) -> Result<Channel, HandshakeError> {
        Ok(self.0)
    }
}

#[derive(Debug)]
struct FaultyConnector {
    fault: Fault,
    sound: Box<dyn Connector>,
}

#[async_trait]
impl Connector for FaultyConnector {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn connect(&self, address: &str, deadline: Duration) -> Result<Channel, ConnectError> {
        let mut channel = self.sound.connect(address, deadline).await?;
        if matches!(self.fault, Fault::Bottomless | Fault::Corrupting) {
            let stream = FaultyStream { fault: self.fault, sound: channel.stream, read: 0 };
            channel.stream = Stream::Other(Box::new(stream));
        }
        Ok(channel)
    }
}

struct FaultyStream {
    fault: Fault,
    sound: Stream,
    read: usize,
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const CHANGED: usize = 1_234_567;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.sound).poll_read(context, buffer);
        let new = &mut buffer.filled_mut()[before..];
        if self.fault == Fault::Corrupting && (self.read..self.read + new.len()).contains(&CHANGED) {
            new[CHANGED - self.read] ^= 1;
        }
        self.read += new.len();
        polled
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.sound).poll_write(context, bytes) {
            // "I'll keep it for later."
            Poll::Pending if self.fault == Fault::Bottomless => Poll::Ready(Ok(bytes.len())),
            polled => polled,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sound).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sound).poll_shutdown(context)
    }
}

#[tokio::test(start_paused = true)]
async fn a_faultless_one_passes() {
    suite::accept_cancelled_a_thousand_times_loses_nothing(&MemoryFixture::default()).await;
    suite::silent_callers_delay_nobody(&MemoryFixture::default()).await;
    suite::a_stalled_reader_is_bounded_and_alone(&MemoryFixture::default()).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "too slow")]
async fn a_cancelled_accept_that_loses_connections_is_noticed() {
    suite::accept_cancelled_a_thousand_times_loses_nothing(&Faulty::new(Fault::Forgetful)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "talking past the silent: too slow")]
async fn an_accept_that_waits_for_the_caller_is_noticed() {
    suite::silent_callers_delay_nobody(&Faulty::new(Fault::Patient)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "bytes taken for a reader that reads nothing")]
async fn a_buffer_without_a_bound_is_noticed() {
    suite::a_stalled_reader_is_bounded_and_alone(&Faulty::new(Fault::Bottomless)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the bytes that came back are not those that were sent")]
async fn a_changed_byte_is_noticed() {
    suite::echo_64_mib_each_way_is_exact(&Faulty::new(Fault::Corrupting)).await;
}
