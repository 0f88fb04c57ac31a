//! Taking old frames out of a store: into an archive, and away.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use underpass_domain::{Digest32, LogName, Position, Timestamp};
use underpass_store::{Commit, Guard, Outcome, Retry, Store, StoreError};

use crate::archive::{Archive, ArchiveError, SEGMENT_BYTES};
use crate::error::LogError;
use crate::fold::{AboutLog, about_log, carries, positioned};
use crate::frame::Frame;
use crate::keys;
use crate::landing::stored_id;
use crate::reader::Reader;
use crate::snapshot;
use crate::tail::Tail;

/// Frames that are deleted in one commit: so many are read before, and 8 can be answered by every backend at once,
/// however large they are.
const DELETED_AT_ONCE: usize = 8;

/// Why frames were not archived or trimmed. What was done by then stays so; run it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrimError {
    /// The log can't be read, or is damaged.
    #[error(transparent)]
    Log(#[from] LogError),

    /// The archive can't be used.
    #[error("the archive of the {log} log can't be used")]
    Archive {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: ArchiveError,
    },

    /// The archive holds frames of another history.
    #[error(
        "the archive of the {log} log goes another way than the log behind position {position}: it is of another \
         copy of it"
    )]
    OtherHistory {
        /// Which log.
        log: LogName,
        /// Where the archive ends.
        position: Position,
    },

    /// Some frames are in neither.
    #[error(
        "the archive of the {log} log ends at {until} and the log begins at {first}: what is between is missing"
    )]
    Gap {
        /// Which log.
        log: LogName,
        /// Where the archive ends.
        until: Position,
        /// Where the log begins.
        first: Position,
    },

    /// No event of the log says that this is to be trimmed.
    #[error("no event says that the {log} log is to be trimmed up to {until}")]
    Unannounced {
        /// Which log.
        log: LogName,
        /// The last position to be trimmed.
        until: Position,
    },

    /// The read model could not be made any more: the log holds what is needed nowhere else.
    #[error("the {log} log can't be trimmed without its archive: every event of it is needed")]
    NeedsArchive {
        /// Which log.
        log: LogName,
    },

    /// The store did not take it.
    #[error("the {log} log can't be trimmed at the moment")]
    Store {
        /// Which log.
        log: LogName,
        /// What it says.
        #[source]
        source: StoreError,
    },

    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl TrimError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Log(error) => error.code(),
            Self::Archive { source, .. } => source.code(),
            Self::OtherHistory { .. } => "archive.other_history",
            Self::Gap { .. } => "archive.gap",
            Self::Unannounced { .. } => "log.unannounced",
            Self::NeedsArchive { .. } => "archive.needed",
            Self::Store { .. } => "store.unavailable",
            Self::Stopped => "stopped",
        }
    }
}

/// What was archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ArchivedFrames {
    /// Which log.
    pub log: LogName,
    /// The newest position that is in the archive.
    pub until: Position,
    /// Frames that were added.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies all whole frames up to `until` that an archive lacks, in segments of [`SEGMENT_BYTES`]. What is in the
/// store stays there.
///
/// Each frame is checked to be whole and to follow on the one before, also on the archive's last.
pub async fn archive(
    store: &Arc<dyn Store>,
    archive: &Arc<Archive>,
    until: Position,
    stop: &CancellationToken,
) -> Result<ArchivedFrames, TrimError> {
    let log = archive.log();
    let reader = Reader::new(Arc::clone(store), log);
    let head = reader.present_head().await?;
    let until = until.min(head.position);
    let after = archive.until();
    let mut done = ArchivedFrames { log, until: after, frames: 0, bytes: 0 };
    if until <= after {
        return Ok(done);
    }
    let mut frames = reader.frames_after(after).await?;
    let first = frames.next_position();
    if after.0 > 0 && first != after.next() {
        return Err(TrimError::Gap { log, until: after, first });
    }
    let mut previous = last_hash(archive, after).await?;
    let mut waiting: Vec<(Position, Bytes)> = Vec::new();
    let (mut waiting_bytes, mut last) = (0, after);
    'pages: while frames.next_position() <= until {
        for (bytes, frame) in frames.stored_page(until).await? {
            if stop.is_cancelled() {
                return Err(TrimError::Stopped);
            }
            if previous.is_some_and(|hash| hash != frame.header.previous) {
                return Err(TrimError::OtherHistory { log, position: last });
            }
            previous = Some(frame.hash);
            if frame.last() > until {
                break 'pages;
            }
            waiting_bytes += bytes.len();
            waiting.push((frame.first(), bytes));
            last = frame.last();
            if waiting_bytes >= SEGMENT_BYTES {
                add(archive, std::mem::take(&mut waiting), last, &mut done).await?;
                waiting_bytes = 0;
            }
        }
    }
    add(archive, waiting, last, &mut done).await?;
    Ok(done)
}

