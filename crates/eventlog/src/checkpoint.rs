//! What a log was at some moment, signed, to be kept elsewhere.
//!
//! The chain of hashes can't tell a log from an older copy of itself, nor from one that was written anew from
//! some point on. Who keeps checkpoints out of reach of who can write the store can tell. The format is
//! described in `docs/format/checkpoints-v1.md`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bytes::BufMut;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use underpass_domain::{Digest32, LogId, LogName, Position, Random, RandomFailed, Timestamp};
use underpass_store::Store;
use zeroize::Zeroizing;

use crate::codes;
use crate::error::LogError;
use crate::landing::stored_id;
use crate::reader::Reader;

/// The version of the line and of the signed bytes.
pub const CHECKPOINT_FORMAT: u32 = 1;
/// Begins the signed bytes, so that a signature means nothing elsewhere.
const CONTEXT: &[u8] = b"underpass log checkpoint v1\0";
const SIGNATURE_BYTES: usize = 64;
const SEED_BYTES: usize = 32;

/// Where a log ended at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub log: LogName,
    /// Its id.
    pub log_id: LogId,
    /// The epoch it was in.
    pub epoch: u64,
    /// The newest position; a frame ends there.
    pub position: Position,
    /// The chained hash of that frame: it stands for all before.
    pub hash: Digest32,
    /// When this was noted.
    pub at: Timestamp,
}

impl Checkpoint {
    /// The end of a stored log, which need not be open.
    pub async fn stored(store: &Arc<dyn Store>, log: LogName, at: Timestamp) -> Result<Self, LogError> {
        let reader = Reader::new(Arc::clone(store), log);
        let head = reader.present_head().await?;
        let log_id = stored_id(&reader).await?;
        Ok(Self { log, log_id, epoch: head.epoch, position: head.position, hash: head.hash, at })
    }

    /// The bytes that are signed.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTEXT.len() + 73);
        out.put_slice(CONTEXT);
        out.put_u8(codes::log_number(self.log));
        out.put_slice(&self.log_id.0);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.position.0);
        out.put_slice(&self.hash.0);
        out.put_u64_le(self.at.0);
        out
    }
}

/// A checkpoint with its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// An Ed25519 signature over [`Checkpoint::signed_bytes`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Its JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: u32,
    log_id: LogId,
    log: LogName,
    epoch: u64,
    position: Position,
    hash: Digest32,
    at: Timestamp,
    signature: String,
}

impl SignedCheckpoint {
    /// Whether the signature is one by `key` over this checkpoint.
    pub fn is_by(&self, key: &CheckpointPublicKey) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &key.0);
        key.verify(&self.checkpoint.signed_bytes(), &self.signature).is_ok()
    }

    /// As one line of JSON, without an end of line.
    pub fn to_line(&self) -> String {
        let Checkpoint { log, log_id, epoch, position, hash, at } = self.checkpoint;
        let line = CheckpointLine {
            checkpoint: CHECKPOINT_FORMAT,
            log_id,
            log,
            epoch,
            position,
            hash,
            at,
            signature: BASE64.encode(&self.signature),
        };
        // Text keys, texts and integers: this can't fail, and an empty line would be refused.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads a line. The signature is not checked. What is wrong is half a sentence.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line: CheckpointLine =
            serde_json::from_slice(line).map_err(|error| format!("the line is no checkpoint: {error}"))?;
        if line.checkpoint != CHECKPOINT_FORMAT {
            return Err(format!("the checkpoint is of version {}, which is newer", line.checkpoint));
        }
        let CheckpointLine { log_id, log, epoch, position, hash, at, .. } = line;
        let signature = BASE64.decode(line.signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or("the signature can't be read")?;
        Ok(Self { checkpoint: Checkpoint { log, log_id, epoch, position, hash, at }, signature })
    }
}

/// The key that checkpoints are signed with.
pub struct CheckpointKey(Ed25519KeyPair);

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckpointKey").field(&self.public_key()).finish()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointKeyError {
    /// The bytes are no Ed25519 key in PKCS#8.
    #[error("the bytes are no Ed25519 key in PKCS#8")]
    Invalid,
    /// The random source failed.
    #[error("no key can be drawn")]
    Random(#[from] RandomFailed),
}

impl CheckpointKey {
    /// A new key.
    pub fn generate(random: &dyn Random) -> Result<Self, CheckpointKeyError> {
        let seed: Zeroizing<[u8; SEED_BYTES]> = Zeroizing::new(random.array()?);
        Self::from_seed(&seed)
    }

    /// The key of a seed of 32 random bytes, as RFC 8032 has it.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Result<Self, CheckpointKeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| CheckpointKeyError::Invalid)
    }

    /// The key in a PKCS#8 document, version 1 or 2, in DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CheckpointKeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| CheckpointKeyError::Invalid)
    }

    /// The key as a PKCS#8 document, version 2, in DER. Secret.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CheckpointKeyError> {
        let document = self.0.to_pkcs8().map_err(|_| CheckpointKeyError::Invalid)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Its public half.
    pub fn public_key(&self) -> CheckpointPublicKey {
        let mut key = [0; SEED_BYTES];
        key.copy_from_slice(self.0.public_key().as_ref());
        CheckpointPublicKey(key)
    }

    /// Signs.
    pub fn sign(&self, checkpoint: Checkpoint) -> Result<SignedCheckpoint, CheckpointKeyError> {
        let signed = self.0.try_sign(&checkpoint.signed_bytes()).map_err(|_| CheckpointKeyError::Invalid)?;
        let signature = signed.as_ref().try_into().map_err(|_| CheckpointKeyError::Invalid)?;
        Ok(SignedCheckpoint { checkpoint, signature })
    }
}

/// A public Ed25519 key. Text: unpadded base64url, 43 symbols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPublicKey(pub [u8; 32]);

impl fmt::Display for CheckpointPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for CheckpointPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no public key of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key of 43 symbols of base64url without padding is needed")]
pub struct InvalidCheckpointKey;

impl FromStr for CheckpointPublicKey {
    type Err = InvalidCheckpointKey;

    fn from_str(text: &str) -> Result<Self, InvalidCheckpointKey> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidCheckpointKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidCheckpointKey)
    }
}
