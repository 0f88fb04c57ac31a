//! Frames out of the store.

use std::sync::Arc;

use bytes::Bytes;
use underpass_domain::{Digest32, LogName, Position, Timestamp};
use underpass_store::{Entry, Revision, Store};

use crate::error::LogError;
use crate::frame::{FRAME_EVENTS_MAX, Frame, FrameError};
use crate::head::Head;
use crate::keys;
use crate::tail::Tail;

/// Frames in the first page of a sequential read: 2 MiB if all are as large as batches get, which
/// every backend can answer at once.
const PAGE_FRAMES_MIN: usize = 8;
/// Frames in the largest page.
const PAGE_FRAMES_MAX: usize = 512;
/// What a page aims at, by the size of the frames before it.
const PAGE_BYTES: usize = 1 << 20;

/// Reads one log of a store.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) log: LogName,
}

impl Reader {
    pub(crate) fn new(store: Arc<dyn Store>, log: LogName) -> Self {
        Self { store, log }
    }

    /// The head and the revision it was written in.
    pub(crate) async fn head(&self) -> Result<Option<(Head, Revision)>, LogError> {
        let log = self.log;
        let entry = self.store.get(&keys::head(log)).await;
        let Some(entry) = entry.map_err(|error| LogError::store(log, error))? else {
            return Ok(None);
        };
        match Head::decode(&entry.value) {
            Ok(head) if head.log == log => Ok(Some((head, entry.revision))),
            Ok(_) | Err(FrameError::Foreign) => Err(LogError::Foreign { log }),
            Err(error @ FrameError::Newer(_)) => Err(LogError::frame(log, Position(0), error)),
            Err(error) => {
                let why = format!("the head can't be read: {error}");
                Err(LogError::corrupt(log, Position(0), why))
            }
        }
    }

    /// Where the log was trimmed, if it ever was.
    pub(crate) async fn tail(&self) -> Result<Option<Tail>, LogError> {
        let log = self.log;
        let entry = self.store.get(&keys::tail(log)).await;
        let Some(entry) = entry.map_err(|error| LogError::store(log, error))? else {
            return Ok(None);
        };
        match Tail::decode(&entry.value) {
            Ok(tail) if tail.log == log => Ok(Some(tail)),
            Ok(_) | Err(FrameError::Foreign) => Err(LogError::Foreign { log }),
            Err(error @ FrameError::Newer(_)) => Err(LogError::frame(log, Position(0), error)),
            Err(error) => {
                let why = format!("the entry that says where the log was trimmed can't be read: {error}");
                Err(LogError::corrupt(log, Position(0), why))
            }
        }
    }

    /// What is missing where the log can be read first: nothing, if its first frame is there (in the store or
    /// in an archive), else all up to the tail.
    pub(crate) async fn beginning(&self) -> Result<Option<Tail>, LogError> {
        let Some(tail) = self.tail().await? else { return Ok(None) };
        let end = keys::frame(self.log, Position(2));
        Ok(if self.scan(Position(0), &end, 1).await?.is_empty() { Some(tail) } else { None })
    }

    /// Why there is no frame at `position`, where one ought to be.
    async fn missing(&self, position: Position) -> LogError {
        match self.tail().await {
            Ok(Some(tail)) if position <= tail.until => {
                LogError::Trimmed { log: self.log, first: tail.until.next() }
            }
            Ok(_) => LogError::corrupt(self.log, position, MISSING),
            Err(error) => error,
        }
    }

    /// Whether the frame that holds `position` is gone.
    pub(crate) async fn lacks(&self, position: Position) -> Result<bool, LogError> {
        Ok(self.frame_at(position).await?.is_none())
    }

    /// The frame that holds `position`, which lies within the log.
    pub(crate) async fn present_frame(&self, position: Position) -> Result<Frame, LogError> {
        match self.frame_at(position).await? {
            Some(frame) => Ok(frame),
            None => Err(self.missing(position).await),
        }
    }

