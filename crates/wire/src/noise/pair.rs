//! Handshakes of two clients, carried by envelopes that the nodes between them pass on without reading.
//!
//! With a connection code (`XXpsk3`), three messages and a confirmation:
//!
//! | step | from | carries |
//! |---|---|---|
//! | `First` | initiator (who redeemed the code) | ephemeral key |
//! | `Second` | responder (who issued it) | ephemeral and static key |
//! | `Third` | initiator | static key, proof of the code, payload |
//! | `Confirm` | responder | proof of the code, payload |
//!
//! Only whoever has the code's secret half can make the third message and the confirmation, so each side may
//! pin the other's key when it has its [`PairRoot`]. With pinned keys (`IK`) it takes `First` and `Second`,
//! both with payload.
//!
//! Every message names the pair's id, random and chosen by the initiator, and the subject (the code or the
//! mapping) is part of the prologue: an envelope delivered for another subject fails.

use std::fmt;

use prost::Message as _;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::link::{hash, remote};
use super::{NoiseError, StaticKey, TAG_BYTES, builder};
use crate::bytes16;

const WITH_CODE: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
const WITH_PINNED_KEYS: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// Where `psk3` stands in the pattern's name.
const PSK_POSITION: u8 = 3;

/// Separates pair handshakes from all others.
const PROLOGUE: &[u8] = b"underpass pair v1";

/// Separates the root from the keys it is derived from, which the confirmation uses.
const ROOT_CONTEXT: &str = "underpass 2026-11 pair root v1";

/// How long the encoded payload of one side may be. An id and a few flags fit many times.
pub const PAIR_PAYLOAD_BYTES_MAX: usize = 1024;

/// The longest handshake message: two keys, two tags and a payload with its tag.
const BODY_BYTES_MAX: usize = 32 + (32 + TAG_BYTES) + PAIR_PAYLOAD_BYTES_MAX + TAG_BYTES;

/// How long an encoded [`PairMessage`] may be: its body, the id, and the tags of four fields.
const MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX + 64;

/// What the two sides pair for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairSubject {
    /// The nine symbols of a connection code that are its public half.
    Code([u8; 9]),
    /// A mapping.
    Mapping([u8; 16]),
}

impl PairSubject {
    fn prologue(&self, pair: &[u8; 16]) -> Vec<u8> {
        let (tag, name): (u8, &[u8]) = match self {
            Self::Code(lookup) => (1, lookup),
            Self::Mapping(id) => (2, id),
        };
        [PROLOGUE, pair, &[tag], name].concat()
    }
}

/// Which handshake an envelope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PairPattern {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// By the secret half of a connection code.
    Code = 1,
    /// By keys pinned before.
    Pinned = 2,
}

/// Which message of the handshake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PairStep {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// From the initiator.
    First = 1,
    /// From the responder.
    Second = 2,
    /// From the initiator, with a code only.
    Third = 3,
    /// From the responder, with a code only.
    Confirm = 4,
}

/// What an envelope between two clients holds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PairMessage {
    /// The pair's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub pair: Vec<u8>,
    /// Which handshake.
    #[prost(enumeration = "PairPattern", tag = "2")]
    pub pattern: i32,
    /// Which message of it.
    #[prost(enumeration = "PairStep", tag = "3")]
    pub step: i32,
    /// The Noise message.
    #[prost(bytes = "vec", tag = "4")]
    pub body: Vec<u8>,
}

impl PairMessage {
    /// Reads the payload of an envelope. The caller looks the pair's id up and hands the message to the
    /// handshake that it belongs to.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoiseError> {
        let malformed = NoiseError::Malformed { what: "pair message" };
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(malformed);
        }
        Self::decode(bytes).map_err(|_| malformed)
    }

    /// The payload of an envelope.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The pair's id.
    pub fn pair_id(&self) -> Result<[u8; 16], NoiseError> {
        bytes16("pair", &self.pair).map_err(|_| NoiseError::Malformed { what: "pair id" })
    }
}

/// What the sides tell each other once the handshake protects it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PairPayload {
    /// The mapping that the pair is for, 16 bytes, or empty where the sender doesn't know it yet.
    #[prost(bytes = "vec", tag = "1")]
    pub mapping: Vec<u8>,
    /// Whether the sender has AES instructions.
    #[prost(bool, tag = "2")]
    pub aes: bool,
}

