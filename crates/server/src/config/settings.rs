//! The table of all settings. Everything that knows about settings reads it: loading, checking, `config show`,
//! `docs/configuration.md` and the schema for editors.

use std::net::SocketAddr;

/// One setting of the server.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section and name, `server.listen`. The environment variable is derived from it, see [`Setting::variable`].
    pub key: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The value in effect when nobody says anything; `None` where the absence of a value has a meaning of its own.
    pub default: Option<&'static str>,
    /// What it does, for `docs/configuration.md`.
    pub about: &'static str,
    /// The flag of `underpass serve` that sets it, if there is one.
    pub flag: Option<&'static str>,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADDR:PORT` with an IP address; port 0 asks the system for one.
    Address,
    /// `HOST:PORT`, as others reach it; a port of 0 is refused.
    HostPort,
    /// An IP address.
    Ip,
    /// A path, relative to the working folder.
    Path,
    /// Free text of 1 to 63 letters, digits, `-`, `_` and `.`.
    Name,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `LOW-HIGH`, both of 1 to 65535.
    Ports,
    /// One or more addresses of etcd members, with commas between them: `HOST:PORT`, alone or behind `http://` or
    /// `https://`. In a file a list of them.
    Endpoints,
    /// A whole number between these, both included.
    Number {
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
}

/// All settings, by section.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "server.listen",
        kind: Kind::Address,
        default: Some("0.0.0.0:7400"),
        about: "Where clients reach this server.",
        flag: Some("--listen"),
    },
    Setting {
        key: "server.advertise",
        kind: Kind::HostPort,
        default: None,
        about: "What invites and public addresses say. Without it: the listen address, or for 0.0.0.0 the address \
                of the interface with the default route.",
        flag: Some("--advertise"),
    },
    Setting {
        key: "server.data",
        kind: Kind::Path,
        default: Some("./underpass-data"),
        about: "The data folder: keys, store, control socket. Mode 0700; one process at a time.",
        flag: Some("--data"),
    },
    Setting {
        key: "server.name",
        kind: Kind::Name,
        default: Some("node"),
        about: "What this node is called in events and answers.",
        flag: None,
    },
    Setting {
        key: "server.enrolment",
        kind: Kind::Choice(&["invite", "open", "closed"]),
        default: Some("invite"),
        about: "Who may enrol a client: whoever holds an invite, anybody, or nobody.",
        flag: None,
    },
    Setting {
        key: "server.invite_ttl_s",
        kind: Kind::Number { min: 1, max: 604_800 },
        default: Some("600"),
        about: "How long the invite that `serve` prints can be used, in seconds.",
        flag: None,
    },
    Setting {
        key: "server.shutdown_grace_s",
        kind: Kind::Number { min: 0, max: 3600 },
        default: Some("30"),
        about: "How long running tunnels may go on after SIGTERM, in seconds.",
        flag: None,
    },
    Setting {
        key: "server.presence_ttl_s",
        kind: Kind::Number { min: 2, max: 300 },
        default: Some("15"),
        about: "How long the presence of this node and its clients outlives the node, in seconds.",
        flag: None,
    },
    Setting {
        key: "store.kind",
        kind: Kind::Choice(&["rocksdb", "etcd", "memory"]),
        default: Some("rocksdb"),
        about: "Where the event log is kept: in RocksDB inside the data folder, in an etcd cluster, or in memory until \
                the process ends.",
        flag: Some("--store"),
    },
    Setting {
        key: "store.etcd.endpoints",
        kind: Kind::Endpoints,
        default: Some("127.0.0.1:2379"),
        about: "Members of the etcd cluster. One is used at a time, the next when it fails.",
        flag: None,
    },
    Setting {
        key: "store.etcd.prefix",
        kind: Kind::Name,
        default: Some("underpass"),
        about: "All keys of this installation begin with it. Installations that share a cluster have different ones.",
        flag: None,
    },
    Setting {
        key: "store.etcd.user",
        kind: Kind::Name,
        default: None,
        about: "The user of etcd, where it asks for one; with `store.etcd.password_file`.",
        flag: None,
    },
    Setting {
        key: "store.etcd.password_file",
        kind: Kind::Path,
        default: None,
        about: "The file with that user's password, mode 0600.",
        flag: None,
    },
    Setting {
        key: "store.etcd.ca_file",
        kind: Kind::Path,
        default: None,
        about: "The authority (PEM) whose certificates etcd members show. With it TLS is spoken, and no other authority \
                is trusted.",
        flag: None,
    },
    Setting {
        key: "store.etcd.cert_file",
        kind: Kind::Path,
        default: None,
        about: "The certificate (PEM) that this node shows to etcd; with `store.etcd.key_file`.",
        flag: None,
    },
    Setting {
        key: "store.etcd.key_file",
        kind: Kind::Path,
        default: None,
        about: "The private key (PEM) of that certificate, mode 0600.",
        flag: None,
    },
    Setting {
        key: "store.etcd.tls_name",
        kind: Kind::Name,
        default: None,
        about: "The name in the certificates of etcd members, where it is not the host of the endpoint.",
        flag: None,
    },
    Setting {
        key: "store.etcd.request_timeout_s",
        kind: Kind::Number { min: 1, max: 60 },
        default: Some("5"),
        about: "How long one request to etcd may take, attempts at other members included, in seconds.",
        flag: None,
    },
    Setting {
        key: "log.activity_days",
        kind: Kind::Number { min: 1, max: 36_500 },
        default: Some("90"),
        about: "How long activity (sessions, usage, failed authentications) stays in the store, in days. The control log \
                is kept.",
        flag: None,
    },
    Setting {
        key: "log.archive",
        kind: Kind::Choice(&["on", "off"]),
        default: Some("on"),
        about: "Whether old frames go to `archive/` in the data folder before they leave the store. When `off`, old \
                activity is gone for good. With a log in etcd and `on`, control frames that no start needs move there, \
                too.",
        flag: None,
    },
    Setting {
        key: "log.checkpoints.file",
        kind: Kind::Path,
        default: None,
        about: "Where this node appends signed checkpoints of both logs, and what it compares them with at its start. \
                Without it: `checkpoints.jsonl` in the data folder. A file on another machine's disk shows that the \
                whole folder was put back from an older copy. One node, one file. Nothing is written for a log in \
                memory.",
        flag: None,
    },
    Setting {
        key: "log.checkpoints.interval_s",
        kind: Kind::Number { min: 1, max: 604_800 },
        default: Some("3600"),
        about: "The time between two checkpoints, in seconds. More are written at start and at a clean stop; none while \
                nothing has happened.",
        flag: None,
    },
    Setting {
        key: "ingress.ports",
        kind: Kind::Ports,
        default: Some("20000-29999"),
        about: "The public ports that mappings may have.",
        flag: None,
    },
    Setting {
        key: "ingress.bind",
        kind: Kind::Ip,
        default: None,
        about: "The address on which public ports listen. Without it: that of `server.listen`.",
        flag: None,
    },
    Setting {
        key: "api.listen",
        kind: Kind::Address,
        default: Some("127.0.0.1:7480"),
        about: "Where the REST API and its docs are served. Other addresses than loopback are served without TLS: \
                put a proxy in front.",
        flag: Some("--api"),
    },
    Setting {
        key: "logging.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Some("info"),
        about: "How much goes to standard error.",
        flag: None,
    },
    Setting {
        key: "logging.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Some("text"),
        about: "How the lines on standard error look.",
        flag: None,
    },
];

