//! The one entry that says where a log ends. Every append guards and replaces it.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogName, Position, Timestamp};

use crate::frame::{CommitId, Frame, FrameError};
use crate::small::Small;

/// Bytes of a stored head.
pub const HEAD_BYTES: usize = 92;
const LAYOUT: Small = Small { magic: *b"UPLH", bytes: HEAD_BYTES, newer: ("a head format", "a head flag") };

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
        LAYOUT.encode(self.log, |bytes| {
            bytes.put_u64_le(self.epoch);
            bytes.put_u64_le(self.position.0);
            bytes.put_u64_le(self.first.0);
            bytes.put_u64_le(self.recorded_at.0);
            bytes.put_slice(&self.commit.0);
            bytes.put_slice(&self.hash.0);
        })
    }

    /// Reads a stored head.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (log, mut rest) = LAYOUT.decode(bytes)?;
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
