//! Where a log's entries lie in the store. Numbers are big-endian, so that the order of keys is
//! the order of positions.

use bytes::{BufMut, BytesMut};
use underpass_domain::{LogName, Position};
use underpass_store::Key;

/// `log/<name>/h`: the head.
pub fn head(log: LogName) -> Key {
    Key::from(format!("log/{log}/h"))
}

/// `log/<name>/t`: the tail, where the log was trimmed.
pub fn tail(log: LogName) -> Key {
    Key::from(format!("log/{log}/t"))
}

/// `log/<name>/copying`: there while a copy into this store has begun and not ended.
pub fn copying(log: LogName) -> Key {
    Key::from(format!("log/{log}/copying"))
}

/// `log/<name>/repairing`: there while a repair has begun and not ended.
pub fn repairing(log: LogName) -> Key {
    Key::from(format!("log/{log}/repairing"))
}

/// `log/<name>/e/<first position>`: a frame.
pub fn frame(log: LogName, first: Position) -> Key {
    numbered(log, "e/", &[&first.0.to_be_bytes()])
}

/// The end of all frames: `0` follows `/`.
pub fn frames_end(log: LogName) -> Key {
    Key::from(format!("log/{log}/e0"))
}

/// The first position of the frame at `key`, if it is the key of one.
pub fn frame_position(log: LogName, key: &[u8]) -> Option<Position> {
    let number = key.strip_prefix(format!("log/{log}/e/").as_bytes())?;
    Some(Position(u64::from_be_bytes(number.try_into().ok()?)))
}

/// `log/<name>/s/m/<position>`: the manifest of a snapshot.
pub fn manifest(log: LogName, position: Position) -> Key {
    numbered(log, "s/m/", &[&position.0.to_be_bytes()])
}

/// The end of all manifests.
pub fn manifests_end(log: LogName) -> Key {
    Key::from(format!("log/{log}/s/m0"))
}

/// `log/<name>/s/c/<position><id><number>`: one chunk of a snapshot. The id keeps apart the
/// snapshots that two nodes take of one position.
pub fn chunk(log: LogName, position: Position, id: &[u8; 16], number: u32) -> Key {
    let (position, number) = (position.0.to_be_bytes(), number.to_be_bytes());
    numbered(log, "s/c/", &[&position, id, &number])
}

/// The first key that a chunk of a snapshot at `position` could have.
pub fn chunks_from(log: LogName, position: Position) -> Key {
    numbered(log, "s/c/", &[&position.0.to_be_bytes()])
}

/// The end of all chunks.
pub fn chunks_end(log: LogName) -> Key {
    Key::from(format!("log/{log}/s/c0"))
}

fn numbered(log: LogName, place: &str, parts: &[&[u8]]) -> Key {
    let mut key = BytesMut::from(format!("log/{log}/{place}").as_bytes());
    for part in parts {
        key.put_slice(part);
    }
    Key::from(key.to_vec())
}
