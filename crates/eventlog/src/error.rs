//! Why a log does not do what was asked. The variants are what callers do next.

use std::error::Error;
use std::sync::Arc;

use underpass_domain::{DecodeError, LogName, Position, RandomFailed};
use underpass_store::{Retry, StoreError};

use crate::frame::FrameError;

/// An error that several waiting callers are given.
pub type SharedError = Arc<dyn Error + Send + Sync>;

pub(crate) fn shared_error(error: impl Error + Send + Sync + 'static) -> SharedError {
    Arc::new(error)
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The store did not answer. Try again later.
    #[error("the {log} log can't be reached")]
    Unavailable {
        /// Which log.
        log: LogName,
        /// What the store says.
        #[source]
        source: StoreError,
    },

    /// What is stored is damaged or was changed. Needs a person: restore a backup, or `log verify`.
    #[error("{log} log, position {position}: {why}")]
    Corrupt {
        /// Which log.
        log: LogName,
        /// The first position that can't be trusted.
        position: Position,
        /// What is wrong, as half a sentence.
        why: String,
    },

    /// Written by a newer release. Use that one: an event that is skipped is a lost fact.
    #[error("{log} log, position {position}: {why}; use the release that wrote it")]
    Newer {
        /// Which log.
        log: LogName,
        /// The first position this program can't read.
        position: Position,
        /// What it does not know.
        why: String,
    },

    /// Something else than a log lies at the log's place.
    #[error("there is no {log} log of ours in this store, but something else at its place")]
    Foreign {
        /// Which log.
        log: LogName,
    },

    /// A copy of the log was begun here and not ended. Run the migration (or import) again, or empty the
    /// target.
    #[error(
        "the {log} log was copied to this store in part only: run the migration again, or empty the store"
    )]
    HalfCopied {
        /// Which log.
        log: LogName,
    },

    /// A repair of the log was begun and not ended. Run `log repair` again.
    #[error("a repair of the {log} log was begun and did not come to its end: run it again")]
    HalfRepaired {
        /// Which log.
        log: LogName,
    },

    /// There is no log in this store yet.
    #[error("there is no {log} log in this store")]
    Absent {
        /// Which log.
        log: LogName,
    },

    /// The position asked for lies behind the end of the log.
    #[error("the {log} log ends at {head}")]
    Ahead {
        /// Which log.
        log: LogName,
        /// Its newest position.
        head: Position,
    },

    /// What is asked for was cut off on purpose, and no archive that holds it is at hand.
    #[error("the {log} log was trimmed: it begins at {first} now")]
    Trimmed {
        /// Which log.
        log: LogName,
        /// The first position that is left.
        first: Position,
    },

    /// The log has been closed, and everything up to its end was given.
    #[error("the {log} log is closed")]
    Closed {
        /// Which log.
        log: LogName,
    },
}

impl LogError {
    pub(crate) fn store(log: LogName, source: StoreError) -> Self {
        match source {
            StoreError::Corrupt { ref key, .. } => {
                let position = crate::keys::frame_position(log, key.as_ref()).unwrap_or_default();
                let why = error_chain(&source);
                Self::Corrupt { log, position, why }
            }
            source => Self::Unavailable { log, source },
        }
    }

    pub(crate) fn frame(log: LogName, position: Position, error: FrameError) -> Self {
        match error {
            FrameError::Newer(_) => Self::Newer { log, position, why: error.to_string() },
            error => Self::corrupt(log, position, format!("the frame can't be read: {error}")),
        }
    }

    pub(crate) fn payload(log: LogName, position: Position, error: &DecodeError) -> Self {
        let why = error_chain(error);
        match error {
            DecodeError::Unknown { .. } | DecodeError::UnknownCodec { .. } => {
                Self::Newer { log, position, why }
            }
            _ => Self::Corrupt { log, position, why },
        }
    }

    pub(crate) fn corrupt(log: LogName, position: Position, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::Corrupt { log, position, why }
    }

    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "store.unavailable",
            Self::Corrupt { .. } => "log.corrupt",
            Self::Newer { .. } => "log.newer",
            Self::Foreign { .. } => "log.foreign",
            Self::HalfCopied { .. } => "log.half_copied",
            Self::HalfRepaired { .. } => "log.half_repaired",
            Self::Absent { .. } => "log.absent",
            Self::Ahead { .. } => "log.ahead",
            Self::Trimmed { .. } => "log.trimmed",
            Self::Closed { .. } => "log.closed",
        }
    }

    /// What a caller may do after this error.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { source, .. } => source.retry(),
            _ => Retry::Never,
        }
    }
}

fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store did not answer. Try again later.
    #[error("the {log} log can't be reached")]
    Unavailable {
        /// Which log.
        log: LogName,
        /// What the store says.
        #[source]
        source: StoreError,
    },

    /// The log is damaged or was changed. Needs a person.
    #[error("{log} log, position {position}: {why}")]
    Corrupt {
        /// Which log.
        log: LogName,
        /// The first position that can't be trusted.
        position: Position,
        /// What is wrong.
        why: String,
    },

    /// Written by a newer release. Use that one.
    #[error("{log} log, position {position}: {why}; use the release that wrote it")]
    Newer {
        /// Which log.
        log: LogName,
        /// The first position this program can't read.
        position: Position,
        /// What it does not know.
        why: String,
    },

    /// Something else than a log lies at the log's place.
    #[error("there is no {log} log of ours in this store, but something else at its place")]
    Foreign {
        /// Which log.
        log: LogName,
    },

    /// A copy of the log was begun here and not ended. Run the migration (or import) again, or empty the
    /// target.
    #[error(
        "the {log} log was copied to this store in part only: run the migration again, or empty the store"
    )]
    HalfCopied {
        /// Which log.
        log: LogName,
    },

    /// A repair of the log was begun and not ended. Run `log repair` again.
    #[error("a repair of the {log} log was begun and did not come to its end: run it again")]
    HalfRepaired {
        /// Which log.
        log: LogName,
    },

    /// The read model can't be made: events it needs were cut off and archived, and the archive is not at hand.
    #[error(
        "the {log} log was trimmed and begins at {first}; what came before is needed, and the archive lacks it"
    )]
    Trimmed {
        /// Which log.
        log: LogName,
        /// The first position that is left.
        first: Position,
    },

    /// Other nodes kept changing the log for as long as this one tried to follow. Try again.
    #[error("the {log} log changes faster than it can be read")]
    Contended {
        /// Which log.
        log: LogName,
    },

    /// The random source failed.
    #[error("the {log} log can't be begun")]
    Random {
        /// Which log.
        log: LogName,
        /// What it says.
        #[source]
        source: RandomFailed,
    },

    /// The log's first event can't be encoded. A bug on our side.
    #[error("the {log} log can't be begun")]
    Invalid {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: SharedError,
    },
}

impl OpenError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "store.unavailable",
            Self::Corrupt { .. } => "log.corrupt",
            Self::Newer { .. } => "log.newer",
            Self::Foreign { .. } => "log.foreign",
            Self::HalfCopied { .. } => "log.half_copied",
            Self::HalfRepaired { .. } => "log.half_repaired",
            Self::Trimmed { .. } => "log.trimmed",
            Self::Contended { .. } => "store.contended",
            Self::Random { .. } => "random.failed",
            Self::Invalid { .. } => "log.invalid",
        }
    }
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable { log, source } => Self::Unavailable { log, source },
            LogError::Corrupt { log, position, why } => Self::Corrupt { log, position, why },
            LogError::Newer { log, position, why } => Self::Newer { log, position, why },
            LogError::Foreign { log } => Self::Foreign { log },
            LogError::HalfCopied { log } => Self::HalfCopied { log },
            LogError::HalfRepaired { log } => Self::HalfRepaired { log },
            LogError::Trimmed { log, first } => Self::Trimmed { log, first },
            LogError::Absent { log } | LogError::Ahead { log, .. } | LogError::Closed { log } => {
                Self::Contended { log }
            }
        }
    }
}

/// Why a command has no answer, or another than hoped for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The rules stand against it. Nothing was written.
    #[error("{0}")]
    Refused(R),

    /// This actor has used the command id for something else. Use a new one.
    #[error("the command id was used for another command")]
    Conflict,

    /// Too many commands wait. Nothing was written; try again in a moment.
    #[error("too many commands are waiting")]
    Busy,

    /// Other nodes were faster again and again. Nothing was written; try again in a moment.
    #[error("other nodes were faster, again and again")]
    Contended,

    /// The store did not answer. Nothing was written; try again later.
    #[error("the log can't be written at the moment")]
    Unavailable {
        /// What went wrong.
        #[source]
        source: SharedError,
    },

    /// It may have happened, or may still happen. Send the same command with the same id again.
    #[error("it is unknown whether the command was carried out")]
    Indeterminate {
        /// What went wrong.
        #[source]
        source: SharedError,
    },

    /// This node has lost its lease. Nothing was written, and nothing will be until it has a new one.
    #[error("this node has lost its lease and may not write")]
    Fenced,

    /// The command can't be stored: it makes more events than a commit holds, or can't be encoded.
    #[error("the command can't be stored")]
    Invalid {
        /// Why.
        #[source]
        source: SharedError,
    },

    /// The log is closed, or has stopped over an error of its own.
    #[error("the log is closed")]
    Closed,
}
