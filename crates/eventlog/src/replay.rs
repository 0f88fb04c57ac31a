//! From stored frames to a read model: at a start, and for any moment of the past.

use std::sync::Arc;

use underpass_domain::{Aggregate, Digest32, Position, Timestamp};
use underpass_store::Store;

use crate::answered::Answered;
use crate::error::LogError;
use crate::fold::{Fold, carries};
use crate::frame::Frame;
use crate::reader::Reader;
use crate::snapshot;

/// A moment in a log's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// After the event at this position; 0 is before the first.
    Position(Position),
    /// After the last event recorded by then. What expires is to be judged at that time.
    Time(Timestamp),
}

/// A read model as it was, or is, at one position. Cheap to keep: states share their parts.
#[derive(Clone, Debug, PartialEq)]
pub struct View<A> {
    /// The last position that is in it.
    pub position: Position,
    /// The epoch of that position.
    pub epoch: u64,
    /// The chained hash of the newest frame that is wholly in it.
    pub hash: Digest32,
    /// The read model.
    pub state: A,
    /// When the last event was recorded; for [`AsOf::Time`] the time asked for.
    pub at: Timestamp,
}

impl<A: Aggregate> View<A> {
    pub(crate) fn of(fold: &Fold<A>) -> Self {
        let chain = &fold.chain;
        Self {
            position: chain.position,
            epoch: chain.epoch,
            hash: chain.hash,
            state: fold.state.clone(),
            at: chain.recorded_at,
        }
    }
}

/// A read model as of some moment, from a log that need not be open: for tools beside or without a
/// server. Nothing is written.
pub async fn replay_stored<A: Aggregate>(store: &Arc<dyn Store>, at: AsOf) -> Result<View<A>, LogError> {
    as_of(&Reader::new(Arc::clone(store), A::LOG), at).await
}

pub(crate) async fn as_of<A: Aggregate>(reader: &Reader, at: AsOf) -> Result<View<A>, LogError> {
    let head = reader.present_head().await?;
    let until = match at {
        AsOf::Position(position) if position > head.position => {
            return Err(LogError::Ahead { log: A::LOG, head: head.position });
        }
        AsOf::Position(position) => position,
        AsOf::Time(time) => reader.position_at(time, &head).await?,
    };
    let fold = match newest_fitting(reader, until).await? {
        Some(fold) => run::<A>(reader, fold, until).await?,
        None => from_beginning(reader, until).await?,
    };
    let mut view = View::of(&fold);
    if let AsOf::Time(time) = at {
        view.at = time;
    }
    Ok(view)
}

/// The newest snapshot up to `until` whose hash is the log's at its position.
async fn newest_fitting<A: Aggregate>(reader: &Reader, until: Position) -> Result<Option<Fold<A>>, LogError> {
    let unavailable = |source| LogError::store(reader.log, source);
    let (manifests, _) = snapshot::list(&reader.store, reader.log).await.map_err(unavailable)?;
    for manifest in manifests.iter().filter(|manifest| manifest.position <= until) {
        let frame = reader.frame_at(manifest.position).await?;
        if frame.is_none_or(|frame| frame.hash != manifest.hash) {
            continue;
        }
        if let Some(fold) = snapshot::load(&reader.store, manifest).await.map_err(unavailable)? {
            return Ok(Some(fold));
        }
    }
    Ok(None)
}

/// Without a snapshot: from the first event, or, where that was trimmed, from where everything that is
/// remembered was said again.
async fn from_beginning<A: Aggregate>(reader: &Reader, until: Position) -> Result<Fold<A>, LogError> {
    let Some(tail) = reader.tail().await? else { return run(reader, Fold::new(), until).await };
    if tail.until < until && carries(reader.log) {
        let fold = run(reader, Fold::behind(Some(&tail)), until).await?;
        if fold.chain.is_whole() {
            return Ok(fold);
        }
    }
    match reader.beginning().await? {
        None => run(reader, Fold::new(), until).await,
        Some(tail) => Err(LogError::Trimmed { log: reader.log, first: tail.until.next() }),
    }
}

async fn run<A: Aggregate>(reader: &Reader, mut fold: Fold<A>, until: Position) -> Result<Fold<A>, LogError> {
    let mut frames = reader.frames_behind(fold.chain.position);
    while fold.chain.position < until {
        for frame in frames.page(until).await? {
            if frame.last() <= until {
                fold.apply(&frame)?;
            } else {
                fold.apply_part(&frame, until)?;
            }
        }
    }
    Ok(fold)
}

