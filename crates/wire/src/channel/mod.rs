//! What a data channel says before and between its tunnels.
//!
//! First the [`preamble`](crate::preamble) and a [`DataHello`], which are answered by nothing: the node either
//! keeps the channel or closes it. Then records only. Those of the kinds `OPEN`, `OPENED`, `FAILED` and
//! `DIAL` hold the messages of this module, sealed with the channel's keys; all others belong to the tunnel
//! that is open and are sealed with its keys, or not at all.

mod hello;
pub mod labels;
mod messages;

pub use hello::{DATA_HELLO_BYTES, DataHello, DataRole};
pub use messages::{
    Aead, CHANNEL_MESSAGE_BYTES_MAX, CHANNEL_RECORD_BYTES_MAX, ChannelMessageError, Dial, FailReason, Failed,
    Open, Opened, Protection, decode, encode,
};
