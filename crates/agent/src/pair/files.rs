//! What is kept of pairs between two runs: pins, and the secret halves of codes that were issued here.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use underpass_domain::{ClientId, MappingId, PublicKey, Random, Timestamp};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::AgentError;
use crate::state::StateDir;

/// Pins and codes of one client. Beyond it no new ones are made, but that a pair of a mapping that went makes
/// room for a new one.
pub(super) const FILES_MAX: usize = 4096;

const PAIRS: &str = "pairs";
const CODES: &str = "codes";

/// 32 secret bytes in a file of mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Psk([u8; 32]);

impl Psk {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for Psk {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut text = text;
        let decoded = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes());
        text.zeroize();
        let mut bytes = decoded.map_err(|_| "not base64url")?;
        let psk = bytes.as_slice().try_into().map(Self).map_err(|_| "not 32 bytes");
        bytes.zeroize();
        psk
    }
}

impl From<Psk> for String {
    fn from(psk: Psk) -> Self {
        data_encoding::BASE64URL_NOPAD.encode(&psk.0)
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// A mapping that was made by a code: whom we met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PairFile {
    /// The client at the other end.
    pub(crate) peer: ClientId,
    /// Its key, once it has proven to know the code.
    pub(crate) key: Option<PublicKey>,
    /// The lookup half of the code.
    pub(crate) code: String,
    /// What proves the code to the other end, until the key is pinned. At the listening end only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) psk: Option<Psk>,
    /// Where the listening end listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// The mapping's name when the listening end redeemed the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// When the two met, or were to.
    #[serde(default)]
    pub(crate) made: Timestamp,
}

/// A key that came from the server's directory and was believed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DirectoryFile {
    client: ClientId,
    key: PublicKey,
}

/// A code that was issued here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodeFile {
    pub(crate) psk: Psk,
    /// The normalised target.
    pub(crate) target: String,
    /// When the other end must have redeemed it.
    pub(crate) activate_until: Timestamp,
    /// Who proved to know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used_by: Option<PublicKey>,
}

/// All files, in memory.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) pairs: HashMap<MappingId, PairFile>,
    pub(super) directory: HashMap<ClientId, PublicKey>,
    pub(super) codes: HashMap<String, CodeFile>,
}

impl Files {
    pub(super) fn load(state: &StateDir) -> Result<Self, AgentError> {
        let mut files = Self::default();
        for name in state.list(PAIRS)? {
            let path = format!("{PAIRS}/{name}");
            let stem = name.trim_end_matches(".json");
            if let Ok(mapping) = stem.parse::<MappingId>() {
                if let Some(file) = state.load(&path)? {
                    files.pairs.insert(mapping, file);
                }
            } else if stem.parse::<ClientId>().is_ok()
                && let Some(DirectoryFile { client, key }) = state.load(&path)?
            {
                files.directory.insert(client, key);
            }
        }
        for name in state.list(CODES)? {
            if let Some(file) = state.load(&format!("{CODES}/{name}"))? {
                files.codes.insert(name.trim_end_matches(".json").to_owned(), file);
            }
        }
        Ok(files)
    }
}

pub(super) fn store_pair(
    state: &StateDir,
    mapping: MappingId,
    file: &PairFile,
    random: &dyn Random,
) -> Result<(), AgentError> {
    state.store(&format!("{PAIRS}/{mapping}.json"), file, random)
}

pub(super) fn delete_pair(state: &StateDir, mapping: MappingId) -> Result<(), AgentError> {
    state.delete(&format!("{PAIRS}/{mapping}.json"))
}

pub(super) fn store_directory(
    state: &StateDir,
    client: ClientId,
    key: PublicKey,
    random: &dyn Random,
) -> Result<(), AgentError> {
    state.store(&format!("{PAIRS}/{client}.json"), &DirectoryFile { client, key }, random)
}

pub(super) fn store_code(
    state: &StateDir,
    lookup: &str,
    file: &CodeFile,
    random: &dyn Random,
) -> Result<(), AgentError> {
    state.store(&format!("{CODES}/{lookup}.json"), file, random)
}

pub(super) fn delete_code(state: &StateDir, lookup: &str) -> Result<(), AgentError> {
    state.delete(&format!("{CODES}/{lookup}.json"))
}