/// What a start needs: the read model at the head, and the commands that are still remembered.
#[derive(Debug)]
pub(crate) struct Resident<A: Aggregate> {
    pub(crate) fold: Fold<A>,
    pub(crate) answered: Answered,
    /// Position of the snapshot it was built on; 0 if there was none.
    pub(crate) snapshot: Position,
}

/// Brings a log into memory, up to `until` with `hash`. Snapshots that don't fit are deleted.
pub(crate) async fn load<A: Aggregate>(
    reader: &Reader,
    until: Position,
    hash: Digest32,
    remembered_from: Position,
) -> Result<Resident<A>, LogError> {
    let log = reader.log;
    let unavailable = |source| LogError::store(log, source);
    let (manifests, _) = snapshot::list(&reader.store, log).await.map_err(unavailable)?;
    let mut misfits = Vec::new();
    let mut resident = None;
    for manifest in &manifests {
        if let Some(fold) = snapshot::load::<A>(&reader.store, manifest).await.map_err(unavailable)? {
            match catch_up(reader, fold, until, hash, remembered_from).await {
                Ok(None) => {}
                // The snapshot may be at fault, or older than what is left of the log. If it is the log, the
                // full replay says where.
                Err(LogError::Corrupt { .. } | LogError::Trimmed { .. }) => {}
                Ok(found) => {
                    resident = found;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        misfits.push(manifest);
    }
    if resident.is_none() {
        resident = without_snapshot(reader, until, hash, remembered_from).await?;
    }
    let Some(resident) = resident else {
        return Err(LogError::corrupt(log, until, "the head does not name the last frame's hash"));
    };
    // Only now: of a log that is damaged, everything is kept.
    for manifest in misfits {
        tracing::warn!(%log, position = manifest.position.0, "a snapshot does not fit and is thrown away");
        snapshot::discard(&reader.store, manifest).await.map_err(unavailable)?;
    }
    Ok(resident)
}

/// From where everything that is remembered was said again, if the log was trimmed there; else from its first
/// event.
async fn without_snapshot<A: Aggregate>(
    reader: &Reader,
    until: Position,
    hash: Digest32,
    remembered_from: Position,
) -> Result<Option<Resident<A>>, LogError> {
    let tail = reader.tail().await?;
    if let Some(tail) = tail.filter(|tail| tail.until < until && carries(reader.log)) {
        let from = remembered_from.max(tail.until);
        let resident = catch_up(reader, Fold::behind(Some(&tail)), until, hash, from).await?;
        if resident.as_ref().is_none_or(|resident| resident.fold.chain.is_whole()) {
            return Ok(resident);
        }
    }
    catch_up(reader, Fold::new(), until, hash, remembered_from).await
}

/// Replays what follows on `fold`; before that, looks through what is older for commands to remember.
/// `None`: the log does not go through where `fold` stands.
async fn catch_up<A: Aggregate>(
    reader: &Reader,
    mut fold: Fold<A>,
    until: Position,
    hash: Digest32,
    remembered_from: Position,
) -> Result<Option<Resident<A>>, LogError> {
    let snapshot = fold.chain.position;
    if snapshot > until {
        return Ok(None);
    }
    let mut answered = Answered::default();
    let from = remembered_from.min(snapshot);
    let mut frames = match reader.tail().await? {
        // What was trimmed and isn't needed for the fold can only have held commands to remember: old ones.
        Some(tail) if from < tail.until && tail.until <= snapshot && reader.lacks(from.next()).await? => {
            reader.frames_behind(tail.until)
        }
        _ if from.0 == 0 => reader.frames_behind(from),
        _ => reader.frames_after(from).await?,
    };
    while frames.next_position() <= until {
        for frame in frames.page(until).await? {
            if frame.last() > snapshot {
                if !follows(&fold, &frame) {
                    return Ok(None);
                }
                fold.apply(&frame)?;
            } else if frame.last() == snapshot && frame.hash != fold.chain.hash {
                return Ok(None);
            }
            answered.note(&frame);
        }
    }
    let fits = fold.chain.position == until && fold.chain.hash == hash;
    let snapshot = if fold.chain.trimmed.is_some() { Position(0) } else { snapshot };
    Ok(fits.then_some(Resident { fold, answered, snapshot }))
}

/// Only at the seam with a snapshot can this be false without the log being damaged: then the snapshot is
/// at fault.
fn follows<A: Aggregate>(fold: &Fold<A>, frame: &Frame) -> bool {
    fold.chain.position.0 == 0
        || (frame.first() == fold.chain.position.next() && frame.header.previous == fold.chain.hash)
}
