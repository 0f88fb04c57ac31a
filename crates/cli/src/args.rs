//! The command line, as clap sees it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use underpass_domain::LogPosition;

/// What `--help` says after the options, on every level.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 not found, 5 can't reach, 10 credentials \
                          refused.";

/// Of what copies logs.
const PROGRESS: &str = "With --output json a line {\"event\":\"progress\",\"log\":...,\"checked\":...,\"written\":...,\"end\":...} \
                        goes to standard output for each hundredth of a log; `end` is null while it is unknown. Cut off, it \
                        is run again and goes on where it was.";

/// Reach services behind NAT and firewalls; every change is an event on one verifiable log.
#[derive(Debug, Parser)]
#[command(name = "underpass", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// What goes to standard output: text for people, or one JSON object a line for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// How much goes to standard error: error, warn, info, debug, trace, or filters such as `underpass_gateway=debug`
    #[arg(long, global = true, value_name = "LEVEL", env = "UNDERPASS_LOG")]
    pub log: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned text.
    Text,
    /// JSON lines.
    Json,
}

/// All verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a server
    #[command(after_help = "Example:\n  underpass serve --advertise tunnel.example.org:7400")]
    Serve(ServeArgs),
    /// Make an invite: one line that lets one client join, once
    #[command(
        after_help = "Examples:\n  underpass invite --data ./underpass-data\n  underpass invite --api \
                            http://127.0.0.1:7480 --key-file admin.key --ttl 1h"
    )]
    Invite(InviteArgs),
    /// Join a server with an invite
    #[command(
        after_help = "Examples:\n  underpass join 203.0.113.5:7400#...\n  underpass join - < invite.txt"
    )]
    Join(JoinArgs),
    /// Run the agent in the foreground: serve all mappings of this client
    Up(AgentArgs),
    /// Make a local target reachable at a public port of the server
    #[command(
        after_help = "Examples:\n  underpass expose 3000\n  underpass expose 192.168.1.9:22 --port 20022 --name \
                            ssh --detach"
    )]
    Expose(ExposeArgs),
    /// Make a code that lets one other client reach a local target, end to end
    #[command(after_help = "Example:\n  underpass share 22")]
    Share(ShareArgs),
    /// Redeem a code and listen on a local port for it
    #[command(
        after_help = "Examples:\n  underpass connect h4x-w77-pam... --listen 127.0.0.1:2222\n  underpass connect \
                            - < code.txt"
    )]
    Connect(ConnectArgs),
    /// List the mappings of this client, or of the whole server with --data or --api
    Ls(ReachArgs),
    /// Remove a mapping, by id or name
    Rm(SubjectArgs),
    /// Show how this client, or with --data or --api the server, is doing
    Status(ReachArgs),
    /// Show the events of one mapping, by id or name
    History(SubjectArgs),
    /// Say why a mapping does not answer, a client is not linked, or what became of a code, invite or key
    #[command(
        after_help = "Examples:\n  underpass explain web --data ./underpass-data\n  underpass explain client_01... --api \
                            http://127.0.0.1:7480 --key-file admin.key"
    )]
    Explain(ExplainArgs),
    /// Undo the whole command whose event is at a position, by the command that compensates it
    #[command(
        after_help = "Examples:\n  underpass undo 1842 --data ./underpass-data\n  underpass undo control:1842 --api \
                            http://127.0.0.1:7480 --key-file admin.key"
    )]
    Undo(UndoArgs),
    /// Look at the event log
    Log {
        /// What to do with it
        #[command(subcommand)]
        verb: LogVerb,
    },
    /// Move, back up and check stores
    #[command(after_help = "Example:\n  underpass store migrate --from rocksdb:./underpass-data --to \
                            etcd://127.0.0.1:2379")]
    Store {
        /// What to do with it
        #[command(subcommand)]
        verb: StoreVerb,
    },
    /// Look at the server's configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Run the whole story on this machine, against a real service, and leave the docs to browse
    Demo(DemoArgs),
    /// Print the completions of a shell
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data folder [default: ./underpass-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where clients connect [default: 0.0.0.0:7400]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// What invites and public addresses say
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where the API and its docs are served [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR:PORT")]
    pub api: Option<String>,
    /// The storage backend [default: rocksdb]
    #[arg(long, value_name = "memory|rocksdb|etcd")]
    pub store: Option<String>,
    /// Make a new link key where the old one is lost; every client must join anew
    #[arg(long)]
    pub new_link_key: bool,
    /// Set checkpoints aside that disagree with the log, after a backup was put back or the log was repaired
    #[arg(long)]
    pub new_checkpoints: bool,
}

/// How a verb reaches a server as its administrator.
#[derive(Clone, Debug, Default, Args)]
pub struct AdminArgs {
    /// The server's data folder; works with and without a running server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["api", "key_file"])]
    pub data: Option<PathBuf>,
    /// The server's API, as http://ADDR:PORT
    #[arg(long, value_name = "URL", requires = "key_file")]
    pub api: Option<String>,
    /// The file with the API key, 0600
    #[arg(long, value_name = "FILE", env = "UNDERPASS_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The data folder: the one named, else where `serve` puts it.
    pub fn folder(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("./underpass-data"))
    }

    /// Whether a server was named.
    pub fn named(&self) -> bool {
        self.data.is_some() || self.api.is_some()
    }
}

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How long it can be used, as 10m, 1h or 2d
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::duration::parse)]
    pub ttl: std::time::Duration,
    /// A note for the audit trail
    #[arg(long)]
    pub label: Option<String>,
}

