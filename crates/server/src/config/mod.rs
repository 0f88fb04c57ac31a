//! What a server is told: defaults, then the file, then the environment, then flags.

mod docs;
mod load;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use docs::{markdown, schema};
pub use load::{ConfigError, ConfigErrors, FILES, Loaded, Origin, Shown, Sources};
pub use settings::{Kind, SETTINGS, Setting};

/// What the names of environment variables begin with.
pub const VARIABLE_PREFIX: &str = "UNDERPASS__";

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// `HOST:PORT` that others use, if it differs from `listen`.
    pub advertise: Option<String>,
    /// The data folder.
    pub data: PathBuf,
    /// Whether a lost link key may be made anew. Never a setting: it is for one start.
    pub new_link_key: bool,
    /// This node's name.
    pub name: String,
    /// Who may enrol.
    pub enrolment: Enrolment,
    /// Life of the invite that `serve` prints.
    pub invite_ttl: Duration,
    /// How long running tunnels may finish.
    pub shutdown_grace: Duration,
    /// Life of this node's lease.
    pub presence_ttl: Duration,
    /// Which backend.
    pub store: StoreKind,
    /// Which etcd, if that is the backend.
    pub etcd: EtcdConfig,
    /// What becomes of old frames.
    pub keep: KeepConfig,
    /// Signed checkpoints of the logs.
    pub checkpoints: CheckpointConfig,
    /// Whether checkpoints that disagree with the log are set aside. Never a setting: it is for one start.
    pub new_checkpoints: bool,
    /// First and last public port.
    pub ports: (u16, u16),
    /// Where public ports listen.
    pub bind: IpAddr,
    /// Where the API listens.
    pub api: SocketAddr,
    /// `error` to `trace`.
    pub log_level: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
}

/// What becomes of old frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepConfig {
    /// How long activity stays in the store.
    pub activity: Duration,
    /// Whether frames are archived before they leave it.
    pub archive: bool,
}

/// Who may become a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Anybody.
    Open,
    /// Whoever holds an invite.
    Invite,
    /// Nobody.
    Closed,
}

/// The backends that a configuration may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Gone with the process.
    Memory,
    /// In the data folder.
    RocksDb,
    /// In an etcd cluster.
    Etcd,
}

/// Which etcd, and how to get in. Files are named, not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdConfig {
    /// Members of the cluster.
    pub endpoints: Vec<String>,
    /// What the keys of this installation begin with.
    pub prefix: String,
    /// The user.
    pub user: Option<String>,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
    /// The file with the authority of the members' certificates; without it no TLS is spoken.
    pub ca_file: Option<PathBuf>,
    /// The file with the certificate of this node.
    pub cert_file: Option<PathBuf>,
    /// The file with its private key.
    pub key_file: Option<PathBuf>,
    /// The name in the members' certificates.
    pub tls_name: Option<String>,
    /// The bound of one request.
    pub request_timeout: Duration,
}

/// Where checkpoints are written, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// The file; in the data folder where none is named.
    pub file: Option<PathBuf>,
    /// The time between two.
    pub interval: Duration,
}

impl StoreKind {
    /// The word that the configuration uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::RocksDb => "rocksdb",
            Self::Etcd => "etcd",
        }
    }
}
