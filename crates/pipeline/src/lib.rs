//! Records: how the bytes of a tunnel lie on the wire, sealed or plain.
//!
//! A [`Sealer`] turns a body into one record and an [`Opener`] turns it back. Both belong to one
//! direction, count its records and do no I/O. Keys come from [`derive`]: own key and own salt for
//! each direction and each tunnel, so a counter that starts at nought never meets a nonce twice.
//!
//! ```text
//! type u8 | flags u8 | length u24 big-endian | body | tag (sealed only)
//! ```
//!
//! The five header bytes are readable by everybody on the way and authenticated to the end: a node
//! in the middle follows the records without a key, and any bit it changed is noticed.
//!
//! ```
//! use bytes::BytesMut;
//! use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::new([7; 32]);
//! let keys: DirectionKeys = derive(&secret, &[b"tunnel id"], "tunnel a2n");
//! let mut sealer = Sealer::sealed(Aead::XChaCha20Poly1305, keys.clone());
//! let mut opener = Opener::sealed(Aead::XChaCha20Poly1305, keys);
//!
//! let mut wire = BytesMut::new();
//! sealer.seal(record::DATA, b"hello", &mut wire)?;
//!
//! let (head, body) = wire.split_at_mut(record::HEADER_BYTES);
//! let header = record::Header::parse((&*head).try_into()?)?;
//! let length = opener.open_in_place(header, body)?;
//! assert_eq!(&body[..length], b"hello");
//! # Ok(())
//! # }
//! ```

mod aead;
mod keys;
mod open;
pub mod record;
mod seal;

pub use aead::{Aead, UnknownAead, aes_is_fast};
pub use keys::{Derived, DirectionKeys, Secret, derive};
pub use open::{OpenError, Opener};
pub use seal::{SealError, Sealer};
