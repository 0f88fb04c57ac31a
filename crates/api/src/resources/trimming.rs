//! Old frames: into the archive, and out of the store.

use poem::http::StatusCode;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use tokio_util::sync::CancellationToken;
use underpass_control::{Control, KeepError};
use underpass_domain::{LogName, LogPosition, Position, Timestamp};
use underpass_eventlog::TrimError;

use super::events::unreadable;
use super::logs::{path_log, permit};
use super::{Tag, example};
use crate::answer::Found;
use crate::auth::{Admin, Ask};
use crate::problem::{Problem, WriteFailure};

pub(crate) struct Trimming;

/// Up to where a log shall be archived.
#[derive(Object, Clone, Debug)]
#[oai(example, deny_unknown_fields)]
pub(crate) struct ArchiveUntil {
    /// The last position; without it, all there is.
    until: Option<u64>,
}

impl Example for ArchiveUntil {
    fn example() -> Self {
        Self { until: Some(1_500) }
    }
}

/// What is in the archive now.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct LogArchived {
    /// Which log.
    log: String,
    /// The newest position that is in the archive, `log:number`; 0 if it is empty.
    until: String,
    /// Frames that were added.
    frames: u64,
    /// Their bytes.
    bytes: u64,
}

impl Example for LogArchived {
    fn example() -> Self {
        Self { log: "control".into(), until: "control:1500".into(), frames: 1_320, bytes: 412_004 }
    }
}

/// What shall be trimmed.
#[derive(Object, Clone, Debug)]
#[oai(example, deny_unknown_fields)]
pub(crate) struct TrimBefore {
    /// What was recorded before this time, RFC 3339; without it, now. The log is cut at the newest possible place before
    /// it, so some of that stays.
    before: Option<String>,
    /// Make it possible to cut right here: of the activity log, say everything again first that is remembered of it.
    #[oai(default)]
    carry: bool,
    /// Change nothing: only say what would be cut.
    #[oai(default)]
    dry_run: bool,
}

impl Example for TrimBefore {
    fn example() -> Self {
        Self { before: Some(example::AT.into()), carry: false, dry_run: true }
    }
}

/// What was trimmed, or would be.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct LogTrimmed {
    /// Which log.
    log: String,
    /// The last position that is cut off, `log:number`; without it there is nothing to cut.
    until: Option<String>,
    /// The chained hash there, hexadecimal.
    hash: Option<String>,
    /// Whether what is cut off is kept in the archive.
    archived: bool,
    /// Frames that were deleted from the store.
    frames: u64,
    /// Whether this is only what would happen.
    dry_run: bool,
}

impl Example for LogTrimmed {
    fn example() -> Self {
        Self {
            log: "activity".into(),
            until: Some("activity:77".into()),
            hash: Some("6f1d".repeat(16)),
            archived: true,
            frames: 61,
            dry_run: false,
        }
    }
}

fn head(control: &Control, log: LogName) -> LogPosition {
    let position = match log {
        LogName::Control => control.state().position,
        LogName::Activity => control.activity().position,
    };
    LogPosition { log, position }
}

fn failed(error: KeepError) -> Problem {
    let code = error.code();
    match error {
        KeepError::NoArchive => Problem::new(StatusCode::CONFLICT, code, error.to_string())
            .hint("set `log.archive` to `on`; a log in memory has no archive"),
        KeepError::Control(error) => error.into(),
        KeepError::Log(error) | KeepError::Trim(TrimError::Log(error)) => unreadable(&error),
        KeepError::Trim(error @ (TrimError::Store { .. } | TrimError::Stopped)) => {
            Problem::later("store.unavailable", error.to_string(), std::time::Duration::from_secs(2))
        }
        KeepError::Trim(TrimError::Archive { source, .. }) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, source.to_string())
        }
        error => Problem::new(StatusCode::CONFLICT, code, error.to_string()),
    }
}

#[OpenApi(tag = "Tag::Events")]
impl Trimming {
    /// Archive a log
    ///
    /// Copies its frames to files in the data folder, where they can be read after they have left the store. The store
    /// keeps them. Scope `admin`.
    #[oai(path = "/v1/logs/:log/archive", method = "post", operation_id = "archive_log")]
    async fn archive(
        &self,
        ask: Ask<Admin>,
        /// `control` or `activity`.
        log: Path<String>,
        body: Json<ArchiveUntil>,
    ) -> Result<Found<LogArchived>, WriteFailure> {
        let log = path_log(&log.0)?;
        let _permit = permit(&ask.state)?;
        let control = &ask.state.control;
        let stop = CancellationToken::new();
        let done = control.archive(log, body.0.until.map(Position), &stop).await.map_err(failed)?;
        let body = LogArchived {
            log: log.to_string(),
            until: LogPosition { log, position: done.until }.to_string(),
            frames: done.frames,
            bytes: done.bytes,
        };
        Ok(Found::new(body, head(control, log)))
    }

    /// Trim a log
    ///
    /// Takes old frames out of the store, to the archive if there is one. An event `log.trimmed` says so. The activity log
    /// can be cut where everything was said again that is remembered of it; the control log only into an archive, below
    /// the snapshots that a start needs and not within the last day. Scope `admin`.
    #[oai(path = "/v1/logs/:log/trim", method = "post", operation_id = "trim_log")]
    async fn trim(
        &self,
        ask: Ask<Admin>,
        /// `control` or `activity`.
        log: Path<String>,
        body: Json<TrimBefore>,
    ) -> Result<Found<LogTrimmed>, WriteFailure> {
        let log = path_log(&log.0)?;
        let TrimBefore { before, carry, dry_run } = body.0;
        let before: Option<Timestamp> = before
            .map(|before| before.parse())
            .transpose()
            .map_err(|_| Problem::invalid("before", "`before` must be a time in RFC 3339"))?;
        let _permit = permit(&ask.state)?;
        let control = &ask.state.control;
        let stop = CancellationToken::new();
        if carry && !dry_run && log == LogName::Activity {
            control.carry(&stop).await.map_err(failed)?;
        }
        let before = before.unwrap_or_else(|| control.now());
        let caller = ask.caller(None)?;
        let done = control.trim(&caller, log, before, dry_run, &stop).await.map_err(failed)?;
        let body = LogTrimmed {
            log: log.to_string(),
            until: done.cut.map(|cut| LogPosition { log, position: cut.until }.to_string()),
            hash: done.cut.map(|cut| cut.hash.to_string()),
            archived: done.archived,
            frames: done.frames,
            dry_run,
        };
        Ok(Found::new(body, head(control, log)))
    }
}