/// Where a client keeps its identity.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// The client's state folder [default: ~/.local/state/underpass]
    #[arg(long, value_name = "DIR", env = "UNDERPASS_STATE")]
    pub state: Option<PathBuf>,
}

/// How an agent of this verb's own is run, when none runs yet.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub state: StateArgs,
    /// Targets that may be dialled beyond those exposed and shared, as 10.0.0.0/8:*, db.lan:5432 or *:8000-8999;
    /// may be repeated
    #[arg(long, value_name = "HOST:PORTS")]
    pub allow: Vec<String>,
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The invite; `-` reads it from standard input
    pub invite: String,
    /// What this client is called [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    pub state: StateArgs,
}

/// Arguments of `expose`.
#[derive(Debug, Args)]
pub struct ExposeArgs {
    /// PORT, HOST:PORT or [IPV6]:PORT; without a host 127.0.0.1
    pub target: String,
    /// The public port [default: the server picks one]
    #[arg(long)]
    pub port: Option<u16>,
    /// The mapping's name [default: made of the target's port]
    #[arg(long)]
    pub name: Option<String>,
    /// Seal the way between the server and this client; `auto` means on
    #[arg(long, value_enum, default_value_t = SealArg::Auto)]
    pub seal: SealArg,
    /// Callers at once [default: no limit]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
    /// End a tunnel on which nothing passes for so many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub idle_timeout: Option<u32>,
    #[command(flatten)]
    pub detach: DetachArgs,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// `--detach`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DetachArgs {
    /// Return at once and leave the serving to the running agent (`underpass up`)
    #[arg(long)]
    pub detach: bool,
}

/// `--seal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SealArg {
    /// As `on`.
    Auto,
    /// Sealed records.
    On,
    /// Plain: for networks that are trusted.
    Off,
}

/// Arguments of `share`.
#[derive(Debug, Args)]
pub struct ShareArgs {
    /// PORT, HOST:PORT or [IPV6]:PORT; without a host 127.0.0.1
    pub target: String,
    /// How long the code can be redeemed, as 10m or 1h [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
    pub activation: Option<std::time::Duration>,
    /// How long access lasts after that, as 12h or 7d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
    pub access: Option<std::time::Duration>,
    #[command(flatten)]
    pub detach: DetachArgs,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Arguments of `connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The connection code; `-` reads it from standard input
    pub code: String,
    /// Where to listen [default: where it listened before, else a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    pub detach: DetachArgs,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// A verb that asks the agent, or a server when one is named.
#[derive(Clone, Debug, Args)]
pub struct ReachArgs {
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The same, about one mapping.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The mapping's id or name
    pub mapping: String,
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The id of a mapping, client, code, invite or key, or the name of a mapping or client
    #[arg(value_name = "ID|NAME")]
    pub what: String,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Arguments of `undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// A position of the control log, as `history` and `log show` print it: control:1842 or 1842
    #[arg(value_parser = str::parse::<LogPosition>)]
    pub position: LogPosition,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The verbs of `log`.
#[derive(Debug, Subcommand)]
pub enum LogVerb {
    /// Print events as they are appended
    Tail {
        #[command(flatten)]
        log: LogArgs,
        /// How many past events to begin with
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: u64,
        /// End after the past events instead of waiting for more
        #[arg(long)]
        no_follow: bool,
    },
    /// Print the events after a position
    Show {
        #[command(flatten)]
        log: LogArgs,
        /// Begin after this position
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        after: u64,
        /// End after so many events
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Only events of this stream, as `mapping/mapping_01...`
        #[arg(long)]
        stream: Option<String>,
        /// Only events of these types, as mapping.created,mapping.removed
        #[arg(long, value_delimiter = ',')]
        types: Vec<String>,
    },
    /// Print the read models as of a position or a time
    Replay {
        #[command(flatten)]
        log: LogArgs,
        /// As of this position, or this time (RFC 3339, or HH:MM of today in UTC) [default: the head]
        #[arg(long, value_name = "POSITION|TIME")]
        as_of: Option<String>,
    },
    /// Write events as JSON lines of CloudEvents, from which the log can be checked and made again
    Export {
        #[command(flatten)]
        log: LogArgs,
        /// Only events after this position
        #[arg(long, value_name = "POSITION")]
        after: Option<u64>,
        /// Only events up to and with this position
        #[arg(long, value_name = "POSITION")]
        until: Option<u64>,
        /// Where to [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check an export by itself: no store and no server are needed; exit 1 at the first bad line
    VerifyExport {
        /// The file; `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        against: AgainstArgs,
    },
    /// Make a log again from a whole export, in a store that holds nothing of it
    #[command(after_help = PROGRESS)]
    Import {
        /// The file; `-` reads standard input
        file: PathBuf,
        /// Where it goes: rocksdb:DIR, etcd://HOST:PORT/PREFIX or config:FILE
        #[arg(long, value_name = "STORE")]
        to: String,
        /// Which log: control (default) or activity
        #[arg(long = "log-name", value_parser = ["control", "activity"], default_value = "control")]
        name: String,
    },
    /// Print what came, changed and went between two points
    #[command(
        after_help = "Examples:\n  underpass log diff 1790 1842 --data ./underpass-data\n  underpass log diff 03:12"
    )]
    Diff {
        #[command(flatten)]
        admin: AdminArgs,
        /// A position of the control log, or a time (RFC 3339, or HH:MM of today in UTC)
        #[arg(value_name = "FROM")]
        from: String,
        /// The same [default: the head]
        #[arg(value_name = "TO")]
        to: Option<String>,
        /// How many things at the most, up to 500
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Copy frames to the archive in the data folder; the store keeps them
    Archive {
        #[command(flatten)]
        log: LogArgs,
        /// Only up to and with this position
        #[arg(long, value_name = "POSITION")]
        until: Option<u64>,
    },
    /// Take old frames out of the store, to the archive if there is one; without --yes only say what would go
    #[command(
        after_help = "Examples:\n  underpass log trim --log-name activity --before 2026-08-01T00:00:00Z --yes\n  underpass log trim --log-name activity --carry --yes"
    )]
    Trim {
        #[command(flatten)]
        log: LogArgs,
        /// What was recorded before this time (RFC 3339, or HH:MM of today in UTC) [default: now]
        #[arg(long, value_name = "TIME", conflicts_with = "carry")]
        before: Option<String>,
        /// Make the activity log one that can be cut right here: say everything again that is remembered of it
        #[arg(long)]
        carry: bool,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Cut a damaged log back to what is good, and put the rest aside; without --yes only say what would be done
    #[command(
        after_help = "Examples:\n  underpass log repair --data ./underpass-data\n  underpass log repair --data \
                            ./underpass-data --log-name control --yes"
    )]
    Repair(RepairArgs),
    /// Check density, checksums and the hash chain, and with checkpoints that the log is what it was; exit 1 at the first bad position
    Verify {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        against: AgainstArgs,
    },
}

