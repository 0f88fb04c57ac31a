//! What holds for records however they are cut, changed or made up.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use proptest::collection::vec;
use proptest::prelude::*;
use underpass_pipeline::record::{
    self, BODY_BYTES_MAX, HEADER_BYTES, Header, HeaderError, LENGTH_MAX, TAG_BYTES,
};
use underpass_pipeline::{Aead, DirectionKeys, OpenError, Opener, Sealer, aes_is_fast};

const KEY: [u8; 32] = [7; 32];
const SALT: [u8; 16] = [9; 16];

#[derive(Clone, Copy, Debug)]
enum Way {
    Plain,
    Sealed(Aead),
}

const WAYS: [Way; 3] = [Way::Plain, Way::Sealed(Aead::XChaCha20Poly1305), Way::Sealed(Aead::Aes256Gcm)];
const SEALED: [Aead; 2] = [Aead::XChaCha20Poly1305, Aead::Aes256Gcm];

fn pair(way: Way) -> (Sealer, Opener) {
    match way {
        Way::Plain => (Sealer::plain(), Opener::plain()),
        Way::Sealed(aead) => (
            Sealer::sealed(aead, DirectionKeys::new(KEY, SALT)),
            Opener::sealed(aead, DirectionKeys::new(KEY, SALT)),
        ),
    }
}

fn ways() -> impl Strategy<Value = Way> {
    prop::sample::select(WAYS.to_vec())
}

#[derive(Debug, PartialEq)]
enum Refused {
    Header(HeaderError),
    Open(OpenError),
}

/// The smallest reader there can be: header, then body, then open.
fn next(opener: &mut Opener, wire: &mut BytesMut) -> Result<Option<(u8, Bytes)>, Refused> {
    let Some(head) = wire.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::parse(head).map_err(Refused::Header)?;
    if wire.len() < header.record_bytes() {
        return Ok(None);
    }
    let mut body = wire.split_to(header.record_bytes()).split_off(HEADER_BYTES);
    let length = opener.open_in_place(header, &mut body).map_err(Refused::Open)?;
    body.truncate(length);
    Ok(Some((header.kind, body.freeze())))
}

