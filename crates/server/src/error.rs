//! Why a node does not start.

use std::io;
use std::net::SocketAddr;

use crate::data::DataError;

/// Nothing was left half started when one of these comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An address can't be listened on.
    #[error("can't listen on {address} for {what}")]
    Listen {
        /// `clients` or `the API`.
        what: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Whether another program listens there.
        in_use: bool,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configuration names a backend that this binary lacks.
    #[error("the store `{0}` is not built into this binary")]
    NotBuiltIn(&'static str),
    /// The store's files can't be opened.
    #[cfg(feature = "rocksdb")]
    #[error("the store can't be opened")]
    Store(#[source] underpass_store_rocksdb::OpenError),
    /// The etcd cluster can't be used.
    #[cfg(feature = "etcd")]
    #[error("the store can't be opened")]
    Etcd(#[source] Box<underpass_store_etcd::OpenError>),
    /// The store was opened, and did not answer after that.
    #[error("the store does not answer")]
    StoreCall(#[source] underpass_store::StoreError),
    /// The store does not hold the log that this folder has served.
    #[error("{} has served log {served}, and the store holds {}", folder.display(),
        .found.map_or("none".to_owned(), |log| format!("log {log}")))]
    OtherLog {
        /// The data folder.
        folder: std::path::PathBuf,
        /// The log that was served.
        served: underpass_domain::LogId,
        /// The log in the store.
        found: Option<underpass_domain::LogId>,
    },
    /// The store holds a part of what was moved into it.
    #[error("the logs were moved into this store in part only")]
    HalfMoved,
    /// The log is not what it was when its newest checkpoint was written.
    #[error("the log disagrees with its checkpoints in {}: {why}", file.display())]
    Checkpoints {
        /// The file of checkpoints.
        file: std::path::PathBuf,
        /// How, as half a sentence.
        why: String,
    },
    /// A file of checkpoints is not one.
    #[error("{} can't be read", file.display())]
    Book {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        #[source]
        source: underpass_eventlog::BookError,
    },
    /// The file of checkpoints can't be used.
    #[error("the file of checkpoints {} can't be used", file.display())]
    CheckpointFile {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The clients of the log have pinned another key than the folder has.
    #[error("the store belongs to an installation with another link key")]
    OtherInstallation,
    /// There is no store in the folder.
    #[error("there is no store in {}", .0.display())]
    NoStore(std::path::PathBuf),
    /// The log can't be opened.
    #[error("the event log can't be opened")]
    Control(#[from] underpass_control::OpenError),
    /// A command of the start was not executed.
    #[error("the start could not be written down")]
    Execute(#[from] underpass_control::ControlError),
    /// The address for invites can't stand in one.
    #[error("invites can't be made")]
    Advertise(#[source] underpass_wire::token::InviteError),
    /// The control socket could not be made.
    #[error("can't serve {}", path.display())]
    Socket {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An essential task ended.
    #[error("an essential part of the node has failed; the log says which")]
    Fatal,
}

impl StartError {
    /// A stable code; each has a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Data(error) => error.code(),
            Self::Listen { in_use: true, .. } => "listen.in_use",
            Self::Listen { .. } => "listen.failed",
            Self::NotBuiltIn(_) => "store.not_built_in",
            #[cfg(feature = "rocksdb")]
            Self::Store(error) => store_code(error),
            #[cfg(feature = "etcd")]
            Self::Etcd(error) => etcd_code(error),
            Self::StoreCall(_) => "store.unavailable",
            Self::OtherLog { .. } => "store.other_log",
            Self::HalfMoved => "log.half_copied",
            Self::Checkpoints { .. } => "checkpoints.disagree",
            Self::Book { source, .. } => source.code(),
            Self::CheckpointFile { .. } => "config.file",
            Self::OtherInstallation => "store.other_installation",
            Self::NoStore(_) => "store.none",
            Self::Control(error) => log_code(error),
            Self::Execute(error) => error.code(),
            Self::Advertise(_) => "config.invalid",
            Self::Socket { .. } => "data.io",
            Self::Fatal => "node.failed",
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Data(error) => error.hint(),
            Self::Listen { in_use: true, address, .. } => {
                format!("stop what listens on port {}, or choose another address", address.port())
            }
            Self::Listen { .. } => "choose an address of this machine, and a port you may use".to_owned(),
            Self::NotBuiltIn(name) => {
                format!("choose another store, or build with `--features {name}`")
            }
            #[cfg(feature = "rocksdb")]
            Self::Store(error) => store_hint(error),
            #[cfg(feature = "etcd")]
            Self::Etcd(error) => etcd_hint(error).to_owned(),
            Self::StoreCall(_) => "check that the store runs and has space, and try again".to_owned(),
            Self::OtherLog { .. } => "check `[store]` in the configuration; move a log with `underpass store migrate`, or begin a new one with another data folder".to_owned(),
            Self::HalfMoved => "run the migration again, or empty the store".to_owned(),
            Self::Checkpoints { .. } => "put back the newest copy of the store; if the log is meant to be as it is, after a backup or a repair, start once with --new-checkpoints".to_owned(),
            Self::Book { file, .. } => {
                format!("put {} back from a copy, or move it away: checkpoints begin anew then", file.display())
            }
            Self::CheckpointFile { .. } => {
                "check `log.checkpoints.file` in the configuration, and that its folder is there, yours and has space".to_owned()
            }
            Self::OtherInstallation => "use the data folder, or a copy of the link.key, of the installation that wrote it, or another `store.etcd.prefix`; if that key is lost, start with --new-link-key".to_owned(),
            Self::NoStore(_) => {
                "nothing is kept on disk with `--store memory`; ask the running server".to_owned()
            }
            Self::Control(error) => log_hint(error).to_owned(),
            Self::Execute(_) => "try again; if it stays, look at the log lines above".to_owned(),
            Self::Advertise(_) => "say what clients connect to with --advertise HOST:PORT".to_owned(),
            Self::Socket { .. } => {
                "check that the data folder is on a local disk and its path is shorter than 100 bytes"
                    .to_owned()
            }
            Self::Fatal => "look at the log lines above".to_owned(),
        }
    }
}

#[cfg(feature = "rocksdb")]
fn store_code(error: &underpass_store_rocksdb::OpenError) -> &'static str {
    use underpass_store_rocksdb::OpenError;
    match error {
        OpenError::InUse { .. } => "data.in_use",
        OpenError::Foreign { .. } => "data.foreign",
        OpenError::Newer { .. } => "data.newer",
        OpenError::Corrupt { .. } => "store.corrupt",
        OpenError::RolledBack { .. } => "store.rolled_back",
        _ => "store.failed",
    }
}

#[cfg(feature = "rocksdb")]
fn store_hint(error: &underpass_store_rocksdb::OpenError) -> String {
    use underpass_store_rocksdb::OpenError;
    match error {
        OpenError::InUse { .. } => "stop the other server, or name another folder with --data",
        OpenError::Foreign { .. } => "name an empty or new folder with --data",
        OpenError::Newer { .. } => "run the release that wrote it, or a newer one",
        OpenError::Corrupt { .. } | OpenError::RolledBack { .. } => {
            "keep a copy of the data folder, check the disk, and restore the folder from a backup"
        }
        _ => "check that the data folder is yours and its disk has space",
    }
    .to_owned()
}

#[cfg(feature = "etcd")]
fn etcd_code(error: &underpass_store_etcd::OpenError) -> &'static str {
    use underpass_store_etcd::OpenError;
    match error {
        OpenError::Options { .. } => "config.invalid",
        OpenError::Unreachable { .. } => "store.unreachable",
        OpenError::Tls { .. } => "store.tls",
        OpenError::Credentials { .. } | OpenError::Denied { .. } => "store.credentials",
        OpenError::Foreign { .. } => "store.foreign",
        OpenError::Absent { .. } => "store.none",
        OpenError::Newer { .. } => "data.newer",
        _ => "store.failed",
    }
}

#[cfg(feature = "etcd")]
fn etcd_hint(error: &underpass_store_etcd::OpenError) -> &'static str {
    use underpass_store_etcd::OpenError;
    match error {
        OpenError::Options { .. } => "correct `[store.etcd]` in the configuration",
        OpenError::Unreachable { .. } => "start etcd, or correct `store.etcd.endpoints`",
        OpenError::Tls { .. } => "correct `store.etcd.ca_file`, `cert_file`, `key_file` and `tls_name`",
        OpenError::Credentials { .. } => "correct `store.etcd.user` and the file that `password_file` names",
        OpenError::Denied { .. } => "give the user a role that may read and write below `store.etcd.prefix`",
        OpenError::Foreign { .. } => "choose a `store.etcd.prefix` that nobody uses",
        OpenError::Absent { .. } => "correct `store.etcd.endpoints` and `store.etcd.prefix`",
        OpenError::Newer { .. } => "run the release that wrote it, or a newer one",
        _ => "use a supported release of etcd, and try again",
    }
}

fn log_code(error: &underpass_control::OpenError) -> &'static str {
    use underpass_control::OpenError;
    use underpass_eventlog::OpenError as LogError;
    match error {
        OpenError::Log { source: LogError::Corrupt { .. }, .. } => "log.bad",
        OpenError::Log { source: LogError::Newer { .. }, .. } => "log.newer",
        OpenError::Log { source: LogError::Foreign { .. }, .. } => "data.foreign",
        OpenError::Log { source: LogError::HalfCopied { .. }, .. } => "log.half_copied",
        OpenError::Log { source: LogError::Trimmed { .. }, .. } => "log.trimmed",
        OpenError::Archive(error) => error.code(),
        OpenError::Log { source: LogError::HalfRepaired { .. }, .. } => "log.half_repaired",
        OpenError::Start(error) => error.code(),
        _ => "store.failed",
    }
}

fn log_hint(error: &underpass_control::OpenError) -> &'static str {
    use underpass_control::OpenError;
    use underpass_eventlog::OpenError as LogError;
    match error {
        OpenError::Log { source: LogError::Corrupt { .. }, .. } => {
            "run `underpass log verify`, keep a copy of the data folder, and restore it from a backup; without one, `underpass log repair` says what can be kept"
        }
        OpenError::Log { source: LogError::Newer { .. }, .. } => {
            "run the release that wrote it, or a newer one"
        }
        OpenError::Log { source: LogError::Foreign { .. }, .. } => "name an empty or new folder with --data",
        OpenError::Log { source: LogError::HalfCopied { .. }, .. } => {
            "run the migration again, or empty the store"
        }
        OpenError::Log { source: LogError::Trimmed { .. }, .. } => {
            "bring the folder `archive` of the data folder back from a backup"
        }
        OpenError::Archive(_) => "bring the file back from a backup, or check that it can be read",
        OpenError::Log { source: LogError::HalfRepaired { .. }, .. } => "run `underpass log repair` again",
        _ => "check that the data folder is yours and its disk has space, and try again",
    }
}
