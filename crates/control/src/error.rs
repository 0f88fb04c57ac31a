//! What callers of the control plane can do about a failure.

use std::time::Duration;

use underpass_domain::{ActivityRefusal, LogPosition, RandomFailed, Refusal, RefusalClass, Subject};
use underpass_eventlog::{ExecuteError, LogError};
use underpass_store::StoreError;

use crate::lease::LeaseLost;

/// How long a caller waits before trying again when the store is away or busy.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Every code of [`ControlError::code`] that isn't a refusal of the domain.
pub const CODES: &[&str] = &[
    "command.reused",
    "command.repeated",
    "command.unstorable",
    "enrolment.closed",
    "store.busy",
    "store.contended",
    "store.unavailable",
    "random.failed",
    "node.stopping",
    "event.not_found",
    "explain.not_found",
    "explain.ambiguous",
    "log.unreadable",
];

/// Why a command did nothing. The variants are what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A rule stands in the way: ask for something else.
    #[error(transparent)]
    Refused(#[from] Refusal),

    /// A rule of the activity log stands in the way. A mistake of the node, not of a person.
    #[error(transparent)]
    Unrecorded(#[from] ActivityRefusal),

    /// The command id was used before for something else: take a new one.
    #[error("this command id was used before, with other content")]
    ReusedCommandId,

    /// The command was executed before and its secret given out then: look at what it made, or ask anew under
    /// another command id.
    #[error("this command was executed before, and its secret was given out then")]
    SecretGivenBefore {
        /// What the first command made.
        subject: Subject,
    },

    /// Clients can't enrol here: ask the operator.
    #[error("this server takes no new clients")]
    EnrolmentClosed,

    /// Too much at once: try again after a moment.
    #[error("too many changes are waiting")]
    Busy,

    /// Other nodes were faster again and again: try again after a moment.
    #[error("other nodes keep writing first")]
    Contended,

    /// The store can't be reached, or this node has lost its lease. Nothing is known to have happened; the
    /// same command under the same id is safe to try again.
    #[error("the log can't be written at the moment")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// What the store said.
        #[source]
        source: Option<BoxError>,
    },

    /// The command makes more events than can be stored at once: ask for it in parts.
    #[error("the command is too large to be stored")]
    Unstorable {
        /// What the log said.
        #[source]
        source: BoxError,
    },

    /// The random source failed, so nothing was made.
    #[error(transparent)]
    Random(#[from] RandomFailed),

    /// There is no event at this position: look at the log.
    #[error("there is no event at {position}")]
    NoEvent {
        /// Which position.
        position: LogPosition,
    },

    /// No event speaks of it: check the id or name.
    #[error("nothing ever happened to {what}")]
    NothingToExplain {
        /// What was asked about.
        what: String,
    },

    /// Several things have this name: take an id.
    #[error("{name} may be {ids}")]
    Ambiguous {
        /// The name.
        name: String,
        /// What has it, with commas between.
        ids: String,
    },

    /// What is stored can't be read: it needs a person.
    #[error("the log can't be read")]
    Unreadable {
        /// What the log said.
        #[source]
        source: LogError,
    },

    /// The node is stopping: ask another one.
    #[error("the node is stopping")]
    Closed,
}

/// An error of any kind, as source of another.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure it is, for whoever translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// There is no such thing.
    NotFound,
    /// It clashes with what is.
    Conflict,
    /// It is not as the caller has seen it.
    Stale,
    /// The caller may not.
    Forbidden,
    /// A limit is reached.
    Quota,
    /// The request makes no sense; the field says where.
    Invalid(&'static str),
    /// Later it may work.
    Unavailable,
    /// Our mistake.
    Internal,
}

impl ControlError {
    pub(crate) fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { retry_after: RETRY_AFTER, source: Some(source.into()) }
    }

    pub(crate) fn no_lease() -> Self {
        Self::Unavailable { retry_after: RETRY_AFTER, source: None }
    }

    /// The stable name of the failure; each has a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Unrecorded(refusal) => refusal.code(),
            Self::ReusedCommandId => "command.reused",
            Self::SecretGivenBefore { .. } => "command.repeated",
            Self::EnrolmentClosed => "enrolment.closed",
            Self::Busy => "store.busy",
            Self::Contended => "store.contended",
            Self::Unavailable { .. } => "store.unavailable",
            Self::Unstorable { .. } => "command.unstorable",
            Self::Random(_) => "random.failed",
            Self::NoEvent { .. } => "event.not_found",
            Self::NothingToExplain { .. } => "explain.not_found",
            Self::Ambiguous { .. } => "explain.ambiguous",
            Self::Unreadable { .. } => "log.unreadable",
            Self::Closed => "node.stopping",
        }
    }

    /// What kind of failure it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(refusal) => refusal.class().into(),
            Self::Unrecorded(ActivityRefusal::Forbidden) => ErrorClass::Forbidden,
            Self::Unrecorded(ActivityRefusal::SessionUnknown { .. }) => ErrorClass::NotFound,
            Self::Unrecorded(_) => ErrorClass::Conflict,
            Self::ReusedCommandId | Self::SecretGivenBefore { .. } | Self::Ambiguous { .. } => {
                ErrorClass::Conflict
            }
            Self::EnrolmentClosed => ErrorClass::Forbidden,
            Self::Busy | Self::Contended | Self::Unavailable { .. } | Self::Closed => ErrorClass::Unavailable,
            Self::NoEvent { .. } | Self::NothingToExplain { .. } => ErrorClass::NotFound,
            Self::Unstorable { .. } | Self::Random(_) | Self::Unreadable { .. } => ErrorClass::Internal,
        }
    }

    /// What to do about it, where that isn't obvious.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.hint(),
            Self::ReusedCommandId => Some("use a new id for a new command".to_owned()),
            Self::SecretGivenBefore { .. } => {
                Some("revoke it and ask again under a new id if the secret was lost".to_owned())
            }
            Self::EnrolmentClosed => Some("the operator sets `enrolment` in the configuration".to_owned()),
            Self::NoEvent { .. } => Some("`underpass log tail` shows the newest positions".to_owned()),
            Self::NothingToExplain { .. } => Some(
                "name a mapping, client, code, invite or key by its id, or a mapping or client by name"
                    .to_owned(),
            ),
            Self::Ambiguous { .. } => Some("name it by its id".to_owned()),
            Self::Unreadable { .. } => Some("check it with `underpass log verify`".to_owned()),
            _ => None,
        }
    }

    /// When to try again, if that makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            Self::Busy | Self::Contended | Self::Closed => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// What an earlier command of the same id made, where the answer names it.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::SecretGivenBefore { subject } => Some(*subject),
            _ => None,
        }
    }
}

