//! The state folder: who this client is, whom it trusts, what it offers.
//!
//! | file | holds |
//! |---|---|
//! | `key` | the client's private key, base64url |
//! | `key.joining` | the same, while a `join` waits for the server's answer |
//! | `server.toml` | addresses and pinned key of the server, the client's id; written last by `join` |
//! | `shares.json` | the allow list of targets |
//! | `codes/<lookup>.json` | the secret half of a connection code that this client issued |
//! | `pairs/<mapping>.json` | of a mapping made by a code: the pinned key of the other end, where we listen |
//! | `pairs/<client>.json` | a pinned key that came from the server's directory |
//! | `agent.lock`, `agent.sock` | the running agent |
//!
//! The folder has mode 0700, its files 0600. A looser mode is refused (C18). Writes go to a temporary file
//! that is synced and renamed, so that a crash leaves the old content or the new.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use underpass_domain::{ClientId, PublicKey, Random};
use underpass_wire::noise::StaticKey;
use zeroize::Zeroizing;

use crate::error::AgentError;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// No state file is larger than this by far; a larger one is not ours, and is not read into memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

const KEY: &str = "key";
const KEY_JOINING: &str = "key.joining";
const SERVER: &str = "server.toml";

/// The folder of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// What `join` learned about the server, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// `HOST:PORT`, tried in this order.
    pub addresses: Vec<String>,
    /// The pinned key of the server.
    pub server_key: PublicKey,
    /// Our id.
    pub client: ClientId,
    /// Our name.
    pub name: String,
}

