//! Why a log was not copied into a store. The variants are what callers do next.

use underpass_domain::{LogId, LogName, Position};
use underpass_store::{Retry, StoreError};

use crate::error::LogError;

/// Why a copy, or an import, did not come to its end. What it has written so far counts for nothing until it
/// is run again and ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The log to copy can't be read, or is damaged. It was not touched.
    #[error("the log to copy can't be read")]
    Source(#[source] LogError),

    /// What lies in the target can't be read, is damaged, or is no log of ours. Empty the target.
    #[error("the target can't take the log")]
    Target(#[source] LogError),

    /// The target holds another log. Nothing was written.
    #[error("the target holds another {log} log: {there} is there, {id} was to be copied")]
    OtherLog {
        /// Which log.
        log: LogName,
        /// The id of the log to copy.
        id: LogId,
        /// The id of the log in the target.
        there: LogId,
    },

    /// The target has more of this log than there is to copy. Nothing was written.
    #[error("the target's {log} log reaches to {there}, the one to copy to {end} only")]
    Ahead {
        /// Which log.
        log: LogName,
        /// Where the log to copy ends.
        end: Position,
        /// Where the target's ends.
        there: Position,
    },

    /// The logs have the same id and different frames: they have gone different ways. Nothing was written.
    #[error("the target's {log} log went another way, at position {position} at the latest")]
    Differs {
        /// Which log.
        log: LogName,
        /// Where the first difference lies at the latest.
        position: Position,
    },

    /// The log to copy was trimmed further than the target reaches. Nothing was written: empty the target, or copy
    /// with the archive at hand.
    #[error(
        "the {log} log to copy begins at {first}, the target's ends at {there}: what is between is missing"
    )]
    Gap {
        /// Which log.
        log: LogName,
        /// Where the log to copy begins.
        first: Position,
        /// Where the target's ends.
        there: Position,
    },

    /// A frame is larger than what the target takes at once.
    #[error(
        "the frame at position {position} of the {log} log has {bytes} bytes, and the target takes {max}"
    )]
    TooLarge {
        /// Which log.
        log: LogName,
        /// Where the frame begins.
        position: Position,
        /// Its size.
        bytes: usize,
        /// What the target takes.
        max: usize,
    },

    /// Something else writes the target's log. Stop it, then run the copy again.
    #[error("something else writes the {log} log of the target")]
    Contended {
        /// Which log.
        log: LogName,
    },

    /// The target did not answer. Run the copy again: it goes on where it was.
    #[error("the target can't be written at the moment")]
    Unavailable(#[source] StoreError),

    /// It is unknown whether the target has taken the last frames. Run the copy again: it finds out.
    #[error("it is unknown whether the target has taken the last frames")]
    Indeterminate(#[source] StoreError),

    /// It was told to stop. Run the copy again: it goes on where it was.
    #[error("stopped; the {log} log is in the target up to position {position}")]
    Stopped {
        /// Which log.
        log: LogName,
        /// The last position that is in the target.
        position: Position,
    },
}

impl CopyError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(error) | Self::Target(error) => error.code(),
            Self::OtherLog { .. } => "copy.other_log",
            Self::Ahead { .. } => "copy.ahead",
            Self::Differs { .. } => "copy.differs",
            Self::Gap { .. } => "copy.gap",
            Self::TooLarge { .. } => "copy.too_large",
            Self::Contended { .. } => "copy.contended",
            Self::Unavailable(_) | Self::Indeterminate(_) => "store.unavailable",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// What a caller may do after this error.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Source(error) | Self::Target(error) => error.retry(),
            Self::Unavailable(error) => error.retry(),
            Self::Indeterminate(_) | Self::Stopped { .. } => Retry::Same,
            _ => Retry::Never,
        }
    }
}
