//! How a log is run.

use std::time::Duration;

use underpass_domain::NodeId;
use underpass_store::{Key, Limits, Revision};

use crate::frame::FRAME_BYTES_MAX;

/// Commands that wait for the appender. At 300 commits a second, the slowest disk we have met, the last
/// of them waits for less than a second even if none shared a commit.
pub const QUEUE_MAX: usize = 256;
/// Commands decided in one batch. More than ever wait, so that one commit can take the whole queue.
pub const BATCH_COMMANDS_MAX: usize = 1024;
/// Where a batch ends: larger frames save nothing (a sync costs the same for 4 KiB and 1 MiB), but make
/// single reads dear. One command with more than this still gets a frame of its own.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Events between snapshots. Replaying so many takes some tens of milliseconds.
pub const SNAPSHOT_EVERY: u64 = 10_000;
/// How often the head is looked at without being told: a watch that has silently died costs so long.
pub const POLL_EVERY: Duration = Duration::from_secs(3);

/// An entry that must be as it was for this node to append: its lease entry. A node that has lost its
/// lease finds the entry gone, or written by another, and appends no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Where it is.
    pub key: Key,
    /// The revision in which this node wrote it.
    pub revision: Revision,
}

/// How a log is run. [`LogOptions::new`] gives what suits a server.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The node that writes.
    pub node: NodeId,
    /// Commands that may wait; more are answered `Busy`.
    pub queue_max: usize,
    /// Commands in one frame.
    pub batch_commands_max: usize,
    /// Bytes after which a batch takes no more commands.
    pub frame_bytes_max: usize,
    /// Events between snapshots.
    pub snapshot_every: u64,
    /// How often the head is looked at without being told.
    pub poll_every: Duration,
    /// What every append is guarded by beside the head; see
    /// [`Log::set_fence`](crate::Log::set_fence) for later.
    pub fence: Option<Fence>,
}

impl LogOptions {
    /// The usual, for this node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            queue_max: QUEUE_MAX,
            batch_commands_max: BATCH_COMMANDS_MAX,
            frame_bytes_max: BATCH_BYTES_MAX,
            snapshot_every: SNAPSHOT_EVERY,
            poll_every: POLL_EVERY,
            fence: None,
        }
    }
}

/// Bytes of a commit that are not the frame: the head, three guards, keys and what the store counts for
/// each.
const COMMIT_EXTRA_BYTES: usize = 4096;

/// The largest frame that one commit of this store can hold.
pub(crate) fn frame_bytes_max(limits: &Limits) -> usize {
    limits
        .value_bytes_max
        .min(limits.commit_bytes_max.saturating_sub(COMMIT_EXTRA_BYTES))
        .min(FRAME_BYTES_MAX)
}
