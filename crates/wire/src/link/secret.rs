//! A byte string that is wiped when it goes and never printed.

use std::fmt;

use zeroize::Zeroize;

/// Secret bytes inside a message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct SecretBytes {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(value: Vec<u8>) -> Self {
        Self { value }
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.value
    }
}

impl<const N: usize> From<&[u8; N]> for SecretBytes {
    fn from(value: &[u8; N]) -> Self {
        Self::new(value.to_vec())
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.value.len())
    }
}