async fn add(
    archive: &Arc<Archive>,
    frames: Vec<(Position, Bytes)>,
    last: Position,
    done: &mut ArchivedFrames,
) -> Result<(), TrimError> {
    if frames.is_empty() {
        return Ok(());
    }
    let count = frames.len() as u64;
    let bytes: u64 = frames.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    blocking(archive, move |archive| archive.add(&frames, last)).await?;
    done.until = last;
    done.frames += count;
    done.bytes += bytes;
    Ok(())
}

/// The hash of the archive's last frame.
async fn last_hash(archive: &Arc<Archive>, until: Position) -> Result<Option<Digest32>, TrimError> {
    if until.0 == 0 {
        return Ok(None);
    }
    let Some((first, _)) = archive.segments().pop() else { return Ok(None) };
    let frames = blocking(archive, move |archive| archive.frames(first, until.next(), usize::MAX)).await?;
    let Some((at, bytes)) = frames.last() else { return Ok(None) };
    let frame = Frame::decode(bytes).map_err(|error| LogError::frame(archive.log(), *at, error))?;
    Ok(Some(frame.hash))
}

async fn blocking<T: Send + 'static>(
    archive: &Arc<Archive>,
    work: impl FnOnce(&Archive) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, TrimError> {
    let log = archive.log();
    let archive = Arc::clone(archive);
    match tokio::task::spawn_blocking(move || work(&archive)).await {
        Ok(done) => done.map_err(|source| TrimError::Archive { log, source }),
        Err(error) => {
            let source = StoreError::unavailable("archive", error);
            Err(TrimError::Store { log, source })
        }
    }
}

/// Where a log can be cut: right before the frame that holds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The last position that is cut off.
    pub until: Position,
    /// The chained hash there.
    pub hash: Digest32,
}

/// The cut before the frame that holds `position`; `None` if that is the first frame that is left.
pub async fn cut_before(
    store: &Arc<dyn Store>,
    log: LogName,
    position: Position,
) -> Result<Option<Cut>, LogError> {
    let reader = Reader::new(Arc::clone(store), log);
    let frame = reader.present_frame(position).await?;
    let until = Position(frame.first().0 - 1);
    let begins = reader.tail().await?.map_or(Position(0), |tail| tail.until);
    Ok((until > begins).then_some(Cut { until, hash: frame.header.previous }))
}

/// The cut behind which a start needs nothing: at the older of the snapshots that are kept, and before the first
/// frame recorded at `time` or later. `None` if there are no two snapshots, or nothing to cut.
pub async fn cut_below_snapshots(
    store: &Arc<dyn Store>,
    log: LogName,
    time: Timestamp,
) -> Result<Option<Cut>, LogError> {
    let reader = Reader::new(Arc::clone(store), log);
    let head = reader.present_head().await?;
    let (manifests, _) = snapshot::list(store, log).await.map_err(|source| LogError::store(log, source))?;
    let Some(oldest) = manifests.get(snapshot::KEPT - 1) else { return Ok(None) };
    let old = reader.position_at(time, &head).await?;
    let begins = reader.tail().await?.map_or(Position(0), |tail| tail.until);
    let last = oldest.position.min(old).min(Position(head.position.0 - 1));
    if last <= begins {
        return Ok(None);
    }
    cut_before(store, log, last.next()).await
}

/// What was trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrimmedFrames {
    /// Which log.
    pub log: LogName,
    /// The last position that is cut off.
    pub until: Position,
    /// Frames that were deleted.
    pub frames: u64,
}

