//! The entries of a fixed size that a log has beside its frames: head, tail, marker of a copy.
//!
//! All have the same beginning (magic, format, log, two bytes of zeros) and end with a CRC-32C over what is before.

use bytes::{Buf, BufMut, Bytes};
use underpass_domain::LogName;

use crate::codes;
use crate::frame::{FORMAT, FrameError};

/// Bytes before what is an entry's own.
const BEGINNING: usize = 8;
const CRC_BYTES: usize = 4;

/// One kind of them.
pub(crate) struct Small {
    pub(crate) magic: [u8; 4],
    /// Of the whole entry.
    pub(crate) bytes: usize,
    /// What a newer format, and a newer flag, is called.
    pub(crate) newer: (&'static str, &'static str),
}

impl Small {
    /// The stored form; `body` writes what is the entry's own.
    pub(crate) fn encode(&self, log: LogName, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut bytes = Vec::with_capacity(self.bytes);
        bytes.put_slice(&self.magic);
        bytes.put_u8(FORMAT);
        bytes.put_u8(codes::log_number(log));
        bytes.put_u16_le(0);
        body(&mut bytes);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        Bytes::from(bytes)
    }

    /// The log, and what is the entry's own.
    pub(crate) fn decode<'a>(&self, bytes: &'a [u8]) -> Result<(LogName, &'a [u8]), FrameError> {
        if !bytes.starts_with(&self.magic) {
            return Err(FrameError::Foreign);
        }
        if bytes.get(4).is_some_and(|format| *format != FORMAT) {
            return Err(FrameError::Newer(self.newer.0));
        }
        if bytes.len() != self.bytes {
            return Err(FrameError::Length);
        }
        let (before, mut crc) = bytes.split_at(self.bytes - CRC_BYTES);
        if crc.get_u32_le() != crc32c::crc32c(before) {
            return Err(FrameError::Checksum);
        }
        let log = codes::log_name(bytes[5]).ok_or(FrameError::Newer("a log"))?;
        if bytes[6..8] != [0, 0] {
            return Err(FrameError::Newer(self.newer.1));
        }
        Ok((log, &before[BEGINNING..]))
    }
}
