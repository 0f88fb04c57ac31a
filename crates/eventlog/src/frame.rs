//! The stored unit: 1 to [`FRAME_EVENTS_MAX`] events that were committed together.
//!
//! All integers are little-endian. `docs/format/log-v1.md` describes every byte; the golden files
//! under `fixtures/frames/` hold it to that.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogName, NodeId, Position, Timestamp};

use crate::codes;
use crate::record::{RECORD_BYTES_MIN, Record};

/// The largest frame, header and hash included. Below what every backend commits at once
/// (etcd: 1.5 MiB), so that a log can be moved between backends frame by frame.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The most events in a frame. Bounds how far back the frame of a position can begin.
pub const FRAME_EVENTS_MAX: usize = 4096;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 108;
/// Bytes of the chained hash that ends a frame.
pub const HASH_BYTES: usize = 32;
/// The version of the layout.
pub const FORMAT: u8 = 1;

pub(crate) const MAGIC: [u8; 4] = *b"UPLF";
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 12;
const AFTER_CRC: usize = 16;
const COUNT_AT: usize = 32;
const CHAIN_CONTEXT: &str = "underpass 2026 event log frame chain v1";

static CHAIN: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key(CHAIN_CONTEXT));

/// Tells one commit from every other: 16 random bytes. Whether a commit of unknown outcome
/// happened is decided by finding it, or another, at the expected position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitId(pub [u8; 16]);

/// Why bytes are not a frame (or head, or snapshot manifest) of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Something else lies here.
    #[error("it is nothing of ours: it begins with other bytes")]
    Foreign,
    /// Written by a newer release.
    #[error("it was written by a newer release: {0} this program doesn't know")]
    Newer(&'static str),
    /// Over a limit of the format; nothing was allocated for it.
    #[error("it says it is larger than the format allows")]
    TooLong,
    /// Cut short, or something follows it.
    #[error("its length is not the one it states")]
    Length,
    /// Damaged: the checksum differs.
    #[error("its checksum does not match")]
    Checksum,
    /// Changed by someone who mended the checksum: the chained hash differs.
    #[error("its chained hash does not match")]
    Hash,
    /// Whole, but not what this format writes.
    #[error("{0}")]
    Malformed(&'static str),
}

/// What stands at the beginning of a frame, apart from length, checksum and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The log it belongs to.
    pub log: LogName,
    /// How payloads are encoded.
    pub codec: u8,
    /// Raised by restore and repair; positions compare within one epoch only.
    pub epoch: u64,
    /// Position of the first record.
    pub first: Position,
    /// The commit that wrote it.
    pub commit: CommitId,
    /// When, by the writer's clock, never before the frame before.
    pub recorded_at: Timestamp,
    /// The node that wrote it.
    pub node: NodeId,
    /// Hash of the frame before; zeros in the first.
    pub previous: Digest32,
}

/// A frame that was read and found whole: lengths, checksum, hash and structure hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its beginning.
    pub header: FrameHeader,
    /// Its events, at least one.
    pub records: Vec<Record>,
    /// Hash over it and, through `previous`, over all frames before.
    pub hash: Digest32,
    /// Bytes it takes in the store.
    pub bytes: usize,
}

impl Frame {
    /// Reads a stored frame. Lengths and counts are checked before anything is allocated.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
            return Err(FrameError::Foreign);
        }
        if bytes.len() < HEADER_BYTES + RECORD_BYTES_MIN + HASH_BYTES {
            return Err(FrameError::Length);
        }
        if bytes[4] != FORMAT {
            return Err(FrameError::Newer("a frame format"));
        }
        let length = (&bytes[LENGTH_AT..]).get_u32_le() as usize;
        if length > FRAME_BYTES_MAX || bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        if length != bytes.len() {
            return Err(FrameError::Length);
        }
        if (&bytes[CRC_AT..]).get_u32_le() != checksum(bytes) {
            return Err(FrameError::Checksum);
        }
        let hash_at = length - HASH_BYTES;
        let hash = chained_hash(&bytes[..hash_at]);
        if bytes[hash_at..] != hash.0 {
            return Err(FrameError::Hash);
        }
        if bytes[5] != 0 {
            return Err(FrameError::Newer("a frame flag"));
        }
        let (header, count) = header(bytes)?;

        let mut rest = &bytes[HEADER_BYTES..hash_at];
        if count == 0 || count > FRAME_EVENTS_MAX || count * RECORD_BYTES_MIN > rest.len() {
            return Err(FrameError::Malformed("its count of records can't be"));
        }
        if header.first.0 == 0 || header.first.0.checked_add(count as u64).is_none() {
            return Err(FrameError::Malformed("its first position can't be"));
        }
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(Record::decode(bytes, &mut rest)?);
        }
        if !rest.is_empty() {
            return Err(FrameError::Malformed("bytes follow its last record"));
        }
        Ok(Self { header, records, hash, bytes: length })
    }

    /// How many bytes the frame says it takes that `bytes` begins with; more may follow.
    pub(crate) fn stored_length(bytes: &[u8]) -> Result<usize, FrameError> {
        if bytes.len() < HEADER_BYTES {
            return Err(FrameError::Length);
        }
        let length = (&bytes[LENGTH_AT..]).get_u32_le() as usize;
        if length > FRAME_BYTES_MAX { Err(FrameError::TooLong) } else { Ok(length) }
    }

    /// Position of the first record.
    pub fn first(&self) -> Position {
        self.header.first
    }

    /// Position of the last record.
    pub fn last(&self) -> Position {
        Position(self.header.first.0 + self.records.len() as u64 - 1)
    }
}

