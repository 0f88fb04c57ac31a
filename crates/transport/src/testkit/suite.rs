//! The points of the suite. Each is an ordinary async function that says which mistake it is after.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a test that can't go on fails")]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Fixture;
use super::server::{DEADLINE, Server, echo};
use crate::{Channel, ConnectError, Connector};

const MIB: usize = 1024 * 1024;

/// More than any transport may buffer for one channel: sockets, pipes and its own queues, both ends.
const BUFFERED_BYTES_MAX: usize = 32 * MIB;

/// Nobody writes for so long who isn't blocked.
const QUIET: Duration = Duration::from_millis(500);

/// Bytes that repeat only after a long time, so that one lost, doubled or moved piece is noticed.
#[derive(Debug)]
struct Pattern(u64);

impl Pattern {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: too slow"))
}

async fn connect(connector: &dyn Connector, address: &str) -> Channel {
    connector.connect(address, DEADLINE).await.expect("a channel")
}

/// One byte there and back.
async fn ping(channel: &mut Channel) {
    channel.stream.write_all(b"?").await.expect("a byte goes out");
    channel.stream.flush().await.expect("a byte goes out");
    let mut back = [0];
    channel.stream.read_exact(&mut back).await.expect("a byte comes back");
    assert_eq!(&back, b"?");
}

/// Lost, doubled, reordered or damaged pieces, and deadlock of the two directions.
pub async fn echo_64_mib_each_way_is_exact(fixture: &dyn Fixture) {
    const BYTES: usize = 64 * MIB;
    let server = Server::start(fixture.listen().await, echo);
    let channel = connect(&*fixture.connector(), &server.address).await;
    let (mut reader, mut writer) = tokio::io::split(channel.stream);

    let send = async {
        let mut pattern = Pattern::new(64);
        let mut piece = vec![0; 64 * 1024];
        for _ in 0..BYTES / piece.len() {
            pattern.fill(&mut piece);
            writer.write_all(&piece).await.expect("written");
        }
        writer.shutdown().await.expect("shut down");
    };
    let receive = async {
        let mut pattern = Pattern::new(64);
        let (mut piece, mut expected) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        for _ in 0..BYTES / piece.len() {
            reader.read_exact(&mut piece).await.expect("read");
            pattern.fill(&mut expected);
            assert!(piece == expected, "the bytes that came back are not those that were sent");
        }
        assert_eq!(reader.read(&mut piece).await.expect("the end"), 0, "more came back than was sent");
    };
    within("echo", async { tokio::join!(send, receive) }).await;
    server.stop().await;
}

/// A transport that waits for more before it sends.
pub async fn single_bytes_come_one_by_one(fixture: &dyn Fixture) {
    let server = Server::start(fixture.listen().await, echo);
    let mut channel = connect(&*fixture.connector(), &server.address).await;
    within("single bytes", async {
        for _ in 0..1000 {
            ping(&mut channel).await;
        }
    })
    .await;
    drop(channel);
    server.stop().await;
}

/// An end that overtakes data, or never comes.
pub async fn the_end_comes_after_the_last_byte(fixture: &dyn Fixture) {
    const BYTES: usize = 3 * MIB + 7;
    let server = Server::start(fixture.listen().await, |mut channel: Channel| async move {
        let mut bytes = vec![0; BYTES];
        Pattern::new(3).fill(&mut bytes);
        channel.stream.write_all(&bytes).await?;
        channel.stream.shutdown().await?;
        // Stay until the other end has gone, as a server that lingers would.
        channel.stream.read(&mut [0]).await.map(|_| ())
    });
    let mut channel = connect(&*fixture.connector(), &server.address).await;
    let mut expected = vec![0; BYTES];
    Pattern::new(3).fill(&mut expected);
    let mut read = Vec::with_capacity(BYTES);
    within("reading to the end", channel.stream.read_to_end(&mut read)).await.expect("a proper end");
    assert_eq!(read.len(), BYTES);
    assert!(read == expected, "the bytes differ");
    drop(channel);
    server.stop().await;
}

