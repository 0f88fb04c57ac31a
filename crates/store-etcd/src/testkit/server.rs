//! One server.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, GetOptions};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::pki::Pki;
use super::process::{Process, log_tail};
use crate::options::{Credentials, EtcdOptions, Tls};

/// A server answers within a second of its start, in a cluster within two elections.
const READY: Duration = Duration::from_secs(30);

/// Who has nobody to agree with needs no second to elect itself.
const ALONE: [&str; 2] = ["--heartbeat-interval=20", "--election-timeout=200"];

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Speaks TLS to its clients, with this authority.
    pub tls: Option<Arc<Pki>>,
    /// Asks its clients for a certificate of the authority.
    pub client_certificates: bool,
    /// Turns authentication on, with this password of `root`.
    pub root_password: Option<String>,
    /// Arguments beside those that every server gets.
    pub arguments: Vec<String>,
}

/// A running (or paused, or killed) etcd.
#[derive(Debug)]
pub struct EtcdServer {
    setup: Setup,
    /// Gone before its folder is.
    process: Mutex<Option<Process>>,
    arguments: Vec<String>,
    ports: Ports,
    folder: TempDir,
}

/// Where a server listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) peer: u16,
    /// `/health` and `/metrics` without TLS and passwords.
    metrics: u16,
}

impl EtcdServer {
    /// A server that asks for nothing.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// A server of a cluster of one.
    pub fn with(setup: Setup) -> Self {
        let ports = Ports::free();
        let members = format!("m0=http://127.0.0.1:{}", ports.peer);
        let mut quick = setup;
        quick.arguments.extend(ALONE.map(str::to_owned));
        let server = Self::launch(quick, "m0", ports, &members);
        server.wait_until_ready();
        if let Some(password) = server.setup.root_password.clone() {
            server.turn_authentication_on(password);
        }
        server
    }

    /// Starts a member of a cluster, without waiting for it.
    pub(super) fn launch(setup: Setup, name: &str, ports: Ports, members: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("underpass-etcd-").tempdir().expect("a folder");
        let arguments = arguments(&setup, folder.path(), name, ports, members);
        let process = Process::start(folder.path(), &arguments);
        Self { setup, process: Mutex::new(Some(process)), arguments, ports, folder }
    }

