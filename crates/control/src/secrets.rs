//! Secrets that are given out once, and their hashes.

use std::fmt;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use std::sync::LazyLock;
use underpass_domain::{Digest32, KeyId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Every API token starts with this, so that scanners of leaked secrets can find one.
const TOKEN_PREFIX: &str = "up_";
/// 256 bits.
pub(crate) const TOKEN_SECRET_BYTES: usize = 32;
/// 32 bytes in base32 without padding.
const TOKEN_SECRET_TEXT: usize = 52;
/// A longer line is no token; nothing is decoded from it.
const TOKEN_TEXT_MAX: usize = 128;

static LOWER_BASE32: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().ok()
});

/// The hash under which a secret is kept. Plain BLAKE3 is enough, and right: every secret that is hashed here
/// has at least 100 random bits, so there is nothing to slow down a guess of.
pub fn hash_secret(secret: &[u8]) -> Digest32 {
    Digest32(*blake3::hash(secret).as_bytes())
}

/// The secret half of an invite, 128 bits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    pub(crate) fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the invite line and for nothing else.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(..)")
    }
}

/// An API token: `up_`, the id of its key, `_`, and 256 bits in base32.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    pub(crate) fn new(key: KeyId, secret: &[u8; TOKEN_SECRET_BYTES]) -> Self {
        let text = key.to_string();
        let id = text.rsplit('_').next().unwrap_or_default();
        let secret = Zeroizing::new(encode(secret));
        Self(format!("{TOKEN_PREFIX}{id}_{}", secret.as_str()))
    }

    /// The text, to be shown once and sent as bearer token.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The key a token names, and the hash of its secret. `None`: that is no token.
pub(crate) fn parse_token(text: &str) -> Option<(KeyId, Digest32)> {
    if text.len() > TOKEN_TEXT_MAX {
        return None;
    }
    let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    if secret.len() != TOKEN_SECRET_TEXT {
        return None;
    }
    let key = format!("{}_{id}", KeyId::PREFIX).parse().ok()?;
    let secret = Zeroizing::new(LOWER_BASE32.as_ref()?.decode(secret.as_bytes()).ok()?);
    Some((key, hash_secret(&secret)))
}

fn encode(secret: &[u8; TOKEN_SECRET_BYTES]) -> String {
    BASE32_NOPAD.encode(secret).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyId {
        KeyId::from_bytes(*b"0123456789abcdef")
    }

    #[test]
    fn a_token_names_its_key_and_carries_its_secret() {
        let secret = [0xA5; TOKEN_SECRET_BYTES];
        let token = Token::new(key(), &secret);
        assert_eq!(parse_token(token.expose()), Some((key(), hash_secret(&secret))));
    }

    #[test]
    fn other_lines_are_no_tokens() {
        let token = Token::new(key(), &[1; TOKEN_SECRET_BYTES]).expose().to_owned();
        for line in [
            String::new(),
            "up_".into(),
            token[3..].into(),
            token[..token.len() - 1].into(),
            format!("{token}a"),
            token.to_uppercase(),
            token.replace("up_", "up__"),
            "x".repeat(1_000_000),
        ] {
            assert_eq!(parse_token(&line), None, "{line:.80}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let token = Token::new(key(), &[1; TOKEN_SECRET_BYTES]);
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(format!("{:?}", InviteSecret::new([9; 16])), "InviteSecret(..)");
    }
}
