//! The entry that a log bears while it is being copied into a store.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::codes;
use crate::frame::{FORMAT, FrameError};

const MAGIC: [u8; 4] = *b"UPLC";
const MARKER_BYTES: usize = 68;
const CRC_AT: usize = MARKER_BYTES - 4;

/// Which log is being copied here, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) log: LogName,
    /// The id of the log that is copied.
    pub(crate) id: LogId,
    /// The last position that is here.
    pub(crate) position: Position,
    /// The chained hash there.
    pub(crate) hash: Digest32,
}

impl Marker {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(MARKER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(codes::log_number(self.log));
        out.put_u16_le(0);
        out.put_slice(&self.id.0);
        out.put_u64_le(self.position.0);
        out.put_slice(&self.hash.0);
        out.put_u32_le(crc32c::crc32c(&out));
        Bytes::from(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
            return Err(FrameError::Foreign);
        }
        if bytes.len() > 4 && bytes[4] != FORMAT {
            return Err(FrameError::Newer("a marker format"));
        }
        if bytes.len() != MARKER_BYTES {
            return Err(FrameError::Length);
        }
        if (&bytes[CRC_AT..]).get_u32_le() != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(FrameError::Checksum);
        }
        let log = codes::log_name(bytes[5]).ok_or(FrameError::Newer("a log"))?;
        if bytes[6..8] != [0, 0] {
            return Err(FrameError::Newer("a marker flag"));
        }
        let mut rest = &bytes[8..CRC_AT];
        let mut id = [0; 16];
        rest.copy_to_slice(&mut id);
        let position = Position(rest.get_u64_le());
        let mut hash = [0; 32];
        rest.copy_to_slice(&mut hash);
        Ok(Self { log, id: LogId(id), position, hash: Digest32(hash) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_marker_comes_back_and_every_flipped_bit_is_noticed() {
        let marker = Marker {
            log: LogName::Activity,
            id: LogId([1; 16]),
            position: Position(77),
            hash: Digest32([2; 32]),
        };
        let bytes = marker.encode();
        assert_eq!(bytes.len(), MARKER_BYTES);
        assert_eq!(Marker::decode(&bytes), Ok(marker));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Marker::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
            prop_assert!(Marker::decode(&bytes).is_err());
        }
    }
}
