//! How entries, leases and the head lie in RocksDB: one column family, a tag before every key.
//!
//! | key | value |
//! |---|---|
//! | `a` lease (u64 BE) key | empty: the entry at this key hangs on this lease |
//! | `k` key | entry: revision (u64 LE), lease (u64 LE, 0 = none), value |
//! | `l` lease (u64 BE) | ttl in seconds (u64 LE) |
//! | `m` | head: revision (u64 LE), last lease given (u64 LE) |

use bytes::Bytes;
use underpass_store::{BoxError, Entry, Key, LeaseId, Revision};

const ATTACHED: u8 = b'a';
const ENTRY: u8 = b'k';
const LEASE: u8 = b'l';

/// Where the head is.
pub(crate) const HEAD: &[u8] = b"m";

/// Bytes before the value of an entry.
const ENTRY_HEADER_BYTES: usize = 16;

/// All keys of a kind: from, to (exclusive).
pub(crate) type Range = (Vec<u8>, Vec<u8>);

pub(crate) fn entry_key(key: &Key) -> Vec<u8> {
    tagged(ENTRY, &[key.as_bytes()])
}

/// The range of `[from, to)` in the sense of `KvStore::scan`.
pub(crate) fn entry_range(from: &Key, to: &Key) -> Range {
    let end = if to.is_empty() { vec![ENTRY + 1] } else { entry_key(to) };
    (entry_key(from), end)
}

/// The key of the entry at a RocksDB key.
pub(crate) fn key_of_entry(stored: &[u8]) -> Key {
    Key::from(stored.strip_prefix(&[ENTRY]).unwrap_or(stored))
}

pub(crate) fn encode_entry(revision: Revision, lease: Option<LeaseId>, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + value.len());
    bytes.extend_from_slice(&revision.0.to_le_bytes());
    bytes.extend_from_slice(&lease.map_or(0, lease_number).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

pub(crate) fn decode_entry(key: Key, stored: &[u8]) -> Result<Entry, BoxError> {
    let (revision, rest) = take_u64(stored)?;
    let (lease, value) = take_u64(rest)?;
    let lease = match lease {
        0 => None,
        number => Some(lease_id(number)?),
    };
    Ok(Entry { key, value: Bytes::copy_from_slice(value), revision: Revision(revision), lease })
}

/// Only the revision of an entry.
pub(crate) fn decode_revision(stored: &[u8]) -> Result<Revision, BoxError> {
    Ok(Revision(take_u64(stored)?.0))
}

pub(crate) fn lease_key(lease: LeaseId) -> Vec<u8> {
    tagged(LEASE, &[&lease_number(lease).to_be_bytes()])
}

pub(crate) fn lease_range() -> Range {
    (vec![LEASE], vec![LEASE + 1])
}

pub(crate) fn encode_lease(ttl_s: u64) -> [u8; 8] {
    ttl_s.to_le_bytes()
}

/// The lease and its ttl in seconds.
pub(crate) fn decode_lease(key: &[u8], stored: &[u8]) -> Result<(LeaseId, u64), BoxError> {
    let number = key.get(1..).and_then(|bytes| bytes.try_into().ok()).ok_or("a malformed lease key")?;
    Ok((lease_id(u64::from_be_bytes(number))?, whole_u64(stored)?))
}

pub(crate) fn attached_key(lease: LeaseId, key: &Key) -> Vec<u8> {
    tagged(ATTACHED, &[&lease_number(lease).to_be_bytes(), key.as_bytes()])
}

pub(crate) fn attached_range() -> Range {
    (vec![ATTACHED], vec![ATTACHED + 1])
}

pub(crate) fn decode_attached(stored: &[u8]) -> Result<(LeaseId, Key), BoxError> {
    let (number, key) = stored
        .get(1..)
        .and_then(|rest| rest.split_first_chunk())
        .ok_or("a malformed key of a leased entry")?;
    Ok((lease_id(u64::from_be_bytes(*number))?, Key::from(key)))
}

pub(crate) fn encode_head(revision: Revision, last_lease: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&revision.0.to_le_bytes());
    bytes[8..].copy_from_slice(&last_lease.cast_unsigned().to_le_bytes());
    bytes
}

pub(crate) fn decode_head(stored: &[u8]) -> Result<(Revision, i64), BoxError> {
    let (revision, rest) = take_u64(stored)?;
    let last_lease = i64::try_from(whole_u64(rest)?)?;
    Ok((Revision(revision), last_lease))
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![tag];
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn lease_number(lease: LeaseId) -> u64 {
    lease.0.cast_unsigned()
}

fn lease_id(number: u64) -> Result<LeaseId, BoxError> {
    match i64::try_from(number) {
        Ok(id) if id > 0 => Ok(LeaseId(id)),
        _ => Err(format!("{number} is no lease").into()),
    }
}

fn take_u64(bytes: &[u8]) -> Result<(u64, &[u8]), BoxError> {
    let (number, rest) = bytes.split_first_chunk().ok_or("a stored value is too short")?;
    Ok((u64::from_le_bytes(*number), rest))
}

fn whole_u64(bytes: &[u8]) -> Result<u64, BoxError> {
    Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| "a stored number isn't 8 bytes long")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let key = Key::from("presence/a");
        for lease in [None, Some(LeaseId(1)), Some(LeaseId(i64::MAX))] {
            let stored = encode_entry(Revision(9), lease, b"value");
            let entry = decode_entry(key.clone(), &stored).unwrap();
            assert_eq!((entry.revision, entry.lease, &entry.value[..]), (Revision(9), lease, &b"value"[..]));
            assert_eq!(decode_revision(&stored).unwrap(), Revision(9));
        }
        assert_eq!(decode_lease(&lease_key(LeaseId(7)), &encode_lease(2)).unwrap(), (LeaseId(7), 2));
        assert_eq!(decode_attached(&attached_key(LeaseId(7), &key)).unwrap(), (LeaseId(7), key));
        assert_eq!(decode_head(&encode_head(Revision(3), 4)).unwrap(), (Revision(3), 4));
    }

    /// The layout is a format: it changes with `FORMAT` only.
    #[test]
    fn the_bytes_are_these() {
        assert_eq!(entry_key(&Key::from("x")), b"kx");
        assert_eq!(
            encode_entry(Revision(0x0102), Some(LeaseId(3)), b"v"),
            b"\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0v"
        );
        assert_eq!(lease_key(LeaseId(0x0102)), b"l\0\0\0\0\0\0\x01\x02");
        assert_eq!(encode_lease(2), *b"\x02\0\0\0\0\0\0\0");
        assert_eq!(attached_key(LeaseId(1), &Key::from("x")), b"a\0\0\0\0\0\0\0\x01x");
        assert_eq!(encode_head(Revision(1), 2), *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_malformed_is_refused() {
        assert!(decode_entry(Key::from("x"), &[0; 15]).is_err());
        assert!(decode_entry(Key::from("x"), &encode_entry(Revision(1), Some(LeaseId(-1)), b"")).is_err());
        assert!(decode_head(&[0; 15]).is_err());
        assert!(decode_head(&[0; 17]).is_err());
        assert!(decode_lease(b"l1234567", &[0; 8]).is_err());
        assert!(decode_attached(b"a1234567").is_err());
    }
}