/// What two clients have in common after their handshake. Tunnel keys derive from it.
pub struct PairRoot {
    /// The pair's id: names this root in [`Open`](crate::channel::Open).
    pub id: [u8; 16],
    /// Known to the two clients only.
    pub secret: Zeroizing<[u8; 32]>,
    /// The other side's public key, proven. Pin it.
    pub peer: [u8; 32],
    /// What the other side said.
    pub payload: PairPayload,
}

impl fmt::Debug for PairRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairRoot")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

/// What the initiator does next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart as soon as it is there")]
pub enum InitiatorStep {
    /// Send this, and wait for another message.
    Send(PairInitiator, PairMessage),
    /// The pair is made.
    Done(PairRoot),
}

/// The side that begins: who redeemed the code, or who listens for a mapping.
#[derive(Debug)]
pub struct PairInitiator {
    id: [u8; 16],
    waits: Waits,
}

#[derive(Debug)]
enum Waits {
    CodeReply(HandshakeState),
    CodeConfirm(Unconfirmed),
    PinnedReply(HandshakeState),
}

/// All but the confirmation.
struct Unconfirmed {
    state: snow::StatelessTransportState,
    secret: Zeroizing<[u8; 32]>,
    peer: [u8; 32],
}

impl fmt::Debug for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unconfirmed").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl PairInitiator {
    /// Begins by a connection code. `id` is 16 fresh random bytes, `psk` the code's
    /// [`psk`](crate::token::ConnectionCode::psk).
    pub fn with_code(
        key: &StaticKey,
        psk: &[u8; 32],
        subject: &PairSubject,
        id: [u8; 16],
    ) -> Result<(Self, PairMessage), NoiseError> {
        let what = "first pair message";
        let mut state = builder(WITH_CODE, key, &subject.prologue(&id), None)?
            .psk(PSK_POSITION, psk)
            .and_then(snow::Builder::build_initiator)
            .map_err(|error| NoiseError::of(what, &error))?;
        let body = write(&mut state, what, &[])?;
        let message = message(id, PairPattern::Code, PairStep::First, body);
        Ok((Self { id, waits: Waits::CodeReply(state) }, message))
    }

    /// Begins with the key that was pinned for the other side.
    pub fn pinned(
        key: &StaticKey,
        peer: &[u8; 32],
        subject: &PairSubject,
        id: [u8; 16],
        payload: &PairPayload,
    ) -> Result<(Self, PairMessage), NoiseError> {
        let what = "first pair message";
        key.check_peer(peer)?;
        let mut state = builder(WITH_PINNED_KEYS, key, &subject.prologue(&id), None)?
            .remote_public_key(peer)
            .and_then(snow::Builder::build_initiator)
            .map_err(|error| NoiseError::of(what, &error))?;
        let body = write(&mut state, what, &payload.encode_to_vec())?;
        let message = message(id, PairPattern::Pinned, PairStep::First, body);
        Ok((Self { id, waits: Waits::PinnedReply(state) }, message))
    }

    /// The pair's id.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Takes the responder's next message. `payload` is what this side says once it is protected (with pinned
    /// keys it was said at the beginning).
    pub fn step(
        self,
        key: &StaticKey,
        message: &PairMessage,
        payload: &PairPayload,
    ) -> Result<InitiatorStep, NoiseError> {
        let id = self.id;
        match self.waits {
            Waits::CodeReply(mut state) => {
                expect(message, id, PairPattern::Code, PairStep::Second)?;
                read(&mut state, "second pair message", &message.body)?;
                let peer = remote(&state)?;
                key.check_peer(&peer)?;
                let body = write(&mut state, "third pair message", &payload.encode_to_vec())?;
                let waits = Waits::CodeConfirm(unconfirmed(state, peer)?);
                let third = self::message(id, PairPattern::Code, PairStep::Third, body);
                Ok(InitiatorStep::Send(Self { id, waits }, third))
            }
            Waits::CodeConfirm(Unconfirmed { state, secret, peer }) => {
                expect(message, id, PairPattern::Code, PairStep::Confirm)?;
                let payload = open_confirmation(&state, &message.body)?;
                Ok(InitiatorStep::Done(PairRoot { id, secret, peer, payload }))
            }
            Waits::PinnedReply(mut state) => {
                expect(message, id, PairPattern::Pinned, PairStep::Second)?;
                let payload = payload_of(&read(&mut state, "second pair message", &message.body)?)?;
                let peer = remote(&state)?;
                let secret = root_secret(&mut state)?;
                Ok(InitiatorStep::Done(PairRoot { id, secret, peer, payload }))
            }
        }
    }
}

