//! The handshake of a link.

use snow::HandshakeState;

use super::{LinkCipher, NoiseError, StaticKey, TAG_BYTES, builder};
use crate::preamble::{self, Kind};

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

const LENGTH_BYTES: usize = 2;

/// The initiator's message: length, ephemeral key, sealed static key, empty payload.
pub const FIRST_BYTES: usize = LENGTH_BYTES + 32 + (32 + TAG_BYTES) + TAG_BYTES;

/// The responder's message: length, ephemeral key, empty payload.
pub const REPLY_BYTES: usize = LENGTH_BYTES + 32 + TAG_BYTES;

/// The side that connects.
#[derive(Debug)]
pub struct Initiator {
    state: HandshakeState,
}

impl Initiator {
    /// Begins a handshake with the owner of `server`. The second value is to be sent after the preamble of
    /// the same kind; it is [`FIRST_BYTES`] long.
    pub fn new(kind: Kind, key: &StaticKey, server: &[u8; 32]) -> Result<(Self, Vec<u8>), NoiseError> {
        Self::with_ephemeral(kind, key, server, None)
    }

    fn with_ephemeral(
        kind: Kind,
        key: &StaticKey,
        server: &[u8; 32],
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        key.check_peer(server)?;
        let failed = |error: snow::Error| NoiseError::of("first message", &error);
        let mut state = builder(PATTERN, key, &preamble::encode(kind), ephemeral)?
            .remote_public_key(server)
            .and_then(snow::Builder::build_initiator)
            .map_err(failed)?;
        let first = framed::<FIRST_BYTES>(|message| state.write_message(&[], message)).map_err(failed)?;
        Ok((Self { state }, first))
    }

    /// Takes the responder's message, all [`REPLY_BYTES`] of it.
    pub fn finish(self, reply: &[u8]) -> Result<LinkCipher, NoiseError> {
        let Self { mut state } = self;
        let message = unframed::<REPLY_BYTES>("reply", reply)?;
        // Room for no payload at all: a longer one fails to open.
        state.read_message(message, &mut []).map_err(|error| NoiseError::of("reply", &error))?;
        cipher(state)
    }
}

/// What the responder has after its one step.
#[derive(Debug)]
pub struct Answered {
    /// Who claims to be there. Proven only when the first transport message opens.
    pub peer: [u8; 32],
    /// To be sent; [`REPLY_BYTES`] long.
    pub reply: Vec<u8>,
    /// The link.
    pub cipher: LinkCipher,
}

/// The side that is connected to: answers the initiator's message, all [`FIRST_BYTES`] of it.
///
/// `first` may be a recording. Do nothing on its account (no enrolment, no kick, no ban of the key) before a
/// message of the initiator was opened with the cipher.
pub fn respond(kind: Kind, key: &StaticKey, first: &[u8]) -> Result<Answered, NoiseError> {
    respond_with_ephemeral(kind, key, first, None)
}

fn respond_with_ephemeral(
    kind: Kind,
    key: &StaticKey,
    first: &[u8],
    ephemeral: Option<&[u8; 32]>,
) -> Result<Answered, NoiseError> {
    let what = "first message";
    let message = unframed::<FIRST_BYTES>(what, first)?;
    let mut state = builder(PATTERN, key, &preamble::encode(kind), ephemeral)?
        .build_responder()
        .map_err(|error| NoiseError::of(what, &error))?;
    state.read_message(message, &mut []).map_err(|error| NoiseError::of(what, &error))?;
    let peer = remote(&state)?;
    key.check_peer(&peer)?;
    let reply = framed::<REPLY_BYTES>(|message| state.write_message(&[], message))
        .map_err(|error| NoiseError::of("reply", &error))?;
    Ok(Answered { peer, reply, cipher: cipher(state)? })
}

/// The static key that the other side showed.
pub(super) fn remote(state: &HandshakeState) -> Result<[u8; 32], NoiseError> {
    state
        .get_remote_static()
        .and_then(|key| key.try_into().ok())
        .ok_or(NoiseError::Malformed { what: "static key" })
}

/// The hash of a finished handshake.
pub(super) fn hash(state: &HandshakeState) -> Result<[u8; 32], NoiseError> {
    state.get_handshake_hash().try_into().map_err(|_| NoiseError::Malformed { what: "handshake hash" })
}

