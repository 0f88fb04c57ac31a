//! Reading the sources of a configuration and laying them over each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::{self, ports};
use super::{
    CheckpointConfig, Config, Enrolment, EtcdConfig, KeepConfig, SETTINGS, Setting, StoreKind,
    VARIABLE_PREFIX,
};

/// Where a configuration file is looked for when none is named.
pub const FILES: &[&str] = &["./underpass.toml", "/etc/underpass/underpass.toml"];

/// A configuration file longer than this is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Names differing by more than this are not suggested.
const SUGGESTION_DISTANCE_MAX: usize = 4;

/// Where values come from, weakest first: defaults, `file`, `environment`, `flags`.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must exist; `None` looks at [`FILES`].
    pub file: Option<PathBuf>,
    /// No file is looked at.
    pub no_file: bool,
    /// All variables of the process; others than `UNDERPASS__…` are passed over.
    pub environment: Vec<(String, String)>,
    /// Key, value and the flag that said so.
    pub flags: Vec<(&'static str, String)>,
}

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A configuration and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the server runs with.
    pub config: Config,
    /// One row a setting, in the order of [`SETTINGS`].
    pub shown: Vec<Shown>,
}

/// One row of `config show`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// `server.listen`
    pub key: &'static str,
    /// Its value; `None` where it is unset.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Origin,
}

/// All mistakes of a configuration at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One mistake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such setting.
    #[error("{origin}: unknown setting `{key}`{}", .suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What it says.
        key: String,
        /// The nearest name that exists.
        suggestion: Option<String>,
    },
    /// It means nothing without another one.
    #[error("{origin}: `{key}` needs `{needs}`")]
    Alone {
        /// Where it stands.
        origin: Origin,
        /// Which setting.
        key: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// The value can't be used.
    #[error("{origin}: `{key}` = {value:?} {reason}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// Which setting.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it must be.
        reason: String,
    },
}

type Values = BTreeMap<&'static str, (String, Origin)>;

impl Loaded {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every mistake found, not only the first.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut values = Values::new();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.insert(setting.key, (default.to_owned(), Origin::Default));
            }
        }
        if let Some(path) = chosen_file(sources, &mut errors) {
            read_file(&path, &mut values, &mut errors);
        }
        for (name, value) in &sources.environment {
            let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            set(&mut values, &mut errors, &key, value.clone(), Origin::Variable(name.clone()));
        }
        for (key, value) in &sources.flags {
            let flag = Setting::find(key).and_then(|setting| setting.flag).unwrap_or("a flag");
            set(&mut values, &mut errors, key, value.clone(), Origin::Flag(flag));
        }
        together(&values, &mut errors);
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let shown = SETTINGS
            .iter()
            .map(|setting| match values.get(setting.key) {
                Some((value, origin)) => {
                    Shown { key: setting.key, value: Some(value.clone()), origin: origin.clone() }
                }
                None => Shown { key: setting.key, value: None, origin: Origin::Default },
            })
            .collect();
        match build(&values) {
            Some(config) => Ok(Self { config, shown }),
            // Every value was checked above: this arm says that the table and `build` disagree.
            None => Err(ConfigErrors(vec![ConfigError::File {
                path: PathBuf::new(),
                reason: "the settings can't be combined".to_owned(),
            }])),
        }
    }
}

fn chosen_file(sources: &Sources, errors: &mut Vec<ConfigError>) -> Option<PathBuf> {
    if let Some(path) = &sources.file {
        if !path.is_file() {
            errors.push(ConfigError::File { path: path.clone(), reason: "there is no such file".to_owned() });
            return None;
        }
        return Some(path.clone());
    }
    if sources.no_file {
        return None;
    }
    FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn read_file(path: &Path, values: &mut Values, errors: &mut Vec<ConfigError>) {
    let fail = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            errors.push(fail(format!("is larger than {FILE_BYTES_MAX} bytes")));
            return;
        }
        _ => match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                errors.push(fail(error.to_string()));
                return;
            }
        },
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            errors.push(fail(error.to_string().trim_end().to_owned()));
            return;
        }
    };
    flatten("", &table, &mut |key, value| {
        set(values, errors, key, value, Origin::File(path.to_owned()));
    });
}

