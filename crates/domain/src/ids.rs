//! Ids: TypeIDs over UUIDv7 for entities, plain UUIDs for commands and logs.

use std::fmt;
use std::str::FromStr;

use crate::text::text_serde;
use crate::time::Timestamp;

/// Why a text is not an id of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// It is an id of something else, or no id at all.
    #[error("an id that starts with `{expected}_` is needed")]
    Prefix {
        /// The prefix that was expected.
        expected: &'static str,
    },
    /// The part after the prefix is not 26 symbols of base32 for 128 bits.
    #[error("`{expected}_` must be followed by 26 of 0-9 and a-z without i, l, o, u; the first at most 7")]
    Suffix {
        /// The prefix that was expected.
        expected: &'static str,
    },
    /// Not a UUID.
    #[error("a UUID is needed, such as 0190163d-8694-739b-aea5-966c26f8ad91")]
    Uuid,
}

/// Crockford's alphabet in lower case, as TypeID has it.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 128 bits need 26 symbols of 5 bits; the first carries only 3.
const SUFFIX_SYMBOLS: usize = 26;

fn write_base32(bytes: [u8; 16], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let value = u128::from_be_bytes(bytes);
    let mut text = [0_u8; SUFFIX_SYMBOLS];
    for (index, symbol) in text.iter_mut().enumerate() {
        let shift = 5 * (SUFFIX_SYMBOLS - 1 - index);
        *symbol = ALPHABET[(value >> shift) as usize & 31];
    }
    out.write_str(&String::from_utf8_lossy(&text))
}

fn read_base32(text: &str) -> Option<[u8; 16]> {
    if text.len() != SUFFIX_SYMBOLS || text.as_bytes()[0] > b'7' {
        return None;
    }
    let mut value = 0_u128;
    for symbol in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == symbol)?;
        value = value << 5 | digit as u128;
    }
    Some(value.to_be_bytes())
}

/// A UUIDv7: 48 bits of milliseconds, then the version, the variant and 74 bits of `random`.
fn uuid_v7(now: Timestamp, random: [u8; 10]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    bytes
}

macro_rules! type_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Text: a TypeID, the prefix and 26 symbols of base32. Bytes: a UUID. Ids made with
        /// increasing times sort in that order, as bytes and as text.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What the text form starts with, before the underscore.
            pub const PREFIX: &str = $prefix;

            /// An id read from where one was kept.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A new id: UUIDv7 of this time and these random bytes.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid_v7(now, random))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                write_base32(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let suffix = text
                    .strip_prefix(concat!($prefix, "_"))
                    .ok_or(InvalidId::Prefix { expected: $prefix })?;
                read_base32(suffix).map(Self).ok_or(InvalidId::Suffix { expected: $prefix })
            }
        }

        text_serde!($name as [u8; 16], |id| id.0, |bytes| Ok::<_, InvalidId>($name(bytes)),
            pattern concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$"));
    )*};
}

type_ids! {
    /// A user: an owner of clients and mappings.
    UserId = "user";
    /// A client: an enrolled identity.
    ClientId = "client";
    /// A mapping: the lasting rule from an ingress to a target.
    MappingId = "mapping";
    /// A connection code.
    CodeId = "code";
    /// An invite: allows one enrolment.
    InviteId = "invite";
    /// A session: the life of one link.
    SessionId = "session";
    /// A node: one running server.
    NodeId = "node";
    /// An API key.
    KeyId = "key";
}

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&uuid::Uuid::from_bytes(self.0).hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let uuid = uuid::Uuid::try_parse(text).map_err(|_| InvalidId::Uuid)?;
                Ok(Self(uuid.into_bytes()))
            }
        }

        text_serde!($name as [u8; 16], |id| id.0, |bytes| Ok::<_, InvalidId>($name(bytes)),
            pattern "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$");
    )*};
}

uuids! {
    /// The id of a command, given by who sends it: the same id again is the same command. Random,
    /// as UUID text.
    CommandId;
    /// The id of one log, random, given at its creation, as UUID text. Tells a log from another one
    /// that was put in its place.
    LogId;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_that_of_the_typeid_specification() -> Result<(), InvalidId> {
        // Two of the valid vectors of the TypeID specification, version 0.3.
        let some: CommandId = "0188bac7-4afa-78aa-bc3b-bd1eef28d881".parse()?;
        assert_eq!(UserId::from_bytes(some.0).to_string(), "user_01h2xcejqtf2nbrexx3vqjhp41");
        let all = UserId::from_bytes([255; 16]);
        assert_eq!(all.to_string(), "user_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        Ok(())
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let client = ClientId::from_bytes([7; 16]).to_string();
        assert_eq!(client.parse::<MappingId>(), Err(InvalidId::Prefix { expected: "mapping" }));
    }

    #[test]
    fn what_is_no_base32_of_128_bits_is_refused() {
        for suffix in [
            "",
            "0",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "01h2xcejqtf2nbrexx3vqjhpi1",
            "01H2XCEJQTF2NBREXX3VQJHP41",
        ] {
            let parsed = format!("node_{suffix}").parse::<NodeId>();
            assert_eq!(parsed, Err(InvalidId::Suffix { expected: "node" }), "{suffix}");
        }
    }

    #[test]
    fn a_new_id_is_a_version_7_uuid_of_its_time() {
        let id = MappingId::new(Timestamp(0x0123_4567_89ab), [0xff; 10]);
        let uuid = uuid::Uuid::from_bytes(*id.as_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(uuid.as_bytes()[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab]);
    }

    proptest! {
        #[test]
        fn ids_come_back_from_their_text_and_sort_alike(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (KeyId::from_bytes(a), KeyId::from_bytes(b));
            prop_assert_eq!(a.to_string().parse::<KeyId>(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<KeyId>();
            let _ = format!("key_{text}").parse::<KeyId>();
            let _ = text.parse::<LogId>();
        }
    }
}