fn cipher(state: HandshakeState) -> Result<LinkCipher, NoiseError> {
    let hash = hash(&state)?;
    let state = state.into_stateless_transport_mode().map_err(|error| NoiseError::of("handshake", &error))?;
    Ok(LinkCipher::new(state, hash))
}

/// A message of exactly `N` bytes, its length in front.
fn framed<const N: usize>(
    write: impl FnOnce(&mut [u8]) -> Result<usize, snow::Error>,
) -> Result<Vec<u8>, snow::Error> {
    let mut out = vec![0; N];
    let (length, message) = out.split_at_mut(LENGTH_BYTES);
    let written = write(message)?;
    if written != message.len() {
        return Err(snow::Error::Input);
    }
    length.copy_from_slice(&u16::try_from(written).map_err(|_| snow::Error::Input)?.to_be_bytes());
    Ok(out)
}

fn unframed<'a, const N: usize>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], NoiseError> {
    let malformed = NoiseError::Malformed { what };
    let (length, message) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(malformed.clone())?;
    if bytes.len() != N || usize::from(u16::from_be_bytes(*length)) != message.len() {
        return Err(malformed);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::noise::{LinkOpener, LinkSealer};

    fn key(seed: u8) -> StaticKey {
        StaticKey::from_bytes([seed; 32]).unwrap()
    }

    struct Pair {
        client: (LinkSealer, LinkOpener),
        server: (LinkSealer, LinkOpener),
    }

    fn handshake() -> Pair {
        let (client, server) = (key(1), key(2));
        let (initiator, first) = Initiator::new(Kind::Link, &client, &server.public()).unwrap();
        let answered = respond(Kind::Link, &server, &first).unwrap();
        assert_eq!(answered.peer, client.public());
        let cipher = initiator.finish(&answered.reply).unwrap();
        assert_eq!(cipher.handshake_hash(), answered.cipher.handshake_hash());
        Pair { client: cipher.split(), server: answered.cipher.split() }
    }

    fn sealed(sealer: &mut LinkSealer, chunk: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        sealer.seal(chunk, &mut out).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([out[0], out[1]])), out.len() - 2);
        out[2..].to_vec()
    }

    #[test]
    fn both_directions_carry_chunks() {
        let mut pair = handshake();
        let mut opened = Vec::new();
        for chunk in [&b"hello"[..], b"", &[7; CHUNK]] {
            let bytes = sealed(&mut pair.client.0, chunk);
            pair.server.1.open(&bytes, &mut opened).unwrap();
            assert_eq!(opened, chunk);
            let bytes = sealed(&mut pair.server.0, chunk);
            pair.client.1.open(&bytes, &mut opened).unwrap();
            assert_eq!(opened, chunk);
        }
    }

    const CHUNK: usize = crate::link::CHUNK_BYTES_MAX;

    #[test]
    fn a_chunk_over_the_limit_is_not_sealed() {
        let mut out = BytesMut::new();
        let error = handshake().client.0.seal(&vec![0; CHUNK + 1], &mut out).unwrap_err();
        assert_eq!(error, NoiseError::Malformed { what: "outgoing chunk" });
        assert!(out.is_empty());
    }

    /// C9: whoever sends a recording again gets as far as a reply, and fails at the first transport message.
    #[test]
    fn c9_a_recorded_link_replayed_is_worth_nothing() {
        let (client, server) = (key(1), key(2));
        let (initiator, first) = Initiator::new(Kind::Link, &client, &server.public()).unwrap();
        let answered = respond(Kind::Link, &server, &first).unwrap();
        let (mut sealer, _) = initiator.finish(&answered.reply).unwrap().split();
        let hello = sealed(&mut sealer, b"hello");
        let mut opened = Vec::new();
        answered.cipher.split().1.open(&hello, &mut opened).unwrap();
        assert_eq!(opened, b"hello");

        let replayed = respond(Kind::Link, &server, &first).unwrap();
        let error = replayed.cipher.split().1.open(&hello, &mut opened).unwrap_err();
        assert_eq!(error, NoiseError::Forged { what: "chunk" });
        assert!(opened.is_empty());
    }

    #[test]
    fn a_chunk_opens_once_and_in_order() {
        let mut pair = handshake();
        let first = sealed(&mut pair.client.0, b"first");
        let second = sealed(&mut pair.client.0, b"second");
        let mut opened = Vec::new();
        assert!(pair.server.1.open(&second, &mut opened).is_err());
        pair.server.1.open(&first, &mut opened).unwrap();
        assert!(pair.server.1.open(&first, &mut opened).is_err());
        pair.server.1.open(&second, &mut opened).unwrap();
        assert_eq!(opened, b"second");
    }

    #[test]
    fn every_flipped_bit_of_the_handshake_is_noticed() {
        let (client, server) = (key(1), key(2));
        for bit in 0..FIRST_BYTES * 8 {
            let (initiator, mut first) = Initiator::new(Kind::Link, &client, &server.public()).unwrap();
            first[bit / 8] ^= 1 << (bit % 8);
            // The top bit of a public key means nothing to X25519, but the transcript holds it.
            let noticed = match respond(Kind::Link, &server, &first) {
                Err(_) => true,
                Ok(answered) => initiator.finish(&answered.reply).is_err(),
            };
            assert!(noticed, "bit {bit}");
        }
        for bit in 0..REPLY_BYTES * 8 {
            let (initiator, first) = Initiator::new(Kind::Link, &client, &server.public()).unwrap();
            let mut reply = respond(Kind::Link, &server, &first).unwrap().reply;
            reply[bit / 8] ^= 1 << (bit % 8);
            assert!(initiator.finish(&reply).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_wrong_server_can_not_answer() {
        let (_, first) = Initiator::new(Kind::Link, &key(1), &key(2).public()).unwrap();
        let error = respond(Kind::Link, &key(3), &first).unwrap_err();
        assert_eq!(error, NoiseError::Forged { what: "first message" });
    }

    #[test]
    fn a_link_is_no_peer_link() {
        let (_, first) = Initiator::new(Kind::Link, &key(1), &key(2).public()).unwrap();
        assert!(respond(Kind::Peer, &key(2), &first).is_err());
    }

    #[test]
    fn a_first_message_of_another_length_is_refused() {
        let (_, first) = Initiator::new(Kind::Link, &key(1), &key(2).public()).unwrap();
        for length in 0..FIRST_BYTES {
            assert!(respond(Kind::Link, &key(2), &first[..length]).is_err());
        }
    }

    /// A payload in message 1 could be replayed, so there must be none.
    #[test]
    fn a_first_message_with_a_payload_is_refused() {
        let (client, server) = (key(1), key(2));
        let prologue = preamble::encode(Kind::Link);
        let mut state = builder(PATTERN, &client, &prologue, None)
            .unwrap()
            .remote_public_key(&server.public())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut message = [0; 200];
        let length = state.write_message(b"enrol me", &mut message).unwrap();
        let mut first = u16::try_from(length).unwrap().to_be_bytes().to_vec();
        first.extend_from_slice(&message[..length]);
        let error = respond(Kind::Link, &server, &first).unwrap_err();
        assert_eq!(error, NoiseError::Malformed { what: "first message" });
    }

    #[test]
    fn a_server_key_of_small_order_is_refused() {
        assert_eq!(Initiator::new(Kind::Link, &key(1), &[0; 32]).unwrap_err(), NoiseError::WeakKey);
    }

    #[test]
    fn the_bytes_are_those_of_the_fixture() {
        let (client, server) = (key(1), key(2));
        let (initiator, first) =
            Initiator::with_ephemeral(Kind::Link, &client, &server.public(), Some(&[3; 32])).unwrap();
        let answered = respond_with_ephemeral(Kind::Link, &server, &first, Some(&[4; 32])).unwrap();
        let cipher = initiator.finish(&answered.reply).unwrap();
        let hash = cipher.handshake_hash();
        let chunk = sealed(&mut cipher.split().0, b"hello");
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let found = format!(
            "client_private {}\nserver_private {}\nclient_ephemeral {}\nserver_ephemeral {}\n\
             preamble {}\nfirst {}\nreply {}\nhandshake_hash {}\nchunk_hello {}\n",
            hex(client.private()),
            hex(server.private()),
            hex(&[3; 32]),
            hex(&[4; 32]),
            hex(&preamble::encode(Kind::Link)),
            hex(&first),
            hex(&answered.reply),
            hex(&hash),
            hex(&chunk),
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/wire/link-handshake.hex");
        if std::env::var_os("UNDERPASS_BLESS").is_some() {
            std::fs::write(path, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(path).unwrap());
    }
}
