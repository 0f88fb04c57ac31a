//! Chunks of a link, as an authenticated peer may seal them.
//!
//! Input: a mode, then chunks, each with its length (`u16`, big-endian) in front.

use prost::Message;
use underpass_wire::link::{
    Body, LinkDecoder, LinkMessage, MESSAGE_BYTES_MAX, Received, STRANGER_MESSAGE_BYTES_MAX,
};

/// Decodes the chunks; what is accepted must survive encoding and keep the limit.
pub fn replay(data: &[u8]) -> usize {
    let Some((mode, mut rest)) = data.split_first() else { return 0 };
    let (mut decoder, limit) = match mode % 3 {
        0 => (LinkDecoder::from_stranger(), STRANGER_MESSAGE_BYTES_MAX),
        1 => {
            let mut decoder = LinkDecoder::from_stranger();
            decoder.admit();
            (decoder, MESSAGE_BYTES_MAX)
        }
        _ => (LinkDecoder::from_node(), MESSAGE_BYTES_MAX),
    };
    let mut accepted = 0;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (chunk, after) = after.split_at(length);
        rest = after;
        match decoder.next_opened(chunk) {
            Ok(None) => {}
            Ok(Some(received)) => {
                accepted += check(received, limit);
            }
            Err(_) => break,
        }
    }
    accepted
}

fn check(received: Received, limit: usize) -> usize {
    let answer = received.answer();
    let Received::Known(body) = received else {
        assert!(matches!(answer, Some(Body::Unsupported(_))), "an unknown kind without an answer");
        return 0;
    };
    let message = LinkMessage { body: Some(body) };
    let bytes = message.encode_to_vec();
    // Longer forms of the same numbers shrink, nothing grows, except that a field of an enumeration which
    // is told twice is still told once.
    assert!(bytes.len() <= limit, "{} bytes came through a limit of {limit}", bytes.len());
    assert_eq!(LinkMessage::decode(&*bytes).as_ref(), Ok(&message));
    1
}
