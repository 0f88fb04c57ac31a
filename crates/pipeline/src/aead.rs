//! The two ciphers, and the nonces of a direction.

use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use chacha20::{R20, hchacha};
use zeroize::Zeroizing;

use crate::keys::DirectionKeys;

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aead {
    /// Fast everywhere; what two ends use unless both have AES in hardware.
    XChaCha20Poly1305,
    /// Several times as fast where the processor does AES itself.
    Aes256Gcm,
}

/// A number that names no cipher of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cipher {0} is unknown to this version")]
pub struct UnknownAead(pub u8);

impl Aead {
    /// What two ends use, given whether [`aes_is_fast`] on both of them.
    pub fn agree(both_have_aes: bool) -> Self {
        if both_have_aes { Self::Aes256Gcm } else { Self::XChaCha20Poly1305 }
    }

    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::XChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }
}

impl TryFrom<u8> for Aead {
    type Error = UnknownAead;

    fn try_from(number: u8) -> Result<Self, UnknownAead> {
        match number {
            1 => Ok(Self::XChaCha20Poly1305),
            2 => Ok(Self::Aes256Gcm),
            other => Err(UnknownAead(other)),
        }
    }
}

/// Whether this processor has instructions for AES and for the multiplication in GCM.
pub fn aes_is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    fast
}

/// Key and nonces of one direction.
#[derive(Debug)]
pub(crate) struct Cipher {
    pub(crate) key: LessSafeKey,
    prefix: [u8; 4],
    counter: Option<u64>,
}

impl Cipher {
    /// `None` if the provider refuses the key.
    ///
    /// XChaCha20-Poly1305 takes the first 16 of its 24 nonce bytes into a sub-key. They are the
    /// direction's salt and never change, so that step is done here, once; what is left is
    /// ChaCha20-Poly1305 with four noughts and the counter, byte for byte the same.
    pub(crate) fn new(aead: Aead, keys: &DirectionKeys) -> Option<Self> {
        let (algorithm, prefix, key) = match aead {
            Aead::XChaCha20Poly1305 => {
                let subkey = hchacha::<R20>(&keys.key.into(), &keys.salt.into());
                (&CHACHA20_POLY1305, [0; 4], Zeroizing::new(subkey.into()))
            }
            Aead::Aes256Gcm => {
                let [a, b, c, d, ..] = keys.salt;
                (&AES_256_GCM, [a, b, c, d], Zeroizing::new(keys.key))
            }
        };
        let key: &[u8; 32] = &key;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, prefix, counter: Some(0) })
    }

    /// The nonce of the next record, `None` after the last there is.
    pub(crate) fn next_nonce(&mut self) -> Option<Nonce> {
        let counter = self.counter?;
        self.counter = counter.checked_add(1);
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.prefix);
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        Some(Nonce::assume_unique_for_key(nonce))
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        self.counter = Some(counter);
    }
}
