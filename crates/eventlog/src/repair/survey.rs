//! What of a log is good, and what a repair would cut off.

use underpass_domain::limits::REASON_BYTES_MAX;
use underpass_domain::{Aggregate, Digest32, LogId, LogName, Position, StreamId, Timestamp, decode_any};
use underpass_store::{Entry, Key, Revision};

use super::marker::Repairing;
use super::{CUT_EVENTS_NAMED, CutEvent, RepairError, RepairPlan, Rest};
use crate::codes;
use crate::error::LogError;
use crate::fold::{self, Chain, Fold, Trimmed, carries, positioned};
use crate::frame::{CommitId, FORMAT, Frame};
use crate::head::Head;
use crate::keys;
use crate::reader::Reader;
use crate::replay::{self, AsOf};
use crate::tail::Tail;

/// Entries read at once: what every backend can answer, however large they are.
pub(super) const PAGE: usize = 8;

/// Where a run of good frames has got to. What is noted here is never that of a frame which turned out bad.
#[derive(Debug)]
struct Good {
    position: Position,
    hash: Digest32,
    epoch: u64,
    recorded_at: Timestamp,
    log_version: u64,
    trimmed: Option<Trimmed>,
    newest: Option<(Position, CommitId)>,
}

impl Good {
    fn of(chain: &Chain, newest: Option<(Position, CommitId)>) -> Self {
        let log_stream = chain.streams.get(&codes::from_stream(StreamId::LOG));
        Self {
            position: chain.position,
            hash: chain.hash,
            epoch: chain.epoch,
            recorded_at: chain.recorded_at,
            log_version: log_stream.map_or(0, |at| at.version),
            trimmed: chain.trimmed,
            newest,
        }
    }
}

/// Something wrong: where, and how, as half a sentence.
type Fault = (Position, String);

/// What lies at the head's place.
enum Found {
    Head(Head),
    Nothing,
    Bad(String),
}

pub(super) async fn survey<A: Aggregate>(
    reader: &Reader,
    new_epoch: Option<&str>,
) -> Result<RepairPlan, RepairError> {
    let log = reader.log;
    reader.refuse_half_copied().await?;
    let (found, head_revision) = head(reader).await?;
    let (marker, broken_marker) = marker(reader).await?;
    if matches!(found, Found::Nothing) && !reader.any_frame().await? {
        return Err(LogError::Absent { log }.into());
    }
    let mut strays = Vec::new();
    let (tail, tail_fault) = tail(reader, &mut strays).await?;
    let id = tail.as_ref().map(|tail| tail.id);
    let mut walk = Walk::<A>::new(reader, tail, id, marker.as_ref().map(|(repairing, _)| repairing.stays));
    let broken = walk.run(&mut strays).await?;
    let Walk { good, id, .. } = walk;
    let Some(log_id) = id.filter(|_| good.newest.is_some()) else {
        let why = broken.map_or_else(|| "it has no frame".to_owned(), |(_, why)| why);
        return Err(RepairError::NothingLeft { log, why });
    };
    whole(reader, &good, tail.as_ref())?;
    // What sorts behind the last good frame is met there.
    let behind = keys::frame(log, good.position.next());
    strays.retain(|key| *key < behind || *key == keys::tail(log));
    let unannounced = tail.filter(|_| good.trimmed.is_some_and(|trimmed| !trimmed.announced));

    let cut = Cut::behind(reader, &good, &strays).await?;
    let fault = match &marker {
        Some((repairing, _)) if (repairing.stays, repairing.hash) != (good.position, good.hash) => {
            let why = "a repair has begun, and what was to stay is not what is there any more".to_owned();
            return Err(RepairError::NothingLeft { log, why });
        }
        Some((repairing, _)) => Some((good.position.next(), repairing.reason.clone())),
        None => broken
            .or(tail_fault)
            .or_else(|| head_fault(log, &good, &found))
            .or_else(|| unannounced.map(|tail| unannounced_fault(&tail)))
            .or_else(|| cut.any_entry().map(|at| (at, "a frame lies where none belongs".to_owned())))
            .or_else(|| new_epoch.map(|why| (good.position.next(), why.to_owned()))),
    };
    let known_end = match &found {
        Found::Head(head) => cut.last.max(head.position),
        _ => cut.last,
    };
    let known_epoch = match &found {
        Found::Head(head) => cut.epoch.max(head.epoch),
        _ => cut.epoch,
    };
    let usable = match (&found, &fault) {
        (Found::Head(head), Some(_)) => {
            replay::as_of::<A>(reader, AsOf::Position(head.position)).await.is_ok()
        }
        _ => false,
    };
    let repairing = marker.as_ref().map(|(repairing, _)| repairing);
    let (position, reason) = fault.map_or((good.position, None), |(at, why)| (at, Some(bounded(&why))));
    Ok(RepairPlan {
        log,
        log_id,
        position,
        stays: good.position,
        hash: good.hash,
        since: good.recorded_at,
        epoch: repairing.map_or(known_epoch.max(good.epoch) + 1, |repairing| repairing.epoch),
        lost: repairing.map_or(known_end.0.saturating_sub(good.position.0), |repairing| repairing.lost),
        entries: if reason.is_some() { cut.entries + u64::from(head_revision.is_some()) } else { 0 },
        frames: cut.frames,
        snapshots: cut.snapshots,
        readable: cut.readable,
        events: cut.events,
        usable,
        resumes: repairing.is_some(),
        reason,
        rest: Rest {
            log_version: good.log_version,
            head: head_revision,
            strays,
            marker,
            broken_marker,
            unannounced,
        },
    })
}

