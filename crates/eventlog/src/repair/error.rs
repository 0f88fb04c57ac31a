//! Why a log was not repaired. The variants are what a person does next.

use std::io;
use std::path::PathBuf;

use underpass_domain::{LogName, Position, RandomFailed};
use underpass_store::StoreError;

use crate::error::LogError;

/// Why a log is not repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The log can't be looked at: the store does not answer, there is no log, a copy into this store has not come to
    /// its end, or a newer release wrote it. Nothing was changed.
    #[error(transparent)]
    Log(#[from] LogError),

    /// Nothing, or too little, of the log is good. Nothing was changed.
    #[error("nothing of the {log} log can be kept: {why}")]
    NothingLeft {
        /// Which log.
        log: LogName,
        /// Why, as half a sentence.
        why: String,
    },

    /// The entry that says where the log was trimmed can't be read, and nothing else proves what is left. Nothing was
    /// changed.
    #[error("what is left of the trimmed {log} log can't be proved: {why}")]
    Tail {
        /// Which log.
        log: LogName,
        /// What is wrong with the entry.
        why: String,
    },

    /// The log was trimmed, and what was cut off is needed. Nothing was changed.
    #[error("the {log} log was trimmed and begins at {first}: it can be repaired with its archive only")]
    NeedsArchive {
        /// Which log.
        log: LogName,
        /// The first position that is left.
        first: Position,
    },

    /// What is damaged lies in the archive, or the archive holds frames behind the cut. Nothing was changed.
    #[error("the archive of the {log} log holds frames behind {stays}, the last position that is good")]
    InArchive {
        /// Which log.
        log: LogName,
        /// The last position that is good.
        stays: Position,
    },

    /// What is to be cut off could not be put aside. Nothing was changed.
    #[error("{}", path.display())]
    Keep {
        /// What was touched.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },

    /// Something else writes the log. Stop it, then run the repair again.
    #[error("something else writes the {log} log")]
    Contended {
        /// Which log.
        log: LogName,
    },

    /// The store did not take it, or did not say whether it has. Run the repair again: it goes on.
    #[error("the {log} log can't be written at the moment")]
    Store {
        /// Which log.
        log: LogName,
        /// What it says.
        #[source]
        source: StoreError,
    },

    /// The event of the repair could not be made.
    #[error("the repair of the {log} log can't be written down")]
    Event {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The random source failed.
    #[error("no id could be drawn")]
    Random(#[from] RandomFailed),
}

impl RepairError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Log(error) => error.code(),
            Self::NothingLeft { .. } => "repair.nothing_left",
            Self::Tail { .. } => "repair.tail",
            Self::NeedsArchive { .. } => "archive.needed",
            Self::InArchive { .. } => "repair.in_archive",
            Self::Keep { .. } => "repair.keep",
            Self::Contended { .. } => "store.contended",
            Self::Store { .. } => "store.unavailable",
            Self::Event { .. } => "log.invalid",
            Self::Random(_) => "random.failed",
        }
    }
}
