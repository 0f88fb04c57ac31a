//! Messages over a sealed link, cut and mixed in every way.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use underpass_wire::link::{
    Answer, Body, CHUNK_BYTES_MAX, Command, Desired, DesiredMapping, Direction, Envelope, Hello,
    LANE_QUEUE_MESSAGES_MAX, Lane, Lines, LinkDecoder, LinkEncoder, LinkError, MESSAGE_BYTES_MAX, Outcome,
    Ping, Pong, PushError, Received, Request, RevokeCode, STRANGER_MESSAGE_BYTES_MAX, SecretBytes, Subject,
    TicketRequest,
};
use underpass_wire::noise::{Initiator, LinkOpener, LinkSealer, StaticKey, respond};
use underpass_wire::preamble::Kind;

/// What a client seals, and what its node opens.
fn link() -> (LinkSealer, LinkOpener) {
    let client = StaticKey::from_bytes([1; 32]).unwrap();
    let server = StaticKey::from_bytes([2; 32]).unwrap();
    let (initiator, first) = Initiator::new(Kind::Link, &client, &server.public()).unwrap();
    let answered = respond(Kind::Link, &server, &first).unwrap();
    let (sealer, _) = initiator.finish(&answered.reply).unwrap().split();
    let (_, opener) = answered.cipher.split();
    (sealer, opener)
}

type Fresh = fn() -> LinkDecoder;

fn client_decoder() -> LinkDecoder {
    let mut decoder = LinkDecoder::from_stranger();
    decoder.admit();
    decoder
}

/// All chunks of these messages.
fn encode(direction: Direction, sealer: &mut LinkSealer, bodies: impl IntoIterator<Item = Body>) -> BytesMut {
    let mut encoder = LinkEncoder::new(direction);
    for body in bodies {
        encoder.push(body).unwrap();
    }
    let mut wire = BytesMut::new();
    while encoder.next_chunk(sealer, &mut wire).unwrap() {}
    assert!(encoder.is_empty());
    wire
}

fn decode_all(decoder: &mut LinkDecoder, opener: &mut LinkOpener, wire: &mut BytesMut) -> Vec<Received> {
    let mut received = Vec::new();
    while let Some(message) = decoder.next(opener, wire).unwrap() {
        received.push(message);
    }
    received
}

/// A chunk made by hand, sealed as a client would.
fn chunk(sealer: &mut LinkSealer, plain: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    sealer.seal(plain, &mut wire).unwrap();
    wire
}

fn ping(nonce: u64) -> Body {
    Body::Ping(Ping { nonce })
}

fn envelope(bytes: usize) -> Body {
    Body::Envelope(Envelope {
        peer: vec![1; 16],
        peer_key: vec![2; 32],
        subject: Some(Subject::CodeLookup("h4xw77pam".into())),
        payload: vec![7; bytes],
    })
}

fn desired(mappings: usize) -> Desired {
    let mapping = |number: usize| DesiredMapping {
        id: vec![1; 16],
        name: format!("mapping-{number}"),
        target: "127.0.0.1:3000".into(),
        target_key: vec![9; 32],
        ..DesiredMapping::default()
    };
    Desired { log_id: vec![1; 16], epoch: 1, position: 1842, mappings: (0..mappings).map(mapping).collect() }
}

/// C1: every byte offset, and one byte at a time.
#[test]
fn c1_a_message_split_anywhere_is_the_same_message() {
    let (mut sealer, mut opener) = link();
    let bodies = [ping(7), envelope(40), ping(8)];
    let whole = encode(Direction::FromClient, &mut sealer, bodies);
    for cut in 0..=whole.len() {
        let (mut sealer, mut opener) = link();
        let sent = encode(Direction::FromClient, &mut sealer, [ping(7), envelope(40), ping(8)]);
        assert_eq!(sent.len(), whole.len());
        let mut decoder = client_decoder();
        let mut wire = BytesMut::from(&sent[..cut]);
        let mut received = decode_all(&mut decoder, &mut opener, &mut wire);
        wire.extend_from_slice(&sent[cut..]);
        received.extend(decode_all(&mut decoder, &mut opener, &mut wire));
        // Pings go first: their lane does.
        assert_eq!(received, [ping(7), ping(8), envelope(40)].map(Received::Known), "cut at {cut}");
        assert!(wire.is_empty());
    }
    let mut decoder = client_decoder();
    let mut wire = BytesMut::new();
    let mut received = Vec::new();
    for byte in &whole {
        assert!(decoder.missing(&wire) > 0);
        wire.extend_from_slice(&[*byte]);
        received.extend(decode_all(&mut decoder, &mut opener, &mut wire));
    }
    assert_eq!(received.len(), 3);
}