/// A broken channel that looks alive for ever.
pub async fn a_reset_in_the_middle_is_noticed(fixture: &dyn Fixture) {
    const PROMISED: usize = 10 * MIB;
    let server = Server::start(fixture.listen().await, |mut channel: Channel| async move {
        channel.stream.write_all(&[7; 1000]).await?;
        channel.stream.flush().await?;
        // Wait for a byte, so that the reset hits a reader in the middle.
        channel.stream.read_exact(&mut [0]).await?;
        channel.reset();
        Ok(())
    });
    let mut channel = connect(&*fixture.connector(), &server.address).await;
    let mut first = [0; 1000];
    within("the first bytes", channel.stream.read_exact(&mut first)).await.expect("bytes before the reset");
    channel.stream.write_all(b"!").await.expect("written");
    channel.stream.flush().await.expect("written");
    let mut rest = vec![0; PROMISED];
    let read = within("noticing when reading", channel.stream.read_exact(&mut rest)).await;
    assert!(read.is_err(), "a reset channel delivered all it promised");
    let write = within("noticing when writing", async {
        loop {
            if let Err(error) = channel.stream.write_all(&rest[..1000]).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop((write, channel));
    server.stop().await;
}

/// Buffers without a bound, and a channel that holds up its neighbours.
pub async fn a_stalled_reader_is_bounded_and_alone(fixture: &dyn Fixture) {
    let server = Server::start(fixture.listen().await, |mut channel: Channel| async move {
        let mut kind = [0];
        channel.stream.read_exact(&mut kind).await?;
        match &kind {
            b"s" => std::future::pending().await, // Reads nothing more, ever.
            _ => echo(channel).await,
        }
    });
    let connector = fixture.connector();
    let mut stalled = connect(&*connector, &server.address).await;
    let mut lively = connect(&*connector, &server.address).await;
    stalled.stream.write_all(b"s").await.expect("written");
    lively.stream.write_all(b"e").await.expect("written");

    let piece = vec![0; 64 * 1024];
    let mut buffered = 0;
    while let Ok(written) = timeout(QUIET, stalled.stream.write(&piece)).await {
        buffered += written.expect("written");
        assert!(buffered <= BUFFERED_BYTES_MAX, "{buffered} bytes taken for a reader that reads nothing");
    }
    within("the neighbour", async {
        for _ in 0..100 {
            ping(&mut lively).await;
        }
    })
    .await;
    drop((stalled, lively));
    server.stop().await;
}

/// An accept that takes a connection and then drops it because it was cancelled.
pub async fn accept_cancelled_a_thousand_times_loses_nothing(fixture: &dyn Fixture) {
    const CALLERS: usize = 50;
    let mut listener = fixture.listen().await;
    let address = listener.local_addr().to_string();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (connector, address) = (fixture.connector(), address.clone());
        callers.spawn(async move {
            // Spread over the time of the cancelling.
            tokio::time::sleep(Duration::from_millis(number as u64)).await;
            let mut channel = connect(&*connector, &address).await;
            channel.stream.write_all(b"!").await.expect("written");
            channel.stream.flush().await.expect("written");
            channel
        });
    }
    let mut accepted = Vec::new();
    for _ in 0..1000 {
        tokio::select! {
            biased;
            incoming = listener.accept() => accepted.push(incoming.expect("accepted")),
            () = tokio::task::yield_now() => {}
        }
    }
    while accepted.len() < CALLERS {
        let incoming = within("the rest of the callers", listener.accept()).await;
        accepted.push(incoming.expect("accepted"));
    }
    let mut served = JoinSet::new();
    for incoming in accepted {
        served.spawn(async move {
            let mut channel = incoming.handshake().await.expect("a channel");
            channel.stream.read_exact(&mut [0]).await.expect("its byte");
            channel
        });
    }
    let callers = within("all callers", callers.join_all()).await;
    let served = within("all handshakes", served.join_all()).await;
    assert_eq!((callers.len(), served.len()), (CALLERS, CALLERS));
}

/// C6, as far as a transport goes: a handshake inside `accept`.
pub async fn silent_callers_delay_nobody(fixture: &dyn Fixture) {
    const MUTE: usize = 50;
    let server = Server::start(fixture.listen().await, echo);
    let mut mute = Vec::new();
    for number in 0..MUTE {
        let says: &[u8] = if number % 2 == 0 { b"" } else { b"U" };
        mute.push(fixture.mute(&server.address, says).await);
    }
    let connector = fixture.connector();
    let mut channel = within("connecting past the silent", connect(&*connector, &server.address)).await;
    within("talking past the silent", ping(&mut channel)).await;
    drop((mute, channel));
    server.stop().await;
}

/// Anything that is one for all channels and runs out.
pub async fn five_hundred_channels_live_at_once(fixture: &dyn Fixture) {
    const CHANNELS: usize = 500;
    let server = Server::start(fixture.listen().await, echo);
    let connector: Arc<dyn Connector> = Arc::from(fixture.connector());
    let all_there = Arc::new(Barrier::new(CHANNELS));
    let mut callers = JoinSet::new();
    for number in 0..CHANNELS {
        let (connector, address) = (connector.clone(), server.address.clone());
        let all_there = all_there.clone();
        callers.spawn(async move {
            let mut channel = connect(&*connector, &address).await;
            ping(&mut channel).await;
            all_there.wait().await;
            let mut sent = vec![0; 10_000];
            Pattern::new(number as u64 * 2 + 1).fill(&mut sent);
            channel.stream.write_all(&sent).await.expect("written");
            channel.stream.flush().await.expect("written");
            let mut back = vec![0; sent.len()];
            channel.stream.read_exact(&mut back).await.expect("read");
            assert!(back == sent, "channel {number} got something else");
        });
    }
    let done = within("five hundred channels", callers.join_all()).await;
    assert_eq!(done.len(), CHANNELS);
    server.stop().await;
}

/// A listener that still answers when it is gone, or takes its channels along.
pub async fn a_dropped_listener_refuses_and_lets_channels_finish(fixture: &dyn Fixture) {
    let mut listener = fixture.listen().await;
    let address = listener.local_addr().to_string();
    let connector = fixture.connector();
    let (mut here, there) = within("a channel", async {
        tokio::join!(connect(&*connector, &address), async {
            listener.accept().await.expect("accepted").handshake().await.expect("a channel")
        })
    })
    .await;
    drop(listener);

    let refused = within("being refused", connector.connect(&address, DEADLINE)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");

    let mut echoes = JoinSet::new();
    echoes.spawn(echo(there));
    within("the old channel", async {
        for _ in 0..10 {
            ping(&mut here).await;
        }
        here.stream.shutdown().await.expect("shut down");
        assert_eq!(here.stream.read(&mut [0]).await.expect("the end"), 0);
    })
    .await;
    let ended = within("the other end", echoes.join_all()).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
}

/// C27, as far as a transport goes: a connect that hangs where nobody listens.
pub async fn nobody_there_is_an_error_in_time(fixture: &dyn Fixture) {
    let listener = fixture.listen().await;
    let address = listener.local_addr().to_string();
    drop(listener);
    let refused = within("being refused", fixture.connector().connect(&address, DEADLINE)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}
