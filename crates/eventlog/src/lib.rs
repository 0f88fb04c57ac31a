//! One ordered, hash-chained log on the storage traits.
//!
//! A [`Log`] takes commands, has the domain decide them one after another at the head of the log, writes
//! what follows as one *frame* in one guarded commit, and keeps the read model resident. The store knows
//! nothing of this, and this knows nothing of which store it is.
//!
//! | in | is |
//! |---|---|
//! | [`Log`] | an open log: execute, view, follow, read, as of, verify |
//! | [`frame`], [`head`], [`record`], [`keys`] | what lies in the store, byte for byte; `docs/format/log-v1.md` is the same for people |
//! | [`verify`], [`read_stored`], [`replay_stored`] | the same for a log that is not open |
//! | [`copy`] | a log into another store |
//! | [`Checkpoint`], [`CheckpointBook`], [`verify_with`] | what a log was, signed, and whether it still is |
//! | [`Archive`], [`archive()`], [`trim`], [`Archived`] | old frames in files instead of the store |
//! | [`plan_repair`], [`repair()`] | a damaged log, cut back to what is good, going again |
//! | [`Export`], [`import`], [`verify_export`] | a log as text that others can read, and back |
//!
//! # How an append goes
//!
//! 1. Commands wait in a bounded queue. The appender takes all there are.
//! 2. Each is decided against the state at the head plus what this batch has decided already.
//! 3. All events become one frame; one commit puts the frame and the new head, guarded by the old one.
//! 4. *Conflict*: another node was first. Follow to the head, decide again; bounded.
//!    *Outcome unknown*: send the identical commit again. If that conflicts, the commit id of the frame at
//!    the expected position tells whose it is.
//! 5. The read model is published, then everybody is answered.
//!
//! With one command in the queue there is one command in the frame: nothing ever waits for company.

mod agreement;
mod answered;
mod appender;
mod archive;
mod archived;
mod batch;
mod checkpoint;
mod checkpoint_book;
mod codes;
mod commit;
mod copy;
mod copy_error;
mod error;
mod export;
mod fold;
mod follower;
pub mod frame;
pub mod head;
mod import;
pub mod keys;
mod landing;
mod line;
mod lines;
mod log;
mod marker;
mod options;
mod reader;
mod rebuild;
pub mod record;
mod recorded;
mod repair;
mod replay;
mod segment;
mod shared;
mod small;
mod snapshot;
mod snapshotter;
mod strict;
pub mod tail;
mod trim;
mod verify;
mod verify_export;
mod verify_with;

pub use agreement::disagreement;
pub use answered::{REMEMBERED_FOR, REMEMBERED_POSITIONS};
pub use archive::{Archive, ArchiveError, Archives, SEGMENT_BYTES};
pub use archived::Archived;
pub use batch::Committed;
pub use checkpoint::{
    CHECKPOINT_FORMAT, Checkpoint, CheckpointKey, CheckpointKeyError, CheckpointPublicKey,
    InvalidCheckpointKey, SignedCheckpoint,
};
pub use checkpoint_book::{BookError, CHECKPOINT_LINE_BYTES_MAX, CHECKPOINTS_MAX, CheckpointBook, Mend};
pub use copy::{Copied, Progress, copy};
pub use copy_error::CopyError;
pub use error::{ExecuteError, LogError, OpenError, SharedError};
pub use export::{Export, Selection};
pub use follower::Follower;
pub use import::{ImportError, import};
pub use line::{EXPORT_FORMAT, LINE_BYTES_MAX};
pub use log::Log;
pub use options::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, Fence, LogOptions, POLL_EVERY, QUEUE_MAX, SNAPSHOT_EVERY,
};
pub use recorded::{READ_EVENTS_MAX, Recorded, read_stored};
pub use repair::{
    CUT_EVENTS_NAMED, CutEvent, RepairError, RepairPlan, Repaired, Repairer, plan_repair, repair,
};
pub use replay::{AsOf, View, replay_stored};
pub use segment::SegmentError;
pub use trim::{
    ArchivedFrames, Cut, TrimError, TrimmedFrames, archive, cut_before, cut_below_snapshots, delete_trimmed,
    trim,
};
pub use verify::{Verified, verify};
pub use verify_export::{VerifiedExport, verify_export, verify_export_with};
pub use verify_with::verify_with;