/// Whether what is good amounts to a read model.
fn whole(reader: &Reader, good: &Good, tail: Option<&Tail>) -> Result<(), RepairError> {
    let log = reader.log;
    match tail {
        Some(tail) if !carries(log) => Err(RepairError::NeedsArchive { log, first: tail.until.next() }),
        Some(tail) if good.trimmed.is_none_or(|trimmed| !trimmed.carried) => {
            let why = format!(
                "it was trimmed up to {}, and is damaged before all that counts of that was said again",
                tail.until
            );
            Err(RepairError::NothingLeft { log, why })
        }
        _ => Ok(()),
    }
}

fn unannounced_fault(tail: &Tail) -> Fault {
    (tail.until.next(), format!("no event says that everything up to {} was trimmed", tail.until))
}

fn head_fault(log: LogName, good: &Good, found: &Found) -> Option<Fault> {
    match found {
        Found::Nothing => Some((good.position, "the head is missing".to_owned())),
        Found::Bad(why) => Some((good.position, why.clone())),
        Found::Head(head) => {
            let chain = Chain {
                epoch: good.epoch,
                position: good.position,
                hash: good.hash,
                recorded_at: good.recorded_at,
                ..Chain::new(log)
            };
            match chain.ends_at(head, good.newest) {
                Err(_) if head.position > good.position => {
                    Some((good.position.next(), "the frame is missing".to_owned()))
                }
                Err(_) => Some((head.position, "the head does not name the last frame".to_owned())),
                Ok(()) => None,
            }
        }
    }
}

async fn head(reader: &Reader) -> Result<(Found, Option<Revision>), RepairError> {
    let log = reader.log;
    let entry = reader.store.get(&keys::head(log)).await.map_err(|error| LogError::store(log, error))?;
    let Some(entry) = entry else { return Ok((Found::Nothing, None)) };
    let found = match Head::decode(&entry.value) {
        Ok(head) if head.log == log => Found::Head(head),
        Ok(_) => Found::Bad("the head is that of the other log".to_owned()),
        Err(crate::frame::FrameError::Newer(_))
            if !flipped(&entry.value, |bytes| Head::decode(bytes).is_ok()) =>
        {
            let why = "the head was written by a newer release".to_owned();
            return Err(LogError::Newer { log, position: Position(0), why }.into());
        }
        Err(error) => Found::Bad(format!("the head can't be read: {error}")),
    };
    Ok((found, Some(entry.revision)))
}