    /// Where clients find it: `host:port`.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.ports.client)
    }

    /// How to open a store on it, with whatever it asks for.
    pub fn options(&self, prefix: &str) -> EtcdOptions {
        let mut options = EtcdOptions::new([self.endpoint()], prefix);
        options.tls = self.setup.tls.as_ref().map(|pki| {
            let (certificate, key) = pki.client();
            Tls::new(pki.ca()).identity(certificate, key)
        });
        options.credentials =
            self.setup.root_password.as_ref().map(|password| Credentials::new("root", password));
        options
    }

    /// A client of its own, for what stores don't do.
    pub async fn client(&self) -> Client {
        let options = self.options("unused");
        connect(&options, options.credentials.as_ref()).await
    }

    /// Every key and value in it, whoever wrote them.
    pub async fn content(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut client = self.client().await;
        let found = client.get("", Some(GetOptions::new().with_all_keys())).await.expect("all keys");
        found.kvs().iter().map(|stored| (stored.key().to_vec(), stored.value().to_vec())).collect()
    }

    /// Ends every lease, whoever holds it.
    pub async fn revoke_all_leases(&self) {
        let mut client = self.client().await;
        for lease in client.leases().await.expect("leases").leases() {
            // It may run out just now.
            let _ = client.lease_revoke(lease.id()).await;
        }
    }

    /// Stops it in its tracks; connections stay open and silent.
    pub fn pause(&self) {
        self.process().as_ref().expect("the server runs").pause();
    }

    /// Ends the pause.
    pub fn resume(&self) {
        self.process().as_ref().expect("the server runs").resume();
    }

    /// Kills it. What it had synced is kept.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    /// Starts it again after a kill, at the same address with the same data.
    pub fn restart(&self) {
        self.restart_without_waiting();
        self.wait_until_ready();
    }

    /// Like [`restart`](Self::restart), where the cluster can't be ready yet.
    pub fn restart_without_waiting(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "the server runs");
        *process = Some(Process::start(self.folder.path(), &self.arguments));
    }

    /// Whether it was started and not killed since.
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Whether it leads its cluster.
    pub fn leads(&self) -> bool {
        let metrics = get(self.ports.metrics, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    /// Waits until it answers, which it does only with a leader.
    pub fn wait_until_ready(&self) {
        let start = Instant::now();
        loop {
            if get(self.ports.metrics, "/health").is_some_and(|health| health.contains(r#""health":"true""#))
            {
                return;
            }
            let ended = self.process().as_ref().is_none_or(Process::has_ended);
            assert!(
                !ended && start.elapsed() < READY,
                "etcd {} (is `etcd` on the PATH? Debian: etcd-server):\n{}",
                if ended { "has ended" } else { "isn't ready" },
                log_tail(self.folder.path())
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn_authentication_on(&self, password: String) {
        let options = self.options("unused");
        let work = async move {
            let mut client = connect(&options, None).await;
            client.user_add("root", password, None).await.expect("a user");
            client.user_grant_role("root", "root").await.expect("a role");
            client.auth_enable().await.expect("authentication");
        };
        // On a thread and a runtime of its own: the caller may be within one.
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work);
        })
        .join()
        .expect("authentication is on");
    }
}

async fn connect(options: &EtcdOptions, credentials: Option<&Credentials>) -> Client {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", options.endpoints[0]);
    let mut endpoint = Endpoint::from_shared(url).expect("an endpoint");
    if let Some(tls) = &options.tls {
        endpoint = endpoint.tls_config(tls.config()).expect("a TLS configuration");
    }
    let channel = endpoint.connect().await.expect("a connection");
    let user = credentials.map(|known| ConnectOptions::new().with_user(known.user(), known.password()));
    Client::from_channel(Channel::Tonic(channel), user).await.expect("a client")
}

impl Ports {
    /// Three ports that are free right now, below those that the system gives to outgoing connections, so that
    /// they are free still when a server comes back.
    pub(super) fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        const FIRST: u16 = 12_000;
        const COUNT: u16 = 8_000;
        let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap_or(0);
        let mut free = std::iter::repeat_with(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            FIRST + (start.wrapping_add(number)) % COUNT
        })
        .take(usize::from(COUNT))
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let mut next = || free.next().expect("a free port");
        Self { client: next(), peer: next(), metrics: next() }
    }
}

fn arguments(setup: &Setup, folder: &Path, name: &str, ports: Ports, members: &str) -> Vec<String> {
    let scheme = if setup.tls.is_some() { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{}", ports.client);
    let peer = format!("http://127.0.0.1:{}", ports.peer);
    let metrics = format!("http://127.0.0.1:{}", ports.metrics);
    let data = folder.join("data");
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
    add("name", name);
    add("data-dir", data.to_str().expect("a path in UTF-8"));
    add("listen-client-urls", &client);
    add("advertise-client-urls", &client);
    add("listen-peer-urls", &peer);
    add("initial-advertise-peer-urls", &peer);
    add("initial-cluster", members);
    add("initial-cluster-token", "underpass-tests");
    add("listen-metrics-urls", &metrics);
    add("logger", "zap");
    add("log-level", "warn");
    if let Some(pki) = &setup.tls {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("a file");
            path.to_str().expect("a path in UTF-8").to_owned()
        };
        let (certificate, key) = pki.server();
        add("cert-file", &file("server.pem", certificate));
        add("key-file", &file("server.key", key));
        if setup.client_certificates {
            add("trusted-ca-file", &file("ca.pem", pki.ca()));
            arguments.push("--client-cert-auth".to_owned());
        }
    }
    arguments.extend(setup.arguments.iter().cloned());
    arguments
}

/// The answer to a GET on loopback.
fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}
