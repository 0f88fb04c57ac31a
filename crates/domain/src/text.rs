//! Values that are bytes on disk and text for people: keys and digests, and the serde of all such.

use std::fmt;
use std::str::FromStr;

/// Serde for a type with `Display` and `FromStr`: text where the format is for people, else the
/// proxy type, whose encoding is what the disk keeps.
macro_rules! text_serde {
    ($name:ident as $proxy:ty, $to:expr, $from:expr $(, pattern $pattern:expr)? $(, format $format:literal)?) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    let to: fn(&$name) -> $proxy = $to;
                    serde::Serialize::serialize(&to(self), serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    let proxy = <$proxy as serde::Deserialize>::deserialize(deserializer)?;
                    let from: fn($proxy) -> Result<$name, _> = $from;
                    from(proxy).map_err(serde::de::Error::custom)
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    $("pattern": $pattern,)?
                    $("format": $format,)?
                })
            }
        }
    };
}

pub(crate) use text_serde;

/// Why a text is not a key or a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected} is needed")]
pub struct InvalidBytes {
    expected: &'static str,
}

/// A public X25519 key. Text: unpadded base64url, 43 symbols.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(43);
        for chunk in self.0.chunks(3) {
            let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - chunk.len()));
            for index in 0..=chunk.len() {
                let symbol = bits >> (18 - 6 * index) & 63;
                text.push(char::from(BASE64URL[symbol as usize]));
            }
        }
        f.write_str(&text)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidBytes;

    fn from_str(text: &str) -> Result<Self, InvalidBytes> {
        let invalid = InvalidBytes { expected: "a public key of 43 symbols of base64url without padding" };
        if text.len() != 43 {
            return Err(invalid);
        }
        let mut key = [0; 32];
        for (chunk, out) in text.as_bytes().chunks(4).zip(key.chunks_mut(3)) {
            let mut bits = 0_u32;
            for symbol in chunk {
                let (digit, _) =
                    (0_u32..).zip(BASE64URL).find(|(_, known)| *known == symbol).ok_or(invalid)?;
                bits = bits << 6 | digit;
            }
            bits <<= 6 * (4 - chunk.len());
            let [_, bytes @ ..] = bits.to_be_bytes();
            out.copy_from_slice(&bytes[..out.len()]);
            // Bits past the last byte must be zero, or two texts would mean one key.
            if bytes[out.len()..].iter().any(|rest| *rest != 0) {
                return Err(invalid);
            }
        }
        Ok(Self(key))
    }
}

/// A 256-bit digest. Text: 64 symbols of hexadecimal in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest32(pub [u8; 32]);

impl Digest32 {
    /// Whether both are the same, in a time that doesn't depend on where they differ. For digests
    /// that stand for a secret.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Display for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest32 {
    type Err = InvalidBytes;

    fn from_str(text: &str) -> Result<Self, InvalidBytes> {
        let invalid = InvalidBytes { expected: "a digest of 64 hexadecimal symbols in lower case" };
        if text.len() != 64 {
            return Err(invalid);
        }
        let nibble = |symbol: u8| match symbol {
            b'0'..=b'9' => Ok(symbol - b'0'),
            b'a'..=b'f' => Ok(symbol - b'a' + 10),
            _ => Err(invalid),
        };
        let mut digest = [0; 32];
        for (pair, out) in text.as_bytes().chunks(2).zip(&mut digest) {
            *out = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

text_serde!(PublicKey as [u8; 32], |key| key.0, |bytes| Ok::<_, InvalidBytes>(PublicKey(bytes)),
    pattern "^[A-Za-z0-9_-]{43}$");
text_serde!(Digest32 as [u8; 32], |digest| digest.0, |bytes| Ok::<_, InvalidBytes>(Digest32(bytes)),
    pattern "^[0-9a-f]{64}$");

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_base64url_without_padding() {
        let key = PublicKey(std::array::from_fn(|index| 255 - u8::try_from(index).unwrap_or(0)));
        assert_eq!(key.to_string(), "__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA");
    }

    #[test]
    fn a_key_has_one_text_only() {
        let key = PublicKey([0; 32]).to_string();
        let sloppy = format!("{}B", &key[..42]);
        assert!(sloppy.parse::<PublicKey>().is_err());
        assert!(format!("{key}=").parse::<PublicKey>().is_err());
    }

    proptest! {
        #[test]
        fn keys_and_digests_come_back_from_their_text(bytes: [u8; 32]) {
            prop_assert_eq!(PublicKey(bytes).to_string().parse(), Ok(PublicKey(bytes)));
            prop_assert_eq!(Digest32(bytes).to_string().parse(), Ok(Digest32(bytes)));
        }

        #[test]
        fn digests_match_only_themselves(a: [u8; 32], bit in 0_usize..256) {
            let mut b = a;
            b[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Digest32(a).matches(&Digest32(a)));
            prop_assert!(!Digest32(a).matches(&Digest32(b)));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<PublicKey>();
            let _ = text.parse::<Digest32>();
        }
    }
}
