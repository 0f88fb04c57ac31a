//! A real redis, and as much of its protocol as the demo needs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::program::Running;
use super::{broken, free_address, on_path};
use crate::error::{CliError, Exit};

/// How long the service may take to start.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Values are 1 MiB; whatever claims more is broken.
const VALUE_BYTES_MAX: usize = 8 << 20;

/// Starts a redis that keeps nothing, on a free port of this machine.
pub(super) async fn start(folder: &Path) -> Result<(Running, String), CliError> {
    let program = on_path("redis-server").ok_or_else(|| {
        CliError::new(Exit::Failed, "demo.missing", "redis-server is not installed")
            .hint("run `make demo`, which installs it, or: sudo apt-get install redis-server")
    })?;
    let address = free_address()?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder).args(["--loglevel", "warning"]);
    let running = Running::spawn("redis-server", &mut command)?;
    let target: SocketAddr = address.parse().map_err(|_| broken(format!("{address} is not an address")))?;
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        let ping = async { Redis::connect(target).await?.ping().await };
        if ping.await.is_ok() {
            return Ok((running, address));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(broken("redis-server did not start in time".to_owned()))
}

/// A connection to redis.
pub(super) struct Redis {
    stream: BufStream<TcpStream>,
}

impl Redis {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, CliError> {
        let stream = timeout(ANSWER_DEADLINE, TcpStream::connect(address))
            .await
            .map_err(|_| broken(format!("{address} does not answer")))?
            .map_err(|error| CliError::io(&format!("connecting to {address}"), &error))?;
        Ok(Self { stream: BufStream::new(stream) })
    }

    pub(super) async fn ping(&mut self) -> Result<(), CliError> {
        self.ask(&[b"PING"]).await?;
        self.expect("+PONG").await
    }

    pub(super) async fn set(&mut self, key: &str, value: &[u8]) -> Result<(), CliError> {
        self.ask(&[b"SET", key.as_bytes(), value]).await?;
        self.expect("+OK").await
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<Vec<u8>, CliError> {
        self.ask(&[b"GET", key.as_bytes()]).await?;
        let head = self.line().await?;
        let length: usize = head
            .strip_prefix('$')
            .and_then(|length| length.parse().ok())
            .filter(|length| *length <= VALUE_BYTES_MAX)
            .ok_or_else(|| broken(format!("redis answered `{head}`")))?;
        let mut value = vec![0; length + 2];
        answered(self.stream.read_exact(&mut value)).await?;
        value.truncate(length);
        Ok(value)
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<(), CliError> {
        let send = async {
            self.stream.write_all(format!("*{}\r\n", words.len()).as_bytes()).await?;
            for word in words {
                self.stream.write_all(format!("${}\r\n", word.len()).as_bytes()).await?;
                self.stream.write_all(word).await?;
                self.stream.write_all(b"\r\n").await?;
            }
            self.stream.flush().await
        };
        answered(send).await
    }

    async fn line(&mut self) -> Result<String, CliError> {
        let mut line = String::new();
        answered(self.stream.read_line(&mut line)).await?;
        Ok(line.trim_end().to_owned())
    }

    async fn expect(&mut self, wanted: &str) -> Result<(), CliError> {
        let line = self.line().await?;
        if line == wanted { Ok(()) } else { Err(broken(format!("redis answered `{line}`"))) }
    }
}

async fn answered<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, CliError> {
    timeout(ANSWER_DEADLINE, work)
        .await
        .map_err(|_| broken("redis did not answer in time".to_owned()))?
        .map_err(|error| CliError::io("speaking to redis", &error))
}
