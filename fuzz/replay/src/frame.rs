//! Frames and heads of the event log, as a damaged or hostile store may return them.
//!
//! Input: which and whether checksums are mended first (without that, nearly everything ends at them), then
//! the stored bytes.

use bytes::Bytes;
use underpass_eventlog::frame::{Frame, FrameBuilder, HASH_BYTES, HEADER_BYTES};
use underpass_eventlog::head::{HEAD_BYTES, Head};

/// Reads the bytes; what is accepted must survive writing.
pub fn replay(data: &[u8]) -> usize {
    let Some((which, stored)) = data.split_first() else { return 0 };
    let mut stored = stored.to_vec();
    match which % 4 {
        0 => frame(stored),
        1 => {
            mend_frame(&mut stored);
            frame(stored)
        }
        2 => head(&stored),
        _ => {
            mend_head(&mut stored);
            head(&stored)
        }
    }
}

fn frame(stored: Vec<u8>) -> usize {
    let stored = Bytes::from(stored);
    let Ok(frame) = Frame::decode(&stored) else { return 0 };
    let mut builder = FrameBuilder::new(&frame.header);
    for record in &frame.records {
        builder.push(record);
    }
    match builder.finish() {
        // The bytes may differ: ids of those who have none are skipped when read and nought when written.
        Ok((written, _)) => {
            let again = Frame::decode(&written);
            let again = again.as_ref().map(|again| (&again.header, &again.records));
            assert_eq!(again, Ok((&frame.header, &frame.records)));
        }
        Err(error) => panic!("what was read can't be written: {error}"),
    }
    1
}

fn head(stored: &[u8]) -> usize {
    let Ok(head) = Head::decode(stored) else { return 0 };
    assert_eq!(head.encode(), stored);
    1
}

/// Where a frame keeps its length and its checksum; see docs/format/log-v1.md.
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 12;
const AFTER_CRC: usize = 16;
const CHAIN_CONTEXT: &str = "underpass 2026 event log frame chain v1";

/// Gives a frame the magic, format, length, hash and checksum that it ought to have.
pub fn mend_frame(stored: &mut [u8]) {
    let Some(hash_at) = stored.len().checked_sub(HASH_BYTES).filter(|at| *at >= HEADER_BYTES) else { return };
    stored[..4].copy_from_slice(b"UPLF");
    stored[4] = 1;
    let length = u32::try_from(stored.len()).unwrap_or(u32::MAX);
    stored[LENGTH_AT..CRC_AT].copy_from_slice(&length.to_le_bytes());
    let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
    hasher.update(&stored[..CRC_AT]).update(&stored[AFTER_CRC..hash_at]);
    stored[hash_at..].copy_from_slice(hasher.finalize().as_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&stored[..CRC_AT]), &stored[AFTER_CRC..]);
    stored[CRC_AT..AFTER_CRC].copy_from_slice(&crc.to_le_bytes());
}

/// Gives a head the magic, format and checksum that it ought to have.
pub fn mend_head(stored: &mut [u8]) {
    let Some(crc_at) = HEAD_BYTES.checked_sub(4).filter(|_| stored.len() == HEAD_BYTES) else { return };
    stored[..4].copy_from_slice(b"UPLH");
    stored[4] = 1;
    let crc = crc32c::crc32c(&stored[..crc_at]);
    stored[crc_at..].copy_from_slice(&crc.to_le_bytes());
}
