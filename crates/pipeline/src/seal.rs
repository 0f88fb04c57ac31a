//! Bodies into records.

use std::fmt;

use aws_lc_rs::aead::Aad;
use bytes::BytesMut;

use crate::aead::{Aead, Cipher};
use crate::keys::DirectionKeys;
use crate::record::{BODY_BYTES_MAX, HEADER_BYTES, Header, TAG_BYTES};

/// Makes the records of one direction, in order.
pub struct Sealer(Inner);

enum Inner {
    Plain,
    Sealed(Box<Cipher>),
    /// The provider refused the key. Every record is refused; none ever leaves unsealed instead.
    Unusable,
}

/// Why no record was made. The direction is over; nothing is ever sent unsealed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Every nonce of this direction is used. Begin a new tunnel.
    #[error("all nonces of this direction are used up")]
    Exhausted,
    /// A bug on our side: bodies are cut to the limit before they are sealed.
    #[error("a body of {bytes} bytes, the longest is {BODY_BYTES_MAX}")]
    TooLong {
        /// Bytes of the body.
        bytes: usize,
    },
    /// A bug on our side: the buffer lacks the room that the record needs around its body.
    #[error("no room for header and tag")]
    NoRoom,
    /// The cryptographic provider refused.
    #[error("the cryptographic provider refused to seal")]
    Provider,
}

impl Sealer {
    /// A sealer of a fresh direction: `keys` must never have sealed a record before.
    #[allow(clippy::needless_pass_by_value)] // Taken, so that two sealers of one key need a clone.
    pub fn sealed(aead: Aead, keys: DirectionKeys) -> Self {
        Self(Cipher::new(aead, &keys).map_or(Inner::Unusable, |cipher| Inner::Sealed(Box::new(cipher))))
    }

    /// Records with a header and nothing else around the body.
    pub fn plain() -> Self {
        Self(Inner::Plain)
    }

    /// Whether bodies go out as they are.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Inner::Plain)
    }

    /// Bytes that a record has more than its body.
    pub fn overhead(&self) -> usize {
        HEADER_BYTES + self.tag_bytes()
    }

    /// Bytes that a record has after its body.
    pub fn tag_bytes(&self) -> usize {
        if self.is_plain() { 0 } else { TAG_BYTES }
    }

    /// Makes a record of `frame` where it lies: five bytes of room, the body, and
    /// [`tag_bytes`](Self::tag_bytes) of room. Nothing else is written or allocated.
    pub fn seal_frame(&mut self, kind: u8, frame: &mut [u8]) -> Result<(), SealError> {
        let tag_bytes = self.tag_bytes();
        let (head, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>().ok_or(SealError::NoRoom)?;
        let body_bytes = rest.len().checked_sub(tag_bytes).ok_or(SealError::NoRoom)?;
        if body_bytes > BODY_BYTES_MAX {
            return Err(SealError::TooLong { bytes: body_bytes });
        }
        let length = u32::try_from(rest.len()).map_err(|_| SealError::TooLong { bytes: body_bytes })?;
        let header = Header { kind, flags: 0, length };
        match &mut self.0 {
            Inner::Plain => {}
            Inner::Unusable => return Err(SealError::Provider),
            Inner::Sealed(cipher) => {
                let nonce = cipher.next_nonce().ok_or(SealError::Exhausted)?;
                let (body, room) = rest.split_at_mut(body_bytes);
                let tag = cipher
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::from(header.to_bytes()), body)
                    .map_err(|_| SealError::Provider)?;
                room.copy_from_slice(tag.as_ref());
            }
        }
        header.write(head);
        Ok(())
    }

    /// Makes a record of all of `buf`: five bytes of room and the body. The tag is appended.
    pub fn seal_in_place(&mut self, kind: u8, buf: &mut BytesMut) -> Result<(), SealError> {
        let body_end = buf.len();
        buf.resize(body_end + self.tag_bytes(), 0);
        let sealed = self.seal_frame(kind, buf);
        if sealed.is_err() {
            buf.truncate(body_end);
        }
        sealed
    }

    /// Appends one record with this body to `out`. On an error `out` is as it was.
    pub fn seal(&mut self, kind: u8, body: &[u8], out: &mut BytesMut) -> Result<(), SealError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SealError::TooLong { bytes: body.len() });
        }
        let start = out.len();
        out.reserve(self.overhead() + body.len());
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(body);
        out.resize(out.len() + self.tag_bytes(), 0);
        let sealed = self.seal_frame(kind, &mut out[start..]);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_plain() { "Sealer(plain)" } else { "Sealer(sealed)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Opener;
    use crate::record::DATA;

    #[test]
    fn after_the_last_nonce_nothing_is_sealed() {
        let keys = DirectionKeys::new([1; 32], [2; 16]);
        let mut sealer = Sealer::sealed(Aead::Aes256Gcm, keys);
        let Inner::Sealed(cipher) = &mut sealer.0 else { panic!("not sealed") };
        cipher.skip_to(u64::MAX);
        let mut wire = BytesMut::new();
        sealer.seal(DATA, b"last", &mut wire).unwrap();
        let length = wire.len();
        assert_eq!(sealer.seal(DATA, b"one more", &mut wire), Err(SealError::Exhausted));
        assert_eq!(wire.len(), length, "and nothing of it is in the buffer");
        assert_eq!(sealer.seal(DATA, b"", &mut wire), Err(SealError::Exhausted));
    }

    #[test]
    fn a_key_that_the_provider_refused_never_means_plain() {
        let mut sealer = Sealer(Inner::Unusable);
        let mut wire = BytesMut::new();
        assert_eq!(sealer.seal(DATA, b"secret", &mut wire), Err(SealError::Provider));
        assert!(wire.is_empty() && !sealer.is_plain());
    }

    #[test]
    fn a_record_needs_its_room_and_keeps_its_limit() {
        let mut sealer = Sealer::sealed(Aead::XChaCha20Poly1305, DirectionKeys::new([1; 32], [2; 16]));
        assert_eq!(sealer.seal_frame(DATA, &mut [0; 4]), Err(SealError::NoRoom));
        assert_eq!(sealer.seal_frame(DATA, &mut [0; 20]), Err(SealError::NoRoom));
        assert_eq!(sealer.seal_frame(DATA, &mut [0; 21]), Ok(()));
        let body = vec![0; BODY_BYTES_MAX + 1];
        let mut out = BytesMut::new();
        assert_eq!(sealer.seal(DATA, &body, &mut out), Err(SealError::TooLong { bytes: body.len() }));
        assert!(out.is_empty());
        assert_eq!(sealer.seal(DATA, &body[1..], &mut out), Ok(()));
        assert_eq!(out.len(), BODY_BYTES_MAX + sealer.overhead());
    }

    #[test]
    fn room_before_the_body_becomes_the_header() {
        let keys = DirectionKeys::new([1; 32], [2; 16]);
        let mut in_place = BytesMut::from(&b".....body"[..]);
        Sealer::sealed(Aead::Aes256Gcm, keys.clone()).seal_in_place(DATA, &mut in_place).unwrap();
        let mut appended = BytesMut::new();
        Sealer::sealed(Aead::Aes256Gcm, keys.clone()).seal(DATA, b"body", &mut appended).unwrap();
        assert_eq!(in_place, appended);

        let (head, body) = in_place.split_at_mut(HEADER_BYTES);
        let header = Header::parse((&*head).try_into().unwrap()).unwrap();
        assert_eq!(Opener::sealed(Aead::Aes256Gcm, keys).open_in_place(header, body), Ok(4));
        assert_eq!(&body[..4], b"body");
    }
}
