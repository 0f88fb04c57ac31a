//! The entry that a log bears while it is being copied into a store.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::frame::FrameError;
use crate::small::Small;

const MARKER_BYTES: usize = 68;
const LAYOUT: Small =
    Small { magic: *b"UPLC", bytes: MARKER_BYTES, newer: ("a marker format", "a marker flag") };

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
        LAYOUT.encode(self.log, |out| {
            out.put_slice(&self.id.0);
            out.put_u64_le(self.position.0);
            out.put_slice(&self.hash.0);
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (log, mut rest) = LAYOUT.decode(bytes)?;
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
