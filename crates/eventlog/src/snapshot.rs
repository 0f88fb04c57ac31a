//! Stored read models: a start reads the newest and the frames after it.
//!
//! A snapshot saves time and proves nothing. One that doesn't fit (damaged, of another release, of a
//! position whose hash is another) is thrown away, and the log is replayed instead.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use underpass_domain::{Aggregate, Digest32, LogName, Position, Timestamp, codec, registry};
use underpass_store::{Key, Store, StoreError};

use crate::codes::{self, Tagged};
use crate::fold::{Chain, Fold, StreamAt, Streams};
use crate::frame::{FORMAT, FrameError};
use crate::keys;

/// Snapshots that are kept: the newest, and one before it in case the newest doesn't fit.
pub(crate) const KEPT: usize = 2;
/// Manifests looked at. More than are ever kept; a crash between two deletions can leave a few.
const LISTED_MAX: usize = 16;
/// Bytes of a chunk, or less where the store takes less at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks read or deleted at once: 2 MiB, which every backend can answer.
const CHUNKS_PAGE: usize = 8;
/// The largest snapshot, the streams' versions included. Twice what the codec allows for the state.
const BYTES_MAX: u64 = 2 * codec::SNAPSHOT_BYTES_MAX as u64;

const MAGIC: [u8; 4] = *b"UPLS";
const MANIFEST_BYTES: usize = 168;
const CRC_AT: usize = MANIFEST_BYTES - 4;
/// Bytes of how far one stream has got.
const STREAM_BYTES: usize = 33;
/// Raised when what stands beside the state changes its layout.
const LAYOUT: u8 = 2;

/// What a stored snapshot holds. Everything is checked before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    log: LogName,
    id: [u8; 16],
    epoch: u64,
    pub(crate) position: Position,
    pub(crate) hash: Digest32,
    recorded_at: Timestamp,
    /// Hash of what the bytes mean; another release, other events, another model: another number.
    model: Digest32,
    length: u64,
    chunk_bytes: u32,
    chunks: u32,
    content: Digest32,
}

impl Manifest {
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(MANIFEST_BYTES);
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(codes::log_number(self.log));
        out.put_u16_le(0);
        out.put_slice(&self.id);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.position.0);
        out.put_u64_le(self.recorded_at.0);
        out.put_slice(&self.hash.0);
        out.put_slice(&self.model.0);
        out.put_u64_le(self.length);
        out.put_u32_le(self.chunk_bytes);
        out.put_u32_le(self.chunks);
        out.put_slice(&self.content.0);
        out.put_u32_le(0);
        out.put_u32_le(crc32c::crc32c(&out));
        Bytes::from(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() != MANIFEST_BYTES {
            return Err(FrameError::Length);
        }
        if bytes[..4] != MAGIC {
            return Err(FrameError::Foreign);
        }
        if (&bytes[CRC_AT..]).get_u32_le() != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(FrameError::Checksum);
        }
        if bytes[4] != FORMAT {
            return Err(FrameError::Newer("a snapshot format"));
        }
        let log = codes::log_name(bytes[5]).ok_or(FrameError::Newer("a log"))?;
        let mut rest = &bytes[8..CRC_AT];
        let mut id = [0; 16];
        rest.copy_to_slice(&mut id);
        let (epoch, position) = (rest.get_u64_le(), Position(rest.get_u64_le()));
        let recorded_at = Timestamp(rest.get_u64_le());
        let (hash, model) = (digest(&mut rest), digest(&mut rest));
        let length = rest.get_u64_le();
        let (chunk_bytes, chunks) = (rest.get_u32_le(), rest.get_u32_le());
        let content = digest(&mut rest);
        if length > BYTES_MAX
            || chunk_bytes == 0
            || length.div_ceil(u64::from(chunk_bytes)) != u64::from(chunks)
        {
            return Err(FrameError::TooLong);
        }
        Ok(Self { log, id, epoch, position, hash, recorded_at, model, length, chunk_bytes, chunks, content })
    }
}

