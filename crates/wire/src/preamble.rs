//! The first six bytes of every channel: magic, protocol version, kind.
//!
//! They are also the prologue of the Noise handshake, so that nobody on the way can change them unnoticed.

/// How long a preamble is.
pub const PREAMBLE_BYTES: usize = 6;

/// What every channel begins with. No TLS record (`0x16`), HTTP method or SOCKS5 greeting begins so.
pub const MAGIC: [u8; 4] = *b"UPSS";

/// The version of everything behind the preamble. Messages and their fields can be added without a new one.
pub const VERSION: u8 = 1;

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The link of a client and a node.
    Link = 1,
    /// The data of tunnels.
    Data = 2,
    /// The link of two nodes.
    Peer = 3,
}

/// Why the first bytes of a channel are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreambleError {
    /// The peer speaks something else.
    #[error("this is not the Underpass protocol")]
    Foreign,
    /// The peer's release is too far away from this one.
    #[error("protocol version {found} is not spoken here, only {VERSION}")]
    Version {
        /// What the peer speaks.
        found: u8,
    },
    /// A kind of channel that this release does not know.
    #[error("channel kind {found} is not known")]
    Kind {
        /// What the peer said.
        found: u8,
    },
}

/// The preamble of a channel of this kind.
pub const fn encode(kind: Kind) -> [u8; PREAMBLE_BYTES] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, kind as u8]
}

/// Reads a preamble.
pub fn decode(bytes: [u8; PREAMBLE_BYTES]) -> Result<Kind, PreambleError> {
    let [a, b, c, d, version, kind] = bytes;
    if [a, b, c, d] != MAGIC {
        return Err(PreambleError::Foreign);
    }
    if version != VERSION {
        return Err(PreambleError::Version { found: version });
    }
    match kind {
        1 => Ok(Kind::Link),
        2 => Ok(Kind::Data),
        3 => Ok(Kind::Peer),
        found => Err(PreambleError::Kind { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        for kind in [Kind::Link, Kind::Data, Kind::Peer] {
            assert_eq!(decode(encode(kind)), Ok(kind));
        }
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        assert_eq!(decode(*b"GET / "), Err(PreambleError::Foreign));
        assert_eq!(decode(*b"UPSS\x02\x01"), Err(PreambleError::Version { found: 2 }));
        assert_eq!(decode(*b"UPSS\x01\x00"), Err(PreambleError::Kind { found: 0 }));
        assert_eq!(decode(*b"UPSS\x01\x04"), Err(PreambleError::Kind { found: 4 }));
    }
}