/// C2: a length over a limit is refused when the length is there, before what it announces.
#[test]
fn c2_lengths_over_the_limit_are_refused_at_once() {
    let (_, mut opener) = link();
    let too_long = u16::try_from(CHUNK_BYTES_MAX + 17).unwrap();
    let mut wire = BytesMut::from(&too_long.to_be_bytes()[..]);
    let error = client_decoder().next(&mut opener, &mut wire).unwrap_err();
    assert!(matches!(error, LinkError::TooLong { what: "chunk", .. }), "{error:?}");

    let fresh: [(Fresh, Lane, usize); 4] = [
        (LinkDecoder::from_stranger, Lane::Pulse, STRANGER_MESSAGE_BYTES_MAX),
        (LinkDecoder::from_stranger, Lane::Bulk, STRANGER_MESSAGE_BYTES_MAX),
        (client_decoder, Lane::Bulk, 256 * 1024),
        (LinkDecoder::from_node, Lane::Bulk, MESSAGE_BYTES_MAX),
    ];
    for (decoder, lane, limit) in fresh {
        for (total, fits) in [(limit, true), (limit + 1, false), (u32::MAX as usize, false)] {
            let (mut sealer, mut opener) = link();
            let mut plain = vec![lane as u8, 1];
            plain.extend_from_slice(&u32::try_from(total).unwrap().to_be_bytes());
            plain.push(0);
            let result = decoder().next(&mut opener, &mut chunk(&mut sealer, &plain));
            if fits {
                assert_eq!(result, Ok(None));
            } else {
                assert_eq!(result, Err(LinkError::TooLong { what: "message", length: total, limit }));
            }
        }
    }
}

/// C3.
#[test]
fn c3_an_empty_body_comes_back_and_the_next_message_too() {
    let (mut sealer, mut opener) = link();
    let empty = Body::Ping(Ping::default());
    let mut wire = encode(Direction::FromClient, &mut sealer, [empty.clone()]);
    // A message of no bytes at all says nothing, and does no harm.
    wire.unsplit(chunk(&mut sealer, &[0, 1, 0, 0, 0, 0]));
    wire.unsplit(encode(Direction::FromClient, &mut sealer, [ping(9)]));
    let received = decode_all(&mut client_decoder(), &mut opener, &mut wire);
    assert_eq!(received, [Received::Known(empty), Received::Unknown { kind: 0 }, Received::Known(ping(9))]);
}

/// C4: a kind and fields of a later release.
#[test]
fn c4_an_unknown_kind_is_answered_and_the_link_goes_on() {
    let (mut sealer, mut opener) = link();
    // Field 900, length-delimited, "new".
    let later = [0xa2, 0x38, 3, b'n', b'e', b'w'];
    let mut wire = chunk(&mut sealer, &[&[1, 1, 0, 0, 0, 6], &later[..]].concat());
    wire.unsplit(encode(Direction::FromClient, &mut sealer, [ping(1)]));
    let received = decode_all(&mut client_decoder(), &mut opener, &mut wire);
    assert_eq!(received, [Received::Unknown { kind: 900 }, Received::Known(ping(1))]);
    let Some(Body::Unsupported(unsupported)) = received[0].answer() else { panic!("no answer") };
    assert_eq!(unsupported.kind, 900);
    assert_eq!(received[1].answer(), None);

    // A known kind with a field of a later release: Ping { nonce: 5, 900: "new" }.
    let ping_and_more = [&[0x22, 8, 0x08, 5], &later[..]].concat();
    let length = u8::try_from(ping_and_more.len()).unwrap();
    let mut wire = chunk(&mut sealer, &[&[0, 1, 0, 0, 0, length], &ping_and_more[..]].concat());
    assert_eq!(decode_all(&mut client_decoder(), &mut opener, &mut wire), [Received::Known(ping(5))]);

    // A command of a later release keeps its id, by which it is answered.
    let command = Body::Command(Command { id: vec![1; 16], request: None });
    let mut wire = encode(Direction::FromClient, &mut sealer, [command.clone()]);
    assert_eq!(decode_all(&mut client_decoder(), &mut opener, &mut wire), [Received::Known(command)]);
}