fn records(way: Way, bodies: &[&[u8]]) -> Vec<BytesMut> {
    let mut sealer = pair(way).0;
    let seal = |body: &&[u8]| {
        let mut wire = BytesMut::new();
        sealer.seal(record::DATA, body, &mut wire).unwrap();
        wire
    };
    bodies.iter().map(seal).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// C1, C3: however the network cuts the wire, what was sealed comes out, whole and in order.
    #[test]
    fn records_survive_any_cutting(
        way in ways(),
        writes in vec(vec(any::<u8>(), 0..100_000), 0..4),
        cuts in vec(1_usize..9_000, 1..50),
    ) {
        let (mut sealer, mut opener) = pair(way);
        let mut sent = BytesMut::new();
        for write in &writes {
            sealer.seal(record::DATA, write, &mut sent).unwrap();
        }
        sealer.seal(record::FIN, b"", &mut sent).unwrap();

        let (mut arrived, mut bodies, mut fin) = (BytesMut::new(), Vec::new(), false);
        for cut in cuts.iter().cycle() {
            if sent.is_empty() {
                break;
            }
            arrived.unsplit(sent.split_to((*cut).min(sent.len())));
            while let Some((kind, body)) = next(&mut opener, &mut arrived).unwrap() {
                prop_assert!(!fin, "nothing comes after the end");
                match kind {
                    record::DATA => bodies.push(body),
                    record::FIN => fin = true,
                    other => prop_assert!(false, "kind {}", other),
                }
            }
        }
        prop_assert_eq!(bodies, writes);
        prop_assert!(fin && arrived.is_empty());
    }

    /// C5: whatever a peer sends, there is no panic, and no record of more than the limit.
    #[test]
    fn garbage_is_refused_or_waited_for(way in ways(), garbage in vec(any::<u8>(), 0..4_096)) {
        let mut opener = pair(way).1;
        let mut wire = BytesMut::from(garbage.as_slice());
        while let Ok(Some((_, body))) = next(&mut opener, &mut wire) {
            prop_assert!(body.len() <= BODY_BYTES_MAX);
            prop_assert!(matches!(way, Way::Plain), "random bytes never pass for sealed ones");
        }
    }

    /// C32: one flipped bit, be it any of the header's or one of the body's, and the record is
    /// refused; so is everything after it.
    #[test]
    fn a_flipped_bit_is_noticed(
        aead in prop::sample::select(SEALED.to_vec()),
        write in vec(any::<u8>(), 1..2_000),
        somewhere in any::<prop::sample::Index>(),
    ) {
        let way = Way::Sealed(aead);
        let both = records(way, &[&write, b"next"]);
        for bit in (0..8 * HEADER_BYTES).chain([somewhere.index(both[0].len() * 8)]) {
            let mut wire = both[0].clone();
            wire[bit / 8] ^= 1 << (bit % 8);
            // A changed length takes in, or leaves out, bytes of what follows; either way there is enough.
            wire.extend_from_slice(&vec![0; LENGTH_MAX]);
            let mut opener = pair(way).1;
            let opened = next(&mut opener, &mut wire);
            prop_assert!(opened.is_err(), "bit {}: {:?}", bit, opened);
            if matches!(opened, Err(Refused::Open(_))) {
                let after = next(&mut opener, &mut both[1].clone());
                prop_assert_eq!(after, Err(Refused::Open(OpenError::Forged)));
            }
        }
    }

    /// The sub-key shortcut gives what XChaCha20-Poly1305 gives, byte for byte.
    #[test]
    fn xchacha_is_xchacha(
        key in any::<[u8; 32]>(),
        salt in any::<[u8; 16]>(),
        bodies in vec(vec(any::<u8>(), 0..1_000), 1..4),
    ) {
        let mut sealer = Sealer::sealed(Aead::XChaCha20Poly1305, DirectionKeys::new(key, salt));
        let oracle = XChaCha20Poly1305::new(&key.into());
        for (counter, body) in (0_u64..).zip(&bodies) {
            let mut ours = BytesMut::new();
            sealer.seal(record::DATA, body, &mut ours).unwrap();
            let mut nonce = [0; 24];
            nonce[..16].copy_from_slice(&salt);
            nonce[16..].copy_from_slice(&counter.to_be_bytes());
            let payload = Payload { msg: body, aad: &ours[..HEADER_BYTES] };
            let theirs = oracle.encrypt(&XNonce::from(nonce), payload).unwrap();
            prop_assert_eq!(&ours[HEADER_BYTES..], theirs.as_slice());
        }
    }

    #[test]
    fn a_header_is_itself_again(kind: u8, length in 0..=u32::try_from(LENGTH_MAX).unwrap()) {
        let header = Header { kind, flags: 0, length };
        prop_assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
    }
}

/// C5, the long way: a million random headers and bodies.
#[test]
fn a_million_random_records_never_panic() {
    let mut openers = WAYS.map(|way| pair(way).1);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut body = [0_u8; 64];
    for round in 0..1_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let random = state.to_le_bytes();
        let (kind, flags) = (random[0], random[1]);
        match Header::parse(random.first_chunk().unwrap()) {
            Err(HeaderError::TooLong { length }) => assert!(length as usize > LENGTH_MAX),
            Err(HeaderError::UnknownFlags { flags: unknown }) => assert_eq!(unknown, flags),
            Err(other) => panic!("{other}"),
            Ok(header) => assert!(header.record_bytes() <= HEADER_BYTES + LENGTH_MAX),
        }
        let length = (state >> 40) as usize % 65;
        body[..8].copy_from_slice(&state.to_le_bytes());
        let header = Header { kind, flags: 0, length: u32::try_from(length).unwrap() };
        let opened = openers[round % 3].open_in_place(header, &mut body[..length]);
        assert_eq!(opened.is_ok(), round % 3 == 0, "only the plain one takes it");
    }
}

