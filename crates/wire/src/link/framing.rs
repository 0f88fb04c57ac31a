//! Messages cut into chunks, on lanes.
//!
//! On the wire a chunk is a 16-bit length and a sealed Noise message; unsealed it is
//!
//! ```text
//! lane u8 | flags u8 | [total u32]      body
//! ```
//!
//! `flags` has bit 0 ([`FIRST`]) where a message begins; then its whole length follows. A message is complete
//! when that many bytes have come on its lane. Chunks of different lanes mix freely, those of one lane don't:
//! so a ping goes out between two chunks of a large message. All integers are big-endian.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use prost::Message as _;
use prost::encoding::decode_key;
use zeroize::Zeroizing;

use super::{Body, LinkMessage, Unsupported, lists};
use crate::noise::{LinkOpener, LinkSealer, NoiseError, TAG_BYTES};

/// The largest chunk, unsealed. What is in front of a ping on the wire is at most one of these and what the
/// socket already holds.
pub const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// The largest message on [`Lane::Bulk`] towards a client: some ten thousand mappings.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest message of a lane that a node accepts from a client. Clients send no large ones, and decoding
/// can take tens of times the memory of the encoded form.
const CLIENT_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// The largest message on [`Lane::Pulse`].
const PULSE_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// The largest message that is accepted from somebody who was not let in yet: a `Hello` has a few hundred
/// bytes.
pub const STRANGER_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// How many encoded bytes wait on one lane before [`LinkEncoder::push`] says [`PushError::Full`]: two of the
/// largest messages.
pub const LANE_QUEUE_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// How many messages wait on one lane before [`LinkEncoder::push`] says [`PushError::Full`]. Each takes some
/// sixty bytes beside its own: of the shortest, the limit above would let two million gather.
pub const LANE_QUEUE_MESSAGES_MAX: usize = 16 * 1024;

/// Set on a chunk where a message begins.
const FIRST: u8 = 1;

const HEADER_BYTES: usize = 2;
const TOTAL_BYTES: usize = 4;
const LENGTH_BYTES: usize = 2;
const SEALED_BYTES_MIN: usize = HEADER_BYTES + TAG_BYTES;
const SEALED_BYTES_MAX: usize = CHUNK_BYTES_MAX + TAG_BYTES;

/// How urgent a message is. Messages of one lane arrive in the order in which they were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Small and before all others: hello, pings, farewells.
    Pulse = 0,
    /// What somebody waits for: tickets, envelopes, commands.
    Work = 1,
    /// What may be large: desired states, answers. Takes turns with [`Lane::Work`].
    Bulk = 2,
}

const LANES: usize = 3;

/// Who sends the messages that a decoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A client: not trusted, and without large messages.
    FromClient,
    /// A node: proven by the key that the client pinned.
    FromNode,
}

/// Why a link is broken. It must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A length is over its limit. Nothing was allocated for it.
    #[error("{what} of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it would be.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The bytes break the format.
    #[error("malformed {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk doesn't open, or can't be sealed.
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// It is longer than the other side accepts. A bug here: such messages must not be made.
    #[error("the message has {length} bytes, more than {limit}")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// It has lists of more than [`LIST_ITEMS_MAX`](super::LIST_ITEMS_MAX) elements, which the other side
    /// refuses. A bug here, too.
    #[error("the message has lists of more than {} elements", lists::LIST_ITEMS_MAX)]
    TooMany,
    /// The other side reads too slowly. Push again when chunks have gone out, or give the link up.
    #[error("too much waits to be sent on the {lane:?} lane")]
    Full {
        /// The lane.
        lane: Lane,
    },
}

fn limit(direction: Direction, lane: Lane) -> usize {
    match (lane, direction) {
        (Lane::Pulse, _) => PULSE_MESSAGE_BYTES_MAX,
        (Lane::Work, _) | (Lane::Bulk, Direction::FromClient) => CLIENT_MESSAGE_BYTES_MAX,
        (Lane::Bulk, Direction::FromNode) => MESSAGE_BYTES_MAX,
    }
}

/// Messages on their way out.
#[derive(Debug)]
pub struct LinkEncoder {
    direction: Direction,
    lanes: [Outgoing; LANES],
    /// Whose turn it is when both lower lanes have something.
    bulk_next: bool,
    chunk: Zeroizing<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    messages: VecDeque<Zeroizing<Vec<u8>>>,
    /// How much of the first message has gone out; none of it, not even its header, if `None`.
    sent: Option<usize>,
    /// Bytes that wait, in all messages.
    waiting: usize,
}