/// The side that answers, while it waits for the third message of a handshake with a code.
#[derive(Debug)]
pub struct PairResponder {
    id: [u8; 16],
    state: HandshakeState,
}

impl PairResponder {
    /// Answers the first message of a handshake by code.
    pub fn with_code(
        key: &StaticKey,
        psk: &[u8; 32],
        subject: &PairSubject,
        first: &PairMessage,
    ) -> Result<(Self, PairMessage), NoiseError> {
        let id = first.pair_id()?;
        expect(first, id, PairPattern::Code, PairStep::First)?;
        let mut state = builder(WITH_CODE, key, &subject.prologue(&id), None)?
            .psk(PSK_POSITION, psk)
            .and_then(snow::Builder::build_responder)
            .map_err(|error| NoiseError::of("first pair message", &error))?;
        read(&mut state, "first pair message", &first.body)?;
        let body = write(&mut state, "second pair message", &[])?;
        Ok((Self { id, state }, message(id, PairPattern::Code, PairStep::Second, body)))
    }

    /// The pair's id.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Takes the third message. The confirmation is to be sent.
    pub fn finish(
        self,
        key: &StaticKey,
        third: &PairMessage,
        payload: &PairPayload,
    ) -> Result<(PairRoot, PairMessage), NoiseError> {
        let Self { id, mut state } = self;
        expect(third, id, PairPattern::Code, PairStep::Third)?;
        let said = payload_of(&read(&mut state, "third pair message", &third.body)?)?;
        let peer = remote(&state)?;
        key.check_peer(&peer)?;
        let Unconfirmed { state, secret, peer } = unconfirmed(state, peer)?;
        let body = seal_confirmation(&state, payload)?;
        let confirmation = message(id, PairPattern::Code, PairStep::Confirm, body);
        Ok((PairRoot { id, secret, peer, payload: said }, confirmation))
    }

    /// Answers the first message of a handshake with pinned keys; the reply is to be sent. Refuses a peer
    /// that proves another key than `pinned`.
    ///
    /// The first message may be a recording: keep the root that is in use until a tunnel opens under this
    /// one.
    pub fn pinned(
        key: &StaticKey,
        pinned: &[u8; 32],
        subject: &PairSubject,
        first: &PairMessage,
        payload: &PairPayload,
    ) -> Result<(PairRoot, PairMessage), NoiseError> {
        let id = first.pair_id()?;
        expect(first, id, PairPattern::Pinned, PairStep::First)?;
        let mut state = builder(WITH_PINNED_KEYS, key, &subject.prologue(&id), None)?
            .build_responder()
            .map_err(|error| NoiseError::of("first pair message", &error))?;
        let said = payload_of(&read(&mut state, "first pair message", &first.body)?)?;
        let peer = remote(&state)?;
        key.check_peer(&peer)?;
        if peer != *pinned {
            return Err(NoiseError::KeyChanged { pinned: *pinned, shown: peer });
        }
        let body = write(&mut state, "second pair message", &payload.encode_to_vec())?;
        let secret = root_secret(&mut state)?;
        let reply = message(id, PairPattern::Pinned, PairStep::Second, body);
        Ok((PairRoot { id, secret, peer, payload: said }, reply))
    }
}

fn message(id: [u8; 16], pattern: PairPattern, step: PairStep, body: Vec<u8>) -> PairMessage {
    PairMessage { pair: id.to_vec(), pattern: pattern.into(), step: step.into(), body }
}

fn expect(
    message: &PairMessage,
    id: [u8; 16],
    pattern: PairPattern,
    step: PairStep,
) -> Result<(), NoiseError> {
    let fits = message.pair_id()? == id && message.pattern() == pattern && message.step() == step;
    if fits { Ok(()) } else { Err(NoiseError::Malformed { what: "order of pair messages" }) }
}

fn write(state: &mut HandshakeState, what: &'static str, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
    if payload.len() > PAIR_PAYLOAD_BYTES_MAX {
        return Err(NoiseError::Malformed { what: "pair payload" });
    }
    // The library asks for room for a tag even where the pattern adds none yet.
    let mut out = vec![0; BODY_BYTES_MAX];
    let length = state.write_message(payload, &mut out).map_err(|error| NoiseError::of(what, &error))?;
    out.truncate(length);
    Ok(out)
}