impl StateDir {
    /// The folder at `path`, made with mode 0700 when missing.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, AgentError> {
        let path = path.into();
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(DIR_MODE)
                .create(&path)
                .map_err(|source| AgentError::File { path: path.clone(), doing: "created", source })?;
        }
        Self::open(path)
    }

    /// The folder at `path`, which must exist. All modes of the folder and of what is in it are checked.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, AgentError> {
        let path = path.into();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(AgentError::Damaged { path, what: "not a folder".into() }),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(AgentError::NotJoined { path }),
            Err(source) => return Err(AgentError::File { path, doing: "read", source }),
        }
        let state = Self { path };
        check_tree(&state.path, true)?;
        Ok(state)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this folder has joined a server.
    pub fn has_joined(&self) -> bool {
        self.path.join(SERVER).exists()
    }

    /// What is known of the server.
    pub fn server(&self) -> Result<ServerFile, AgentError> {
        let path = self.path.join(SERVER);
        let text = Self::read(&path)?.ok_or_else(|| AgentError::NotJoined { path: self.path.clone() })?;
        let text = std::str::from_utf8(&text)
            .map_err(|_| AgentError::Damaged { path: path.clone(), what: "not text".into() })?;
        let file: ServerFile = toml::from_str(text)
            .map_err(|error| AgentError::Damaged { path: path.clone(), what: error.message().to_owned() })?;
        if file.addresses.is_empty() {
            return Err(AgentError::Damaged { path, what: "no address".into() });
        }
        Ok(file)
    }

    /// The client's private key.
    pub fn key(&self) -> Result<StaticKey, AgentError> {
        self.read_key(KEY)?.ok_or_else(|| AgentError::NotJoined { path: self.path.clone() })
    }

    /// The key to join with: the one in use, else the one of a join that was interrupted, else a new one,
    /// which is stored as `key.joining` before anything is sent. A join that was cut off after the server had
    /// used up the invite is thereby repeated with the same key, and finds the same client.
    pub(crate) fn joining_key(&self, random: &dyn Random) -> Result<StaticKey, AgentError> {
        if let Some(key) = self.read_key(KEY)? {
            return Ok(key);
        }
        if let Some(key) = self.read_key(KEY_JOINING)? {
            return Ok(key);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(bytes.as_mut_slice()).map_err(|_| AgentError::Random)?;
        let text = Zeroizing::new(data_encoding::BASE64URL_NOPAD.encode(bytes.as_slice()));
        self.write(&self.path.join(KEY_JOINING), text.as_bytes(), random)?;
        static_key(*bytes)
    }

    /// The server said welcome: the joining key becomes the key, and the server file is written last.
    pub(crate) fn joined(&self, server: &ServerFile, random: &dyn Random) -> Result<(), AgentError> {
        let joining = self.path.join(KEY_JOINING);
        if joining.exists() {
            let key = self.path.join(KEY);
            fs::rename(&joining, &key).map_err(|source| AgentError::File {
                path: key,
                doing: "written",
                source,
            })?;
        }
        let text =
            toml::to_string(server).map_err(|error| AgentError::Internal { what: error.to_string() })?;
        self.write(&self.path.join(SERVER), text.as_bytes(), random)
    }

    /// The server refused: the key that was made for this join goes.
    pub(crate) fn forget_joining_key(&self) -> Result<(), AgentError> {
        remove(&self.path.join(KEY_JOINING))
    }

    /// Reads `relative`; `None` when there is no such file.
    pub(crate) fn load<T: DeserializeOwned>(&self, relative: &str) -> Result<Option<T>, AgentError> {
        let path = self.path.join(relative);
        let Some(bytes) = Self::read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| AgentError::Damaged { path, what: error.to_string() })
    }

    /// Writes `relative`, whole and synced.
    pub(crate) fn store<T: Serialize>(
        &self,
        relative: &str,
        value: &T,
        random: &dyn Random,
    ) -> Result<(), AgentError> {
        let bytes = Zeroizing::new(
            serde_json::to_vec_pretty(value)
                .map_err(|error| AgentError::Internal { what: error.to_string() })?,
        );
        self.write(&self.path.join(relative), &bytes, random)
    }

    /// Removes `relative`; a missing file is fine.
    pub(crate) fn delete(&self, relative: &str) -> Result<(), AgentError> {
        remove(&self.path.join(relative))
    }

    /// Names of the files in the sub-folder `folder`, without temporary ones.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, AgentError> {
        let path = self.path.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(AgentError::File { path, doing: "read", source }),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    fn read_key(&self, name: &str) -> Result<Option<StaticKey>, AgentError> {
        let path = self.path.join(name);
        let Some(text) = Self::read(&path)? else { return Ok(None) };
        let damaged =
            || AgentError::Damaged { path: path.clone(), what: "not a 32-byte key in base64url".into() };
        let bytes =
            Zeroizing::new(data_encoding::BASE64URL_NOPAD.decode(text.trim_ascii()).map_err(|_| damaged())?);
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged())?;
        // A key of one repeated byte is a placeholder, not a secret.
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(damaged());
        }
        static_key(key).map(Some)
    }

    fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AgentError> {
        let failed = |source| AgentError::File { path: path.to_owned(), doing: "read", source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let metadata = file.metadata().map_err(failed)?;
        check_mode(path, metadata.mode(), FILE_MODE)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(AgentError::Damaged {
                path: path.to_owned(),
                what: format!("larger than {FILE_BYTES_MAX} bytes"),
            });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0)));
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Temporary file, sync, rename, sync of the folder.
    fn write(&self, path: &Path, bytes: &[u8], random: &dyn Random) -> Result<(), AgentError> {
        let failed = |source| AgentError::File { path: path.to_owned(), doing: "written", source };
        let folder = path.parent().unwrap_or(&self.path);
        if !folder.exists() {
            DirBuilder::new().mode(DIR_MODE).create(folder).map_err(failed)?;
        }
        let mut tag = [0; 8];
        random.fill(&mut tag).map_err(|_| AgentError::Random)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".{name}.{:016x}", u64::from_le_bytes(tag)));
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(folder)?.sync_all()
        })();
        written.map_err(|source| {
            // Nothing better can be done about a leftover than to try.
            let _ = fs::remove_file(&temporary);
            failed(source)
        })
    }
}

/// Checks a folder and, where `deep`, its sub-folders.
fn check_tree(folder: &Path, deep: bool) -> Result<(), AgentError> {
    let failed = |source| AgentError::File { path: folder.to_owned(), doing: "read", source };
    check_mode(folder, fs::metadata(folder).map_err(failed)?.mode(), DIR_MODE)?;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // A temporary file of the running agent, gone since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(source)),
        };
        if metadata.is_dir() && deep {
            check_tree(&entry.path(), false)?;
        } else if metadata.is_file() {
            check_mode(&entry.path(), metadata.mode(), FILE_MODE)?;
        }
    }
    Ok(())
}

fn static_key(bytes: [u8; 32]) -> Result<StaticKey, AgentError> {
    StaticKey::from_bytes(bytes).map_err(|error| AgentError::Internal { what: error.to_string() })
}

fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<(), AgentError> {
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    Err(AgentError::Mode { path: path.to_owned(), mode: mode & 0o7777, wanted })
}

fn remove(path: &Path) -> Result<(), AgentError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(AgentError::File { path: path.to_owned(), doing: "removed", source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use underpass_domain::testing::SeededRandom;

    use super::*;

    fn fresh() -> (tempfile::TempDir, StateDir, SeededRandom) {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::create(temporary.path().join("state")).unwrap();
        (temporary, state, SeededRandom::new(1))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn folder_and_files_are_private_from_the_first_byte() {
        let (_keep, state, random) = fresh();
        state.joining_key(&random).unwrap();
        state.store("pairs/x.json", &1, &random).unwrap();
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("pairs")), 0o700);
        assert_eq!(mode(&state.path().join("key.joining")), 0o600);
        assert_eq!(mode(&state.path().join("pairs/x.json")), 0o600);
    }

    #[test]
    fn c18_looser_modes_are_refused_with_the_command_that_mends_them() {
        for (relative, loose, wanted) in [
            ("", 0o755, "700"),
            ("shares.json", 0o640, "600"),
            ("codes/c.json", 0o604, "600"),
            ("codes", 0o701, "700"),
        ] {
            let (_keep, state, random) = fresh();
            state.store("shares.json", &1, &random).unwrap();
            state.store("codes/c.json", &1, &random).unwrap();
            let path =
                if relative.is_empty() { state.path().to_owned() } else { state.path().join(relative) };
            fs::set_permissions(&path, fs::Permissions::from_mode(loose)).unwrap();
            let error = StateDir::open(state.path()).unwrap_err();
            assert_eq!(error.code(), "state.mode", "{relative}");
            assert_eq!(error.hint().unwrap(), format!("run: chmod {wanted} {}", path.display()));
        }
    }

    #[test]
    fn c18_a_file_loosened_while_the_agent_runs_is_refused_when_read() {
        let (_keep, state, random) = fresh();
        state.store("shares.json", &1, &random).unwrap();
        fs::set_permissions(state.path().join("shares.json"), fs::Permissions::from_mode(0o660)).unwrap();
        assert_eq!(state.load::<u8>("shares.json").unwrap_err().code(), "state.mode");
    }

    #[test]
    fn an_interrupted_join_is_repeated_with_the_same_key() {
        let (_keep, state, random) = fresh();
        let first = state.joining_key(&random).unwrap().public();
        assert_eq!(state.joining_key(&random).unwrap().public(), first);
        assert_eq!(state.key().unwrap_err().code(), "state.not_joined");
        state.forget_joining_key().unwrap();
        assert_ne!(state.joining_key(&random).unwrap().public(), first);
    }

    #[test]
    fn what_was_joined_reads_back() {
        let (_keep, state, random) = fresh();
        let key = state.joining_key(&random).unwrap().public();
        let file = ServerFile {
            addresses: vec!["tunnel.example.org:7400".into()],
            server_key: PublicKey([7; 32]),
            client: ClientId::from_bytes([1; 16]),
            name: "laptop".into(),
        };
        assert!(!state.has_joined());
        state.joined(&file, &random).unwrap();
        assert_eq!(state.server().unwrap(), file);
        assert_eq!(state.key().unwrap().public(), key);
        assert!(!state.path().join(KEY_JOINING).exists());
        let left: Vec<_> =
            fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "temporary files left: {left:?}");
    }

    #[test]
    fn damaged_files_are_told_by_name() {
        let (_keep, state, random) = fresh();
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "~~~"] {
            state.write(&state.path().join("key"), text.as_bytes(), &random).unwrap();
            let error = state.key().unwrap_err();
            assert_eq!(error.code(), "state.damaged", "{text}");
            assert!(error.to_string().contains("key"));
        }
        state.write(&state.path().join("server.toml"), b"addresses = []", &random).unwrap();
        assert_eq!(state.server().unwrap_err().code(), "state.damaged");
    }

    #[test]
    fn a_missing_folder_says_join() {
        let error = StateDir::open("/nonexistent/underpass").unwrap_err();
        assert_eq!(error.code(), "state.not_joined");
        assert!(error.hint().unwrap().contains("underpass join"));
    }
}
