//! The bodies of `OPEN`, `OPENED`, `FAILED` and `DIAL` records.
//!
//! Input: which message, then its body.

use std::fmt::Debug;

use prost::Message;
use underpass_wire::channel::{CHANNEL_MESSAGE_BYTES_MAX, Dial, Failed, Open, Opened, decode, encode};

/// Decodes the body; what is accepted must survive encoding.
pub fn replay(data: &[u8]) -> usize {
    let Some((which, body)) = data.split_first() else { return 0 };
    match which % 4 {
        0 => check::<Open>(body),
        1 => check::<Opened>(body),
        2 => check::<Failed>(body),
        _ => check::<Dial>(body),
    }
}

fn check<M: Message + Default + PartialEq + Debug>(body: &[u8]) -> usize {
    let Ok(message) = decode::<M>(body) else { return 0 };
    assert!(body.len() <= CHANNEL_MESSAGE_BYTES_MAX);
    let Ok(bytes) = encode(&message) else { panic!("what was read can't be written: {message:?}") };
    assert_eq!(decode::<M>(&bytes).as_ref(), Ok(&message));
    1
}