fn read(state: &mut HandshakeState, what: &'static str, body: &[u8]) -> Result<Vec<u8>, NoiseError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(NoiseError::Malformed { what });
    }
    let mut out = vec![0; body.len()];
    let length = state.read_message(body, &mut out).map_err(|error| NoiseError::of(what, &error))?;
    out.truncate(length);
    Ok(out)
}

fn payload_of(bytes: &[u8]) -> Result<PairPayload, NoiseError> {
    PairPayload::decode(bytes).map_err(|_| NoiseError::Malformed { what: "pair payload" })
}

/// The root of a finished handshake: its two keys and its hash, under a label of their own, so that it is
/// independent of the confirmation, which one of the keys seals.
fn root_secret(state: &mut HandshakeState) -> Result<Zeroizing<[u8; 32]>, NoiseError> {
    let hash = hash(state)?;
    let (first, second) = state.dangerously_get_raw_split();
    let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
    hasher.update(&*first).update(&*second).update(&hash);
    Ok(Zeroizing::new(hasher.finalize().into()))
}

fn unconfirmed(mut state: HandshakeState, peer: [u8; 32]) -> Result<Unconfirmed, NoiseError> {
    let secret = root_secret(&mut state)?;
    let state =
        state.into_stateless_transport_mode().map_err(|error| NoiseError::of("pair handshake", &error))?;
    Ok(Unconfirmed { state, secret, peer })
}

/// The confirmation is the one message under the transport keys, so its counter is always this.
const CONFIRMATION_COUNTER: u64 = 0;

fn seal_confirmation(
    state: &snow::StatelessTransportState,
    payload: &PairPayload,
) -> Result<Vec<u8>, NoiseError> {
    let plain = payload.encode_to_vec();
    if plain.len() > PAIR_PAYLOAD_BYTES_MAX {
        return Err(NoiseError::Malformed { what: "pair payload" });
    }
    let mut out = vec![0; plain.len() + TAG_BYTES];
    state
        .write_message(CONFIRMATION_COUNTER, &plain, &mut out)
        .map_err(|error| NoiseError::of("pair confirmation", &error))?;
    Ok(out)
}