impl LinkEncoder {
    /// An empty one. `direction` says who sends: the limits differ.
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            lanes: Default::default(),
            bulk_next: false,
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES_MAX)),
        }
    }

    /// Takes a message to be sent.
    pub fn push(&mut self, body: Body) -> Result<(), PushError> {
        let lane = body.lane();
        let message = LinkMessage { body: Some(body) };
        let length = message.encoded_len();
        let limit = limit(self.direction, lane);
        if length > limit {
            return Err(PushError::TooLong { length, limit });
        }
        let outgoing = &mut self.lanes[lane as usize];
        if outgoing.waiting + length > LANE_QUEUE_BYTES_MAX
            || outgoing.messages.len() >= LANE_QUEUE_MESSAGES_MAX
        {
            return Err(PushError::Full { lane });
        }
        let message = Zeroizing::new(message.encode_to_vec());
        lists::check(&message).map_err(|_| PushError::TooMany)?;
        outgoing.waiting += length;
        outgoing.messages.push_back(message);
        Ok(())
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.messages.is_empty())
    }

    /// Appends the next chunk to `out`, if there is one. Write little at a time (a chunk or two) before
    /// looking for new messages: what was appended can't be overtaken any more.
    pub fn next_chunk(&mut self, sealer: &mut LinkSealer, out: &mut BytesMut) -> Result<bool, NoiseError> {
        let Some(lane) = self.next_lane() else { return Ok(false) };
        self.lanes[lane].cut(lane, &mut self.chunk);
        sealer.seal(&self.chunk, out)?;
        Ok(true)
    }

    fn next_lane(&mut self) -> Option<usize> {
        let has = |lane: Lane| !self.lanes[lane as usize].messages.is_empty();
        if has(Lane::Pulse) {
            return Some(Lane::Pulse as usize);
        }
        let lane = match (has(Lane::Work), has(Lane::Bulk)) {
            (false, false) => return None,
            (true, false) => Lane::Work,
            (false, true) => Lane::Bulk,
            (true, true) if self.bulk_next => Lane::Bulk,
            (true, true) => Lane::Work,
        };
        self.bulk_next = lane == Lane::Work;
        Some(lane as usize)
    }
}

impl Outgoing {
    /// Puts the next chunk of the first message into `chunk`.
    fn cut(&mut self, lane: usize, chunk: &mut Vec<u8>) {
        chunk.clear();
        let Some(message) = self.messages.front() else { return };
        #[expect(clippy::cast_possible_truncation, reason = "there are three lanes")]
        let lane = lane as u8;
        let begin = if let Some(sent) = self.sent {
            chunk.extend_from_slice(&[lane, 0]);
            sent
        } else {
            chunk.extend_from_slice(&[lane, FIRST]);
            #[expect(clippy::cast_possible_truncation, reason = "`push` bounds it by MESSAGE_BYTES_MAX")]
            chunk.extend_from_slice(&(message.len() as u32).to_be_bytes());
            0
        };
        let end = message.len().min(begin + CHUNK_BYTES_MAX - chunk.len());
        chunk.extend_from_slice(&message[begin..end]);
        self.waiting -= end - begin;
        if end == message.len() {
            self.messages.pop_front();
            self.sent = None;
        } else {
            self.sent = Some(end);
        }
    }
}

/// A message that came.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every value is the large one")]
pub enum Received {
    /// One that this release knows.
    Known(Body),
    /// One that it doesn't. Send [`Received::answer`] back; the link goes on.
    Unknown {
        /// The tag of its kind; 0 if it says nothing at all.
        kind: u32,
    },
}

impl Received {
    /// What to answer to a message of an unknown kind.
    pub fn answer(&self) -> Option<Body> {
        match self {
            Self::Known(_) => None,
            Self::Unknown { kind } => Some(Body::Unsupported(Unsupported { kind: *kind })),
        }
    }
}

/// Chunks on their way in.
///
/// It holds no more than has come, and no more than the limit of each lane.
#[derive(Debug)]
pub struct LinkDecoder {
    direction: Direction,
    stranger: bool,
    lanes: [Option<Incoming>; LANES],
    chunk: Zeroizing<Vec<u8>>,
}

#[derive(Debug)]
struct Incoming {
    total: usize,
    body: Zeroizing<Vec<u8>>,
}

impl LinkDecoder {
    /// Reads what a node sends.
    pub fn from_node() -> Self {
        Self::new(Direction::FromNode, false)
    }

    /// Reads what a stranger sends: no message longer than [`STRANGER_MESSAGE_BYTES_MAX`], until
    /// [`LinkDecoder::admit`].
    pub fn from_stranger() -> Self {
        Self::new(Direction::FromClient, true)
    }

    fn new(direction: Direction, stranger: bool) -> Self {
        Self { direction, stranger, lanes: Default::default(), chunk: Zeroizing::default() }
    }

