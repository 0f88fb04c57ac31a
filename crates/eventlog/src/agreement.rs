//! Whether a log agrees with checkpoints, frame by frame.

use std::sync::Arc;

use underpass_domain::{LogId, LogName, Position};
use underpass_store::Store;

use crate::checkpoint::{Checkpoint, CheckpointPublicKey, SignedCheckpoint};
use crate::error::LogError;
use crate::fold;
use crate::frame::Frame;
use crate::landing::stored_id;
use crate::reader::Reader;

/// Why the stored log does not agree with one checkpoint, as a sentence without its end; `None` where it does.
/// Only the end of the log and the frame that the checkpoint names are looked at: a server that starts asks this
/// of its newest checkpoint, and [`verify_with`](crate::verify_with) of all of them.
///
/// A checkpoint of what has been trimmed away can't be compared, and counts as agreeing.
pub async fn disagreement(
    store: &Arc<dyn Store>,
    signed: &SignedCheckpoint,
    key: &CheckpointPublicKey,
) -> Result<Option<String>, LogError> {
    let checkpoint = signed.checkpoint;
    let mut check = Check::new(checkpoint.log, std::slice::from_ref(signed), key);
    if check.bad.is_none() {
        let reader = Reader::new(Arc::clone(store), checkpoint.log);
        let head = reader.present_head().await?;
        check.log_id = match stored_id(&reader).await {
            Ok(id) => Some(id),
            // The beginning is gone: the hash tells, too.
            Err(LogError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        match reader.frame_at(checkpoint.position).await? {
            Some(frame) => check.see(&frame),
            None if head.position < checkpoint.position => check.end(head.position),
            None => {
                let first = reader.first_position().await?;
                if first.is_none_or(|first| first <= checkpoint.position) {
                    let why = format!("the frame of position {} is missing", checkpoint.position);
                    check.fault(checkpoint.position, why);
                }
            }
        }
    }
    Ok(check.bad.map(|(_, why)| why))
}

/// Checkpoints laid beside the frames of a log, which are shown in order.
pub(crate) struct Check {
    log: LogName,
    /// As soon as it is known; until then checkpoints are told apart by their hashes alone.
    pub(crate) log_id: Option<LogId>,
    /// Where the frames that were shown begin: what lies before was trimmed, or is not part of an export.
    first: Option<Position>,
    /// With good signatures, by position; those before `next` were seen.
    checkpoints: Vec<Checkpoint>,
    next: usize,
    pub(crate) agreeing: u64,
    pub(crate) bad: Option<(Position, String)>,
}

impl Check {
    pub(crate) fn new(log: LogName, checkpoints: &[SignedCheckpoint], key: &CheckpointPublicKey) -> Self {
        let mut check =
            Self { log, log_id: None, first: None, checkpoints: Vec::new(), next: 0, agreeing: 0, bad: None };
        for signed in checkpoints {
            let checkpoint = signed.checkpoint;
            if signed.is_by(key) {
                check.checkpoints.push(checkpoint);
            } else {
                let why = "has a wrong signature: it was changed, or is signed with another key";
                check.fault(checkpoint.position, format!("the checkpoint of {} {why}", checkpoint.at));
            }
        }
        check.checkpoints.sort_unstable_by_key(|checkpoint| (checkpoint.position, checkpoint.at));
        check
    }

    /// The fault with the least position counts; of several there, the first that was found.
    fn fault(&mut self, position: Position, why: String) {
        if self.bad.as_ref().is_none_or(|(at, _)| position < *at) {
            self.bad = Some((position, why));
        }
    }

    pub(crate) fn see(&mut self, frame: &Frame) {
        if frame.first() == Position(1) {
            self.log_id = fold::log_id(frame).ok();
        }
        let first = *self.first.get_or_insert(frame.first());
        while let Some(checkpoint) = self.checkpoints.get(self.next).copied()
            && checkpoint.position <= frame.last()
        {
            self.next += 1;
            if checkpoint.position < first && self.other_log(&checkpoint).is_none() {
                continue;
            }
            match self.disagreement(&checkpoint, frame) {
                None => self.agreeing += 1,
                Some(how) => {
                    let why = format!("the checkpoint of {} {how}", checkpoint.at);
                    self.fault(checkpoint.position, why);
                }
            }
        }
    }

    fn disagreement(&self, checkpoint: &Checkpoint, frame: &Frame) -> Option<String> {
        let Checkpoint { position, epoch, .. } = checkpoint;
        if let Some(other) = self.other_log(checkpoint) {
            return Some(other);
        }
        if *epoch != frame.header.epoch {
            let now = frame.header.epoch;
            return Some(format!(
                "is of epoch {epoch}, and the log is of epoch {now} at position {position}: it was restored or \
                 repaired since"
            ));
        }
        if *position != frame.last() {
            return Some(format!("names position {position}, and no frame of the log ends there"));
        }
        (checkpoint.hash != frame.hash).then(|| {
            format!("has another hash than the log at position {position}: the log was changed up to there")
        })
    }

    fn other_log(&self, checkpoint: &Checkpoint) -> Option<String> {
        if checkpoint.log == self.log && self.log_id.is_none_or(|id| id == checkpoint.log_id) {
            return None;
        }
        Some(format!("is of another log: {} {}", checkpoint.log, checkpoint.log_id))
    }

    /// What lies behind the end of the log.
    pub(crate) fn end(&mut self, head: Position) {
        let ahead = self.checkpoints.split_off(self.next);
        let mut newest: Option<Checkpoint> = None;
        for checkpoint in ahead {
            match self.other_log(&checkpoint) {
                Some(other) => {
                    let why = format!("the checkpoint of {} {other}", checkpoint.at);
                    self.fault(checkpoint.position, why);
                }
                None => newest = Some(checkpoint),
            }
        }
        if let Some(Checkpoint { at, position, .. }) = newest {
            let why = format!(
                "the log ends at {head}, but a checkpoint of {at} says it reached {position}: the store was put \
                 back from an older copy, or is short of its tail"
            );
            self.fault(head.next(), why);
        }
    }
}
