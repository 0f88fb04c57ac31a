//! The entry that a log bears while it is being repaired: what the repair comes to, so that it can be finished by
//! another run.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::limits::REASON_BYTES_MAX;
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::codes;
use crate::frame::{FORMAT, FrameError};

const MAGIC: [u8; 4] = *b"UPLR";
/// Bytes before the reason.
const FIXED_BYTES: usize = 82;
const CRC_BYTES: usize = 4;

/// What a repair that has begun is going to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repairing {
    pub(super) log: LogName,
    pub(super) id: LogId,
    /// The epoch that begins.
    pub(super) epoch: u64,
    /// The last position that stays.
    pub(super) stays: Position,
    /// Positions that are known to be lost.
    pub(super) lost: u64,
    /// The chained hash of the last frame that stays.
    pub(super) hash: Digest32,
    /// What was wrong; at most [`REASON_BYTES_MAX`].
    pub(super) reason: String,
}

impl Repairing {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.reason.len() + CRC_BYTES);
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(codes::log_number(self.log));
        out.put_u16_le(0);
        out.put_slice(&self.id.0);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.stays.0);
        out.put_u64_le(self.lost);
        out.put_slice(&self.hash.0);
        out.put_u16_le(u16::try_from(self.reason.len()).unwrap_or(u16::MAX));
        out.put_slice(self.reason.as_bytes());
        out.put_u32_le(crc32c::crc32c(&out));
        Bytes::from(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
            return Err(FrameError::Foreign);
        }
        if bytes.len() < FIXED_BYTES + CRC_BYTES || bytes.len() > FIXED_BYTES + REASON_BYTES_MAX + CRC_BYTES {
            return Err(FrameError::Length);
        }
        let (body, mut crc) = bytes.split_at(bytes.len() - CRC_BYTES);
        if crc.get_u32_le() != crc32c::crc32c(body) {
            return Err(FrameError::Checksum);
        }
        if body[4] != FORMAT {
            return Err(FrameError::Newer("a repair format"));
        }
        let log = codes::log_name(body[5]).ok_or(FrameError::Newer("a log"))?;
        if body[6..8] != [0, 0] {
            return Err(FrameError::Newer("a repair flag"));
        }
        let mut rest = &body[8..];
        let mut id = [0; 16];
        rest.copy_to_slice(&mut id);
        let epoch = rest.get_u64_le();
        let stays = Position(rest.get_u64_le());
        let lost = rest.get_u64_le();
        let mut hash = [0; 32];
        rest.copy_to_slice(&mut hash);
        if usize::from(rest.get_u16_le()) != rest.len() {
            return Err(FrameError::Length);
        }
        let reason =
            String::from_utf8(rest.to_vec()).map_err(|_| FrameError::Malformed("its reason is no text"))?;
        Ok(Self { log, id: LogId(id), epoch, stays, lost, hash: Digest32(hash), reason })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_comes_back_and_every_flipped_bit_is_noticed() {
        let repairing = Repairing {
            log: LogName::Activity,
            id: LogId([1; 16]),
            epoch: 2,
            stays: Position(77),
            lost: 5,
            hash: Digest32([2; 32]),
            reason: "the frame is missing: möglich".to_owned(),
        };
        let bytes = repairing.encode();
        assert_eq!(Repairing::decode(&bytes), Ok(repairing));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Repairing::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..500)) {
            prop_assert!(Repairing::decode(&bytes).is_err());
        }
    }
}
