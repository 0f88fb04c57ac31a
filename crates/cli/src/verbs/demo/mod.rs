//! `demo`: the whole story on one machine, with real processes and a real service, each step verified.

mod program;
mod redis;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use self::program::{Running, finished};
use self::redis::Redis;
use crate::args::DemoArgs;
use crate::error::{CliError, Exit};
use crate::output::{Output, bytes};
use crate::signals;

/// How long tunnels may take to be back after the server was killed and restarted.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: &DemoArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("error", output.json());
    let stop = signals::stop_token()?;
    tokio::select! {
        told = tell(args, output) => told?,
        () = stop.cancelled() => {
            return Err(CliError::new(Exit::Failed, "stopped", "stopped before the story was over"));
        }
    }
    .leave(args, output, &stop)
    .await
}

/// What still runs when the story is over.
struct Stage {
    _folder: tempfile::TempDir,
    data: PathBuf,
    docs: String,
    /// Last started, first ended.
    running: Vec<Running>,
}

impl Stage {
    async fn leave(
        mut self,
        args: &DemoArgs,
        output: Output,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<(), CliError> {
        let wait = !args.no_wait && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if wait {
            let text = format!(
                "\n  browse   {}\n  key      cat {}\n  Ctrl-C ends everything",
                self.docs,
                self.data.join("admin.key").display()
            );
            output.line(&json!({"event": "browse", "docs": self.docs}), &text)?;
            stop.cancelled().await;
        }
        while let Some(process) = self.running.pop() {
            process.end().await?;
        }
        output.line(&json!({"event": "done", "ok": true}), "  done     every step was verified")
    }
}

async fn tell(args: &DemoArgs, output: Output) -> Result<Stage, CliError> {
    let began = Instant::now();
    let step = |name: &str, text: &str, mut value: Value| {
        if let Some(object) = value.as_object_mut() {
            object.insert("event".to_owned(), json!("step"));
            object.insert("step".to_owned(), json!(name));
        }
        let seconds = began.elapsed().as_millis();
        output.line(&value, &format!("  {:>6}.{} s  {text}", seconds / 1000, seconds % 1000 / 100))
    };
    let folder = tempfile::Builder::new()
        .prefix("underpass-demo-")
        .tempdir()
        .map_err(|error| CliError::io("making a folder for the demo", &error))?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = folder.path().join("server");
    let (data_text, laptop, other) = (path("server"), path("laptop"), path("other"));
    let (clients, api) = (free_address()?, free_address()?);
    let serve = [
        "serve", "--data", &data_text, "--listen", &clients, "--api", &api, "--store", "rocksdb", "--log",
        "warn",
    ];

    let (redis, service) = redis::start(folder.path()).await?;
    step("service", &format!("a real redis listens on {service}, behind no public port"), json!({}))?;

    let mut server = Running::start(&serve)?;
    let ready = server.line("ready").await?;
    let docs = text(&ready, "docs")?;
    step("serve", &format!("the server is up on RocksDB: clients {clients}, docs {docs}"), ready.clone())?;

    finished(&["join", &text(&ready, "invite")?, "--name", "laptop", "--state", &laptop]).await?;
    let invited = finished(&["invite", "--data", &data_text]).await?;
    finished(&["join", &text(&invited, "invite")?, "--name", "other", "--state", &other]).await?;
    step("join", "two clients have joined, each with an invite of its own", json!({}))?;

    let mut agent = Running::start(&["up", "--state", &laptop])?;
    agent.line("connected").await?;
    let exposed = finished(&["expose", &service, "--name", "cache", "--state", &laptop, "--detach"]).await?;
    let public = address(&exposed, "public")?;
    step("expose", &format!("laptop exposes it: {public} -> {service}"), exposed.clone())?;

    let shared = finished(&["share", &service, "--state", &laptop, "--detach"]).await?;
    let mut connection = Running::start(&["connect", &text(&shared, "code")?, "--state", &other])?;
    let connected = connection.line("open").await?;
    let private = address(&connected, "listen")?;
    step(
        "connect",
        &format!("other redeems a code: {private} -> laptop, sealed {}", text(&connected, "sealed")?),
        connected.clone(),
    )?;

    let moved = move_bytes(public, private, args.size).await?;
    step(
        "bytes",
        &format!(
            "{} went in through the public port and out through the code's tunnel: BLAKE3 {}… on both sides",
            bytes(moved.bytes),
            &moved.hash[..16]
        ),
        json!({"bytes": moved.bytes, "blake3": moved.hash}),
    )?;

    server.kill().await?;
    step("kill", "the server was killed with SIGKILL", json!({}))?;
    let restarted = Instant::now();
    let mut server = Running::start(&serve)?;
    server.line("ready").await?;
    answers_again(public, BACK_WITHIN).await?;
    answers_again(private, BACK_WITHIN).await?;
    step(
        "back",
        &format!(
            "the server is back, and both tunnels answer again after {} ms",
            restarted.elapsed().as_millis()
        ),
        json!({"back_ms": restarted.elapsed().as_millis()}),
    )?;
    let again = hash_through(private, args.size).await?;
    if again != moved.hash {
        return Err(broken(format!("after the restart the bytes hash to {again}")));
    }

    let verified = finished(&["log", "verify", "--data", &data_text]).await?;
    if verified.get("ok") != Some(&json!(true)) {
        return Err(broken(format!("the log does not verify: {verified}")));
    }
    step(
        "verify",
        &format!("the log verifies up to control:{} {}…", verified["head"], &text(&verified, "hash")?[..16]),
        verified.clone(),
    )?;
    let mapping = text(&exposed, "mapping")?;
    let history = program::lines(&["history", &mapping, "--data", &data_text]).await?;
    if history.is_empty() {
        return Err(broken("the mapping has no history".to_owned()));
    }
    step("history", "the history of the mapping `cache`:", json!({"events": history.len()}))?;
    for event in &history {
        output.line(event, &super::log::event_line(event))?;
    }
    // The clients end before the server, the service last.
    Ok(Stage { _folder: folder, data, docs, running: vec![redis, server, connection, agent] })
}

struct Moved {
    bytes: u64,
    hash: String,
}

/// Writes random-looking bytes through one way and reads them back through the other.
async fn move_bytes(public: SocketAddr, private: SocketAddr, mebibytes: u32) -> Result<Moved, CliError> {
    let mut hasher = blake3::Hasher::new();
    let mut redis = Redis::connect(public).await?;
    for block in 0..mebibytes {
        let mut content = vec![0; 1 << 20];
        blake3::Hasher::new().update(&block.to_le_bytes()).finalize_xof().fill(&mut content);
        hasher.update(&content);
        redis.set(&format!("block:{block}"), &content).await?;
    }
    let sent = hasher.finalize().to_string();
    let received = hash_through(private, mebibytes).await?;
    if sent != received {
        return Err(broken(format!("sent bytes hash to {sent}, received ones to {received}")));
    }
    Ok(Moved { bytes: u64::from(mebibytes) << 20, hash: sent })
}

/// The hash of what was written, read through this address.
async fn hash_through(address: SocketAddr, mebibytes: u32) -> Result<String, CliError> {
    let mut hasher = blake3::Hasher::new();
    let mut redis = Redis::connect(address).await?;
    for block in 0..mebibytes {
        hasher.update(&redis.get(&format!("block:{block}")).await?);
    }
    Ok(hasher.finalize().to_string())
}

/// Waits until the service answers through this address.
async fn answers_again(address: SocketAddr, within: Duration) -> Result<(), CliError> {
    let deadline = Instant::now() + within;
    loop {
        let ping = async { Redis::connect(address).await?.ping().await };
        match timeout_at(deadline, ping).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => sleep(LOOK_EVERY).await,
            Err(_) => return Err(broken(format!("{address} did not answer again within {within:?}"))),
        }
    }
}

/// An address of this machine that was free a moment ago.
fn free_address() -> Result<String, CliError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.to_string())
        .map_err(|error| CliError::io("looking for a free port", &error))
}

fn text(value: &Value, key: &str) -> Result<String, CliError> {
    value
        .get(key)
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
        .ok_or_else(|| broken(format!("a line lacks `{key}`: {value}")))
}

fn address(value: &Value, key: &str) -> Result<SocketAddr, CliError> {
    text(value, key)?.parse().map_err(|_| broken(format!("`{key}` is not an address: {value}")))
}

/// A step did not do what it should.
fn broken(message: String) -> CliError {
    CliError::new(Exit::Failed, "demo.failed", message)
        .hint("run it again; if it stays, please report it with `--log debug`")
}

/// The program itself.
fn myself() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| CliError::io("finding this program", &error))
}

/// Finds a program on the PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file: &PathBuf| Path::is_file(file))
}
