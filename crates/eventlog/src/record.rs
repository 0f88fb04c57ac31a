//! One event inside a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{Actor, CommandId, LogPosition, Position, StreamId, Subject};

use crate::codes;
use crate::frame::FrameError;

/// Bytes of a record without its length field, its optional parts and its payload.
const FIXED_BYTES: usize = 2 + 2 + 1 + 17 + 8 + 16 + 17;
/// The fewest bytes a record takes, length field included.
pub(crate) const RECORD_BYTES_MIN: usize = 4 + FIXED_BYTES;

const SOURCE_V4: u8 = 1;
const SOURCE_V6: u8 = 1 << 1;
const CAUSATION: u8 = 1 << 2;
const CORRELATION: u8 = 1 << 3;
/// The record is the first of its command and says what was asked and what was answered.
const ASKED: u8 = 1 << 4;
const KNOWN: u8 = SOURCE_V4 | SOURCE_V6 | CAUSATION | CORRELATION | ASKED;

/// The first half of a BLAKE3 hash over what a command asked for. Enough to tell a repeat from
/// another command under the same id; it guards no secret.
pub type Content = [u8; 16];

/// What a repeat of a command is compared with and answered from. The first record of each
/// command carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Hash of the command's content.
    pub content: Content,
    /// What the command was about, as its answer named it.
    pub subject: Subject,
}

/// One event as it stands in a frame. Its position is the frame's first plus its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the event's kind.
    pub kind: u16,
    /// Version of the payload's schema.
    pub version: u16,
    /// The entity it happened to.
    pub stream: StreamId,
    /// Its number within that stream, dense from 1.
    pub stream_version: u64,
    /// The command it follows from.
    pub command: CommandId,
    /// Who gave the command.
    pub actor: Actor,
    /// Where from.
    pub source: Option<IpAddr>,
    /// The event that made somebody give the command.
    pub causation: Option<LogPosition>,
    /// Ties together what one request set off.
    pub correlation: Option<[u8; 16]>,
    /// In the first record of a command only.
    pub asked: Option<Asked>,
    /// The event itself, in the frame's codec.
    pub payload: Bytes,
}

impl Record {
    /// Bytes it takes in a frame.
    pub(crate) fn encoded_len(&self) -> usize {
        let source = match self.source {
            None => 0,
            Some(IpAddr::V4(_)) => 4,
            Some(IpAddr::V6(_)) => 16,
        };
        RECORD_BYTES_MIN
            + source
            + self.causation.map_or(0, |_| 9)
            + self.correlation.map_or(0, |_| 16)
            + self.asked.map_or(0, |_| 33)
            + self.payload.len()
    }

    /// Appends it to a frame under construction, whose limits the caller has checked.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.encoded_len() - 4).unwrap_or(u32::MAX);
        out.put_u32_le(length);
        out.put_u16_le(self.kind);
        out.put_u16_le(self.version);
        out.put_u8(self.flags());
        out.put_slice(&codes::from_stream(self.stream));
        out.put_u64_le(self.stream_version);
        out.put_slice(&self.command.0);
        out.put_slice(&codes::from_actor(self.actor));
        match self.source {
            None => {}
            Some(IpAddr::V4(address)) => out.put_slice(&address.octets()),
            Some(IpAddr::V6(address)) => out.put_slice(&address.octets()),
        }
        if let Some(cause) = &self.causation {
            out.put_u8(codes::log_number(cause.log));
            out.put_u64_le(cause.position.0);
        }
        if let Some(correlation) = &self.correlation {
            out.put_slice(correlation);
        }
        if let Some(asked) = &self.asked {
            out.put_slice(&asked.content);
            out.put_slice(&codes::from_subject(asked.subject));
        }
        out.put_slice(&self.payload);
    }

    fn flags(&self) -> u8 {
        let source = match self.source {
            None => 0,
            Some(IpAddr::V4(_)) => SOURCE_V4,
            Some(IpAddr::V6(_)) => SOURCE_V6,
        };
        source
            | self.causation.map_or(0, |_| CAUSATION)
            | self.correlation.map_or(0, |_| CORRELATION)
            | self.asked.map_or(0, |_| ASKED)
    }

    /// Takes one record off `rest`, a part of `frame`; the payload shares the frame's memory.
    pub(crate) fn decode(frame: &Bytes, rest: &mut &[u8]) -> Result<Self, FrameError> {
        let length = rest.try_get_u32_le().map_err(|_| SHORT)? as usize;
        if length > rest.len() {
            return Err(FrameError::Malformed("a record reaches past the frame's end"));
        }
        let (mut body, after) = rest.split_at(length);
        *rest = after;
        let body = &mut body;

        let kind = body.try_get_u16_le().map_err(|_| SHORT)?;
        let version = body.try_get_u16_le().map_err(|_| SHORT)?;
        let flags = body.try_get_u8().map_err(|_| SHORT)?;
        if flags & !KNOWN != 0 {
            return Err(FrameError::Newer("a record flag"));
        }
        let stream = codes::to_stream(&array(body)?)?;
        let stream_version = body.try_get_u64_le().map_err(|_| SHORT)?;
        let command = CommandId(array(body)?);
        let actor = codes::to_actor(&array(body)?)?;
        let source = match flags & (SOURCE_V4 | SOURCE_V6) {
            0 => None,
            SOURCE_V4 => Some(IpAddr::V4(Ipv4Addr::from(array::<4>(body)?))),
            SOURCE_V6 => Some(IpAddr::V6(Ipv6Addr::from(array::<16>(body)?))),
            _ => return Err(FrameError::Malformed("a record with two source addresses")),
        };
        let causation = if flags & CAUSATION == 0 {
            None
        } else {
            let log = body.try_get_u8().map_err(|_| SHORT)?;
            let log = codes::log_name(log).ok_or(FrameError::Newer("a log"))?;
            let position = Position(body.try_get_u64_le().map_err(|_| SHORT)?);
            Some(LogPosition { log, position })
        };
        let correlation = match flags & CORRELATION {
            0 => None,
            _ => Some(array(body)?),
        };
        let asked = match flags & ASKED {
            0 => None,
            _ => Some(Asked { content: array(body)?, subject: codes::to_subject(&array(body)?)? }),
        };
        Ok(Self {
            kind,
            version,
            stream,
            stream_version,
            command,
            actor,
            source,
            causation,
            correlation,
            asked,
            payload: frame.slice_ref(body),
        })
    }
}

const SHORT: FrameError = FrameError::Malformed("a record is shorter than its fields");

fn array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let mut out = [0; N];
    from.try_copy_to_slice(&mut out).map_err(|_| SHORT)?;
    Ok(out)
}
