//! A log on its way into a store: what `copy` and `import` share.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use underpass_domain::{Digest32, LogId, LogName, Position};
use underpass_store::{Commit, Entry, Guard, Key, Revision, Store, StoreError};

use crate::commit::{self, Delivered};
use crate::copy_error::CopyError;
use crate::error::LogError;
use crate::fold;
use crate::frame::Frame;
use crate::head::Head;
use crate::keys;
use crate::marker::Marker;
use crate::options::frame_bytes_max;
use crate::reader::Reader;
use crate::tail::Tail;

/// What a frame costs in a commit beside its bytes: its key as name and, twice, as guard, and what a store
/// counts for a write and a guard.
const FRAME_EXTRA_BYTES: usize = 256;
/// Writes and guards of a commit that are not frames: the head, the marker and the tail.
const OPS_EXTRA: usize = 3;
/// How often an entry is read again that is older than a commit has just been told.
const STALE_READS_MAX: u32 = 5;

/// Takes the frames of one log in order and commits them, several at once. Until [`finish`](Self::finish) has
/// written the head, the log bears a marker and counts for nothing.
#[derive(Debug)]
pub(crate) struct Landing {
    reader: Reader,
    id: LogId,
    stop: CancellationToken,
    /// What was there at the beginning.
    found: Reached,
    /// Where the target's log is to begin; `None` once that is written, or if it has its first event.
    tail: Option<Tail>,
    /// What is there now.
    reached: Reached,
    marker: Option<Revision>,
    head: Option<Revision>,
    waiting: Vec<(Position, Bytes)>,
    waiting_bytes: usize,
    /// Where what waits ends.
    end: Reached,
    frames_max: usize,
    bytes_max: usize,
}

/// How far a log has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) position: Position,
    pub(crate) hash: Digest32,
}

impl Landing {
    /// Looks at what is in the target. Nothing is written.
    pub(crate) async fn open(
        store: &Arc<dyn Store>,
        log: LogName,
        id: LogId,
        tail: Option<Tail>,
        stop: &CancellationToken,
    ) -> Result<Self, CopyError> {
        let reader = Reader::new(Arc::clone(store), log);
        let head = reader.head().await.map_err(CopyError::Target)?;
        let marker = marker(&reader).await.map_err(CopyError::Target)?;
        let (found, there) = match (&marker, &head) {
            (Some((marker, _)), _) => {
                (Reached { position: marker.position, hash: marker.hash }, Some(marker.id))
            }
            (None, Some((head, _))) => {
                let id = stored_id(&reader).await.map_err(CopyError::Target)?;
                (Reached { position: head.position, hash: head.hash }, Some(id))
            }
            (None, None) if reader.any_frame().await.map_err(CopyError::Target)? => {
                let why = "there are frames, but no head";
                return Err(CopyError::Target(LogError::corrupt(log, Position(0), why)));
            }
            (None, None) => (Reached { position: Position(0), hash: Digest32([0; 32]) }, None),
        };
        let empty = found.position == Position(0);
        let found = match &tail {
            Some(tail) if empty => Reached { position: tail.until, hash: tail.hash },
            Some(tail) if found.position < tail.until => {
                let (first, there) = (tail.until.next(), found.position);
                return Err(CopyError::Gap { log, first, there });
            }
            _ => found,
        };
        if let Some(there) = there.filter(|there| *there != id) {
            return Err(CopyError::OtherLog { log, id, there });
        }
        if !empty {
            let frame = reader.frame_at(found.position).await.map_err(CopyError::Target)?;
            if frame.is_none_or(|frame| frame.last() != found.position || frame.hash != found.hash) {
                let why = "the last frame is not the one that is named";
                return Err(CopyError::Target(LogError::corrupt(log, found.position, why)));
            }
        }
        let limits = store.limits();
        Ok(Self {
            id,
            stop: stop.clone(),
            found,
            tail: tail.filter(|_| empty),
            reached: found,
            marker: marker.map(|(_, revision)| revision),
            head: head.map(|(_, revision)| revision),
            waiting: Vec::new(),
            waiting_bytes: 0,
            end: found,
            frames_max: limits.commit_ops_max.saturating_sub(OPS_EXTRA).max(1),
            bytes_max: frame_bytes_max(&limits),
            reader,
        })
    }

    /// The id of the log.
    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// What was in the target at the beginning.
    pub(crate) fn found(&self) -> Position {
        self.found.position
    }

    /// What is in the target now.
    pub(crate) fn reached(&self) -> Position {
        self.reached.position
    }

    /// Takes the next frame. What is there already is compared; what is not waits for the next commit.
    pub(crate) async fn take(&mut self, frame: &Frame, bytes: Bytes) -> Result<(), CopyError> {
        let log = self.reader.log;
        if frame.first() <= self.found.position {
            let within = frame.last() < self.found.position;
            let same = frame.last() == self.found.position && frame.hash == self.found.hash;
            let position = frame.first();
            return if within || same { Ok(()) } else { Err(CopyError::Differs { log, position }) };
        }
        if bytes.len() > self.bytes_max {
            let (position, bytes, max) = (frame.first(), bytes.len(), self.bytes_max);
            return Err(CopyError::TooLarge { log, position, bytes, max });
        }
        let cost = bytes.len() + FRAME_EXTRA_BYTES;
        let full = self.waiting.len() == self.frames_max || self.waiting_bytes + cost > self.bytes_max;
        if full && !self.waiting.is_empty() {
            self.flush().await?;
        }
        self.waiting.push((frame.first(), bytes));
        self.waiting_bytes += cost;
        self.end = Reached { position: frame.last(), hash: frame.hash };
        Ok(())
    }

