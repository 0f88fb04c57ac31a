//! Why a command of the past can't be undone.

use crate::ids::ClientId;
use crate::meta::{LogName, LogPosition, Position, StreamId};
use crate::time::Timestamp;

/// Why there is no command that would undo another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoUndo {
    /// Nothing undoes this kind of thing.
    #[error("{what} can't be undone: {why}")]
    Never {
        /// What was done.
        what: &'static str,
        /// Why that can't be taken back.
        why: &'static str,
    },
    /// It is no longer as the command left it: undoing it would undo something else, too.
    #[error("{of}: {what}{}", by(*.at))]
    ChangedSince {
        /// What is not as it was left.
        of: StreamId,
        /// How it differs.
        what: String,
        /// The newest event that made it so, where that is known.
        at: Option<Position>,
    },
    /// What was made would take with it what was made later.
    #[error(
        "{client} takes part in {mappings} mappings and offers {codes} open codes, which would go with it"
    )]
    BuiltUpon {
        /// The client that would go.
        client: ClientId,
        /// How many mappings it takes part in.
        mappings: usize,
        /// How many codes of it are open.
        codes: usize,
    },
    /// What would come back would be past its time.
    #[error("what would come back ended at {at}")]
    Over {
        /// When it ended.
        at: Timestamp,
    },
}

fn by(at: Option<Position>) -> String {
    let named = |position| format!(", by {}", LogPosition { log: LogName::Control, position });
    at.map(named).unwrap_or_default()
}

impl NoUndo {
    /// What the activity log notes has happened outside.
    pub const ACTIVITY: Self = Self::Never {
        what: "what the activity log notes",
        why: "it says what happened to links and callers; only what the control log decided has a way back",
    };

    /// The stable code, for programs. Each has a page in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Never { .. } => "undo.none",
            Self::ChangedSince { .. } => "undo.changed_since",
            Self::BuiltUpon { .. } => "undo.built_upon",
            Self::Over { .. } => "undo.over",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Never { .. } => return None,
            Self::ChangedSince { at: Some(at), .. } => {
                format!("undo that first: underpass undo {at}")
            }
            Self::ChangedSince { of, at: None, .. } => {
                format!("see what happened since: underpass log show --stream {of}")
            }
            Self::BuiltUpon { .. } => "remove those first, or the client itself with all it has".into(),
            Self::Over { .. } => "make a new one".into(),
        })
    }
}
