//! One file of an archive, byte for byte.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::{LogId, LogName, Position};

use crate::codes;
use crate::frame::{FORMAT, Frame, FrameError};

const MAGIC: [u8; 4] = *b"UPLA";
const HEADER_BYTES: usize = 60;
const CRC_AT: usize = HEADER_BYTES - 4;

/// Why a file is no segment of this archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Its beginning is not right.
    #[error("the file can't be read: {0}")]
    Header(FrameError),
    /// It belongs elsewhere.
    #[error("the file is of another log, or of other positions than its name says")]
    Elsewhere,
    /// A frame in it is not whole.
    #[error("the frame at position {0} can't be read: {1}")]
    Frame(Position, FrameError),
    /// A frame is missing, or out of order.
    #[error("position {0} does not follow on the one before")]
    Order(Position),
}

/// The bytes of a segment. `frames` is not empty, in order, and ends at `last`.
pub(crate) fn encode(log: LogName, id: LogId, last: Position, frames: &[(Position, Bytes)]) -> Vec<u8> {
    let length: usize = frames.iter().map(|(_, bytes)| bytes.len()).sum();
    let first = frames.first().map_or(0, |(first, _)| first.0);
    let mut out = Vec::with_capacity(HEADER_BYTES + length);
    out.put_slice(&MAGIC);
    out.put_u8(FORMAT);
    out.put_u8(codes::log_number(log));
    out.put_u16_le(0);
    out.put_slice(&id.0);
    out.put_u64_le(first);
    out.put_u64_le(last.0);
    out.put_u64_le(frames.len() as u64);
    out.put_u64_le(length as u64);
    out.put_u32_le(crc32c::crc32c(&out));
    for (_, bytes) in frames {
        out.put_slice(bytes);
    }
    out
}

/// The frames of a segment, each found whole and at its place.
pub(crate) fn decode(
    bytes: &Bytes,
    log: LogName,
    id: LogId,
    first: Position,
    last: Position,
) -> Result<Vec<(Position, Bytes)>, SegmentError> {
    let header = |error| Err(SegmentError::Header(error));
    if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
        return header(FrameError::Foreign);
    }
    if bytes.len() > 4 && bytes[4] != FORMAT {
        return header(FrameError::Newer("an archive format"));
    }
    if bytes.len() < HEADER_BYTES {
        return header(FrameError::Length);
    }
    if (&bytes[CRC_AT..]).get_u32_le() != crc32c::crc32c(&bytes[..CRC_AT]) {
        return header(FrameError::Checksum);
    }
    if bytes[6..8] != [0, 0] {
        return header(FrameError::Newer("an archive flag"));
    }
    let mut rest = &bytes[8..CRC_AT];
    let mut named = [0; 16];
    rest.copy_to_slice(&mut named);
    let place = (Position(rest.get_u64_le()), Position(rest.get_u64_le()));
    let (count, length) = (rest.get_u64_le(), rest.get_u64_le());
    if codes::log_name(bytes[5]) != Some(log) || LogId(named) != id || place != (first, last) {
        return Err(SegmentError::Elsewhere);
    }
    if length != (bytes.len() - HEADER_BYTES) as u64 {
        return header(FrameError::Length);
    }
    let mut frames = Vec::new();
    let mut at = HEADER_BYTES;
    let mut next = first;
    while at < bytes.len() {
        let length = Frame::stored_length(&bytes[at..]).map_err(|error| SegmentError::Frame(next, error))?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len());
        let Some(end) = end else { return Err(SegmentError::Frame(next, FrameError::Length)) };
        let stored = bytes.slice(at..end);
        let frame = Frame::decode(&stored).map_err(|error| SegmentError::Frame(next, error))?;
        if frame.first() != next {
            return Err(SegmentError::Order(next));
        }
        frames.push((frame.first(), stored));
        next = frame.last().next();
        at = end;
    }
    if frames.len() as u64 != count || next != last.next() {
        return Err(SegmentError::Order(next));
    }
    Ok(frames)
}
