//! The one error of all backends.

use crate::{Key, LeaseId, Revision};

/// Any error, as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a storage call failed. The variants are what callers *do*, not what backends *say*; what they
/// say is in the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was written. The same call may succeed later.
    #[error("{op}: the store is unavailable")]
    Unavailable {
        /// The call.
        op: &'static str,
        /// What the backend says.
        #[source]
        source: BoxError,
    },

    /// The write may have happened, or may still happen. Send the identical commit again: its guards
    /// tell. A plain read doesn't.
    #[error("{op}: it is unknown whether it happened")]
    Indeterminate {
        /// The call.
        op: &'static str,
        /// What the backend says.
        #[source]
        source: BoxError,
    },

    /// The watched history no longer reaches back that far. Read again and watch from there.
    #[error("the history after revision {after} is gone, it reaches back to {oldest}")]
    Compacted {
        /// The last revision that the watcher has seen.
        after: Revision,
        /// The least revision to watch after now.
        oldest: Revision,
    },

    /// The lease to write under is gone. Nothing was written. Take a new lease and find out whether the
    /// entry still ought to be written.
    #[error("{op}: lease {lease} is gone")]
    LeaseGone {
        /// The call.
        op: &'static str,
        /// The lease.
        lease: LeaseId,
    },

    /// The caller broke a rule of the trait: a bug on our side. Nothing was written.
    #[error("{op}: refused: {rule}")]
    Refused {
        /// The call.
        op: &'static str,
        /// The rule that was broken, as a sentence.
        rule: &'static str,
    },

    /// Stored bytes don't read back. Needs a person.
    #[error("the entry at `{key}` is corrupt")]
    Corrupt {
        /// Where.
        key: Key,
        /// How it shows.
        #[source]
        source: BoxError,
    },
}

impl StoreError {
    /// An [`Unavailable`](Self::Unavailable).
    pub fn unavailable(op: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { op, source: source.into() }
    }

    /// An [`Indeterminate`](Self::Indeterminate).
    pub fn indeterminate(op: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Indeterminate { op, source: source.into() }
    }

    /// The one place that knows what may be tried again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } | Self::Indeterminate { .. } => Retry::Same,
            Self::Compacted { .. } | Self::LeaseGone { .. } => Retry::AfterReading,
            Self::Refused { .. } | Self::Corrupt { .. } => Retry::Never,
        }
    }
}

/// What a caller may do after a failed call. Every loop over it needs a bound of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The identical call, a little later.
    Same,
    /// Another call, made from what the store holds now.
    AfterReading,
    /// None.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again_unchanged() {
        let key = Key::from("k");
        for (error, retry) in [
            (StoreError::unavailable("get", "away"), Retry::Same),
            (StoreError::indeterminate("commit", "away"), Retry::Same),
            (StoreError::Compacted { after: Revision(1), oldest: Revision(2) }, Retry::AfterReading),
            (StoreError::LeaseGone { op: "put", lease: LeaseId(1) }, Retry::AfterReading),
            (StoreError::Refused { op: "put", rule: "a key isn't empty" }, Retry::Never),
            (StoreError::Corrupt { key, source: "checksum".into() }, Retry::Never),
        ] {
            assert_eq!(error.retry(), retry, "{error}");
        }
    }
}