    /// The stranger was let in: from now on a client's limits hold.
    pub fn admit(&mut self) {
        self.stranger = false;
    }

    /// Takes chunks from the front of `wire` until a message is complete. None: more bytes are needed, at
    /// most [`LinkDecoder::missing`] for the next step.
    ///
    /// After an error the link is of no use.
    pub fn next(
        &mut self,
        opener: &mut LinkOpener,
        wire: &mut BytesMut,
    ) -> Result<Option<Received>, LinkError> {
        while let Some(sealed) = sealed_length(wire)? {
            if wire.len() < LENGTH_BYTES + sealed {
                break;
            }
            wire.advance(LENGTH_BYTES);
            let result = opener.open(&wire[..sealed], &mut self.chunk);
            wire.advance(sealed);
            result?;
            let chunk = std::mem::take(&mut self.chunk);
            let received = self.next_opened(&chunk);
            self.chunk = chunk;
            if let Some(received) = received? {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }

    /// How many more bytes the chunk at the front of `wire` needs: what a reader should make room for.
    pub fn missing(&self, wire: &[u8]) -> usize {
        match sealed_length(wire) {
            Ok(Some(sealed)) => (LENGTH_BYTES + sealed).saturating_sub(wire.len()),
            _ => LENGTH_BYTES.saturating_sub(wire.len()),
        }
    }

    /// Takes one opened chunk, for who opens them himself; gives the message that it completes.
    ///
    /// After an error the link is of no use.
    pub fn next_opened(&mut self, chunk: &[u8]) -> Result<Option<Received>, LinkError> {
        match self.assemble(chunk)? {
            Some(message) => received(&message).map(Some),
            None => Ok(None),
        }
    }

    fn assemble(&mut self, chunk: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, LinkError> {
        let malformed = |what| LinkError::Malformed { what };
        let ([lane, flags], rest) = chunk.split_first_chunk::<HEADER_BYTES>().ok_or(malformed("chunk"))?;
        let lane = match lane {
            0 => Lane::Pulse,
            1 => Lane::Work,
            2 => Lane::Bulk,
            _ => return Err(malformed("lane")),
        };
        let limit = if self.stranger { STRANGER_MESSAGE_BYTES_MAX } else { limit(self.direction, lane) };
        let slot = &mut self.lanes[lane as usize];
        let body = match (*flags, &slot) {
            (FIRST, None) => {
                let (total, body) = rest.split_first_chunk::<TOTAL_BYTES>().ok_or(malformed("chunk"))?;
                let total = u32::from_be_bytes(*total) as usize;
                if total > limit {
                    return Err(LinkError::TooLong { what: "message", length: total, limit });
                }
                *slot = Some(Incoming { total, body: Zeroizing::default() });
                if body.is_empty() && total > 0 {
                    return Err(malformed("empty chunk"));
                }
                body
            }
            // A chunk that brings nothing would let a peer keep us busy for free.
            (0, Some(_)) if rest.is_empty() => return Err(malformed("empty chunk")),
            (0, Some(_)) => rest,
            _ => return Err(malformed("order of chunks")),
        };
        let Some(incoming) = slot else { return Err(malformed("order of chunks")) };
        if incoming.body.len() + body.len() > incoming.total {
            return Err(malformed("length of a message"));
        }
        incoming.body.extend_from_slice(body);
        if incoming.body.len() < incoming.total {
            return Ok(None);
        }
        Ok(slot.take().map(|complete| complete.body))
    }
}

/// The length of the sealed chunk at the front of `wire`, checked before anything is read or allocated for it.
fn sealed_length(wire: &[u8]) -> Result<Option<usize>, LinkError> {
    let Some(length) = wire.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > SEALED_BYTES_MAX {
        return Err(LinkError::TooLong { what: "chunk", length, limit: SEALED_BYTES_MAX });
    }
    if length < SEALED_BYTES_MIN {
        return Err(LinkError::Malformed { what: "length of a chunk" });
    }
    Ok(Some(length))
}

/// Reads an encoded message.
fn received(message: &[u8]) -> Result<Received, LinkError> {
    let malformed = LinkError::Malformed { what: "message" };
    lists::check(message)?;
    match LinkMessage::decode(message) {
        Ok(LinkMessage { body: Some(body) }) => Ok(Received::Known(body)),
        Ok(LinkMessage { body: None }) if message.is_empty() => Ok(Received::Unknown { kind: 0 }),
        Ok(LinkMessage { body: None }) => {
            let (kind, _) = decode_key(&mut &*message).map_err(|_| malformed)?;
            Ok(Received::Unknown { kind })
        }
        Err(_) => Err(malformed),
    }
}
