//! A tunnel under test: caller, two ends with a channel between them, target.
#![allow(dead_code)] // Each test file uses its part.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive};
use underpass_relay::{Counters, Duplex, Ended, Options, RecordChannel, tunnel};

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    XChaCha,
    Aes,
}

pub const WAYS: [Way; 3] = [Way::Plain, Way::XChaCha, Way::Aes];

/// What streams are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Tcp,
    Memory,
}

/// Bytes that one direction of an in-memory stream holds.
pub const MEMORY_BYTES: usize = 64 * 1024;

pub async fn pair(net: Net) -> (Duplex, Duplex) {
    match net {
        Net::Memory => {
            let (one, other) = tokio::io::duplex(MEMORY_BYTES);
            (Duplex::other(one), Duplex::other(other))
        }
        Net::Tcp => {
            let (one, other) = tcp_pair().await;
            (one.into(), other.into())
        }
    }
}

pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, other) = (one.unwrap(), other.unwrap().0);
    one.set_nodelay(true).unwrap();
    other.set_nodelay(true).unwrap();
    (one, other)
}

/// Sealer and opener of both ends of tunnel number `tunnel`.
pub fn ends(way: Way, tunnel: u64) -> [(Sealer, Opener); 2] {
    let aead = match way {
        Way::Plain => return [0; 2].map(|_| (Sealer::plain(), Opener::plain())),
        Way::XChaCha => Aead::XChaCha20Poly1305,
        Way::Aes => Aead::Aes256Gcm,
    };
    let keys = |label| -> DirectionKeys { derive(&Secret::new([5; 32]), &[&tunnel.to_be_bytes()], label) };
    [("there", "back"), ("back", "there")]
        .map(|(seal, open)| (Sealer::sealed(aead, keys(seal)), Opener::sealed(aead, keys(open))))
}

/// One end of a tunnel, running.
pub struct End(JoinSet<(Ended, RecordChannel)>);

impl End {
    pub async fn ended(mut self) -> (Ended, RecordChannel) {
        self.0.join_next().await.unwrap().unwrap()
    }
}

pub fn run(plain: Duplex, mut channel: RecordChannel, ends: (Sealer, Opener), options: Options) -> End {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let counters = Counters::default();
        let ended = tunnel(plain, &mut channel, ends.0, ends.1, &options, &counters).await;
        assert_eq!((counters.in_bytes(), counters.out_bytes()), (ended.in_bytes, ended.out_bytes));
        (ended, channel)
    });
    End(tasks)
}

/// Caller and target of a running tunnel.
pub struct Rig {
    pub caller: Duplex,
    pub target: Duplex,
    pub near: End,
    pub far: End,
}

pub async fn rig(net: Net, way: Way, options: Options) -> Rig {
    let channel = pair(net).await;
    rig_over(net, way, options, channel).await
}

pub async fn rig_over(net: Net, way: Way, options: Options, channel: (Duplex, Duplex)) -> Rig {
    let (caller, near_plain) = pair(net).await;
    let (target, far_plain) = pair(net).await;
    let [near_ends, far_ends] = ends(way, 0);
    Rig {
        caller,
        target,
        near: run(near_plain, RecordChannel::new(channel.0), near_ends, options.clone()),
        far: run(far_plain, RecordChannel::new(channel.1), far_ends, options),
    }
}

/// Bytes that tell where they belong: the period is prime, so that any shift shows.
pub struct Pattern(Vec<u8>);

const PERIOD: usize = 65_521;

impl Pattern {
    pub fn new(seed: u64) -> Self {
        let mut state = seed | 1;
        Self(
            (0..PERIOD)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .collect(),
        )
    }

    /// Bytes from `at` on, as many as lie in one piece.
    fn at(&self, at: usize) -> &[u8] {
        &self.0[at % PERIOD..]
    }

    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> io::Result<()> {
        let mut at = 0;
        while at < bytes {
            let piece = self.at(at);
            let piece = &piece[..piece.len().min(bytes - at)];
            to.write_all(piece).await?;
            at += piece.len();
        }
        to.flush().await
    }

    /// Reads to the end and answers how many bytes came, each the right one.
    pub async fn check(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let (mut at, mut buffer) = (0, vec![0; 128 * 1024]);
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(at);
            }
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let expected = self.at(at);
                let length = expected.len().min(rest.len());
                assert!(rest[..length] == expected[..length], "wrong bytes in {at}..{}", at + length);
                at += length;
                rest = &rest[length..];
            }
        }
    }
}

/// A stream that keeps a copy of what is written into it.
pub struct Spied<T> {
    pub inner: T,
    pub seen: Arc<Mutex<Vec<u8>>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Spied<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Spied<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            self.seen.lock().unwrap().extend_from_slice(&buf[..bytes]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream that gives and takes pieces of given sizes, and now and then has nothing at first.
pub struct Dribble<T> {
    pub inner: T,
    pub cuts: Vec<usize>,
    pub at: usize,
}

impl<T> Dribble<T> {
    /// The size of the next piece, or `None` for a pause.
    fn cut(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        self.at += 1;
        let cut = self.cuts[self.at % self.cuts.len()];
        if cut == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(cut)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Dribble<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(cut) = self.cut(cx) else { return Poll::Pending };
        let mut piece = vec![0; cut.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut piece);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Dribble<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(cut) = self.cut(cx) else { return Poll::Pending };
        Pin::new(&mut self.inner).poll_write(cx, &buf[..cut.min(buf.len())])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream that takes whatever is written. One that ends is never at its end, but always has more to
/// read; one that doesn't is read as it is.
pub struct Endless<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for Endless<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            let room = buf.remaining();
            buf.initialize_unfilled().fill(7);
            buf.advance(room);
        }
        polled
    }
}

impl<T: Unpin> AsyncWrite for Endless<T> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
