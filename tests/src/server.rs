//! A server, and clients that have joined it.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use underpass_store_etcd::testkit::{EtcdCluster, EtcdServer};

use crate::api::Api;
use crate::process::{Done, Process, run};
use crate::{free_address, free_port};

/// Which backend a server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Gone with the process.
    Memory,
    /// In the data folder.
    RocksDb,
    /// In an etcd of its own, of one member.
    Etcd,
    /// In an etcd of its own, of three members.
    EtcdCluster,
}

/// An etcd, for as long as a server on it lives.
pub enum Etcd {
    /// One member.
    Single(EtcdServer),
    /// Three.
    Cluster(EtcdCluster),
}

impl Etcd {
    fn of(store: Store) -> Option<Self> {
        match store {
            Store::Memory | Store::RocksDb => None,
            Store::Etcd => Some(Self::Single(EtcdServer::start())),
            Store::EtcdCluster => Some(Self::Cluster(EtcdCluster::start(3))),
        }
    }

    /// Its members.
    pub fn members(&self) -> &[EtcdServer] {
        match self {
            Self::Single(server) => std::slice::from_ref(server),
            Self::Cluster(cluster) => cluster.members(),
        }
    }
}

impl Store {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::RocksDb => "rocksdb",
            Self::Etcd | Self::EtcdCluster => "etcd",
        }
    }
}

/// A server in a folder of its own, on addresses that stay over restarts.
pub struct Server {
    /// The running process.
    pub process: Process,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where its API is.
    pub api_address: SocketAddr,
    /// Its first line.
    pub ready: Value,
    store: Store,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
    _ports: Option<PortRange>,
    etcd: Option<Arc<Etcd>>,
}

/// Public ports that no other test gives out meanwhile: whoever holds the UDP port of the first one has them all.
struct PortRange {
    first: u16,
    _claim: UdpSocket,
}

impl PortRange {
    const LEN: u16 = 50;
    const COUNT: u16 = 400;
    /// All of them lie below the ports that the system gives out by itself.
    const FIRST: u16 = 10_000;

    fn claim() -> Self {
        let somewhere = free_port() % Self::COUNT;
        (0..Self::COUNT)
            .find_map(|nth| {
                let first = Self::FIRST + (somewhere + nth) % Self::COUNT * Self::LEN;
                let claim = UdpSocket::bind(("127.0.0.1", first)).ok()?;
                Some(Self { first, _claim: claim })
            })
            .expect("a range of ports that no other test uses")
    }
}

impl Server {
    /// Starts one and waits until it is ready.
    pub fn start(store: Store) -> Self {
        Self::start_with(store, &[])
    }

    /// The same, with settings: `("server.shutdown_grace_s", "2")`.
    pub fn start_with(store: Store, settings: &[(&str, &str)]) -> Self {
        Self::start_in(store, settings, |_| {})
    }

