//! Records back into bodies.

use std::fmt;

use aws_lc_rs::aead::Aad;

use crate::aead::{Aead, Cipher};
use crate::keys::DirectionKeys;
use crate::record::{BODY_BYTES_MAX, Header};

/// Opens the records of one direction, in order.
pub struct Opener(Inner);

enum Inner {
    Plain,
    Sealed(Box<Cipher>),
    /// The provider refused the key, or a record failed: nothing is believed any more.
    Shut,
}

/// Why a record wasn't opened. The direction is over: later records are refused too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Changed, repeated, out of order, or sealed by somebody else.
    #[error("a record is forged, repeated or out of order")]
    Forged,
    /// The bytes given are not as many as the header says: a bug on our side.
    #[error("{bytes} bytes for a record of {}", header.length)]
    WrongLength {
        /// The record's header.
        header: Header,
        /// The bytes given after it.
        bytes: usize,
    },
    /// A plain body over the limit.
    #[error("a body of {bytes} bytes, the longest is {BODY_BYTES_MAX}")]
    TooLong {
        /// Bytes of the body.
        bytes: usize,
    },
    /// Every nonce of this direction is used.
    #[error("all nonces of this direction are used up")]
    Exhausted,
}

impl Opener {
    /// Opens what [`Sealer::sealed`](crate::Sealer::sealed) made with the same cipher and keys.
    #[allow(clippy::needless_pass_by_value)] // The same shape as the sealer's.
    pub fn sealed(aead: Aead, keys: DirectionKeys) -> Self {
        Self(Cipher::new(aead, &keys).map_or(Inner::Shut, |cipher| Inner::Sealed(Box::new(cipher))))
    }

    /// Opens what [`Sealer::plain`](crate::Sealer::plain) made.
    pub fn plain() -> Self {
        Self(Inner::Plain)
    }

    /// Whether bodies come in as they are.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Inner::Plain)
    }

    /// Opens a record where it lies and answers how many of its first bytes are the body.
    ///
    /// `body` is everything after the header, tag included.
    pub fn open_in_place(&mut self, header: Header, body: &mut [u8]) -> Result<usize, OpenError> {
        if body.len() != header.length as usize {
            return Err(OpenError::WrongLength { header, bytes: body.len() });
        }
        let opened = match &mut self.0 {
            Inner::Plain if body.len() > BODY_BYTES_MAX => Err(OpenError::TooLong { bytes: body.len() }),
            Inner::Plain => Ok(body.len()),
            Inner::Shut => Err(OpenError::Forged),
            Inner::Sealed(cipher) => match cipher.next_nonce() {
                None => Err(OpenError::Exhausted),
                Some(nonce) => cipher
                    .key
                    .open_in_place(nonce, Aad::from(header.to_bytes()), body)
                    .map(|plain| plain.len())
                    .map_err(|_| OpenError::Forged),
            },
        };
        if opened.is_err() {
            self.0 = Inner::Shut;
        }
        opened
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Plain => "Opener(plain)",
            Inner::Sealed(_) => "Opener(sealed)",
            Inner::Shut => "Opener(shut)",
        })
    }
}