    /// A log that bears the mark of a copy under way counts for nothing yet.
    pub(crate) async fn refuse_half_copied(&self) -> Result<(), LogError> {
        let log = self.log;
        let marker = self.store.get(&keys::copying(log)).await;
        match marker.map_err(|error| LogError::store(log, error))? {
            None => Ok(()),
            Some(_) => Err(LogError::HalfCopied { log }),
        }
    }

    /// A log that bears the mark of a repair under way has no head.
    pub(crate) async fn refuse_half_repaired(&self) -> Result<(), LogError> {
        let log = self.log;
        let marker = self.store.get(&keys::repairing(log)).await;
        match marker.map_err(|error| LogError::store(log, error))? {
            None => Ok(()),
            Some(_) => Err(LogError::HalfRepaired { log }),
        }
    }

    /// The head of a log that must be there, whole.
    pub(crate) async fn present_head(&self) -> Result<Head, LogError> {
        self.refuse_half_copied().await?;
        if let Some((head, _)) = self.head().await? {
            return Ok(head);
        }
        self.refuse_half_repaired().await?;
        Err(LogError::Absent { log: self.log })
    }

    /// The frame that holds `position`. A store can only scan forward, so ever more keys before the
    /// position are looked through; there are frames between the last look and the next only if the one
    /// sought is longer than the last look reached, so few of them are read twice or in vain.
    pub(crate) async fn frame_at(&self, position: Position) -> Result<Option<Frame>, LogError> {
        if position.0 == 0 {
            return Ok(None);
        }
        let end = keys::frame(self.log, Position(position.0.saturating_add(1)));
        let mut reach = 0;
        loop {
            let from = Position(position.0.saturating_sub(reach).max(1));
            let limit = usize::try_from(reach).unwrap_or(FRAME_EVENTS_MAX) + 1;
            let entries = self.scan(from, &end, limit).await?;
            if let Some(entry) = entries.last() {
                let frame = self.decode(entry)?;
                return Ok((frame.last() >= position).then_some(frame));
            }
            if from.0 == 1 || reach >= FRAME_EVENTS_MAX as u64 {
                return Ok(None);
            }
            reach = (reach * 4 + 3).min(FRAME_EVENTS_MAX as u64);
        }
    }

    /// Whether any frame is stored.
    pub(crate) async fn any_frame(&self) -> Result<bool, LogError> {
        let end = keys::frames_end(self.log);
        Ok(!self.scan(Position(0), &end, 1).await?.is_empty())
    }

    /// Where the first stored frame begins.
    pub(crate) async fn first_position(&self) -> Result<Option<Position>, LogError> {
        let end = keys::frames_end(self.log);
        let entries = self.scan(Position(0), &end, 1).await?;
        Ok(entries.first().and_then(|entry| keys::frame_position(self.log, entry.key.as_ref())))
    }

    /// Reads frames in order, from the one that holds the position after `after`; after 0, from where the log
    /// begins.
    pub(crate) async fn frames_after(&self, after: Position) -> Result<Frames, LogError> {
        if after.0 == 0 {
            let behind = self.beginning().await?.map_or(Position(0), |tail| tail.until);
            return Ok(self.frames_behind(behind));
        }
        let mut frames = self.frames_behind(after);
        if let Some(frame) = self.frame_at(after.next()).await? {
            frames.next = frame.first();
        }
        Ok(frames)
    }

    /// Reads frames in order, where one is known to end at `after`.
    pub(crate) fn frames_behind(&self, after: Position) -> Frames {
        Frames { reader: self.clone(), next: after.next(), page: PAGE_FRAMES_MIN, last_hash: None }
    }

    /// The last position recorded at `time` or before; if there is none, where the log begins: 0, or in a
    /// trimmed log the last position that was cut off. Recorded times never decrease, so this is a search by
    /// halves.
    pub(crate) async fn position_at(&self, time: Timestamp, head: &Head) -> Result<Position, LogError> {
        if head.recorded_at <= time {
            return Ok(head.position);
        }
        let begins = self.beginning().await?.map_or(0, |tail| tail.until.0);
        let (mut within, mut beyond) = (begins, head.position.0);
        while within + 1 < beyond {
            let middle = Position(within + (beyond - within) / 2);
            let frame = self.present_frame(middle).await?;
            if frame.header.recorded_at <= time {
                within = frame.last().0;
            } else {
                beyond = frame.first().0;
            }
        }
        Ok(Position(within))
    }

