//! Programs under measure: started, waited for, weighed, ended.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a program may take to say what it has to, or to listen.
const READY: Duration = Duration::from_secs(30);

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: u32,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    drain: JoinSet<()>,
    name: String,
}

impl Running {
    /// Starts a program; what it says on its standard error goes to `log`.
    pub fn start(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: &Path,
    ) -> io::Result<Self> {
        let log = File::options().append(true).create(true).open(log)?;
        let mut child = Command::new(program)
            .args(args)
            // What peers say of each connection is not what is measured.
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let gone = || io::Error::other(format!("{} ended at once", program.display()));
        let pid = child.id().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let lines = Some(BufReader::new(stdout).lines());
        Ok(Self { child, pid, lines, drain: JoinSet::new(), name: program.display().to_string() })
    }

    /// The next line on its standard output.
    pub async fn line(&mut self) -> io::Result<String> {
        let Some(lines) = &mut self.lines else {
            return Err(io::Error::other(format!("nobody listens to {} any more", self.name)));
        };
        match timeout(READY, lines.next_line()).await {
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} says nothing", self.name))),
            Ok(line) => line?.ok_or_else(|| io::Error::other(format!("{} ended, see its log", self.name))),
        }
    }

    /// The next JSON object on its standard output whose `event` is this one.
    pub async fn event(&mut self, event: &str) -> io::Result<serde_json::Value> {
        loop {
            let line = self.line().await?;
            let value: serde_json::Value = serde_json::from_str(&line)?;
            if value["event"] == event {
                return Ok(value);
            }
        }
    }

    /// Throws away whatever it says from now on: a program must never wait for its reader.
    pub fn unheard(mut self) -> Self {
        if let Some(mut lines) = self.lines.take() {
            self.drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
        self
    }

    /// Runs to its end and answers its standard output.
    pub async fn finish(mut self) -> io::Result<String> {
        let mut said = String::new();
        while let Some(lines) = &mut self.lines
            && let Some(line) = lines.next_line().await?
        {
            said.push_str(&line);
            said.push('\n');
        }
        let status = self.child.wait().await?;
        if status.success() {
            Ok(said)
        } else {
            Err(io::Error::other(format!("{}: {status}, see its log", self.name)))
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Waits until somebody listens at an address.
pub async fn listening(address: std::net::SocketAddr) -> io::Result<()> {
    let until = Instant::now() + READY;
    loop {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(failure) if Instant::now() > until => return Err(failure),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A port that is free at this moment, inside the given range if there is one.
pub async fn free_port(range: Option<std::ops::RangeInclusive<u16>>) -> io::Result<u16> {
    let Some(range) = range else {
        return TcpListener::bind("127.0.0.1:0").await?.local_addr().map(|address| address.port());
    };
    // Not from the front, where the next program to look would find the same one.
    let start = u16::try_from(std::process::id() % 5000).unwrap_or(0);
    for port in range.clone().skip(start.into()).chain(range) {
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// A program on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Processor time that a process has used, in seconds; nought once it is gone.
#[allow(clippy::cast_precision_loss)] // Far below 2^52.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends with the last parenthesis.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Resident memory of a process in MB; nought once it is gone.
#[allow(clippy::cast_precision_loss)] // Far below 2^52.
pub fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_weighed_and_a_gone_one_weighs_nothing() {
        let own = std::process::id();
        assert!(resident_mb(own) > 0.5);
        let mut sum = 0_u64;
        while cpu_seconds(own) < 0.05 {
            sum = (0..1_000_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(sum > 0);
        assert!(cpu_seconds(u32::MAX) + resident_mb(u32::MAX) < f64::EPSILON);
    }

    #[tokio::test]
    async fn events_are_picked_from_what_a_program_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = r#"echo '{"event":"other"}'; echo '{"event":"ready","a":1}'; echo end >&2"#;
        let shell = on_path("sh").expect("a shell");
        let mut running = Running::start(&shell, ["-c", script], &folder.path().join("log")).expect("starts");
        assert_eq!(running.event("ready").await.expect("says it")["a"], 1);
        assert!(running.event("never").await.is_err());
        running.finish().await.expect("ends well");
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).expect("a log"), "end\n");
    }
}
