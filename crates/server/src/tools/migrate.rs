//! A log from one store into another, whole.

use std::sync::Arc;

use serde::Serialize;
use tokio::io::AsyncBufRead;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ActivityState, Aggregate, ControlState, LogName};
use underpass_eventlog::{AsOf, Copied, CopyError, ImportError, LogError, Progress, copy, replay_stored};
use underpass_store::Store;

use super::OpenPlace;
use crate::belonging;
use crate::error::StartError;

/// Why a log did not arrive. The source is as it was; run it again, and it goes on where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// Frames were not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Lines did not become a log.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// What the frames mean differs between both: a mistake of this program.
    #[error("the read models of the {log} log differ between source and target")]
    ReadModels {
        /// Which log.
        log: LogName,
    },
    /// A read model could not be made.
    #[error("the {log} log can't be replayed")]
    Replay {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: LogError,
    },
    /// The stores don't belong together, or one can't be asked.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl MigrateError {
    /// A stable code; each has a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Copy(error) => error.code(),
            Self::Import(error) => error.code(),
            Self::ReadModels { .. } => "log.bad",
            Self::Replay { source, .. } => source.code(),
            Self::Start(error) => error.code(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Copy(
                CopyError::Stopped { .. } | CopyError::Unavailable(_) | CopyError::Indeterminate(_),
            ) => "run it again: it goes on where it was",
            Self::Copy(CopyError::Source(_)) => "check the source with `underpass store check`",
            Self::Copy(CopyError::Contended { .. }) => {
                "stop the server that uses the target, and run it again"
            }
            Self::Copy(_) | Self::Import(ImportError::Target(_)) => "name an empty target",
            Self::Import(_) => "check the file with `underpass log verify-export`, and export it anew",
            Self::ReadModels { .. } => "keep both stores, and report this",
            Self::Replay { .. } => "check it with `underpass store check`",
            Self::Start(error) => return error.hint(),
        }
        .to_owned()
    }
}

/// One log that has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// What was copied.
    #[serde(flatten)]
    pub copied: Copied,
    /// Whether the fold over both gives the same; a difference is an error.
    pub read_models_equal: bool,
}

/// Copies both logs and the installation's link key. The source is only read; the target may hold nothing, or an
/// earlier copy, whole or in part.
///
/// # Errors
/// See [`MigrateError`]; what is in the target by then counts for nothing until a later run ends well.
pub async fn migrate(
    from: &OpenPlace,
    to: &OpenPlace,
    mut progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Vec<Migrated>, MigrateError> {
    let (from, to) = (from.store(), to.store());
    belonging::may_take(&from, &to).await?;
    belonging::refuse_half_moved(&from).await?;
    belonging::begin_move(&to).await?;
    let mut done = Vec::new();
    for log in LogName::ALL {
        let copied = copy(&from, &to, log, &mut progress, stop).await?;
        let equal = match log {
            LogName::Control => same::<ControlState>(&from, &to, &copied).await?,
            LogName::Activity => same::<ActivityState>(&from, &to, &copied).await?,
        };
        if !equal {
            return Err(MigrateError::ReadModels { log });
        }
        done.push(Migrated { copied, read_models_equal: equal });
    }
    belonging::take_over(&from, &to).await?;
    belonging::end_move(&to).await?;
    Ok(done)
}

async fn same<A: Aggregate>(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    copied: &Copied,
) -> Result<bool, MigrateError> {
    let at = AsOf::Position(copied.head);
    let fold = async |store| {
        replay_stored::<A>(store, at).await.map_err(|source| MigrateError::Replay { log: A::LOG, source })
    };
    Ok(fold(from).await? == fold(to).await?)
}

/// Makes one log from the lines of an export, in a store that holds nothing of it or its beginning.
///
/// # Errors
/// See [`MigrateError`].
pub async fn import(
    lines: impl AsyncBufRead + Unpin,
    to: &OpenPlace,
    log: LogName,
    progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Copied, MigrateError> {
    Ok(underpass_eventlog::import(lines, &to.store(), log, progress, stop).await?)
}