/// A frame under construction.
#[derive(Debug)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    count: usize,
}

impl FrameBuilder {
    /// A frame without records.
    pub fn new(header: &FrameHeader) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(FORMAT);
        bytes.put_u8(0);
        bytes.put_u8(header.codec);
        bytes.put_u8(codes::log_number(header.log));
        bytes.put_u32_le(0);
        bytes.put_u32_le(0);
        bytes.put_u64_le(header.epoch);
        bytes.put_u64_le(header.first.0);
        bytes.put_u32_le(0);
        bytes.put_slice(&header.commit.0);
        bytes.put_u64_le(header.recorded_at.0);
        bytes.put_slice(header.node.as_bytes());
        bytes.put_slice(&header.previous.0);
        Self { bytes, count: 0 }
    }

    /// Bytes of the finished frame, were it finished now.
    pub fn len(&self) -> usize {
        self.bytes.len() + HASH_BYTES
    }

    /// Whether it has no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds an event. The caller keeps [`FRAME_BYTES_MAX`] and [`FRAME_EVENTS_MAX`].
    pub fn push(&mut self, record: &Record) {
        record.encode(&mut self.bytes);
        self.count += 1;
    }

    /// Writes length, count, hash and checksum; gives the frame and its hash.
    pub fn finish(mut self) -> Result<(Bytes, Digest32), FrameError> {
        let length = self.len();
        if length > FRAME_BYTES_MAX || self.count > FRAME_EVENTS_MAX {
            return Err(FrameError::TooLong);
        }
        let narrow = |n: usize| u32::try_from(n).map_err(|_| FrameError::TooLong);
        let (length, count) = (narrow(length)?, narrow(self.count)?);
        self.bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count.to_le_bytes());
        let hash = chained_hash(&self.bytes);
        self.bytes.put_slice(&hash.0);
        let crc = checksum(&self.bytes);
        self.bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Ok((Bytes::from(self.bytes), hash))
    }
}

fn header(bytes: &[u8]) -> Result<(FrameHeader, usize), FrameError> {
    let log = codes::log_name(bytes[7]).ok_or(FrameError::Newer("a log"))?;
    let codec = bytes[6];
    let mut rest = &bytes[AFTER_CRC..HEADER_BYTES];
    let epoch = rest.get_u64_le();
    let first = Position(rest.get_u64_le());
    let count = rest.get_u32_le() as usize;
    let commit = CommitId(array(&mut rest));
    let recorded_at = Timestamp(rest.get_u64_le());
    let node = NodeId::from_bytes(array(&mut rest));
    let previous = Digest32(array(&mut rest));
    let header = FrameHeader { log, codec, epoch, first, commit, recorded_at, node, previous };
    Ok((header, count))
}

fn array<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    rest.copy_to_slice(&mut out);
    out
}

/// Over the whole frame but the checksum's own four bytes.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[AFTER_CRC..])
}

/// Over everything before the hash but the checksum; the previous hash is part of that.
fn chained_hash(before_hash: &[u8]) -> Digest32 {
    let mut hasher = CHAIN.clone();
    hasher.update(&before_hash[..CRC_AT]);
    hasher.update(&before_hash[AFTER_CRC..]);
    Digest32(*hasher.finalize().as_bytes())
}
