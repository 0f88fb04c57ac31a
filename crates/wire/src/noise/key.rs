//! X25519 key pairs.

use std::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::NoiseError;

/// The private half of an X25519 key pair, with its public half.
///
/// Made from 32 random bytes, which are also what is stored. Never leaves its machine.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StaticKey {
    private: [u8; 32],
    #[zeroize(skip)]
    public: [u8; 32],
}

impl StaticKey {
    /// The key pair of these 32 bytes. Any 32 bytes are a private key; take them from the operating system.
    ///
    /// # Errors
    ///
    /// If the cryptographic library was built without X25519.
    pub fn from_bytes(private: [u8; 32]) -> Result<Self, NoiseError> {
        let mut dh = x25519()?;
        dh.set(&private);
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey().get(..32).ok_or(NoiseError::Malformed { what: "public key" })?);
        Ok(Self { private, public })
    }

    /// What others know this key by.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The private half, to be written to a file that only its owner can read.
    pub fn private(&self) -> &[u8; 32] {
        &self.private
    }

    /// Refuses public keys of small order: with those the shared secret is known to all, so that anybody
    /// could "prove" to be them.
    pub(super) fn check_peer(&self, peer: &[u8; 32]) -> Result<(), NoiseError> {
        let mut dh = x25519()?;
        dh.set(&self.private);
        let mut shared = [0_u8; 32];
        dh.dh(peer, &mut shared).map_err(|_| NoiseError::WeakKey)?;
        let weak = bool::from(shared.ct_eq(&[0; 32]));
        shared.zeroize();
        if weak { Err(NoiseError::WeakKey) } else { Ok(()) }
    }
}

fn x25519() -> Result<Box<dyn snow::types::Dh>, NoiseError> {
    DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .ok_or(NoiseError::Malformed { what: "cryptographic library" })
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_is_that_of_rfc_7748() {
        let private = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = [
            0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
            0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a,
        ];
        assert_eq!(StaticKey::from_bytes(private).unwrap().public(), public);
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let key = StaticKey::from_bytes([7; 32]).unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(key.check_peer(&[0; 32]), Err(NoiseError::WeakKey));
        assert_eq!(key.check_peer(&one), Err(NoiseError::WeakKey));
        assert_eq!(key.check_peer(&StaticKey::from_bytes([8; 32]).unwrap().public()), Ok(()));
    }

    #[test]
    fn the_private_half_is_not_shown() {
        let key = StaticKey::from_bytes([0xab; 32]).unwrap();
        assert!(!format!("{key:?}").contains("171"), "{key:?}");
    }
}