async fn marker(reader: &Reader) -> Result<(Option<(Repairing, Revision)>, Option<Revision>), RepairError> {
    let log = reader.log;
    let entry = reader.store.get(&keys::repairing(log)).await;
    let Some(entry) = entry.map_err(|error| LogError::store(log, error))? else { return Ok((None, None)) };
    Ok(match Repairing::decode(&entry.value) {
        Ok(repairing) if repairing.log == log => (Some((repairing, entry.revision)), None),
        // It is planned anew: what was to stay is found again.
        _ => (None, Some(entry.revision)),
    })
}

/// Where the log begins, and what is wrong with the entry that says so. If it can't be read and the first frame is
/// there, the entry is one of the `strays`.
async fn tail(reader: &Reader, strays: &mut Vec<Key>) -> Result<(Option<Tail>, Option<Fault>), RepairError> {
    match reader.beginning().await {
        Ok(tail) => Ok((tail, None)),
        Err(error @ LogError::Unavailable { .. }) => Err(error.into()),
        Err(error) => {
            let (log, end) = (reader.log, keys::frame(reader.log, Position(2)));
            let first = reader.store.scan(&keys::frame(log, Position(1)), &end, 1).await;
            let why = match error {
                LogError::Corrupt { why, .. } => why,
                other => other.to_string(),
            };
            if first.map_err(|error| LogError::store(log, error))?.is_empty() {
                return Err(RepairError::Tail { log, why });
            }
            strays.push(keys::tail(log));
            Ok((None, Some((Position(1), why))))
        }
    }
}

/// Goes through frames as far as they are good.
struct Walk<'a, A: Aggregate> {
    reader: &'a Reader,
    fold: Fold<A>,
    good: Good,
    id: Option<LogId>,
    until: Option<Position>,
}

impl<'a, A: Aggregate> Walk<'a, A> {
    fn new(reader: &'a Reader, tail: Option<Tail>, id: Option<LogId>, until: Option<Position>) -> Self {
        let fold = Fold::behind(tail.as_ref());
        let good = Good::of(&fold.chain, None);
        Self { reader, fold, good, id, until }
    }

