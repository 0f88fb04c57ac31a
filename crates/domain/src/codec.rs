//! How payloads and snapshots become bytes. The only module that knows bincode.
//!
//! bincode is pinned to 2.0.1 and stands behind a codec id ([`PAYLOAD_CODEC`]), which every record
//! carries: another codec gets another id, and old data stays readable. The configuration is part of
//! the format and must not change: `standard()` (little-endian, variable-length integers).

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The id of this module's encoding, as records carry it.
pub const PAYLOAD_CODEC: u8 = 1;

/// The largest payload. The longest event we have is under 5 KiB; the limit stops a length that
/// was damaged or made up from becoming an allocation.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The largest snapshot of a read model: half a million mappings, about. Stops a damaged length
/// from becoming an allocation.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 28;

/// Why a value has no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It would be larger than the limit.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The type can't be encoded. A bug on our side.
    #[error("a value does not fit the encoding")]
    Unfit(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a newer release. Stop here: an event that is skipped is lost.
    #[error("event kind {kind} version {version} is newer than this program; use the release that wrote it")]
    Unknown {
        /// The number of the kind.
        kind: u16,
        /// The version of its payload.
        version: u16,
    },
    /// Written by a newer release, in an encoding that this one does not have.
    #[error("payload codec {codec} is newer than this program; use the release that wrote it")]
    UnknownCodec {
        /// The id of the codec.
        codec: u8,
    },
    /// The bytes are damaged, or were never ours.
    #[error("malformed payload")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The value ends before the bytes do.
    #[error("malformed payload: {bytes} bytes too many")]
    Trailing {
        /// How many are left over.
        bytes: usize,
    },
}

type Config<const BYTES_MAX: usize> = Configuration<LittleEndian, Varint, Limit<BYTES_MAX>>;

fn config<const BYTES_MAX: usize>() -> Config<BYTES_MAX> {
    bincode::config::standard().with_limit::<BYTES_MAX>()
}

fn encode_within<const BYTES_MAX: usize>(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let bytes = bincode::serde::encode_to_vec(value, config::<BYTES_MAX>())
        .map_err(|error| EncodeError::Unfit(Box::new(error)))?;
    // bincode heeds the limit when it reads only.
    if bytes.len() > BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes: bytes.len(), limit: BYTES_MAX });
    }
    Ok(bytes)
}

fn decode_within<T: DeserializeOwned, const BYTES_MAX: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, config::<BYTES_MAX>())
        .map_err(|error| DecodeError::Malformed(Box::new(error)))?;
    match bytes.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { bytes: left }),
    }
}

/// A payload (or a command, for its content hash) as bytes, at most [`PAYLOAD_BYTES_MAX`].
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    encode_within::<PAYLOAD_BYTES_MAX>(value)
}

/// A payload from its bytes: all of them, and no more than [`PAYLOAD_BYTES_MAX`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, PAYLOAD_BYTES_MAX>(bytes)
}

/// A read model as bytes, at most [`SNAPSHOT_BYTES_MAX`]. Equal states give equal bytes.
pub fn encode_snapshot(state: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    encode_within::<SNAPSHOT_BYTES_MAX>(state)
}

/// A read model from its bytes: all of them, and no more than [`SNAPSHOT_BYTES_MAX`].
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, SNAPSHOT_BYTES_MAX>(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() -> Result<(), EncodeError> {
        let mut bytes = encode(&("name", 7_u64))?;
        bytes.push(0);
        let decoded = decode::<(String, u64)>(&bytes);
        assert!(matches!(decoded, Err(DecodeError::Trailing { bytes: 1 })), "{decoded:?}");
        Ok(())
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_allocated() {
        // 253: eight bytes of length follow, here the largest that fits 63 bits.
        let claim = [253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(matches!(decode::<String>(&claim), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<Vec<u64>>(&claim), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn a_value_over_the_limit_is_not_encoded() {
        let long = "x".repeat(PAYLOAD_BYTES_MAX);
        assert!(matches!(encode(&long), Err(EncodeError::TooLarge { .. })));
    }

    #[test]
    fn the_encoding_is_what_it_was() -> Result<(), EncodeError> {
        assert_eq!(
            encode(&(1_u8, 250_u32, 251_u32, "ü", Some(true)))?,
            [1, 250, 251, 251, 0, 2, 0xc3, 0xbc, 1, 1]
        );
        Ok(())
    }
}