impl Setting {
    /// The setting with this key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The environment variable that sets it: `UNDERPASS__SERVER__LISTEN`.
    pub fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.key.replace('.', "__").to_uppercase())
    }

    /// Says what is wrong with `text`, if anything is.
    ///
    /// # Errors
    /// What a value must look like, as the end of a sentence.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let good = match self.kind {
            Kind::Address => text.parse::<SocketAddr>().is_ok(),
            Kind::HostPort => host_port(text).is_some_and(|(_, port)| port > 0),
            Kind::Ip => text.parse::<std::net::IpAddr>().is_ok(),
            Kind::Path => !text.is_empty(),
            Kind::Name => {
                (1..=63).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            }
            Kind::Choice(words) => words.contains(&text),
            Kind::Ports => ports(text).is_some(),
            Kind::Endpoints => endpoints(text).all(|one| {
                let bare = ["https://", "http://"].iter().find_map(|scheme| one.strip_prefix(scheme));
                host_port(bare.unwrap_or(one)).is_some_and(|(_, port)| port > 0)
            }),
            Kind::Number { min, max } => {
                text.parse::<u64>().is_ok_and(|number| (min..=max).contains(&number))
            }
        };
        if good { Ok(()) } else { Err(format!("must be {}", self.kind)) }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("an address such as 127.0.0.1:7400 or [::1]:7400"),
            Self::HostPort => f.write_str("HOST:PORT such as tunnel.example.org:7400"),
            Self::Ip => f.write_str("an IP address such as 0.0.0.0"),
            Self::Path => f.write_str("a path"),
            Self::Name => f.write_str("1 to 63 letters, digits, '-', '_' and '.'"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Ports => f.write_str("LOW-HIGH such as 20000-29999, each of 1 to 65535"),
            Self::Endpoints => {
                f.write_str("HOST:PORT such as 127.0.0.1:2379, or several with commas between them")
            }
            Self::Number { min, max } => write!(f, "a whole number of {min} to {max}"),
        }
    }
}

/// `HOST:PORT` taken apart; IPv6 addresses stand in brackets.
pub(super) fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bare {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    };
    if good { Some((host, port.parse().ok()?)) } else { None }
}

/// Endpoints taken apart.
pub(super) fn endpoints(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// `LOW-HIGH` taken apart.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (low > 0 && low <= high).then_some((low, high))
}