    /// Writes the head, and with it the log counts. False if all was there already. `head` names the last
    /// frame that was taken.
    pub(crate) async fn finish(mut self, head: &Head) -> Result<bool, CopyError> {
        let log = self.reader.log;
        if self.found.position > head.position {
            return Err(CopyError::Ahead { log, end: head.position, there: self.found.position });
        }
        let written = !(self.waiting.is_empty() && self.marker.is_none() && self.head.is_some());
        if written {
            let mut commit = self.frames();
            let key = keys::head(log);
            commit = commit.put(key.clone(), head.encode());
            if self.marker.is_some() {
                commit = commit.delete(keys::copying(log));
            }
            self.send(commit, key, head.encode()).await?;
        }
        match self.reader.head().await.map_err(CopyError::Target)? {
            Some((there, _)) if there == *head => Ok(written),
            _ => Err(CopyError::Contended { log }),
        }
    }

    async fn flush(&mut self) -> Result<(), CopyError> {
        let log = self.reader.log;
        let Reached { position, hash } = self.end;
        let marker = Marker { log, id: self.id, position, hash }.encode();
        let key = keys::copying(log);
        let commit = self.frames().put(key.clone(), marker.clone());
        self.marker = Some(self.send(commit, key, marker).await?);
        self.reached = self.end;
        Ok(())
    }

    /// A commit with what waits, guarded by everything in the target being as it was left.
    fn frames(&mut self) -> Commit {
        let log = self.reader.log;
        let guard = |revision: Option<Revision>| revision.map_or(Guard::Absent, Guard::At);
        let mut commit = Commit::new()
            .guard(keys::copying(log), guard(self.marker))
            .guard(keys::head(log), guard(self.head));
        if let Some(tail) = self.tail.take() {
            commit = commit.guard(keys::tail(log), Guard::Absent).put(keys::tail(log), tail.encode());
        }
        for (first, bytes) in self.waiting.drain(..) {
            let key = keys::frame(log, first);
            commit = commit.guard(key.clone(), Guard::Absent).put(key, bytes);
        }
        self.waiting_bytes = 0;
        commit
    }

    /// Sends a commit that writes `value` at `key`, and gives the revision in which it happened.
    async fn send(&self, commit: Commit, key: Key, value: Bytes) -> Result<Revision, CopyError> {
        let log = self.reader.log;
        if self.stop.is_cancelled() {
            return Err(CopyError::Stopped { log, position: self.reached.position });
        }
        let (failed, uncertain) = match commit::deliver(&*self.reader.store, log, commit).await {
            Delivered::Committed(revision) => return Ok(revision),
            Delivered::Failed(error) => return Err(CopyError::Unavailable(error)),
            Delivered::Unknown(error) => return Err(CopyError::Indeterminate(error)),
            Delivered::Conflict { failed, uncertain } => (failed, uncertain),
        };
        // An unknown outcome: if what this commit writes is there, it is this commit that stands in its own
        // way. (Or another copy of the same log: then it has written the same, and is as good.)
        if uncertain
            && let Some(entry) = self.written_since(&key, &failed).await?
            && entry.value == value
        {
            return Ok(entry.revision);
        }
        let others = [keys::head(log), keys::copying(log)];
        match failed.iter().find_map(|(key, _)| keys::frame_position(log, key.as_ref())) {
            Some(at) if !failed.iter().any(|(key, _)| others.contains(key)) => {
                let why = "a frame lies behind the end of the log";
                Err(CopyError::Target(LogError::corrupt(log, at, why)))
            }
            _ => Err(CopyError::Contended { log }),
        }
    }

    /// The entry at `key`, at least as new as the conflict has told.
    async fn written_since(
        &self,
        key: &Key,
        failed: &[(Key, Option<Revision>)],
    ) -> Result<Option<Entry>, CopyError> {
        let least = failed.iter().find(|(at, _)| at == key).and_then(|(_, revision)| *revision);
        let Some(least) = least else { return Ok(None) };
        for _ in 0..STALE_READS_MAX {
            let entry = self.reader.store.get(key).await.map_err(CopyError::Indeterminate)?;
            if entry.as_ref().is_some_and(|entry| entry.revision >= least) {
                return Ok(entry);
            }
        }
        let why = "the entry is older than the store says it is";
        Err(CopyError::Indeterminate(StoreError::unavailable("get", why)))
    }
}

async fn marker(reader: &Reader) -> Result<Option<(Marker, Revision)>, LogError> {
    let log = reader.log;
    let entry = reader.store.get(&keys::copying(log)).await;
    let Some(entry) = entry.map_err(|error| LogError::store(log, error))? else { return Ok(None) };
    match Marker::decode(&entry.value) {
        Ok(marker) if marker.log == log => Ok(Some((marker, entry.revision))),
        Ok(_) => Err(LogError::Foreign { log }),
        Err(error) => {
            let why = format!("the marker of a copy can't be read: {error}");
            Err(LogError::corrupt(log, Position(0), why))
        }
    }
}

/// The id of the log that a store holds.
pub(crate) async fn stored_id(reader: &Reader) -> Result<LogId, LogError> {
    match reader.tail().await? {
        Some(tail) => Ok(tail.id),
        None => fold::log_id(&reader.present_frame(Position(1)).await?),
    }
}
