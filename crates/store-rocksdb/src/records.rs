//! What RocksDB must not be shown: records of a recycled log.
//!
//! RocksDB writes its manifest and its log as records with a checksum, a length and a type. Some types say that the
//! file was used before and is written over, which we never ask for. Where a flipped bit makes one of them, RocksDB
//! (seen with 11.8) takes the record for an old one, looks at it again, and never comes back. So these files are
//! looked through before it is let at them. All other damage it finds by itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use underpass_store::BoxError;

/// Records don't cross blocks of this size.
const BLOCK_BYTES: usize = 32 * 1024;
/// Checksum, length, type.
const HEADER_BYTES: usize = 7;
/// Types of records in a file that was used before, from RocksDB's `log_format.h`.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Looks through the manifests and logs in RocksDB's folder. What can't be read is for RocksDB to judge.
pub(crate) fn refuse_recycled(database: &Path) -> Result<(), BoxError> {
    let Ok(entries) = fs::read_dir(database) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("MANIFEST-") && !name.ends_with(".log") {
            continue;
        }
        if let Ok(Some(at)) = File::open(entry.path()).and_then(first_recycled) {
            return Err(format!("{name} is damaged: the record at byte {at} can't be").into());
        }
    }
    Ok(())
}

/// Where the first record of a recycled file is, unless RocksDB stops before it.
fn first_recycled(mut file: File) -> io::Result<Option<u64>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut begin = 0;
    loop {
        block.clear();
        (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        match look(&block) {
            Looked::Recycled(at) => return Ok(Some(begin + at as u64)),
            Looked::On if block.len() == BLOCK_BYTES => begin += BLOCK_BYTES as u64,
            Looked::On | Looked::Broken => return Ok(None),
        }
    }
}

/// What is in a block.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    /// Whole records, and perhaps padding.
    On,
    /// A record that isn't whole, where RocksDB stops.
    Broken,
    /// A record of a recycled file.
    Recycled(usize),
}

fn look(block: &[u8]) -> Looked {
    let mut at = 0;
    while let Some(&[a, b, c, d, low, high, kind]) = block.get(at..at + HEADER_BYTES) {
        let length = usize::from(u16::from_le_bytes([low, high]));
        if RECYCLED.contains(&kind) {
            return Looked::Recycled(at);
        }
        if kind == 0 && length == 0 {
            return Looked::On;
        }
        let end = at + HEADER_BYTES + length;
        let covered = block.get(at + HEADER_BYTES - 1..end);
        if covered.is_none_or(|covered| masked(crc32c::crc32c(covered)) != u32::from_le_bytes([a, b, c, d])) {
            return Looked::Broken;
        }
        at = end;
    }
    Looked::On
}

/// As RocksDB stores checksums.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let covered = [&[kind], payload].concat();
        let length = u16::try_from(payload.len()).unwrap();
        let checksum = masked(crc32c::crc32c(&covered));
        [&checksum.to_le_bytes()[..], &length.to_le_bytes(), &covered].concat()
    }

    #[test]
    fn a_record_of_a_recycled_file_is_found_where_rocksdb_would_get_to_it() {
        let good = record(1, b"abc");
        let mut broken = good.clone();
        broken[HEADER_BYTES] ^= 1;
        for kind in RECYCLED {
            let bad = record(kind, b"abc");
            assert_eq!(look(&[&good[..], &bad].concat()), Looked::Recycled(good.len()));
            assert_eq!(look(&[&broken[..], &bad].concat()), Looked::Broken);
            assert_eq!(look(&bad[..HEADER_BYTES]), Looked::Recycled(0), "cut off");
        }
        assert_eq!(look(&[&good[..], &[0; 100]].concat()), Looked::On, "padding");
        assert_eq!(look(&[&good[..], &good[..5]].concat()), Looked::On, "less than a header");
        assert_eq!(look(&good[..good.len() - 1]), Looked::Broken, "less than its length");
    }

    #[test]
    fn every_block_is_looked_through() {
        let folder = tempfile::tempdir().unwrap();
        let half = record(1, &vec![7; BLOCK_BYTES / 2 - HEADER_BYTES]);
        let blocks = [&half[..], &half, &half, &half].concat();
        let path = folder.path().join("000004.log");
        fs::write(&path, &blocks).unwrap();
        refuse_recycled(folder.path()).unwrap();
        fs::write(&path, [&blocks[..], &record(6, b"x")].concat()).unwrap();
        let error = refuse_recycled(folder.path()).unwrap_err().to_string();
        assert!(error.contains("000004.log") && error.contains("byte 65536"), "{error}");
        fs::rename(&path, folder.path().join("000004.sst")).unwrap();
        refuse_recycled(folder.path()).unwrap();
        refuse_recycled(&folder.path().join("missing")).unwrap();
    }
}
