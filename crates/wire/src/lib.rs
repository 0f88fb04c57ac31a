//! What links and channels say: handshakes, messages, tokens, limits; no I/O.
//!
//! Everything here is bytes in, bytes out. Who reads sockets is `gateway` and `agent`; who moves a tunnel's
//! bytes is `relay`. The layers of a link, from the outside in:
//!
//! 1. the [`preamble`]: magic, protocol version, kind;
//! 2. the [`noise`] handshake, then Noise messages with a 16-bit length in front;
//! 3. chunks of at most 16 KiB on a few lanes, so that a large message never holds up a small one
//!    ([`link::LinkEncoder`], [`link::LinkDecoder`]);
//! 4. messages ([`link::Body`]) in a tagged encoding: unknown fields are skipped, unknown kinds are told.
//!
//! A data channel says the preamble, shows its ticket ([`channel::DataHello`]), and then speaks records, some
//! of which carry the messages of [`channel`].
//!
//! Bounds are constants beside the code that keeps them. Golden bytes lie in `fixtures/wire/`.

pub mod channel;
pub mod link;
pub mod noise;
pub mod preamble;
pub mod token;

mod bytes16;

pub use bytes16::{Malformed, bytes16, bytes32};
