//! The entry that says where a trimmed log begins.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogId, LogName, Position, Timestamp};

use crate::frame::{Frame, FrameError};
use crate::small::Small;

/// Bytes of a stored tail.
pub const TAIL_BYTES: usize = 84;
const LAYOUT: Small = Small { magic: *b"UPLT", bytes: TAIL_BYTES, newer: ("a tail format", "a tail flag") };

/// The last frame that was cut off: what is left of the log follows on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Which log.
    pub log: LogName,
    /// Its id, which else stands in its first event.
    pub id: LogId,
    /// The epoch of the frame.
    pub epoch: u64,
    /// The last position that was cut off.
    pub until: Position,
    /// When the frame was recorded.
    pub recorded_at: Timestamp,
    /// The frame's hash.
    pub hash: Digest32,
}

impl Tail {
    /// The tail of a log that is cut off behind `frame`.
    pub(crate) fn behind(frame: &Frame, id: LogId) -> Self {
        let header = &frame.header;
        Self {
            log: header.log,
            id,
            epoch: header.epoch,
            until: frame.last(),
            recorded_at: header.recorded_at,
            hash: frame.hash,
        }
    }

    /// Its stored form.
    pub fn encode(&self) -> Bytes {
        LAYOUT.encode(self.log, |bytes| {
            bytes.put_slice(&self.id.0);
            bytes.put_u64_le(self.epoch);
            bytes.put_u64_le(self.until.0);
            bytes.put_u64_le(self.recorded_at.0);
            bytes.put_slice(&self.hash.0);
        })
    }

    /// Reads a stored tail.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (log, mut rest) = LAYOUT.decode(bytes)?;
        let mut id = [0; 16];
        rest.copy_to_slice(&mut id);
        let epoch = rest.get_u64_le();
        let until = Position(rest.get_u64_le());
        let recorded_at = Timestamp(rest.get_u64_le());
        let mut hash = [0; 32];
        rest.copy_to_slice(&mut hash);
        if until.0 == 0 {
            return Err(FrameError::Malformed("it cuts off nothing"));
        }
        Ok(Self { log, id: LogId(id), epoch, until, recorded_at, hash: Digest32(hash) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tail_comes_back_and_every_flipped_bit_is_noticed() {
        let tail = Tail {
            log: LogName::Activity,
            id: LogId([1; 16]),
            epoch: 2,
            until: Position(77),
            recorded_at: Timestamp(5),
            hash: Digest32([2; 32]),
        };
        let bytes = tail.encode();
        assert_eq!(bytes.len(), TAIL_BYTES);
        assert_eq!(Tail::decode(&bytes), Ok(tail));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Tail::decode(&flipped).is_err(), "bit {bit}");
        }
        let nothing = Tail { until: Position(0), ..tail };
        assert!(matches!(Tail::decode(&nothing.encode()), Err(FrameError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..120)) {
            prop_assert!(Tail::decode(&bytes).is_err());
        }
    }
}
