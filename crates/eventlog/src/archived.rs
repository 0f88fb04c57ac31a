//! A store with an archive behind it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use underpass_domain::{LogName, Position};
use underpass_store::{
    CasStore, Commit, Entry, ExpirableStore, Key, KvStore, LeaseId, Limits, Outcome, Renewal, Revision,
    Store, StoreError, Watch, WatchableStore,
};

use crate::archive::{Archive, ArchiveError, Archives};
use crate::error::LogError;
use crate::keys;
use crate::landing::stored_id;
use crate::reader::Reader;
use crate::trim::TrimError;

/// Frames in the answer to one scan that come from an archive: as many as the largest page of a sequential read.
const SCAN_MAX: usize = 512;

/// A store in which the frames of an archive can still be read, as if they had never been deleted. Everything else
/// goes to the store.
///
/// An entry that comes out of the archive has revision 0.
#[derive(Debug)]
pub struct Archived {
    store: Arc<dyn Store>,
    archives: Arc<Archives>,
}

impl Archived {
    /// `store`, with what the folder `root` holds of its logs.
    ///
    /// # Errors
    /// The store can't be asked which logs it has, or the folder can't be read. A log that is damaged is no error
    /// here: whoever opens it says what is wrong.
    pub async fn open(
        store: Arc<dyn Store>,
        root: &Path,
    ) -> Result<(Arc<dyn Store>, Arc<Archives>), TrimError> {
        let archives = Archives::at(root);
        for log in LogName::ALL {
            match stored_id(&Reader::new(Arc::clone(&store), log)).await {
                Ok(id) => {
                    archives.of(log, id).map_err(|source| TrimError::Archive { log, source })?;
                }
                Err(error @ LogError::Unavailable { .. }) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let whole = Self { store, archives: Arc::clone(&archives) };
        Ok((Arc::new(whole), archives))
    }

    /// The archive that holds frames from `from` on, as long as `from` is not behind its end.
    fn behind(&self, from: &Key, to: &Key) -> Option<(Arc<Archive>, Position, Position)> {
        LogName::ALL.into_iter().find_map(|log| {
            let first = keys::frame_position(log, from.as_ref())?;
            let archive = self.archives.opened(log).filter(|archive| first <= archive.until())?;
            // The end of a range of frames is a frame's place or the end of all.
            let end = keys::frame_position(log, to.as_ref()).unwrap_or(Position(u64::MAX));
            Some((archive, first, end))
        })
    }
}

async fn read(
    archive: Arc<Archive>,
    from: Position,
    to: Position,
    limit: usize,
) -> Result<Vec<(Position, Bytes)>, StoreError> {
    let log = archive.log();
    let read = tokio::task::spawn_blocking(move || archive.frames(from, to, limit)).await;
    match read {
        Ok(Ok(frames)) => Ok(frames),
        Ok(Err(error @ ArchiveError::Damaged { .. })) => {
            Err(StoreError::Corrupt { key: keys::frame(log, from), source: error.into() })
        }
        Ok(Err(error)) => Err(StoreError::unavailable("scan", error)),
        Err(error) => Err(StoreError::unavailable("scan", error)),
    }
}

#[async_trait]
impl KvStore for Archived {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let Some((archive, first, end)) = self.behind(from, to) else {
            return self.store.scan(from, to, limit).await;
        };
        let log = archive.log();
        let until = archive.until();
        let frames = read(archive, first, end, limit.min(SCAN_MAX)).await?;
        let mut entries: Vec<Entry> = frames
            .into_iter()
            .map(|(at, value)| Entry { key: keys::frame(log, at), value, revision: Revision(0), lease: None })
            .collect();
        let more = limit.min(SCAN_MAX) - entries.len();
        if more > 0 && until < end {
            let behind = keys::frame(log, until.next());
            if behind < *to {
                entries.extend(self.store.scan(&behind, to, more).await?);
            }
        }
        Ok(entries)
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.store.put(key, value).await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.store.delete(key).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[async_trait]
impl CasStore for Archived {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        self.store.commit(commit).await
    }
}

#[async_trait]
impl WatchableStore for Archived {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after).await
    }
}

#[async_trait]
impl ExpirableStore for Archived {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.store.grant(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.store.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.store.put_leased(key, value, lease).await
    }
}
