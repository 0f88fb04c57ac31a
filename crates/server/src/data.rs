//! The data folder: who may use it, and the secrets in it.
//!
//! ```text
//! underpass-data/          0700
//!   UNDERPASS              what this folder is and which format it has
//!   lock                   held by the process that uses the folder
//!   node                   this node's id
//!   advertised             what clients were last told to connect to
//!   place.json             where the log was kept at the last start
//!   log                    the id of the log that was served
//!   link.key               0600  the key that clients pin
//!   checkpoint.key         0600  what this node signs checkpoints with
//!   checkpoint.pub         its public half, for whoever checks them
//!   checkpoints.jsonl      checkpoints, where the configuration names no other file
//!   admin.key              0600  the first API key
//!   control.sock           0600  the API for whoever may read this folder
//!   store/                 the storage backend, if it is one with files
//!   archive/               frames that left the store
//! ```

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rustix::fs::FlockOperation;
use underpass_domain::{LogId, NodeId, Random, RandomFailed, Timestamp};
use underpass_eventlog::CheckpointKey;
use underpass_wire::noise::StaticKey;
use zeroize::Zeroizing;

use crate::backend::Place;

/// The first line of the marker file; a folder without it is not ours.
const MARKER: &str = "underpass data folder, format 1\n";

/// The folder with frames that left the store.
pub(crate) const ARCHIVE: &str = "archive";

/// Key files are one short line. Whatever is longer is something else.
const SMALL_FILE_BYTES_MAX: u64 = 4096;

/// What a link key's line begins with, so that a key of another kind is not taken for one.
const LINK_KEY_PREFIX: &str = "underpass-link-key-1:";

/// What a checkpoint key's line begins with; the key's seed follows, as the link key does.
const CHECKPOINT_KEY_PREFIX: &str = "underpass-checkpoint-key-1:";

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Another process has it open.
    #[error("the data folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It has files, but not ours.
    #[error("{} is not empty and is not a data folder of underpass", .0.display())]
    Foreign(PathBuf),
    /// A newer release wrote it.
    #[error("the data folder {} was written by a newer release ({found})", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// What its marker says.
        found: String,
    },
    /// Others can read or write it.
    #[error("{} is open to others (mode {mode:o})", path.display())]
    Mode {
        /// Which file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The mode it must have.
        wanted: u32,
    },
    /// A key file does not hold a key.
    #[error("{} does not hold a key: {reason}", path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is a store, but not the key that its clients have pinned.
    #[error("{} is missing: it is the key by which clients know this server", .0.display())]
    NoKey(PathBuf),
    /// There is no such folder, and this verb does not make one.
    #[error("there is no data folder at {}", .0.display())]
    Missing(PathBuf),
    /// A file that the configuration names can't be read.
    #[error("{} can't be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("{}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key can't be used.
    #[error("the link key can't be used")]
    Key(#[from] underpass_wire::noise::NoiseError),
    /// The system gave no random bytes.
    #[error("no key could be made")]
    Random(#[from] RandomFailed),
}

impl DataError {
    /// A stable code; each has a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse(_) => "data.in_use",
            Self::Foreign(_) => "data.foreign",
            Self::Newer { .. } => "data.newer",
            Self::Mode { .. } => "data.mode",
            Self::BadKey { .. } | Self::Key(_) => "data.bad_key",
            Self::NoKey(_) => "data.key_missing",
            Self::Missing(_) => "data.missing",
            Self::File { .. } => "config.file",
            Self::Io { .. } => "data.io",
            Self::Random(_) => "random.failed",
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::InUse(_) => "stop the other server, or name another folder with --data".to_owned(),
            Self::Foreign(_) => "name an empty or new folder with --data".to_owned(),
            Self::Newer { .. } => "run the release that wrote it, or a newer one".to_owned(),
            Self::Mode { path, wanted, .. } => format!("run: chmod {wanted:o} {}", path.display()),
            Self::BadKey { path, .. } => {
                format!("restore {} from a backup; without it, clients must be invited anew", path.display())
            }
            Self::Key(_) => "restore link.key from a backup".to_owned(),
            Self::NoKey(_) => "restore it from a backup, or copy it from another node of the cluster; if it is lost, `underpass serve --new-link-key` makes a new one, and every client must join anew".to_owned(),
            Self::Missing(_) => {
                "name the folder with --data, or start a server with `underpass serve`".to_owned()
            }
            Self::File { .. } => "check the path in the configuration, and that the file is yours".to_owned(),
            Self::Io { .. } => "check that the folder exists, is yours and has space".to_owned(),
            Self::Random(_) => "check /dev/urandom and try again".to_owned(),
        }
    }
}