    /// The same, after something was done with the path of its data folder, which is not there yet.
    pub fn start_in(store: Store, settings: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("data"));
        let mut environment: Vec<(String, String)> = settings
            .iter()
            .map(|(key, value)| {
                (format!("UNDERPASS__{}", key.replace('.', "__").to_uppercase()), (*value).to_owned())
            })
            .collect();
        let etcd = Etcd::of(store).map(Arc::new);
        if let Some(etcd) = &etcd {
            let endpoints: Vec<_> = etcd.members().iter().map(EtcdServer::endpoint).collect();
            environment.push(("UNDERPASS__STORE__ETCD__ENDPOINTS".to_owned(), endpoints.join(",")));
        }
        let ports = settings.iter().all(|(key, _)| *key != "ingress.ports").then(PortRange::claim);
        if let Some(PortRange { first, .. }) = ports {
            let last = first + PortRange::LEN - 1;
            environment.push(("UNDERPASS__INGRESS__PORTS".to_owned(), format!("{first}-{last}")));
        }
        let (listen, api_address) = (free_address(), free_address());
        let (process, ready) = launch(folder.path(), listen, api_address, store, &environment, &[]);
        Self { process, listen, api_address, ready, store, environment, folder, _ports: ports, etcd }
    }

    /// Another node of the same installation: a data folder of its own with the same link key, on the same etcd.
    pub fn another_node(&self) -> Self {
        self.second(&["UNDERPASS", "link.key"])
    }

    /// The same node again, on a copy of its data folder, as somebody makes by mistake.
    pub fn copy(&self) -> Self {
        self.second(&["."])
    }

    fn second(&self, files: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        for file in files {
            let copy = Command::new("cp").arg("-a").arg(self.data().join(file)).arg(&data).status();
            assert!(copy.unwrap().success());
        }
        let Self { store, environment, etcd, .. } = self;
        let (listen, api_address) = (free_address(), free_address());
        let (process, ready) = launch(folder.path(), listen, api_address, *store, environment, &[]);
        let (environment, etcd) = (environment.clone(), etcd.clone());
        Self { process, listen, api_address, ready, store: *store, environment, folder, _ports: None, etcd }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The same as text, for a command line.
    pub fn data_text(&self) -> String {
        self.data().display().to_string()
    }

    /// Its etcd.
    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_ref().expect("a server on etcd")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same folder and addresses.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same, with more arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        let Self { listen, api_address, store, environment, folder, .. } = self;
        let (process, ready) = launch(folder.path(), *listen, *api_address, *store, environment, arguments);
        self.process = process;
        self.ready = ready;
    }

    /// From the next start on it keeps its log elsewhere; `environment` says where.
    pub fn configure(&mut self, store: Store, environment: &[(String, String)]) {
        self.store = store;
        self.environment.retain(|(name, _)| environment.iter().all(|(new, _)| new != name));
        self.environment.extend_from_slice(environment);
    }

    /// Starts it again, which must fail with this code.
    #[track_caller]
    pub fn start_fails(&self, code: &str) {
        let data = self.data_text();
        let (listen, api) = (self.listen.to_string(), self.api_address.to_string());
        let arguments =
            ["serve", "--data", &data, "--listen", &listen, "--api", &api, "--store", self.store.name()];
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        crate::process::run_with(&arguments, &environment).failed(1, code);
    }

    /// The API with the first admin key.
    pub fn api(&self) -> Api {
        let key = std::fs::read_to_string(self.data().join("admin.key")).unwrap();
        Api::new(self.api_address, Some(key.trim()))
    }

    /// A fresh invite.
    pub fn invite(&self) -> String {
        run(&["invite", "--data", &self.data_text()]).text("invite")
    }

    /// A new client that has joined.
    pub fn client(&self, name: &str) -> Client {
        let state = self.folder.path().join(name);
        let client = Client { state };
        let joined = client.run(&["join", &self.invite(), "--name", name]);
        assert_eq!(joined.last()["event"], "joined", "{joined:?}");
        client
    }

    /// `log verify` of both logs: the heads.
    #[track_caller]
    pub fn verified(&self) -> (u64, u64) {
        let head = |log: &str| {
            let done = run(&["log", "verify", "--data", &self.data_text(), "--log-name", log]);
            assert_eq!(done.last()["ok"], true, "{done:?}");
            done.last()["head"].as_u64().unwrap()
        };
        (head("control"), head("activity"))
    }
}

fn launch(
    folder: &Path,
    listen: SocketAddr,
    api: SocketAddr,
    store: Store,
    environment: &[(String, String)],
    more: &[&str],
) -> (Process, Value) {
    let data = folder.join("data").display().to_string();
    let (listen, api) = (listen.to_string(), api.to_string());
    let arguments = ["serve", "--data", &data, "--listen", &listen, "--api", &api, "--store", store.name()];
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut process = Process::start_with(&[&arguments[..], more].concat(), &environment);
    let ready = process.expect("ready");
    (process, ready)
}

/// A client that has joined: its state folder.
pub struct Client {
    /// The folder.
    pub state: PathBuf,
}

impl Client {
    /// Runs one of its verbs to the end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        let state = self.state.display().to_string();
        run(&[arguments, &["--state", &state]].concat())
    }

    /// Starts one of its verbs.
    pub fn start(&self, arguments: &[&str]) -> Process {
        let state = self.state.display().to_string();
        Process::start(&[arguments, &["--state", &state]].concat())
    }

    /// Its agent, connected.
    pub fn up(&self) -> Process {
        let mut agent = self.start(&["up"]);
        agent.expect("connected");
        agent
    }

    /// `expose` in the foreground, and the public address.
    #[track_caller]
    pub fn expose(&self, arguments: &[&str]) -> (Process, SocketAddr) {
        let mut process = self.start(&[&["expose"], arguments].concat());
        let open = process.expect("open");
        (process, open["public"].as_str().unwrap().parse().unwrap())
    }

    /// `share` in the foreground, and the code.
    #[track_caller]
    pub fn share(&self, target: &str) -> (Process, String) {
        let mut process = self.start(&["share", target]);
        let code = process.expect("code")["code"].as_str().unwrap().to_owned();
        (process, code)
    }

    /// `connect` in the foreground, and where it listens.
    #[track_caller]
    pub fn connect(&self, code: &str) -> (Process, SocketAddr) {
        let mut process = self.start(&["connect", code]);
        let open = process.expect("open");
        assert_eq!(open["sealed"], "end-to-end", "{open}");
        (process, open["listen"].as_str().unwrap().parse().unwrap())
    }
}