    async fn scan(
        &self,
        from: Position,
        end: &underpass_store::Key,
        limit: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let from = keys::frame(self.log, from);
        let entries = self.store.scan(&from, end, limit).await;
        entries.map_err(|error| LogError::store(self.log, error))
    }

    /// A stored frame, found whole and at its place.
    pub(crate) fn decode(&self, entry: &Entry) -> Result<Frame, LogError> {
        let log = self.log;
        let Some(at) = keys::frame_position(log, entry.key.as_ref()) else {
            return Err(LogError::corrupt(log, Position(0), "a key is no position"));
        };
        let frame = Frame::decode(&entry.value).map_err(|error| LogError::frame(log, at, error))?;
        if frame.header.log != log {
            return Err(LogError::corrupt(log, at, "the frame is of the other log"));
        }
        if frame.first() != at {
            let why = format!("the frame says it begins at {}", frame.first());
            return Err(LogError::corrupt(log, at, why));
        }
        Ok(frame)
    }
}

/// Frames in order. Each follows on the one before, by position and by hash; the first one's
/// predecessor is the caller's to check.
#[derive(Debug)]
pub(crate) struct Frames {
    reader: Reader,
    next: Position,
    page: usize,
    last_hash: Option<Digest32>,
}

impl Frames {
    /// Where the next frame begins.
    pub(crate) fn next_position(&self) -> Position {
        self.next
    }

    /// The next frames up to and with the one that holds `until`; none if that was the last. `until` must
    /// not lie behind the end of the log: a frame that is not there counts as lost.
    pub(crate) async fn page(&mut self, until: Position) -> Result<Vec<Frame>, LogError> {
        Ok(self.stored_page(until).await?.into_iter().map(|(_, frame)| frame).collect())
    }

    /// The same, each with the bytes that are stored.
    pub(crate) async fn stored_page(&mut self, until: Position) -> Result<Vec<(Bytes, Frame)>, LogError> {
        if self.next > until {
            return Ok(Vec::new());
        }
        let end = keys::frame(self.reader.log, until.next());
        let entries = match self.reader.scan(self.next, &end, self.page).await {
            Err(LogError::Unavailable { .. }) if self.page > PAGE_FRAMES_MIN => {
                // Perhaps the answer was too large for the backend: ask for less.
                self.page = PAGE_FRAMES_MIN;
                self.reader.scan(self.next, &end, self.page).await?
            }
            entries => entries?,
        };
        let log = self.reader.log;
        let there = entries.first().and_then(|entry| keys::frame_position(log, entry.key.as_ref()));
        if there.is_none_or(|there| there > self.next) {
            return Err(self.reader.missing(self.next).await);
        }
        let mut frames = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.follow(&entry) {
                Ok(frame) => frames.push((entry.value, frame)),
                // What came before is good: give that first, the error is met again.
                Err(_) if !frames.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        let bytes: usize = frames.iter().map(|(bytes, _)| bytes.len()).sum();
        if let Some(each) = bytes.checked_div(frames.len()) {
            let fitting = PAGE_BYTES / each.max(1);
            self.page = fitting.clamp(PAGE_FRAMES_MIN, PAGE_FRAMES_MAX.min(self.page * 4));
        }
        Ok(frames)
    }

    fn follow(&mut self, entry: &Entry) -> Result<Frame, LogError> {
        let log = self.reader.log;
        let at = keys::frame_position(log, entry.key.as_ref());
        if at.is_some_and(|at| at > self.next) {
            return Err(LogError::corrupt(log, self.next, MISSING));
        }
        let frame = self.reader.decode(entry)?;
        if self.last_hash.is_some_and(|hash| hash != frame.header.previous) {
            return Err(LogError::corrupt(log, self.next, BROKEN_CHAIN));
        }
        self.last_hash = Some(frame.hash);
        self.next = frame.last().next();
        Ok(frame)
    }
}

const MISSING: &str = "the frame is missing";
pub(crate) const BROKEN_CHAIN: &str = "the frame does not follow on the hash of the one before";