/// C5, in small: the fuzz targets do the rest.
#[test]
fn c5_chunks_that_break_the_rules_are_errors() {
    let broken: [(&str, &[&[u8]]); 7] = [
        ("no header", &[&[0]]),
        ("no such lane", &[&[3, 1, 0, 0, 0, 0]]),
        ("unknown flags", &[&[0, 2, 0, 0, 0, 0]]),
        ("a middle without a beginning", &[&[0, 0, 1]]),
        ("two beginnings", &[&[0, 1, 0, 0, 0, 5, 1], &[0, 1, 0, 0, 0, 5, 1]]),
        ("more than was announced", &[&[0, 1, 0, 0, 0, 1, 1, 1]]),
        ("a chunk that brings nothing", &[&[0, 1, 0, 0, 0, 5, 1], &[0, 0]]),
    ];
    for (what, chunks) in broken {
        let (mut sealer, mut opener) = link();
        let mut wire = BytesMut::new();
        for plain in chunks {
            wire.unsplit(chunk(&mut sealer, plain));
        }
        let result = client_decoder().next(&mut opener, &mut wire);
        assert!(matches!(result, Err(LinkError::Malformed { .. })), "{what}: {result:?}");
    }
}

/// C16, as far as the wire goes: what is in front of a ping is at most one chunk.
#[test]
fn c16_a_large_message_never_delays_a_ping() {
    let (mut sealer, mut opener) = link();
    let mut encoder = LinkEncoder::new(Direction::FromNode);
    let large = Body::Desired(desired(20_000));
    encoder.push(large.clone()).unwrap();
    let mut wire = BytesMut::new();
    let mut chunks = 0;
    let mut pinged_at = Vec::new();
    let mut decoder = LinkDecoder::from_node();
    let mut received = Vec::new();
    loop {
        if chunks % 10 == 0 {
            encoder.push(ping(chunks)).unwrap();
            pinged_at.push(chunks);
        }
        if !encoder.next_chunk(&mut sealer, &mut wire).unwrap() {
            break;
        }
        chunks += 1;
        for message in decode_all(&mut decoder, &mut opener, &mut wire) {
            if let Received::Known(Body::Ping(ping)) = &message {
                assert_eq!(ping.nonce + 1, chunks, "the ping is the chunk right after it was pushed");
            }
            received.push(message);
        }
        if encoder.is_empty() {
            break;
        }
    }
    assert!(chunks > 100, "the large message had {chunks} chunks");
    assert!(received.contains(&Received::Known(large)));
    assert_eq!(received.len(), pinged_at.len() + 1);
}

/// C16: a long answer and a command's answer take turns with tickets.
#[test]
fn c16_work_takes_turns_with_bulk() {
    let (mut sealer, mut opener) = link();
    let mut encoder = LinkEncoder::new(Direction::FromNode);
    let lines = Lines { lines: vec!["x".repeat(1000); 1000], truncated: false };
    let answer = Answer { id: vec![1; 16], outcome: Some(Outcome::Lines(lines)) };
    encoder.push(Body::Answer(answer)).unwrap();
    let mut wire = BytesMut::new();
    assert!(encoder.next_chunk(&mut sealer, &mut wire).unwrap());
    encoder.push(Body::TicketRequest(TicketRequest { role: 2, count: 1 })).unwrap();
    for _ in 0..2 {
        assert!(encoder.next_chunk(&mut sealer, &mut wire).unwrap());
    }
    let received = decode_all(&mut LinkDecoder::from_node(), &mut opener, &mut wire);
    assert!(matches!(received[..], [Received::Known(Body::TicketRequest(_))]), "{received:?}");
}

#[test]
fn messages_of_one_lane_keep_their_order() {
    let (mut sealer, mut opener) = link();
    let sent: Vec<Body> = (0..100).map(|number| envelope(number * 300)).collect();
    let mut wire = encode(Direction::FromClient, &mut sealer, sent.clone());
    let received = decode_all(&mut client_decoder(), &mut opener, &mut wire);
    assert_eq!(received, sent.into_iter().map(Received::Known).collect::<Vec<_>>());
}

#[test]
fn a_message_over_the_limit_is_not_taken() {
    let mut encoder = LinkEncoder::new(Direction::FromClient);
    assert!(matches!(encoder.push(envelope(300 * 1024)), Err(PushError::TooLong { .. })));
    assert!(encoder.is_empty());
}

