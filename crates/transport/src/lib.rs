//! How channels are made.
//!
//! A [`Channel`] is one duplex byte stream with a peer address, whatever it carries. A transport is a
//! [`Listener`] and a [`Connector`]:
//!
//! - [`tcp`]: plain TCP sockets;
//! - [`memory`]: pipes within the process, for tests.
//!
//! Accepting has two steps: [`Listener::accept`] is quick and can be cancelled; [`Incoming::handshake`] may
//! take as long as the caller makes it take and belongs into a job of its own. So nobody who connects and
//! says nothing keeps others waiting.
//!
//! With the feature `testkit` there is a conformance suite that every transport has to pass, as the macro
//! `conformance!`.

mod channel;
mod error;
pub mod memory;
pub mod tcp;
#[cfg(feature = "testkit")]
pub mod testkit;
mod traits;

pub use channel::{AsyncDuplex, Channel, Stream};
pub use error::{AcceptError, BindError, ConnectError, HandshakeError};
pub use traits::{Connector, Incoming, Listener};