fn digest(rest: &mut &[u8]) -> Digest32 {
    let mut bytes = [0; 32];
    rest.copy_to_slice(&mut bytes);
    Digest32(bytes)
}

/// Everything that the meaning of a snapshot's bytes depends on, and can be named.
fn model<A: Aggregate>() -> Digest32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LAYOUT]);
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(std::any::type_name::<A>().as_bytes());
    for kind in registry().iter().filter(|kind| kind.log == A::LOG) {
        hasher.update(&kind.number.to_le_bytes());
        hasher.update(&kind.version.to_le_bytes());
    }
    Digest32(*hasher.finalize().as_bytes())
}

/// Why no snapshot was stored. The log does without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the store did not take the snapshot")]
    Store(#[from] StoreError),
    #[error("the read model is too large for a snapshot")]
    Encode(#[from] codec::EncodeError),
    #[error("encoding the read model failed")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Stores a snapshot of `fold`, then deletes the ones that are no longer needed. Gives its size.
pub(crate) async fn store<A: Aggregate>(
    store: &Arc<dyn Store>,
    fold: Fold<A>,
    id: [u8; 16],
) -> Result<u64, SnapshotError> {
    let log = A::LOG;
    let chain = &fold.chain;
    let (epoch, position, hash) = (chain.epoch, chain.position, chain.hash);
    let recorded_at = chain.recorded_at;
    // Encoding a large model takes a while and must hold up neither the appender nor the runtime.
    let encoded = tokio::task::spawn_blocking(move || encode(&fold)).await??;
    let limits = store.limits();
    let chunk_bytes = CHUNK_BYTES.min(limits.value_bytes_max).min(limits.commit_bytes_max / 2).max(1);
    let content = Digest32(*blake3::hash(&encoded).as_bytes());
    let length = encoded.len() as u64;
    let mut chunks = 0;
    let mut rest = encoded;
    while rest.has_remaining() {
        let chunk = rest.split_to(chunk_bytes.min(rest.len()));
        store.put(&keys::chunk(log, position, &id, chunks), chunk).await?;
        chunks += 1;
    }
    let manifest = Manifest {
        log,
        id,
        epoch,
        position,
        hash,
        recorded_at,
        model: model::<A>(),
        length,
        chunk_bytes: u32::try_from(chunk_bytes).unwrap_or(u32::MAX),
        chunks,
        content,
    };
    store.put(&keys::manifest(log, position), manifest.encode()).await?;
    prune(store, log).await?;
    Ok(length)
}

/// The manifests in the store, newest first, with the keys of all, also of those that can't be read.
pub(crate) async fn list(
    store: &Arc<dyn Store>,
    log: LogName,
) -> Result<(Vec<Manifest>, Vec<Key>), StoreError> {
    let from = keys::manifest(log, Position(0));
    let entries = store.scan(&from, &keys::manifests_end(log), LISTED_MAX).await?;
    let mut manifests = Vec::new();
    let mut unreadable = Vec::new();
    for entry in entries {
        match Manifest::decode(&entry.value) {
            Ok(manifest) if keys::manifest(log, manifest.position) == entry.key => manifests.push(manifest),
            _ => unreadable.push(entry.key),
        }
    }
    manifests.reverse();
    Ok((manifests, unreadable))
}

/// Reads a snapshot. `None`: it is damaged, or of another release.
pub(crate) async fn load<A: Aggregate>(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
) -> Result<Option<Fold<A>>, StoreError> {
    if manifest.log != A::LOG || manifest.model != model::<A>() {
        return Ok(None);
    }
    let mut encoded = BytesMut::new();
    for number in 0..manifest.chunks {
        let key = keys::chunk(A::LOG, manifest.position, &manifest.id, number);
        match store.get(&key).await? {
            Some(entry) => encoded.extend_from_slice(&entry.value),
            None => return Ok(None),
        }
        if encoded.len() as u64 > manifest.length {
            return Ok(None);
        }
    }
    if encoded.len() as u64 != manifest.length || manifest.content.0 != *blake3::hash(&encoded).as_bytes() {
        return Ok(None);
    }
    let Some((streams, state)) = decode(&encoded) else { return Ok(None) };
    let chain = Chain {
        log: A::LOG,
        epoch: manifest.epoch,
        position: manifest.position,
        hash: manifest.hash,
        recorded_at: manifest.recorded_at,
        streams,
        trimmed: None,
    };
    Ok(Some(Fold { chain, state }))
}

/// Throws away a snapshot that doesn't fit. What its chunks take is freed when older ones are pruned.
pub(crate) async fn discard(store: &Arc<dyn Store>, manifest: &Manifest) -> Result<(), StoreError> {
    store.delete(&keys::manifest(manifest.log, manifest.position)).await?;
    Ok(())
}

/// Deletes all snapshots but the newest [`KEPT`], and chunks that belong to none and are older.
async fn prune(store: &Arc<dyn Store>, log: LogName) -> Result<(), StoreError> {
    let (manifests, unreadable) = list(store, log).await?;
    for key in &unreadable {
        store.delete(key).await?;
    }
    for manifest in manifests.iter().skip(KEPT) {
        discard(store, manifest).await?;
    }
    let Some(oldest) = manifests.get(KEPT - 1) else { return Ok(()) };
    let from = keys::chunks_from(log, Position(0));
    let end = keys::chunks_from(log, oldest.position);
    loop {
        let chunks = store.scan(&from, &end, CHUNKS_PAGE).await?;
        for chunk in &chunks {
            store.delete(&chunk.key).await?;
        }
        if chunks.len() < CHUNKS_PAGE {
            return Ok(());
        }
    }
}

fn encode<A: Aggregate>(fold: &Fold<A>) -> Result<Bytes, codec::EncodeError> {
    let state = codec::encode_snapshot(&fold.state)?;
    let streams = &fold.chain.streams;
    let mut out = Vec::with_capacity(8 + streams.len() * STREAM_BYTES + state.len());
    out.put_u64_le(streams.len() as u64);
    for (stream, at) in streams {
        out.put_slice(stream);
        out.put_u64_le(at.version);
        out.put_u64_le(at.last.0);
    }
    out.put_slice(&state);
    Ok(Bytes::from(out))
}

fn decode<A: Aggregate>(mut rest: &[u8]) -> Option<(Streams, A)> {
    let count = usize::try_from(rest.try_get_u64_le().ok()?).ok()?;
    if count > rest.len() / STREAM_BYTES {
        return None;
    }
    let mut streams = Streams::with_capacity(count);
    for _ in 0..count {
        let mut stream: Tagged = [0; 17];
        rest.try_copy_to_slice(&mut stream).ok()?;
        let version = rest.try_get_u64_le().ok()?;
        streams.insert(stream, StreamAt { version, last: Position(rest.try_get_u64_le().ok()?) });
    }
    let state = codec::decode_snapshot(rest).ok()?;
    Some((streams, state))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use underpass_domain::ActivityState;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            log: LogName::Activity,
            id: [1; 16],
            epoch: 2,
            position: Position(3),
            hash: Digest32([4; 32]),
            recorded_at: Timestamp(5),
            model: Digest32([6; 32]),
            length: 700,
            chunk_bytes: 256,
            chunks: 3,
            content: Digest32([7; 32]),
        }
    }

    #[test]
    fn a_manifest_comes_back_and_every_flipped_bit_is_noticed() {
        let bytes = manifest().encode();
        assert_eq!(bytes.len(), MANIFEST_BYTES);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        for wrong in [
            Manifest { length: BYTES_MAX + 1, ..manifest() },
            Manifest { chunk_bytes: 0, ..manifest() },
            Manifest { chunks: 4, ..manifest() },
        ] {
            assert_eq!(Manifest::decode(&wrong.encode()), Err(FrameError::TooLong), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
            let _ = decode::<ActivityState>(&bytes);
        }
    }
}
