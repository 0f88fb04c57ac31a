//! One log, from one store into another.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use underpass_domain::{Digest32, LogId, LogName, Position};
use underpass_store::Store;

use crate::copy_error::CopyError;
use crate::error::LogError;
use crate::fold::{self, Chain};
use crate::landing::Landing;
use crate::reader::Reader;

/// How far a copy, or an import, has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which log.
    pub log: LogName,
    /// Up to here, what is copied was read and checked.
    pub checked: Position,
    /// Up to here, it is in the target.
    pub written: Position,
    /// Where it ends; `None` while that is unknown.
    pub end: Option<Position>,
}

/// What a copy, or an import, has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Which log.
    pub log: LogName,
    /// Its id.
    pub log_id: LogId,
    /// The newest position of both.
    pub head: Position,
    /// The chained hash there, in what was copied.
    pub source_hash: Digest32,
    /// The same, as the target's head names it. Always equal to the one of the source.
    pub target_hash: Digest32,
    /// Frames of the log.
    pub frames: u64,
    /// Up to here, it had been in the target before.
    pub resumed_after: Position,
    /// Whether anything was written; false if all was there.
    pub written: bool,
}

/// Copies a log frame by frame, byte for byte, and checks all of it on the way as
/// [`verify`](crate::verify) does. `from` is only read.
///
/// The target holds nothing of this log, or the beginning of it: then the copy goes on behind that. So after a
/// failure or a kill it is run again; and a copy of a log in use can be brought up to date with what was
/// appended since. Nothing else may write the target's log meanwhile.
///
/// From its first commit to the last one but one the target bears a marker, with which nothing can be done but
/// to go on: `Log::open`, replay and `verify` answer `HalfCopied`. (What fits one commit needs none.) The last
/// commit writes the head and takes the marker away.
///
/// Of a trimmed log what is left is copied, and where it begins; with its archive at hand (see
/// [`Archived`](crate::Archived)), all of it.
///
/// If the source grows meanwhile, the copy ends where the source ended at the start. Snapshots aren't copied:
/// the target makes its own. Memory holds one page of frames and one commit, and the version of each stream.
///
/// `progress` is called after each page of frames. `stop` ends the copy between two commits.
pub async fn copy(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    log: LogName,
    mut progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Copied, CopyError> {
    let reader = Reader::new(Arc::clone(from), log);
    let head = reader.present_head().await.map_err(CopyError::Source)?;
    let tail = reader.beginning().await.map_err(CopyError::Source)?;
    let mut chain = Chain::behind(log, tail.as_ref());
    let mut pages = reader.frames_behind(chain.position);
    let mut newest = None;
    let mut landing: Option<Landing> = None;
    let mut frames = 0;
    while chain.position < head.position {
        for (bytes, frame) in pages.stored_page(head.position).await.map_err(CopyError::Source)? {
            chain.follow(&frame).map_err(CopyError::Source)?;
            frames += 1;
            newest = Some((frame.first(), frame.header.commit));
            let landing = if let Some(landing) = &mut landing {
                landing
            } else {
                let id = match &tail {
                    Some(tail) => tail.id,
                    None => fold::log_id(&frame).map_err(CopyError::Source)?,
                };
                landing.insert(Landing::open(to, log, id, tail, stop).await?)
            };
            landing.take(&frame, bytes).await?;
        }
        let written = landing.as_ref().map_or(Position(0), Landing::reached);
        progress(Progress { log, checked: chain.position, written, end: Some(head.position) });
        if stop.is_cancelled() {
            return Err(CopyError::Stopped { log, position: written });
        }
    }
    chain.ends_at(&head, newest).map_err(CopyError::Source)?;
    let Some(landing) = landing else {
        return Err(CopyError::Source(LogError::corrupt(log, Position(0), "the log has no frame")));
    };
    let (log_id, resumed_after) = (landing.id(), landing.found());
    let written = landing.finish(&head).await?;
    let (source_hash, target_hash) = (chain.hash, head.hash);
    Ok(Copied { log, log_id, head: head.position, source_hash, target_hash, frames, resumed_after, written })
}
