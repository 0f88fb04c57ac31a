//! Secrets and the keys derived from them.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Keeps these keys apart from those of any other use of the same secret.
const EXTRACT_SALT: &[u8] = b"underpass pipeline v1";

/// Bytes of one HMAC-SHA256 block of HKDF output.
const BLOCK_BYTES: usize = 32;

/// 256 secret bits from which keys are derived. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over the bytes. The caller's own copy is the caller's to wipe.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for hand-over to another primitive.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Key and salt of one direction of one tunnel. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DirectionKeys {
    pub(crate) key: [u8; 32],
    pub(crate) salt: [u8; 16],
}

impl DirectionKeys {
    /// Keys from elsewhere than [`derive`]. The pair must never have sealed anything before.
    pub fn new(key: [u8; 32], salt: [u8; 16]) -> Self {
        Self { key, salt }
    }
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKeys(..)")
    }
}

/// What [`derive`] can make: a [`Secret`] for further steps, or [`DirectionKeys`].
pub trait Derived: private::Sealed {}

impl Derived for Secret {}
impl Derived for DirectionKeys {}

mod private {
    pub trait Sealed {
        /// Bytes of key material, at most two blocks.
        const BYTES: u16;
        fn take(material: &[u8; 64]) -> Self;
    }
}

impl private::Sealed for Secret {
    const BYTES: u16 = 32;

    fn take(material: &[u8; 64]) -> Self {
        let mut secret = Self([0; 32]);
        secret.0.copy_from_slice(&material[..32]);
        secret
    }
}

impl private::Sealed for DirectionKeys {
    const BYTES: u16 = 48;

    fn take(material: &[u8; 64]) -> Self {
        let mut keys = Self { key: [0; 32], salt: [0; 16] };
        keys.key.copy_from_slice(&material[..32]);
        keys.salt.copy_from_slice(&material[32..48]);
        keys
    }
}

/// HKDF-SHA256 from `secret` for the use `label` within `context`.
///
/// Every part is written with its length, and so is what comes out: two calls that differ in
/// anything (where one part ends and the next begins included) have nothing in common.
pub fn derive<K: Derived>(secret: &Secret, context: &[&[u8]], label: &str) -> K {
    let info = info(context, label, K::BYTES);
    let extract = hmac::Key::new(hmac::HMAC_SHA256, EXTRACT_SALT);
    let expand = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&extract, &secret.0).as_ref());

    let mut material = Zeroizing::new([0_u8; 2 * BLOCK_BYTES]);
    let mut first = hmac::Context::with_key(&expand);
    first.update(&info);
    first.update(&[1]);
    material[..BLOCK_BYTES].copy_from_slice(first.sign().as_ref());

    let mut second = hmac::Context::with_key(&expand);
    second.update(&material[..BLOCK_BYTES]);
    second.update(&info);
    second.update(&[2]);
    material[BLOCK_BYTES..].copy_from_slice(second.sign().as_ref());
    K::take(&material)
}

fn info(context: &[&[u8]], label: &str, bytes: u16) -> Vec<u8> {
    let mut info = bytes.to_be_bytes().to_vec();
    for part in std::iter::once(label.as_bytes()).chain(context.iter().copied()) {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    info
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf;

    use super::*;

    struct Length(usize);

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn derivation_is_hkdf_as_the_provider_does_it() {
        let (context, label): (&[&[u8]], _) = (&[b"tunnel", b"7"], "tunnel a2n");
        let keys: DirectionKeys = derive(&Secret::new([3; 32]), context, label);

        let mut expected = [0; 48];
        let info = info(context, label, 48);
        hkdf::Salt::new(hkdf::HKDF_SHA256, EXTRACT_SALT)
            .extract(&[3; 32])
            .expand(&[&info], Length(48))
            .unwrap()
            .fill(&mut expected)
            .unwrap();
        assert_eq!((&keys.key[..], &keys.salt[..]), expected.split_at(32));
    }

    #[test]
    fn whatever_differs_gives_other_keys() {
        let make = |secret: u8, context: &[&[u8]], label: &str| -> [u8; 32] {
            let keys: DirectionKeys = derive(&Secret::new([secret; 32]), context, label);
            keys.key
        };
        let all = [
            make(1, &[b"ab", b"c"], "l"),
            make(1, &[b"a", b"bc"], "l"),
            make(1, &[b"abc"], "l"),
            make(1, &[b"abc", b""], "l"),
            make(1, &[], "labc"),
            make(2, &[b"abc"], "l"),
            *derive::<Secret>(&Secret::new([1; 32]), &[b"abc"], "l").as_bytes(),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "{i} repeats an earlier one");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?} {:?}", Secret::new([65; 32]), DirectionKeys::new([65; 32], [66; 16]));
        assert_eq!(shown, "Secret(..) DirectionKeys(..)");
    }
}