impl From<RefusalClass> for ErrorClass {
    fn from(class: RefusalClass) -> Self {
        match class {
            RefusalClass::NotFound => Self::NotFound,
            RefusalClass::Conflict => Self::Conflict,
            RefusalClass::Stale => Self::Stale,
            RefusalClass::Forbidden => Self::Forbidden,
            RefusalClass::Quota => Self::Quota,
            RefusalClass::Invalid { field } => Self::Invalid(field),
            _ => Self::Conflict,
        }
    }
}

impl<R> From<ExecuteError<R>> for ControlError
where
    R: std::error::Error + Send + Sync + 'static,
    Self: From<R>,
{
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Refused(refusal) => refusal.into(),
            ExecuteError::Conflict => Self::ReusedCommandId,
            ExecuteError::Busy => Self::Busy,
            ExecuteError::Contended => Self::Contended,
            ExecuteError::Fenced => Self::no_lease(),
            ExecuteError::Invalid { source } => Self::Unstorable { source: source.into() },
            ExecuteError::Closed => Self::Closed,
            // Unavailable, and what is unknown even after the command was sent again.
            other => Self::unavailable(other),
        }
    }
}

impl From<LogError> for ControlError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable { .. } => Self::unavailable(error),
            LogError::Closed { .. } => Self::Closed,
            source => Self::Unreadable { source },
        }
    }
}

/// Why the control plane did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The node lease could not be taken.
    #[error("the node lease could not be taken")]
    Lease(#[from] LeaseLost),
    /// A log did not open.
    #[error("the {log} log did not open")]
    Log {
        /// Which one.
        log: underpass_domain::LogName,
        /// Why.
        #[source]
        source: underpass_eventlog::OpenError,
    },
    /// The store did not answer.
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    /// The archive of old frames can't be used.
    #[error("the archive can't be used")]
    Archive(#[source] underpass_eventlog::TrimError),
    /// The start could not be written to the log.
    #[error("the start of the node could not be recorded")]
    Start(#[source] ControlError),
}
