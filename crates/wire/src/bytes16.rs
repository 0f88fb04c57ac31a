//! Fixed-length fields of messages, which travel as byte strings of any length.

/// A field of a message that does not hold what it must. The message is to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}")]
pub struct Malformed {
    /// The name of the field.
    pub field: &'static str,
}

/// The 16 bytes of an id.
///
/// # Errors
///
/// If there are more or fewer.
pub fn bytes16(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed { field })
}

/// The 32 bytes of a key or digest.
///
/// # Errors
///
/// If there are more or fewer.
pub fn bytes32(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed { field })
}
