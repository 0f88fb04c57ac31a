//! Getting a damaged log going again, without inventing anything.
//!
//! What is good from the beginning on stays. Everything behind the first thing that can't be trusted is put aside in
//! files and cut off; the log goes on behind what stayed, in a new epoch, with an event that says so.
//!
//! 1. [`plan_repair`] reads the log as a verifier and a read model do, and says what would be cut. Nothing is changed.
//! 2. [`repair`] writes all of that to a folder and syncs it.
//! 3. One commit takes the head away and leaves a marker with all that the end of the repair needs. From here on
//!    nothing opens the log.
//! 4. What is cut is deleted, a few entries a commit.
//! 5. One commit writes the frame with `log.repaired` and the head, and takes the marker away.
//!
//! A repair that was cut off has not begun, or is finished by the next run. Each commit is guarded by what the
//! one before has left.

mod act;
mod error;
mod keep;
mod marker;
mod survey;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use underpass_domain::{
    ActivityState, ControlState, Digest32, LogId, LogName, NodeId, Position, Random, Timestamp,
};
use underpass_store::{Key, Revision, Store};

pub use error::RepairError;

use crate::reader::Reader;
use crate::tail::Tail;
use marker::Repairing;

/// How many of the events that are cut off a plan names.
pub const CUT_EVENTS_NAMED: usize = 10;

/// An event that would be cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CutEvent {
    /// Its position.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What it says.
    pub sentence: String,
}

/// What a repair would do, or that there is nothing to repair.
#[derive(Clone, Debug, Serialize)]
pub struct RepairPlan {
    /// Which log.
    pub log: LogName,
    /// Its id.
    pub log_id: LogId,
    /// What is wrong, as half a sentence; `None`: nothing is to be done.
    pub reason: Option<String>,
    /// The position at which it is wrong.
    pub position: Position,
    /// The last position that stays.
    pub stays: Position,
    /// The chained hash there.
    pub hash: Digest32,
    /// When the last frame that stays was recorded: what came after that is gone.
    pub since: Timestamp,
    /// The epoch that begins with the repair.
    pub epoch: u64,
    /// Positions behind the last one that stays which are known to have been there.
    pub lost: u64,
    /// Entries that are put aside and deleted: frames, snapshots, the head.
    pub entries: u64,
    /// Frames among them.
    pub frames: u64,
    /// Snapshots that go, being of positions behind the last one that stays.
    pub snapshots: u64,
    /// Events in those frames that can still be read.
    pub readable: u64,
    /// The first of them, at most [`CUT_EVENTS_NAMED`].
    pub events: Vec<CutEvent>,
    /// Whether the log still gives a read model of its end, from a snapshot behind the damage: a server may run on it
    /// as it is.
    pub usable: bool,
    /// Whether a repair has begun before, which this one finishes.
    pub resumes: bool,
    #[serde(skip)]
    rest: Rest,
}

/// What the plan says to the repair alone.
#[derive(Clone, Debug)]
struct Rest {
    /// The newest version of the log's own stream.
    log_version: u64,
    /// What the head was, if there is one.
    head: Option<Revision>,
    /// What is to be deleted apart from what lies behind the last position that stays.
    strays: Vec<Key>,
    /// The repair that has begun.
    marker: Option<(Repairing, Revision)>,
    /// A marker that can't be read.
    broken_marker: Option<Revision>,
    /// A tail that no event speaks of.
    unannounced: Option<Tail>,
}

impl RepairPlan {
    /// Whether there is anything to do.
    pub fn needed(&self) -> bool {
        self.reason.is_some()
    }
}

/// What a repair has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Which log.
    pub log: LogName,
    /// The newest position: that of the repair's own event.
    pub head: Position,
    /// The chained hash there.
    pub hash: Digest32,
    /// The epoch that has begun.
    pub epoch: u64,
    /// The folder that holds what was cut off.
    pub kept: PathBuf,
    /// Entries in it.
    pub entries: u64,
}

/// Who repairs, and when.
#[derive(Debug)]
pub struct Repairer<'a> {
    /// The node that stands in the frame.
    pub node: NodeId,
    /// The time now.
    pub now: Timestamp,
    /// For the ids of commit and command.
    pub random: &'a dyn Random,
}

/// Reads a log and says what a repair would do. Nothing is changed.
///
/// With `new_epoch` a log that is good gets a new epoch as well: it was put back from an older copy, and positions
/// of what was given up must not be taken for those to come. Why is then the given half sentence.
///
/// # Errors
/// See [`RepairError`]: what can't be repaired at all.
pub async fn plan_repair(
    store: &Arc<dyn Store>,
    log: LogName,
    new_epoch: Option<&str>,
) -> Result<RepairPlan, RepairError> {
    let reader = Reader::new(Arc::clone(store), log);
    match log {
        LogName::Control => survey::survey::<ControlState>(&reader, new_epoch).await,
        LogName::Activity => survey::survey::<ActivityState>(&reader, new_epoch).await,
    }
}

/// Does what the plan says. Nothing else may use the log meanwhile: whatever changes it makes this fail.
///
/// What is cut off is in `folder` before anything is deleted; the folder is made, and must not be there.
///
/// # Errors
/// See [`RepairError`]. Run it again with a new plan: it goes on where it was.
pub async fn repair(
    store: &Arc<dyn Store>,
    plan: &RepairPlan,
    folder: PathBuf,
    by: &Repairer<'_>,
) -> Result<Repaired, RepairError> {
    act::repair(&Reader::new(Arc::clone(store), plan.log), plan, folder, by).await
}