/// What a log is compared with.
#[derive(Clone, Debug, Default, Args)]
pub struct AgainstArgs {
    /// A file of checkpoints that a server has written, best one that was kept elsewhere
    #[arg(long, value_name = "FILE", requires = "checkpoint_key")]
    pub checkpoints: Option<PathBuf>,
    /// The public key they are signed with, or a file that holds it, as checkpoint.pub of the data folder
    #[arg(long, value_name = "FILE|KEY", requires = "checkpoints")]
    pub checkpoint_key: Option<String>,
}

/// Arguments of `log repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The server's data folder; no server may use it, nor the store that it names [default: ./underpass-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A store without its data folder: rocksdb:DIR, etcd://HOST:PORT/PREFIX or config:FILE
    #[arg(long, value_name = "STORE", conflicts_with = "data")]
    pub store: Option<String>,
    /// Which log: control, activity or both (default)
    #[arg(long = "log-name", value_parser = ["control", "activity", "both"], default_value = "both")]
    pub name: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Where to put what is cut off [default: repair/ in the data folder]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The folder of the archive, if the log was trimmed into one
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
    /// Begin a new epoch though the log is good: the store was put back from an older copy
    #[arg(long)]
    pub new_epoch: bool,
}

impl RepairArgs {
    /// The data folder: the one named, else where `serve` puts it.
    pub fn folder(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("./underpass-data"))
    }
}

/// The verbs of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Copy both logs into another store, check them on the way, and compare; resumable, the source is only read
    #[command(after_help = PROGRESS)]
    Migrate {
        /// Where they are: rocksdb:DIR, etcd://HOST:PORT/PREFIX or config:FILE
        #[arg(long, value_name = "STORE")]
        from: String,
        /// Where they go: an empty store, or an earlier copy
        #[arg(long, value_name = "STORE")]
        to: String,
    },
    /// Copy a data folder with its RocksDB, whether or not a server uses it
    Backup {
        /// The server's data folder
        #[arg(long, value_name = "DIR", default_value = "./underpass-data")]
        data: PathBuf,
        /// A folder that is new or empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Check both logs of a store that no server uses
    Check {
        /// The store: rocksdb:DIR, etcd://HOST:PORT/PREFIX or config:FILE
        #[arg(value_name = "STORE")]
        place: String,
    },
}

/// Which log, and where.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Which log: control (default) or activity
    #[arg(long = "log-name", value_parser = ["control", "activity"], default_value = "control")]
    pub name: String,
}

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Report all mistakes at once
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show every value and where it comes from
    Show {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End when the story is over instead of leaving the docs to browse [default without a terminal]
    #[arg(long)]
    pub no_wait: bool,
    /// How much data goes through each tunnel, in MiB
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    pub size: u32,
}