/// A data folder that this process holds the lock of, until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Takes the folder, making it if `create` says so.
    ///
    /// # Errors
    /// Nothing is changed in a folder that is refused.
    pub fn open(path: &Path, create: bool) -> Result<Self, DataError> {
        match std::fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                make_folder(path).map_err(at(path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DataError::Missing(path.to_owned()));
            }
            Err(error) => return Err(at(path)(error)),
        }
        let marker = path.join("UNDERPASS");
        let found = match read_small(&marker) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&marker)(error)),
        };
        match found.as_deref() {
            Some(MARKER) => {}
            Some(other) if other.starts_with("underpass data folder, format ") => {
                return Err(DataError::Newer { path: path.to_owned(), found: other.trim().to_owned() });
            }
            Some(_) => return Err(DataError::Foreign(path.to_owned())),
            None => {
                let mut entries = std::fs::read_dir(path).map_err(at(path))?;
                // A start that was cut off before the marker was written leaves at most the lock and a draft of
                // the marker.
                let ours = |name: std::ffi::OsString| name == "lock" || name == "UNDERPASS.new";
                if entries.any(|entry| entry.map_or(true, |entry| !ours(entry.file_name()))) {
                    return Err(DataError::Foreign(path.to_owned()));
                }
                if !create {
                    return Err(DataError::Missing(path.to_owned()));
                }
            }
        }
        // Only of a folder that is ours: nobody is told to change the mode of another.
        check_mode(path, 0o700)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataError::InUse(path.to_owned())),
            Err(error) => return Err(at(&lock_path)(error.into())),
        }
        if found.is_none() {
            write_new(&marker, MARKER.as_bytes(), 0o644)?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The id of the node that uses this folder, made at the first start.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn node_id(&self, now: Timestamp, random: &dyn Random) -> Result<NodeId, DataError> {
        let path = self.join("node");
        match read_small(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| DataError::BadKey { path, reason: "it holds something else than a node id" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bits = [0; 10];
                random.fill(&mut bits)?;
                let node = NodeId::new(now, bits);
                write_new(&path, format!("{node}\n").as_bytes(), 0o600)?;
                Ok(node)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The key that clients pin, made at the first start. Where clients may have pinned one already (`pinned`), a
    /// missing key is made only with `anew`: a new one turns away every client.
    ///
    /// # Errors
    /// A file that is open to others, or holds an empty, short or constant key, is refused.
    pub fn link_key(&self, random: &dyn Random, pinned: bool, anew: bool) -> Result<StaticKey, DataError> {
        let path = self.join("link.key");
        match read_small(&path) {
            Ok(text) => {
                check_mode(&path, 0o600)?;
                let text = Zeroizing::new(text);
                let bytes = parse_key(LINK_KEY_PREFIX, &text)
                    .map_err(|reason| DataError::BadKey { path: path.clone(), reason })?;
                Ok(StaticKey::from_bytes(*bytes)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if pinned {
                    if !anew {
                        return Err(DataError::NoKey(path));
                    }
                    tracing::warn!(path = %path.display(), "a new link key is made; clients that joined before must join anew");
                }
                let mut bytes = Zeroizing::new([0; 32]);
                random.fill(&mut *bytes)?;
                let line = Zeroizing::new(format!("{LINK_KEY_PREFIX}{}\n", BASE64URL_NOPAD.encode(&*bytes)));
                write_new(&path, line.as_bytes(), 0o600)?;
                Ok(StaticKey::from_bytes(*bytes)?)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The key that this node signs checkpoints with, made at the first start. `checkpoint.pub` has its public half,
    /// which is written again where it is missing or another.
    ///
    /// # Errors
    /// As [`DataFolder::link_key`].
    pub(crate) fn checkpoint_key(&self, random: &dyn Random) -> Result<CheckpointKey, DataError> {
        let path = self.join("checkpoint.key");
        let bad = |reason| DataError::BadKey { path: path.clone(), reason };
        let seed = match read_small(&path) {
            Ok(text) => {
                check_mode(&path, 0o600)?;
                parse_key(CHECKPOINT_KEY_PREFIX, &Zeroizing::new(text)).map_err(bad)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = Zeroizing::new([0; 32]);
                random.fill(&mut *seed)?;
                let line =
                    Zeroizing::new(format!("{CHECKPOINT_KEY_PREFIX}{}\n", BASE64URL_NOPAD.encode(&*seed)));
                write_new(&path, line.as_bytes(), 0o600)?;
                seed
            }
            Err(error) => return Err(at(&path)(error)),
        };
        let key = CheckpointKey::from_seed(&seed).map_err(|_| bad("it can't be used"))?;
        let (public, line) = (self.join("checkpoint.pub"), format!("{}\n", key.public_key()));
        if read_small(&public).ok().as_ref() != Some(&line) {
            write_new(&public, line.as_bytes(), 0o644)?;
        }
        Ok(key)
    }

    /// The token in `admin.key`, if there is one.
    ///
    /// # Errors
    /// A file that is open to others is refused.
    pub fn admin_key(&self) -> Result<Option<Zeroizing<String>>, DataError> {
        let path = self.join("admin.key");
        match read_small(&path) {
            Ok(text) => {
                check_mode(&path, 0o600)?;
                Ok(Some(Zeroizing::new(text.trim().to_owned())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// What clients were last told to connect to, `HOST:PORT`.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn advertised(&self) -> Result<Option<String>, DataError> {
        let path = self.join("advertised");
        match read_small(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Remembers what clients are told to connect to, for verbs that run without the server.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn set_advertised(&self, address: &str) -> Result<(), DataError> {
        write_new(&self.join("advertised"), format!("{address}\n").as_bytes(), 0o644)
    }

    /// Copies a small file of another data folder into this one, with its mode. One that is not there is passed over.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub(crate) fn copy_in(&self, from: &Path, name: &str) -> Result<(), DataError> {
        let source = from.join(name);
        let read = || -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
            let mode = std::fs::metadata(&source)?.permissions().mode() & 0o777;
            Ok((Zeroizing::new(std::fs::read(&source)?), mode))
        };
        match read() {
            Ok((bytes, mode)) => write_new(&self.join(name), &bytes, mode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&source)(error)),
        }
    }

    /// Where the log was kept at the last start; RocksDB in folders of releases that knew nothing else.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub(crate) fn place(&self) -> Result<Place, DataError> {
        let path = self.join("place.json");
        match read_small(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|_| DataError::BadKey { path, reason: "it does not say where the log is kept" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::RocksDb),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Remembers where the log is kept.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub(crate) fn set_place(&self, place: &Place) -> Result<(), DataError> {
        let path = self.join("place.json");
        let text = serde_json::to_string(place).map_err(|error| at(&path)(error.into()))?;
        write_new(&path, format!("{text}\n").as_bytes(), 0o600)
    }

    /// The id of the log that was served from this folder, if one was that outlives a process.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub(crate) fn served_log(&self) -> Result<Option<LogId>, DataError> {
        let path = self.join("log");
        match read_small(&path) {
            Ok(text) => {
                let bad = || DataError::BadKey { path: path.clone(), reason: "it holds no id of a log" };
                let bytes = HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| bad())?;
                Ok(Some(LogId(bytes.as_slice().try_into().map_err(|_| bad())?)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Remembers which log is served.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub(crate) fn set_served_log(&self, log: LogId) -> Result<(), DataError> {
        if self.served_log()? == Some(log) {
            return Ok(());
        }
        write_new(&self.join("log"), format!("{}\n", HEXLOWER.encode(&log.0)).as_bytes(), 0o644)
    }

    /// Writes `admin.key`, whole or not at all.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn set_admin_key(&self, token: &str) -> Result<(), DataError> {
        let line = Zeroizing::new(format!("{token}\n"));
        write_new(&self.join("admin.key"), line.as_bytes(), 0o600)
    }
}

fn parse_key(prefix: &str, text: &str) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let encoded = text.trim().strip_prefix(prefix).ok_or("it does not begin like one")?;
    let decoded =
        Zeroizing::new(BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| "its encoding is broken")?);
    let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| "it is too short or too long")?;
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err("it is a constant, not a secret");
    }
    Ok(Zeroizing::new(bytes))
}

/// Refuses what others may read or write.
pub(crate) fn check_mode(path: &Path, wanted: u32) -> Result<(), DataError> {
    let mode = std::fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DataError::Mode { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// What is no text reads as an empty one: none of the small files may be that.
fn read_small(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        String::new()
    }))
}

/// Makes a folder, and the ones it is in, so that it is still there after a crash of the machine.
fn make_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for folder in missing {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Writes a file so that it is there whole, with its final mode, or not at all.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DataError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        at(path)(error)
    })
}

fn at(path: &Path) -> impl Fn(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use underpass_domain::testing::SeededRandom;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        (parent, path)
    }

    #[test]
    fn one_process_at_a_time() {
        let (_parent, path) = folder();
        let first = DataFolder::open(&path, true).unwrap();
        assert!(matches!(DataFolder::open(&path, true), Err(DataError::InUse(_))));
        drop(first);
        assert!(DataFolder::open(&path, true).is_ok());
    }

    #[test]
    fn a_foreign_folder_is_left_as_it_was() {
        let (_parent, path) = folder();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        std::fs::write(path.join("thesis.txt"), "mine").unwrap();
        assert!(matches!(DataFolder::open(&path, true), Err(DataError::Foreign(_))));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_foreign_folder_is_called_that_whatever_its_mode() {
        let (_parent, path) = folder();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("thesis.txt"), "mine").unwrap();
        assert_eq!(DataFolder::open(&path, true).unwrap_err().code(), "data.foreign");
        std::fs::write(path.join("UNDERPASS"), [0xff, 0xfe]).unwrap();
        assert_eq!(DataFolder::open(&path, true).unwrap_err().code(), "data.foreign");
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_again() {
        let (_parent, path) = folder();
        make_folder(&path).unwrap();
        std::fs::write(path.join("lock"), "").unwrap();
        std::fs::write(path.join("UNDERPASS.new"), &MARKER[..4]).unwrap();
        drop(DataFolder::open(&path, true).unwrap());
        assert_eq!(std::fs::read_to_string(path.join("UNDERPASS")).unwrap(), MARKER);
        assert!(!path.join("UNDERPASS.new").exists());
    }

    #[test]
    fn a_newer_folder_is_refused() {
        let (_parent, path) = folder();
        drop(DataFolder::open(&path, true).unwrap());
        std::fs::write(path.join("UNDERPASS"), "underpass data folder, format 2\n").unwrap();
        assert!(matches!(DataFolder::open(&path, true), Err(DataError::Newer { .. })));
    }

    #[test]
    fn a_verb_that_only_looks_makes_no_folder() {
        let (_parent, path) = folder();
        assert!(matches!(DataFolder::open(&path, false), Err(DataError::Missing(_))));
        assert!(!path.exists());
    }

    #[test]
    fn keys_stay_the_same_and_are_for_the_owner_alone() {
        let (_parent, path) = folder();
        let random = SeededRandom::new(1);
        let data = DataFolder::open(&path, true).unwrap();
        let key = data.link_key(&random, false, false).unwrap().public();
        assert_eq!(data.link_key(&random, false, false).unwrap().public(), key);
        let mode = std::fs::metadata(path.join("link.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_key_is_made_anew_only_when_asked_for() {
        let (_parent, path) = folder();
        let random = SeededRandom::new(1);
        let data = DataFolder::open(&path, true).unwrap();
        let lost = data.link_key(&random, false, false).unwrap().public();
        assert_eq!(data.link_key(&random, true, true).unwrap().public(), lost, "it is there");
        std::fs::remove_file(data.join("link.key")).unwrap();
        let error = data.link_key(&random, true, false).unwrap_err();
        assert_eq!(error.code(), "data.key_missing");
        assert!(error.hint().contains("--new-link-key"), "{}", error.hint());
        assert!(!data.join("link.key").exists(), "nothing is made in passing");
        assert_ne!(data.link_key(&random, true, true).unwrap().public(), lost);
    }

    #[test]
    fn a_folder_remembers_its_place_and_its_log() {
        let (_parent, path) = folder();
        let data = DataFolder::open(&path, true).unwrap();
        assert_eq!(data.place().unwrap(), Place::RocksDb, "as it was before it was remembered");
        assert_eq!(data.served_log().unwrap(), None);
        let sources = crate::config::Sources::default();
        let config = crate::config::Loaded::load(&sources).unwrap().config;
        let place = Place::configured(crate::config::StoreKind::Etcd, &config.etcd);
        data.set_place(&place).unwrap();
        data.set_served_log(LogId([7; 16])).unwrap();
        assert_eq!((data.place().unwrap(), data.served_log().unwrap()), (place, Some(LogId([7; 16]))));
        for name in ["place.json", "log"] {
            std::fs::write(data.join(name), "rubbish").unwrap();
        }
        assert_eq!(data.place().unwrap_err().code(), "data.bad_key");
        assert_eq!(data.served_log().unwrap_err().code(), "data.bad_key");
    }

    /// C18: secret files open to others, empty, short and constant secrets are refused.
    #[test]
    fn c18_loose_modes_and_weak_secrets_are_refused() {
        let (_parent, path) = folder();
        let random = SeededRandom::new(1);
        let data = DataFolder::open(&path, true).unwrap();
        data.link_key(&random, false, false).unwrap();
        let file = path.join("link.key");
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let error = data.link_key(&random, false, false).unwrap_err();
        assert_eq!(error.code(), "data.mode");
        assert!(error.hint().starts_with("run: chmod 600 "), "{}", error.hint());
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let zeros = format!("{LINK_KEY_PREFIX}{}\n", BASE64URL_NOPAD.encode(&[0; 32]));
        for weak in ["", "\n", "secret\n", "underpass-link-key-1:AAAA\n", &zeros] {
            std::fs::write(&file, weak).unwrap();
            assert_eq!(data.link_key(&random, false, false).unwrap_err().code(), "data.bad_key", "{weak:?}");
        }
        std::fs::write(&file, [0xff; 60]).unwrap();
        assert_eq!(data.link_key(&random, false, false).unwrap_err().code(), "data.bad_key", "no text");
        drop(data);
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(DataFolder::open(&path, true), Err(DataError::Mode { .. })));
    }
}