#[test]
fn a_reader_that_is_too_slow_is_noticed() {
    let mut encoder = LinkEncoder::new(Direction::FromNode);
    let large = Body::Desired(desired(20_000));
    let mut pushed = 0;
    let full = loop {
        match encoder.push(large.clone()) {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
        assert!(pushed < 100, "the queue has no bound");
    };
    assert_eq!(full, PushError::Full { lane: Lane::Bulk });
    encoder.push(ping(1)).unwrap();
}

/// What a message takes beside its own bytes counts as well: the shortest have hardly any.
#[test]
fn a_lane_holds_a_bounded_number_of_short_messages() {
    let mut encoder = LinkEncoder::new(Direction::FromNode);
    for nonce in 0..LANE_QUEUE_MESSAGES_MAX as u64 {
        encoder.push(ping(nonce)).unwrap();
    }
    assert_eq!(encoder.push(ping(0)), Err(PushError::Full { lane: Lane::Pulse }));
    let (mut sealer, mut out) = (link().0, BytesMut::new());
    assert!(encoder.next_chunk(&mut sealer, &mut out).unwrap());
    assert_eq!(encoder.push(ping(0)), Ok(()), "one has gone, one may come");
}

/// C7, as far as the wire goes: no secret in the open.
#[test]
fn c7_secrets_are_neither_on_the_wire_nor_in_debug_text() {
    let secret = b"0123456789abcdef";
    let hello = Body::Hello(Hello { invite: Some(SecretBytes::from(secret)), ..Hello::default() });
    let text = format!("{hello:?}");
    assert!(text.contains("SecretBytes(16 bytes)") && !text.contains("48, 49"), "{text}");
    let (mut sealer, mut opener) = link();
    let mut wire = encode(Direction::FromClient, &mut sealer, [hello.clone()]);
    assert!(!wire.windows(secret.len()).any(|window| window == secret));
    let received = decode_all(&mut LinkDecoder::from_stranger(), &mut opener, &mut wire);
    assert_eq!(received, [Received::Known(hello)]);
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<u64>().prop_map(|nonce| Body::Pong(Pong { nonce })),
        (0_usize..40_000).prop_map(envelope),
        "[a-z0-9]{0,9}".prop_map(|code| Body::Command(Command {
            id: vec![5; 16],
            request: Some(Request::RevokeCode(RevokeCode { code })),
        })),
        (0_usize..300).prop_map(|count| Body::Desired(desired(count))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the network cuts the wire, all messages come out, in order within each lane.
    #[test]
    fn messages_survive_any_cutting(bodies in vec(body(), 0..12), cuts in vec(1_usize..9_000, 1..50)) {
        let (mut sealer, mut opener) = link();
        let mut sent = encode(Direction::FromNode, &mut sealer, bodies.clone());
        let (mut decoder, mut wire) = (LinkDecoder::from_node(), BytesMut::new());
        let mut received = Vec::new();
        for cut in cuts.iter().cycle() {
            if sent.is_empty() {
                break;
            }
            wire.extend_from_slice(&sent.split_to((*cut).min(sent.len())));
            received.extend(decode_all(&mut decoder, &mut opener, &mut wire));
        }
        prop_assert!(wire.is_empty());
        for lane in [Lane::Pulse, Lane::Work, Lane::Bulk] {
            let of_lane: Vec<_> = bodies.iter().filter(|body| body.lane() == lane).cloned().collect();
            let came: Vec<_> = received
                .iter()
                .filter_map(|message| match message {
                    Received::Known(body) if body.lane() == lane => Some(body.clone()),
                    _ => None,
                })
                .collect();
            prop_assert_eq!(came, of_lane);
        }
    }

    /// C5: whatever an authenticated peer seals, there is no panic and nothing endless.
    #[test]
    fn c5_any_chunks_are_decoded_or_refused(chunks in vec(vec(any::<u8>(), 0..600), 0..20)) {
        let (mut sealer, mut opener) = link();
        let mut wire = BytesMut::new();
        for plain in &chunks {
            sealer.seal(plain, &mut wire)?;
        }
        let mut decoder = LinkDecoder::from_stranger();
        while let Ok(Some(_)) = decoder.next(&mut opener, &mut wire) {}
    }

    /// C5: whatever comes from the network.
    #[test]
    fn c5_any_bytes_are_waited_for_or_refused(garbage in vec(any::<u8>(), 0..4_096)) {
        let (_, mut opener) = link();
        let mut wire = BytesMut::from(garbage.as_slice());
        let result = LinkDecoder::from_stranger().next(&mut opener, &mut wire);
        prop_assert!(!matches!(result, Ok(Some(_))));
    }
}