fn flatten(prefix: &str, table: &toml::Table, found: &mut impl FnMut(&str, String)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, found),
            toml::Value::String(text) => found(&key, text.clone()),
            // A list is the same as its parts with commas between them.
            toml::Value::Array(parts) if parts.iter().all(toml::Value::is_str) => {
                let parts: Vec<_> = parts.iter().filter_map(toml::Value::as_str).collect();
                found(&key, parts.join(","));
            }
            other => found(&key, other.to_string()),
        }
    }
}

fn set(values: &mut Values, errors: &mut Vec<ConfigError>, key: &str, value: String, origin: Origin) {
    let Some(setting) = Setting::find(key) else {
        let suggestion = SETTINGS
            .iter()
            .map(|setting| (strsim::levenshtein(setting.key, key), setting.key))
            .min()
            .filter(|(distance, _)| *distance <= SUGGESTION_DISTANCE_MAX)
            .map(|(_, key)| key.to_owned());
        errors.push(ConfigError::Unknown { origin, key: key.to_owned(), suggestion });
        return;
    };
    if let Err(reason) = setting.check(&value) {
        errors.push(ConfigError::Value { origin, key: setting.key, value, reason });
        return;
    }
    values.insert(setting.key, (value, origin));
}

/// Settings that mean nothing, or something dangerous, without another.
const TOGETHER: &[(&str, &str)] = &[
    ("store.etcd.user", "store.etcd.password_file"),
    ("store.etcd.password_file", "store.etcd.user"),
    ("store.etcd.cert_file", "store.etcd.key_file"),
    ("store.etcd.key_file", "store.etcd.cert_file"),
    ("store.etcd.cert_file", "store.etcd.ca_file"),
    ("store.etcd.tls_name", "store.etcd.ca_file"),
];

fn together(values: &Values, errors: &mut Vec<ConfigError>) {
    for (key, needs) in TOGETHER {
        if let Some((_, origin)) = values.get(key)
            && !values.contains_key(needs)
        {
            errors.push(ConfigError::Alone { origin: origin.clone(), key, needs });
        }
    }
}