fn open_confirmation(state: &snow::StatelessTransportState, body: &[u8]) -> Result<PairPayload, NoiseError> {
    let what = "pair confirmation";
    let length = body.len().checked_sub(TAG_BYTES).ok_or(NoiseError::Malformed { what })?;
    if length > PAIR_PAYLOAD_BYTES_MAX {
        return Err(NoiseError::Malformed { what });
    }
    let mut plain = vec![0; length];
    state
        .read_message(CONFIRMATION_COUNTER, body, &mut plain)
        .map_err(|error| NoiseError::of(what, &error))?;
    payload_of(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: PairSubject = PairSubject::Code(*b"h4xw77pam");
    const ID: [u8; 16] = [9; 16];
    const PSK: [u8; 32] = [5; 32];

    fn key(seed: u8) -> StaticKey {
        StaticKey::from_bytes([seed; 32]).unwrap()
    }

    fn payload(mapping: u8, aes: bool) -> PairPayload {
        PairPayload { mapping: vec![mapping; 16], aes }
    }

    /// Over the wire and back, as an envelope would carry it.
    fn sent(message: &PairMessage) -> PairMessage {
        PairMessage::from_bytes(&message.to_bytes()).unwrap()
    }

    fn by_code(initiator_psk: [u8; 32], responder_psk: [u8; 32]) -> Result<(PairRoot, PairRoot), NoiseError> {
        let (a, b) = (key(1), key(2));
        let (initiator, first) = PairInitiator::with_code(&a, &initiator_psk, &SUBJECT, ID)?;
        let (responder, second) = PairResponder::with_code(&b, &responder_psk, &SUBJECT, &sent(&first))?;
        let InitiatorStep::Send(initiator, third) = initiator.step(&a, &sent(&second), &payload(3, true))?
        else {
            panic!("done too early");
        };
        let (theirs, confirm) = responder.finish(&b, &sent(&third), &payload(4, false))?;
        let InitiatorStep::Done(mine) = initiator.step(&a, &sent(&confirm), &payload(3, true))? else {
            panic!("not done");
        };
        Ok((mine, theirs))
    }

    #[test]
    fn who_knows_the_code_gets_one_root() {
        let (mine, theirs) = by_code(PSK, PSK).unwrap();
        assert_eq!(mine.secret, theirs.secret);
        assert_eq!((mine.id, theirs.id), (ID, ID));
        assert_eq!(mine.peer, key(2).public());
        assert_eq!(theirs.peer, key(1).public());
        assert_eq!(mine.payload, payload(4, false));
        assert_eq!(theirs.payload, payload(3, true));
    }

    #[test]
    fn two_handshakes_have_different_roots() {
        let (one, _) = by_code(PSK, PSK).unwrap();
        let (two, _) = by_code(PSK, PSK).unwrap();
        assert_ne!(one.secret, two.secret);
    }

    #[test]
    fn who_guesses_the_code_wrong_gets_nothing() {
        let error = by_code([6; 32], PSK).unwrap_err();
        assert_eq!(error, NoiseError::Forged { what: "third pair message" });
    }

    /// A node that plays the responder without the code can't make the initiator pin its key.
    #[test]
    fn without_the_code_there_is_no_confirmation() {
        let (a, impostor) = (key(1), key(66));
        let (initiator, first) = PairInitiator::with_code(&a, &PSK, &SUBJECT, ID).unwrap();
        let (_, second) = PairResponder::with_code(&impostor, &[0; 32], &SUBJECT, &first).unwrap();
        let InitiatorStep::Send(initiator, _) = initiator.step(&a, &second, &payload(3, true)).unwrap()
        else {
            panic!("done too early");
        };
        let forged = message(ID, PairPattern::Code, PairStep::Confirm, vec![0; 40]);
        let error = initiator.step(&a, &forged, &payload(3, true)).unwrap_err();
        assert_eq!(error, NoiseError::Forged { what: "pair confirmation" });
    }

    #[test]
    fn an_envelope_for_another_subject_fails() {
        let (_, first) = PairInitiator::with_code(&key(1), &PSK, &SUBJECT, ID).unwrap();
        let other = PairSubject::Code(*b"000000000");
        let error = PairResponder::with_code(&key(2), &PSK, &other, &first).unwrap_err();
        assert_eq!(error, NoiseError::Forged { what: "first pair message" });
    }

    fn pinned(pin: [u8; 32]) -> Result<(PairRoot, PairRoot), NoiseError> {
        let (a, b) = (key(1), key(2));
        let subject = PairSubject::Mapping([8; 16]);
        let (initiator, first) =
            PairInitiator::pinned(&a, &b.public(), &subject, ID, &payload(8, true)).unwrap();
        let (theirs, second) = PairResponder::pinned(&b, &pin, &subject, &sent(&first), &payload(8, false))?;
        let InitiatorStep::Done(mine) = initiator.step(&a, &sent(&second), &payload(8, true))? else {
            panic!("not done");
        };
        Ok((mine, theirs))
    }

    #[test]
    fn pinned_keys_give_one_root_in_two_messages() {
        let (mine, theirs) = pinned(key(1).public()).unwrap();
        assert_eq!(mine.secret, theirs.secret);
        assert_eq!((mine.peer, theirs.peer), (key(2).public(), key(1).public()));
        assert_eq!((mine.payload.aes, theirs.payload.aes), (false, true));
    }

    #[test]
    fn a_changed_key_is_refused_and_named() {
        let error = pinned(key(7).public()).unwrap_err();
        assert_eq!(error, NoiseError::KeyChanged { pinned: key(7).public(), shown: key(1).public() });
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let (a, b) = (key(1), key(2));
        let (initiator, first) = PairInitiator::with_code(&a, &PSK, &SUBJECT, ID).unwrap();
        let (responder, second) = PairResponder::with_code(&b, &PSK, &SUBJECT, &first).unwrap();
        assert!(responder.finish(&b, &second, &payload(4, false)).is_err());
        assert!(initiator.step(&a, &first, &payload(3, true)).is_err());
    }

    #[test]
    fn a_payload_over_the_limit_is_refused() {
        let large = PairPayload { mapping: vec![0; PAIR_PAYLOAD_BYTES_MAX], aes: false };
        let error = PairInitiator::pinned(&key(1), &key(2).public(), &SUBJECT, ID, &large).unwrap_err();
        assert_eq!(error, NoiseError::Malformed { what: "pair payload" });
        assert!(PairMessage::from_bytes(&vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
    }
}
