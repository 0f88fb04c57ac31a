//! Callers: streams, fresh connections, requests on kept ones.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::stats::percentile;
use crate::target::{ANSWER, REQUEST, REQUEST_CLOSE, REQUEST_STREAM};

/// Streams run this long before their bytes count: windows and buffers have grown by then.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// Bytes of one read of a stream.
const READ_BYTES: usize = 256 * 1024;

/// What to do to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Read as fast as it comes.
    Streams,
    /// A new connection for each request.
    Connections,
    /// One connection for all requests of a caller.
    Requests,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Bytes read, requests answered.
    pub count: u64,
    /// How long it took.
    pub seconds: f64,
    /// Of single requests, in microseconds: half of them were faster.
    pub p50_us: u32,
    /// And 99 of 100.
    pub p99_us: u32,
    /// Requests that failed.
    pub failed: u64,
}

impl Outcome {
    /// Bytes, connections or requests a second.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// For programs.
    pub fn to_json(&self, kind: Kind, callers: usize) -> Value {
        let mut object = json!({
            "kind": format!("{kind:?}").to_lowercase(),
            "callers": callers,
            "count": self.count,
            "seconds": self.seconds,
            "per_second": self.per_second(),
            "failed": self.failed,
        });
        if kind == Kind::Streams {
            object["gbit_per_second"] = json!(self.per_second() * 8.0 / 1e9);
        } else {
            object["p50_us"] = json!(self.p50_us);
            object["p99_us"] = json!(self.p99_us);
        }
        object
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(value: &Value) -> Option<Self> {
        let micros = |key: &str| value[key].as_u64().and_then(|us| u32::try_from(us).ok()).unwrap_or(0);
        Some(Self {
            count: value["count"].as_u64()?,
            seconds: value["seconds"].as_f64()?,
            p50_us: micros("p50_us"),
            p99_us: micros("p99_us"),
            failed: value["failed"].as_u64()?,
        })
    }
}

/// Runs `callers` of a kind against an address for a time. An error is one that makes the rest
/// meaningless: nobody listens, or what answers is not the target.
pub async fn run(kind: Kind, address: SocketAddr, callers: usize, time: Duration) -> io::Result<Outcome> {
    match kind {
        Kind::Streams => streams(address, callers, time).await,
        Kind::Connections | Kind::Requests => requests(kind, address, callers, time).await,
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn streams(address: SocketAddr, callers: usize, time: Duration) -> io::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let mut stream = connect(address).await?;
        stream.write_all(REQUEST_STREAM).await?;
        tasks.spawn(async move {
            let mut buffer = vec![0; READ_BYTES];
            let until = Instant::now() + WARM_UP;
            read_until(&mut stream, &mut buffer, until).await?;
            let started = Instant::now();
            let bytes = read_until(&mut stream, &mut buffer, started + time).await?;
            io::Result::Ok((bytes, started.elapsed()))
        });
    }
    let (mut bytes, mut took) = (0, Duration::ZERO);
    while let Some(done) = tasks.join_next().await {
        let (read, elapsed) = done.map_err(io::Error::other)??;
        bytes += read;
        took = took.max(elapsed);
    }
    Ok(Outcome { count: bytes, seconds: took.as_secs_f64(), p50_us: 0, p99_us: 0, failed: 0 })
}

async fn read_until(stream: &mut TcpStream, buffer: &mut [u8], until: Instant) -> io::Result<u64> {
    let mut bytes = 0;
    while let Ok(read) = timeout_at(until, stream.read(buffer)).await {
        match read? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes += read as u64,
        }
    }
    Ok(bytes)
}

async fn requests(kind: Kind, address: SocketAddr, callers: usize, time: Duration) -> io::Result<Outcome> {
    // One that must work, so that a wrong address is an error and not a low number.
    let mut kept = None;
    request(kind, address, &mut kept).await?;

    let started = Instant::now();
    let until = started + time;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(async move {
            let (mut kept, mut took, mut failed) = (None, Vec::new(), 0_u64);
            while Instant::now() < until {
                let asked = Instant::now();
                if request(kind, address, &mut kept).await.is_ok() {
                    took.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                } else {
                    failed += 1;
                    kept = None;
                    // Refused at once, a caller would spin.
                    sleep(Duration::from_millis(1)).await;
                }
            }
            (took, failed)
        });
    }
    let (mut took, mut failed) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (times, failures) = done.map_err(io::Error::other)?;
        took.extend(times);
        failed += failures;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (p50_us, p99_us) = (percentile(&mut took, 50), percentile(&mut took, 99));
    Ok(Outcome { count: took.len() as u64, seconds, p50_us, p99_us, failed })
}

async fn request(kind: Kind, address: SocketAddr, kept: &mut Option<TcpStream>) -> io::Result<()> {
    let mut answer = [0; ANSWER.len() + 1];
    if kind == Kind::Connections {
        let mut stream = connect(address).await?;
        stream.write_all(REQUEST_CLOSE).await?;
        let mut filled = 0;
        loop {
            match stream.read(&mut answer[filled..]).await? {
                0 => return check(&answer[..filled]),
                read => filled += read,
            }
            if filled == answer.len() {
                return check(&answer);
            }
        }
    }
    if kept.is_none() {
        *kept = Some(connect(address).await?);
    }
    if let Some(stream) = kept {
        stream.write_all(REQUEST).await?;
        stream.read_exact(&mut answer[..ANSWER.len()]).await?;
    }
    check(&answer[..ANSWER.len()])
}

fn check(answer: &[u8]) -> io::Result<()> {
    if answer == ANSWER {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not the target's answer"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn each_kind_of_load_is_answered_by_the_target() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("has an address");
        let mut target = JoinSet::new();
        target.spawn(crate::target::serve(listener));
        for kind in [Kind::Streams, Kind::Connections, Kind::Requests] {
            let outcome = run(kind, address, 2, Duration::from_millis(200)).await.expect("runs");
            assert!(outcome.count > 10 && outcome.failed == 0, "{kind:?}: {outcome:?}");
            let json = outcome.to_json(kind, 2);
            let again = Outcome::from_json(&json).expect("reads");
            assert_eq!((again.count, again.p99_us), (outcome.count, outcome.p99_us));
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_an_error() {
        let address =
            TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).expect("an address");
        for kind in [Kind::Streams, Kind::Connections, Kind::Requests] {
            assert!(run(kind, address, 1, Duration::from_millis(50)).await.is_err(), "{kind:?}");
        }
    }
}