    /// What ends the run, if it is not the end of all frames.
    async fn run(&mut self, strays: &mut Vec<Key>) -> Result<Option<Fault>, RepairError> {
        let log = self.reader.log;
        let (mut from, to) = (keys::frame(log, self.good.position.next()), keys::frames_end(log));
        loop {
            let entries = self.reader.store.scan(&from, &to, PAGE).await;
            let entries = entries.map_err(|error| LogError::store(log, error))?;
            let Some(last) = entries.last() else { return Ok(None) };
            from = last.key.successor();
            for entry in &entries {
                if self.until.is_some_and(|until| self.good.position >= until) {
                    return Ok(None);
                }
                let next = self.good.position.next();
                match keys::frame_position(log, entry.key.as_ref()) {
                    Some(at) if at == next => match self.take(entry) {
                        Ok(()) => {}
                        Err(LogError::Corrupt { position, why, .. }) => return Ok(Some((position, why))),
                        Err(error) => return Err(error.into()),
                    },
                    Some(at) if at > next => return Ok(Some((next, "the frame is missing".to_owned()))),
                    _ => strays.push(entry.key.clone()),
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry) -> Result<(), LogError> {
        let frame = match self.reader.decode(entry) {
            Err(LogError::Newer { log, position, why })
                if flipped(&entry.value, |bytes| Frame::decode(&bytes.to_vec().into()).is_ok()) =>
            {
                return Err(LogError::Corrupt { log, position, why });
            }
            frame => frame?,
        };
        if frame.first() == Position(1) {
            self.id = Some(fold::log_id(&frame)?);
        }
        self.fold.apply(&frame)?;
        self.good = Good::of(&self.fold.chain, Some((frame.first(), frame.header.commit)));
        Ok(())
    }
}

/// Whether these bytes are sound but for the number of their format: then no newer release wrote them.
fn flipped(bytes: &[u8], sound: impl Fn(&[u8]) -> bool) -> bool {
    let mut mended = bytes.to_vec();
    match mended.get_mut(4) {
        Some(format) if *format != FORMAT => *format = FORMAT,
        _ => return false,
    }
    sound(&mended)
}

/// The keys behind the last position that stays: frames, manifests and chunks of snapshots.
pub(super) fn ranges(log: LogName, stays: Position) -> [(Key, Key); 3] {
    let next = stays.next();
    [
        (keys::frame(log, next), keys::frames_end(log)),
        (keys::manifest(log, next), keys::manifests_end(log)),
        (keys::chunks_from(log, next), keys::chunks_end(log)),
    ]
}

/// What an entry is by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Frame,
    Manifest,
    Other,
}

/// What is to be cut off, counted.
#[derive(Debug, Default)]
struct Cut {
    entries: u64,
    frames: u64,
    snapshots: u64,
    readable: u64,
    events: Vec<CutEvent>,
    first: Option<Position>,
    last: Position,
    epoch: u64,
}

impl Cut {
    async fn behind(reader: &Reader, good: &Good, strays: &[Key]) -> Result<Self, RepairError> {
        let log = reader.log;
        let mut cut = Self::default();
        for key in strays {
            let entry = reader.store.get(key).await.map_err(|error| LogError::store(log, error))?;
            if let Some(entry) = entry {
                cut.take(log, good, &entry, if *key == keys::tail(log) { Kind::Other } else { Kind::Frame })?;
            }
        }
        let kinds = [Kind::Frame, Kind::Manifest, Kind::Other];
        for (kind, (mut from, to)) in kinds.into_iter().zip(ranges(log, good.position)) {
            loop {
                let entries = reader.store.scan(&from, &to, PAGE).await;
                let entries = entries.map_err(|error| LogError::store(log, error))?;
                let Some(last) = entries.last() else { break };
                from = last.key.successor();
                for entry in &entries {
                    cut.take(log, good, entry, kind)?;
                }
            }
        }
        Ok(cut)
    }

    fn take(&mut self, log: LogName, good: &Good, entry: &Entry, kind: Kind) -> Result<(), RepairError> {
        self.entries += 1;
        match kind {
            Kind::Frame => {}
            Kind::Manifest => {
                self.snapshots += 1;
                return Ok(());
            }
            Kind::Other => return Ok(()),
        }
        let at = keys::frame_position(log, entry.key.as_ref());
        self.first.get_or_insert(at.unwrap_or(good.position.next()));
        let Some(at) = at else { return Ok(()) };
        if entry.revision == Revision(0) {
            return Err(RepairError::InArchive { log, stays: good.position });
        }
        self.frames += 1;
        self.last = self.last.max(at);
        let Ok(frame) = Frame::decode(&entry.value) else { return Ok(()) };
        self.epoch = self.epoch.max(frame.header.epoch);
        if frame.first() == at {
            self.last = self.last.max(frame.last());
        }
        for (position, record) in positioned(&frame) {
            let event = decode_any(log, record.kind, record.version, frame.header.codec, &record.payload);
            let Ok(event) = event else { continue };
            self.readable += 1;
            if self.events.len() < CUT_EVENTS_NAMED {
                let recorded_at = frame.header.recorded_at;
                self.events.push(CutEvent { position, recorded_at, sentence: event.sentence() });
            }
        }
        Ok(())
    }

    /// Where the first frame lies that is to be cut off.
    fn any_entry(&self) -> Option<Position> {
        self.first
    }
}

/// At most [`REASON_BYTES_MAX`] bytes.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
