//! The messages that open a tunnel on a channel.

use prost::Message;

/// How long an encoded message may be. The longest strings are a target (`host:port`, a host name has at
/// most 253 bytes) and an explanation.
pub const CHANNEL_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// What follows the header of a record of the channel's own: a message and the tag. Between tunnels a longer one
/// is refused unread.
pub const CHANNEL_RECORD_BYTES_MAX: usize = CHANNEL_MESSAGE_BYTES_MAX + 16;

/// Why the body of an `OPEN`, `OPENED`, `FAILED` or `DIAL` record is refused. The channel must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelMessageError {
    /// It is longer than [`CHANNEL_MESSAGE_BYTES_MAX`]. Nothing was allocated for it.
    #[error("the message has {length} bytes, more than {CHANNEL_MESSAGE_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        length: usize,
    },
    /// It breaks the encoding.
    #[error("malformed message")]
    Malformed,
}

/// Reads the body of a record.
pub fn decode<M: Message + Default>(body: &[u8]) -> Result<M, ChannelMessageError> {
    if body.len() > CHANNEL_MESSAGE_BYTES_MAX {
        return Err(ChannelMessageError::TooLong { length: body.len() });
    }
    M::decode(body).map_err(|_| ChannelMessageError::Malformed)
}

/// The body of a record.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, ChannelMessageError> {
    let length = message.encoded_len();
    if length > CHANNEL_MESSAGE_BYTES_MAX {
        return Err(ChannelMessageError::TooLong { length });
    }
    Ok(message.encode_to_vec())
}

/// How a tunnel's records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Protection {
    /// Not said, or newer than this release. The tunnel fails: nothing goes plain by mistake.
    Unspecified = 0,
    /// Not at all; the mapping says `seal = "off"`.
    Plain = 1,
    /// Between node and agent, with keys of the channel.
    NodeSealed = 2,
    /// Between the two clients, with keys of their pair.
    EndToEnd = 3,
}

/// With which cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Aead {
    /// Not said, or newer than this release. A sealed tunnel fails.
    Unspecified = 0,
    /// XChaCha20-Poly1305.
    XChaCha20Poly1305 = 1,
    /// AES-256-GCM, where both ends have AES instructions.
    Aes256Gcm = 2,
}

/// Node to target agent: connect to the target, for this tunnel.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Open {
    /// The tunnel's id, 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub tunnel: Vec<u8>,
    /// The mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub mapping: Vec<u8>,
    /// What to dial, `host:port`. The agent's own allow list has the last word.
    #[prost(string, tag = "3")]
    pub target: String,
    /// Who called, `ip:port`, as the ingress saw it.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// How the tunnel is sealed.
    #[prost(enumeration = "Protection", tag = "5")]
    pub protection: i32,
    /// With which cipher.
    #[prost(enumeration = "Aead", tag = "6")]
    pub aead: i32,
    /// For [`Protection::EndToEnd`]: the pair's id, 16 bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub pair: Vec<u8>,
    /// For [`Protection::EndToEnd`]: the tunnel's number within the pair. Never used twice.
    #[prost(uint64, tag = "8")]
    pub seq: u64,
    /// The tunnel ends after so many idle seconds; 0: never.
    #[prost(uint32, tag = "9")]
    pub idle_timeout_s: u32,
}

/// Target agent to node, node to listen agent: the target is connected.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Opened {
    /// The tunnel's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub tunnel: Vec<u8>,
}

/// Target agent to node, node to listen agent: there will be no tunnel.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failed {
    /// The tunnel's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub tunnel: Vec<u8>,
    /// Why, for programs.
    #[prost(enumeration = "FailReason", tag = "2")]
    pub reason: i32,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Why there is no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FailReason {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// The target refused the connection.
    Refused = 1,
    /// The target's network or host can't be reached, or its name not resolved.
    Unreachable = 2,
    /// The target did not answer in time.
    TimedOut = 3,
    /// The agent's allow list forbids the target.
    Denied = 4,
    /// The target client is not connected.
    Offline = 5,
    /// The mapping has as many tunnels as it may.
    Limit = 6,
    /// The mapping is not served: unknown, disabled, expired or removed.
    NotServed = 7,
    /// The tunnel can't be sealed as asked: unknown pair, used number, unknown cipher.
    Unsealable = 8,
}

/// Listen agent to node: somebody called; open a tunnel to the mapping's target.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dial {
    /// The tunnel's id, 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub tunnel: Vec<u8>,
    /// The mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub mapping: Vec<u8>,
    /// Who called, `ip:port`, as the listen client saw it.
    #[prost(string, tag = "3")]
    pub caller: String,
    /// How the tunnel is sealed.
    #[prost(enumeration = "Protection", tag = "4")]
    pub protection: i32,
    /// With which cipher.
    #[prost(enumeration = "Aead", tag = "5")]
    pub aead: i32,
    /// For [`Protection::EndToEnd`]: the pair's id, 16 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub pair: Vec<u8>,
    /// For [`Protection::EndToEnd`]: the tunnel's number within the pair. Never used twice.
    #[prost(uint64, tag = "7")]
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let open = Open {
            tunnel: vec![1; 16],
            mapping: vec![2; 16],
            target: "127.0.0.1:22".into(),
            caller: "192.0.2.7:5000".into(),
            protection: Protection::EndToEnd.into(),
            aead: Aead::Aes256Gcm.into(),
            pair: vec![3; 16],
            seq: 7,
            idle_timeout_s: 60,
        };
        assert_eq!(decode::<Open>(&encode(&open).unwrap()), Ok(open));
        assert_eq!(decode::<Opened>(&[]), Ok(Opened::default()));
    }

    /// C2.
    #[test]
    fn c2_a_message_over_the_limit_is_refused_both_ways() {
        let failed = Failed { message: "x".repeat(CHANNEL_MESSAGE_BYTES_MAX), ..Failed::default() };
        assert!(matches!(encode(&failed), Err(ChannelMessageError::TooLong { .. })));
        let length = CHANNEL_MESSAGE_BYTES_MAX + 1;
        assert_eq!(decode::<Failed>(&vec![0; length]), Err(ChannelMessageError::TooLong { length }));
    }

    #[test]
    fn an_unknown_protection_is_not_plain() {
        let open = Open { protection: 77, ..Open::default() };
        let read: Open = decode(&encode(&open).unwrap()).unwrap();
        assert_eq!(read.protection(), Protection::Unspecified);
    }
}
