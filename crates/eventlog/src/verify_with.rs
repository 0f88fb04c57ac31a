//! Is the log what it was when somebody looked?

use std::sync::Arc;

use underpass_domain::{LogId, LogName, Position};
use underpass_store::Store;

use crate::checkpoint::{Checkpoint, CheckpointPublicKey, SignedCheckpoint};
use crate::error::LogError;
use crate::frame::Frame;
use crate::landing::stored_id;
use crate::reader::Reader;
use crate::verify::{self, Verified};

/// Checks a log as [`verify`](crate::verify) does, and that it agrees with every checkpoint: each is signed
/// with `key`, is of this log (see [`CheckpointBook::of`](crate::CheckpointBook::of) for those of one name), has
/// its hash and epoch where the log has that position, and no position that the log doesn't reach.
///
/// What does not agree is in [`Verified::bad`] with the checkpoint's position; where the log is too short, with
/// the first position that is missing. Damage of the log itself comes first. Checkpoints may be in any order.
pub async fn verify_with(
    store: &Arc<dyn Store>,
    log: LogName,
    checkpoints: &[SignedCheckpoint],
    key: &CheckpointPublicKey,
) -> Result<Verified, LogError> {
    let mut check = Check::new(log, checkpoints, key);
    check.log_id = match stored_id(&Reader::new(Arc::clone(store), log)).await {
        Err(error @ LogError::Unavailable { .. }) => return Err(error),
        id => id.ok(),
    };
    let mut verified = verify::walk(store, log, |frame| check.see(frame)).await?;
    if verified.bad.is_some() {
        return Ok(verified);
    }
    check.end(verified.head);
    verified.checkpoints = check.agreeing;
    verified.ok = check.bad.is_none();
    verified.bad = check.bad;
    Ok(verified)
}

struct Check {
    log: LogName,
    log_id: Option<LogId>,
    /// With good signatures, by position; those before `next` were seen.
    checkpoints: Vec<Checkpoint>,
    next: usize,
    /// Whether a frame was seen.
    begun: bool,
    agreeing: u64,
    bad: Option<(Position, String)>,
}

impl Check {
    fn new(log: LogName, checkpoints: &[SignedCheckpoint], key: &CheckpointPublicKey) -> Self {
        let mut check = Self {
            log,
            log_id: None,
            checkpoints: Vec::new(),
            next: 0,
            begun: false,
            agreeing: 0,
            bad: None,
        };
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

    fn see(&mut self, frame: &Frame) {
        if !std::mem::replace(&mut self.begun, true) {
            self.behind(frame);
        }
        while let Some(checkpoint) = self.checkpoints.get(self.next).copied()
            && checkpoint.position <= frame.last()
        {
            self.next += 1;
            match self.disagreement(&checkpoint, frame) {
                None => self.agreeing += 1,
                Some(how) => {
                    let why = format!("the checkpoint of {} {how}", checkpoint.at);
                    self.fault(checkpoint.position, why);
                }
            }
        }
    }

    /// The first frame of a trimmed log says what the last one before it was, and nothing of those before.
    fn behind(&mut self, frame: &Frame) {
        while let Some(checkpoint) = self.checkpoints.get(self.next).copied()
            && checkpoint.position < frame.first()
        {
            self.next += 1;
            let last = checkpoint.position.next() == frame.first();
            match self.other_log(&checkpoint) {
                Some(other) => {
                    self.fault(checkpoint.position, format!("the checkpoint of {} {other}", checkpoint.at));
                }
                None if last && checkpoint.hash == frame.header.previous => self.agreeing += 1,
                None if last => {
                    let why = "has another hash than the log at its position, which was trimmed";
                    self.fault(checkpoint.position, format!("the checkpoint of {} {why}", checkpoint.at));
                }
                None => {}
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
        if checkpoint.log == self.log && Some(checkpoint.log_id) == self.log_id {
            return None;
        }
        Some(format!("is of another log: {} {}", checkpoint.log, checkpoint.log_id))
    }

    /// What lies behind the end of the log.
    fn end(&mut self, head: Position) {
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
