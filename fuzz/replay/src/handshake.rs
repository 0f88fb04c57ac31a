//! Whatever comes before anybody is known: preamble, handshake, first chunks, tickets; and the envelopes that
//! other clients send.
//!
//! Input: which, then the bytes as they would stand on the wire.

use bytes::BytesMut;
use underpass_wire::channel::{DATA_HELLO_BYTES, DataHello, DataRole};
use underpass_wire::link::LinkDecoder;
use underpass_wire::noise::{
    FIRST_BYTES, PairMessage, PairPayload, PairResponder, PairSubject, REPLY_BYTES, StaticKey, respond,
};
use underpass_wire::preamble::{self, PREAMBLE_BYTES};

/// The key of the server and of the responding client. The seeds were made for it.
const PRIVATE: [u8; 32] = [2; 32];

/// Plays the side that is connected to.
pub fn replay(data: &[u8]) -> usize {
    let Some((which, wire)) = data.split_first() else { return 0 };
    match which % 4 {
        0 => link(wire).unwrap_or(0),
        1 => ticket(wire).unwrap_or(0),
        2 => pair(wire, true).unwrap_or(0),
        _ => pair(wire, false).unwrap_or(0),
    }
}

/// A connection: preamble, handshake, then chunks that nobody can have sealed for this fresh answer.
fn link(wire: &[u8]) -> Option<usize> {
    let (head, rest) = wire.split_first_chunk::<PREAMBLE_BYTES>()?;
    let kind = preamble::decode(*head).ok()?;
    let (first, rest) = rest.split_at_checked(FIRST_BYTES)?;
    let answered = respond(kind, &StaticKey::from_bytes(PRIVATE).ok()?, first).ok()?;
    assert_eq!(answered.reply.len(), REPLY_BYTES);
    let (_, mut opener) = answered.cipher.split();
    let received = LinkDecoder::from_stranger().next(&mut opener, &mut BytesMut::from(rest));
    assert!(!matches!(received, Ok(Some(_))), "a chunk opened that nobody sealed: {received:?}");
    Some(1)
}

/// A data channel with a made-up ticket.
fn ticket(wire: &[u8]) -> Option<usize> {
    let hello = DataHello::from_bytes(wire.first_chunk::<DATA_HELLO_BYTES>()?);
    assert_eq!(hello.to_bytes(), wire[..DATA_HELLO_BYTES]);
    let known = hello.verify(&[1; 32], &[2; 32], DataRole::Target);
    assert!(!(known && hello.verify(&[1; 32], &[2; 32], DataRole::Caller)), "good for both roles");
    Some(usize::from(known))
}

/// An envelope of another client.
fn pair(wire: &[u8], by_code: bool) -> Option<usize> {
    let message = PairMessage::from_bytes(wire).ok()?;
    assert_eq!(PairMessage::from_bytes(&message.to_bytes()).as_ref(), Ok(&message));
    let key = StaticKey::from_bytes(PRIVATE).ok()?;
    if by_code {
        let subject = PairSubject::Code(*b"h4xw77pam");
        let (responder, _) = PairResponder::with_code(&key, &[5; 32], &subject, &message).ok()?;
        assert!(
            responder.finish(&key, &message, &PairPayload::default()).is_err(),
            "the first message passed as the third"
        );
    } else {
        let pinned = StaticKey::from_bytes([1; 32]).ok()?.public();
        let subject = PairSubject::Mapping([8; 16]);
        let made = PairResponder::pinned(&key, &pinned, &subject, &message, &PairPayload::default());
        let (root, _) = made.ok()?;
        assert_eq!(root.peer, pinned);
    }
    Some(1)
}