/// Deletes the frames up to and with `cut`, after it has made sure that an event of the log says so, and that an
/// archive holds them; the control log is not trimmed without one, the activity log may.
///
/// First it is noted where the log begins from now on, then the oldest frames go first: after a kill it is run again
/// and goes on. Reading goes on meanwhile. `store` is the bare one, without [`Archived`](crate::Archived).
pub async fn trim(
    store: &Arc<dyn Store>,
    log: LogName,
    cut: Cut,
    archive: Option<&Archive>,
    stop: &CancellationToken,
) -> Result<TrimmedFrames, TrimError> {
    match archive {
        Some(archive) if archive.until() < cut.until => return Err(TrimError::NeedsArchive { log }),
        None if !carries(log) => return Err(TrimError::NeedsArchive { log }),
        _ => {}
    }
    let reader = Reader::new(Arc::clone(store), log);
    let head = reader.present_head().await?;
    let noted = reader.tail().await?;
    if noted.is_none_or(|tail| tail.until < cut.until) {
        let frame = reader.present_frame(cut.until).await?;
        if frame.last() != cut.until || frame.hash != cut.hash {
            let why = "the frame that is to be the last to be trimmed is another";
            return Err(LogError::corrupt(log, cut.until, why).into());
        }
        announced(&reader, cut, head.position).await?;
        let tail = Tail::behind(&frame, stored_id(&reader).await?);
        note(&reader, &tail).await?;
    }
    delete(&reader, cut.until, stop).await
}

/// Deletes what the tail says is cut off and a kill has left over; 0 if there is nothing, or no tail. `store` is the
/// bare one, as for [`trim`].
pub async fn delete_trimmed(
    store: &Arc<dyn Store>,
    log: LogName,
    stop: &CancellationToken,
) -> Result<u64, TrimError> {
    let reader = Reader::new(Arc::clone(store), log);
    match reader.tail().await? {
        Some(tail) => Ok(delete(&reader, tail.until, stop).await?.frames),
        None => Ok(0),
    }
}

/// Looks for the event from the end of the log backwards: it was appended just now.
async fn announced(reader: &Reader, cut: Cut, head: Position) -> Result<(), TrimError> {
    let log = reader.log;
    let mut at = head;
    while at > cut.until {
        let frame = reader.present_frame(at).await?;
        for (position, record) in positioned(&frame) {
            let said = about_log(log, frame.header.codec, position, record)?;
            if said == Some(AboutLog::Trimmed { until: cut.until, hash: cut.hash }) {
                return Ok(());
            }
        }
        at = Position(frame.first().0 - 1);
    }
    Err(TrimError::Unannounced { log, until: cut.until })
}

async fn note(reader: &Reader, tail: &Tail) -> Result<(), TrimError> {
    let log = reader.log;
    let refused = |source| TrimError::Store { log, source };
    let key = keys::tail(log);
    let there = reader.store.get(&key).await.map_err(refused)?;
    let guard = there.map_or(Guard::Absent, |entry| Guard::At(entry.revision));
    let commit = Commit::new().guard(key.clone(), guard).put(key, tail.encode());
    match reader.store.commit(commit).await {
        Ok(Outcome::Committed(_)) => Ok(()),
        // Another node does the same at this moment, or the outcome was unknown: it counts what is there now.
        Ok(Outcome::Conflict(_)) => match reader.tail().await? {
            Some(there) if there.until >= tail.until => Ok(()),
            _ => Err(refused(StoreError::unavailable("commit", "another node trims the log"))),
        },
        Err(error) if error.retry() == Retry::Same => match reader.tail().await? {
            Some(there) if there == *tail => Ok(()),
            _ => Err(refused(error)),
        },
        Err(error) => Err(refused(error)),
    }
}

async fn delete(
    reader: &Reader,
    until: Position,
    stop: &CancellationToken,
) -> Result<TrimmedFrames, TrimError> {
    let log = reader.log;
    let refused = |source| TrimError::Store { log, source };
    let mut trimmed = TrimmedFrames { log, until, frames: 0 };
    let (mut from, to) = (keys::frame(log, Position(0)), keys::frame(log, until.next()));
    loop {
        if stop.is_cancelled() {
            return Err(TrimError::Stopped);
        }
        let entries = reader.store.scan(&from, &to, DELETED_AT_ONCE).await.map_err(refused)?;
        let Some(last) = entries.last() else { return Ok(trimmed) };
        from = last.key.successor();
        let commit = entries.iter().fold(Commit::new(), |commit, entry| commit.delete(entry.key.clone()));
        // Without guards there is nothing to conflict with.
        let _ = reader.store.commit(commit).await.map_err(refused)?;
        trimmed.frames += entries.len() as u64;
    }
}
