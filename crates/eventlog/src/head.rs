//! The one entry that says where a log ends. Every append guards and replaces it.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogName, Position, Timestamp};

use crate::codes;
use crate::frame::{CommitId, FORMAT, Frame, FrameError};

const MAGIC: [u8; 4] = *b"UPLH";
/// Bytes of a stored head.
pub const HEAD_BYTES: usize = 92;
const CRC_AT: usize = HEAD_BYTES - 4;

/// Where a log ends: its newest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which log.
    pub log: LogName,
    /// The epoch of the newest frame.
    pub epoch: u64,
    /// The newest position.
    pub position: Position,
    /// Where the newest frame begins.
    pub first: Position,
    /// When the newest frame was recorded.
    pub recorded_at: Timestamp,
    /// The commit that wrote the newest frame.
    pub commit: CommitId,
    /// The newest frame's hash.
    pub hash: Digest32,
}

impl Head {
    /// The head of a log that ends with `frame`.
    pub(crate) fn of(frame: &Frame) -> Self {
        let header = &frame.header;
        Self {
            log: header.log,
            epoch: header.epoch,
            position: frame.last(),
            first: frame.first(),
            recorded_at: header.recorded_at,
            commit: header.commit,
            hash: frame.hash,
        }
    }

    /// Its stored form.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(FORMAT);
        bytes.put_u8(codes::log_number(self.log));
        bytes.put_u16_le(0);
        bytes.put_u64_le(self.epoch);
        bytes.put_u64_le(self.position.0);
        bytes.put_u64_le(self.first.0);
        bytes.put_u64_le(self.recorded_at.0);
        bytes.put_slice(&self.commit.0);
        bytes.put_slice(&self.hash.0);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        Bytes::from(bytes)
    }

    /// Reads a stored head.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
            return Err(FrameError::Foreign);
        }
        if bytes.len() > 4 && bytes[4] != FORMAT {
            return Err(FrameError::Newer("a head format"));
        }
        if bytes.len() != HEAD_BYTES {
            return Err(FrameError::Length);
        }
        if (&bytes[CRC_AT..]).get_u32_le() != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(FrameError::Checksum);
        }
        let log = codes::log_name(bytes[5]).ok_or(FrameError::Newer("a log"))?;
        if bytes[6..8] != [0, 0] {
            return Err(FrameError::Newer("a head flag"));
        }
        let mut rest = &bytes[8..CRC_AT];
        let epoch = rest.get_u64_le();
        let position = Position(rest.get_u64_le());
        let first = Position(rest.get_u64_le());
        let recorded_at = Timestamp(rest.get_u64_le());
        let mut commit = [0; 16];
        rest.copy_to_slice(&mut commit);
        let mut hash = [0; 32];
        rest.copy_to_slice(&mut hash);
        Ok(Self { log, epoch, position, first, recorded_at, commit: CommitId(commit), hash: Digest32(hash) })
    }
}