/// `None` only when a setting is missing from the table.
fn build(values: &Values) -> Option<Config> {
    let text = |key: &str| values.get(key).map(|(value, _)| value.as_str());
    let seconds = |key: &str| Some(Duration::from_secs(text(key)?.parse().ok()?));
    let listen: std::net::SocketAddr = text("server.listen")?.parse().ok()?;
    Some(Config {
        listen,
        advertise: text("server.advertise").map(ToOwned::to_owned),
        data: PathBuf::from(text("server.data")?),
        new_link_key: false,
        name: text("server.name")?.to_owned(),
        enrolment: match text("server.enrolment")? {
            "open" => Enrolment::Open,
            "closed" => Enrolment::Closed,
            _ => Enrolment::Invite,
        },
        invite_ttl: seconds("server.invite_ttl_s")?,
        shutdown_grace: seconds("server.shutdown_grace_s")?,
        presence_ttl: seconds("server.presence_ttl_s")?,
        store: match text("store.kind")? {
            "memory" => StoreKind::Memory,
            "etcd" => StoreKind::Etcd,
            _ => StoreKind::RocksDb,
        },
        etcd: EtcdConfig {
            endpoints: settings::endpoints(text("store.etcd.endpoints")?).map(ToOwned::to_owned).collect(),
            prefix: text("store.etcd.prefix")?.to_owned(),
            user: text("store.etcd.user").map(ToOwned::to_owned),
            password_file: text("store.etcd.password_file").map(PathBuf::from),
            ca_file: text("store.etcd.ca_file").map(PathBuf::from),
            cert_file: text("store.etcd.cert_file").map(PathBuf::from),
            key_file: text("store.etcd.key_file").map(PathBuf::from),
            tls_name: text("store.etcd.tls_name").map(ToOwned::to_owned),
            request_timeout: seconds("store.etcd.request_timeout_s")?,
        },
        keep: KeepConfig {
            activity: Duration::from_hours(24 * text("log.activity_days")?.parse::<u64>().ok()?),
            archive: text("log.archive")? == "on",
        },
        checkpoints: CheckpointConfig {
            file: text("log.checkpoints.file").map(PathBuf::from),
            interval: seconds("log.checkpoints.interval_s")?,
        },
        new_checkpoints: false,
        ports: ports(text("ingress.ports")?)?,
        bind: match text("ingress.bind") {
            Some(ip) => ip.parse().ok()?,
            None => listen.ip(),
        },
        api: text("api.listen")?.parse().ok()?,
        log_level: text("logging.level")?.to_owned(),
        log_json: text("logging.format")? == "json",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Loaded, ConfigErrors> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("underpass.toml");
        std::fs::write(&file, text).unwrap();
        Loaded::load(&Sources { file: Some(file), ..Sources::default() })
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("underpass.toml");
        std::fs::write(
            &file,
            "[server]\nlisten = \"127.0.0.1:1\"\nname = \"f\"\nshutdown_grace_s = 7\n[store]\nkind = \"memory\"\n",
        )
        .unwrap();
        let loaded = Loaded::load(&Sources {
            file: Some(file),
            no_file: false,
            environment: vec![
                ("UNDERPASS__SERVER__LISTEN".into(), "127.0.0.1:2".into()),
                ("UNDERPASS__SERVER__NAME".into(), "env".into()),
                ("PATH".into(), "/bin".into()),
            ],
            flags: vec![("server.listen", "127.0.0.1:3".into())],
        })
        .unwrap();
        assert_eq!(loaded.config.listen.port(), 3);
        assert_eq!(loaded.config.name, "env");
        assert_eq!(loaded.config.store, StoreKind::Memory);
        assert_eq!(loaded.config.shutdown_grace, Duration::from_secs(7));
        assert_eq!(loaded.config.ports, (20_000, 29_999));
        let origin = |key| loaded.shown.iter().find(|row| row.key == key).unwrap().origin.clone();
        assert_eq!(origin("server.listen"), Origin::Flag("--listen"));
        assert_eq!(origin("server.name"), Origin::Variable("UNDERPASS__SERVER__NAME".into()));
        assert_eq!(origin("api.listen"), Origin::Default);
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_a_suggestion() {
        let errors = with_file(
            "[server]\nlisten = \"here\"\nshutdown_grace_s = -1\n[stor]\nkind = \"memory\"\n[ingress]\nports = \"9-1\"\n",
        )
        .unwrap_err();
        let text = errors.to_string();
        assert_eq!(errors.0.len(), 4, "{text}");
        assert!(text.contains("did you mean `store.kind`?"), "{text}");
        assert!(text.contains("must be an address such as"), "{text}");
    }

    #[test]
    fn a_named_file_must_exist_and_be_toml() {
        let missing = Sources { file: Some("/nonexistent/underpass.toml".into()), ..Sources::default() };
        assert!(Loaded::load(&missing).is_err());
        assert!(with_file("listen = ").is_err());
    }

    #[test]
    fn public_ports_listen_where_clients_do_unless_told() {
        let loaded = with_file("[server]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        assert_eq!(loaded.config.bind.to_string(), "127.0.0.1");
        let loaded = with_file("[ingress]\nbind = \"::1\"\n").unwrap();
        assert_eq!(loaded.config.bind.to_string(), "::1");
    }

    #[test]
    fn every_default_is_a_valid_value() {
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                assert_eq!(setting.check(default), Ok(()), "{}", setting.key);
            }
        }
    }

    #[test]
    fn shipped_examples_load() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/config");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let broken = path.file_name().unwrap().to_string_lossy().starts_with("bad-");
            let loaded = Loaded::load(&Sources { file: Some(path.clone()), ..Sources::default() });
            assert_eq!(loaded.is_err(), broken, "{}: {loaded:?}", path.display());
            seen += 1;
        }
        assert!(seen >= 2);
    }
}