/// C2: refused from the header alone, with nothing allocated for what it announces.
#[test]
fn a_length_over_the_limit_is_refused() {
    let over = u32::try_from(LENGTH_MAX + 1).unwrap();
    for length in [over, 0x00ff_ffff] {
        let header = Header { kind: record::DATA, flags: 0, length }.to_bytes();
        assert_eq!(Header::parse(&header), Err(HeaderError::TooLong { length }));
    }
    assert_eq!(Header::parse(&[0, 1, 0, 0, 0]), Err(HeaderError::UnknownFlags { flags: 1 }));

    // A plain record has no tag, so its limit is lower than a header's.
    let header = Header { kind: record::DATA, flags: 0, length: over - 1 };
    let mut body = vec![0; LENGTH_MAX];
    let refused = Opener::plain().open_in_place(header, &mut body);
    assert_eq!(refused, Err(OpenError::TooLong { bytes: LENGTH_MAX }));
}

/// C32: reordered, repeated, left out, cut short, sealed for the other direction or tunnel.
#[test]
fn what_is_out_of_place_is_refused() {
    for aead in SEALED {
        let sent = records(Way::Sealed(aead), &[b"one", b"two", b"three"]);
        let play = |order: &[usize]| {
            let mut opener = pair(Way::Sealed(aead)).1;
            let mut wire: BytesMut = order.iter().flat_map(|at| sent[*at].to_vec()).collect();
            std::iter::from_fn(|| next(&mut opener, &mut wire).transpose())
                .take(order.len())
                .map(|opened| opened.map(|(_, body)| body))
                .take_while(Result::is_ok)
                .count()
        };
        assert_eq!(play(&[0, 1, 2]), 3);
        assert_eq!(play(&[0, 0]), 1, "repeated");
        assert_eq!(play(&[1, 0]), 0, "reordered");
        assert_eq!(play(&[0, 2]), 1, "left out");
        assert_eq!(play(&[0, 1, 0]), 2, "repeated later");

        let mut short = sent[0].clone();
        short.truncate(short.len() - 1);
        short[4] -= 1;
        let cut = next(&mut pair(Way::Sealed(aead)).1, &mut short);
        assert_eq!(cut, Err(Refused::Open(OpenError::Forged)));

        for (key, salt) in [([8; 32], SALT), (KEY, [8; 16])] {
            let mut other = Opener::sealed(aead, DirectionKeys::new(key, salt));
            assert_eq!(next(&mut other, &mut sent[0].clone()), Err(Refused::Open(OpenError::Forged)));
        }
        let other = SEALED[usize::from(aead == SEALED[0])];
        let mixed = next(&mut pair(Way::Sealed(other)).1, &mut sent[0].clone());
        assert_eq!(mixed, Err(Refused::Open(OpenError::Forged)));
    }
}

/// C32: what is sealed can't be read from outside.
#[test]
fn a_marker_is_nowhere_in_what_is_sealed() {
    let marker = b"a marker that nobody else may read";
    for aead in SEALED {
        let wire = records(Way::Sealed(aead), &[marker]).concat();
        assert!(!wire.windows(8).any(|window| marker.windows(8).any(|part| part == window)));
        assert_eq!(wire.len(), HEADER_BYTES + marker.len() + TAG_BYTES);
    }
    let plain = records(Way::Plain, &[marker]).concat();
    assert_eq!(&plain[HEADER_BYTES..], marker);
}

/// C4: an unknown kind is handed on as such, and the next record decodes.
#[test]
fn an_unknown_kind_is_told_and_the_next_record_decodes() {
    for way in WAYS {
        let (mut sealer, mut opener) = pair(way);
        let mut wire = BytesMut::new();
        sealer.seal(99, b"?", &mut wire).unwrap();
        sealer.seal(record::DATA, b"!", &mut wire).unwrap();
        assert_eq!(next(&mut opener, &mut wire), Ok(Some((99, Bytes::from_static(b"?")))));
        assert_eq!(next(&mut opener, &mut wire), Ok(Some((record::DATA, Bytes::from_static(b"!")))));
    }
}

#[test]
fn both_ends_choose_the_same_cipher() {
    assert_eq!(Aead::agree(true), Aead::Aes256Gcm);
    assert_eq!(Aead::agree(false), Aead::XChaCha20Poly1305);
    for aead in SEALED {
        assert_eq!(Aead::try_from(aead.number()), Ok(aead));
    }
    assert!(Aead::try_from(0).is_err());
    // Asked twice, a processor says the same.
    assert_eq!(aes_is_fast(), aes_is_fast());
}
