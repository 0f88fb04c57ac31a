//! The logs themselves: where they end, and whether they are whole.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use poem::http::StatusCode;
use poem::{Body, IntoResponse, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{Example, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use tokio::sync::SemaphorePermit;
use underpass_domain::{LogName, LogPosition, Position};
use underpass_eventlog::Selection;

use super::events::unreadable;
use super::{Tag, example};
use crate::answer::{Found, POSITION_HEADER, position_header};
use crate::auth::{Ask, Audit};
use crate::problem::{Problem, ReadFailure};
use crate::state::ApiState;

pub(crate) struct Logs;

/// Where a log ends.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct LogHead {
    /// Which log.
    log: String,
    /// The log's own id, from its first event.
    id: Option<String>,
    /// Its newest position, `log:number`.
    position: String,
    /// Counts restores: positions compare only within one epoch.
    epoch: u64,
    /// The chained hash of its newest frame, hexadecimal.
    hash: String,
    /// When the newest event was recorded.
    recorded_at: String,
}

impl Example for LogHead {
    fn example() -> Self {
        Self {
            log: "control".into(),
            id: Some("0190163d-8694-739b-aea5-966c26f8ad91".into()),
            position: example::POSITION.into(),
            epoch: 1,
            hash: "6f1d".repeat(16),
            recorded_at: example::AT.into(),
        }
    }
}

/// Whether a log is whole.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct LogVerified {
    /// Whether every frame, position and link of the chain is as it must be.
    ok: bool,
    /// Which log.
    log: String,
    /// The last position that is well, `log:number`.
    position: String,
    /// The chained hash there, hexadecimal.
    hash: String,
    /// Frames that are well.
    frames: u64,
    /// Events that are well.
    events: u64,
    /// What was not read because it was trimmed and is in no archive at hand: all up to this position, `log:number`.
    trimmed: Option<String>,
    /// The first position that is not.
    bad_position: Option<String>,
    /// What is wrong there.
    reason: Option<String>,
}

impl Example for LogVerified {
    fn example() -> Self {
        Self {
            ok: true,
            log: "control".into(),
            position: example::POSITION.into(),
            hash: "6f1d".repeat(16),
            frames: 1_530,
            events: 1_842,
            trimmed: None,
            bad_position: None,
            reason: None,
        }
    }
}

/// The lines of an export.
pub(crate) struct ExportAnswer {
    lines: Body,
    at: LogPosition,
}

impl IntoResponse for ExportAnswer {
    fn into_response(self) -> Response {
        let position = self.at.to_string();
        Response::builder()
            .content_type("application/x-ndjson")
            .header(POSITION_HEADER, position)
            .body(self.lines)
    }
}

impl ApiResponse for ExportAnswer {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The events, one a line.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/x-ndjson",
                    schema: String::schema_ref(),
                }],
                headers: vec![position_header()],
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

pub(super) fn path_log(text: &str) -> Result<LogName, Problem> {
    text.parse().map_err(|_| {
        Problem::new(StatusCode::NOT_FOUND, "log.not_found", "there are two logs, `control` and `activity`")
    })
}

/// Reading a whole log keeps a core and the disk busy: few at a time.
pub(super) fn permit(state: &ApiState) -> Result<SemaphorePermit<'_>, Problem> {
    state.replays.try_acquire().map_err(|_| {
        Problem::later("server.busy", "other requests are reading whole logs", Duration::from_secs(5))
    })
}

#[OpenApi(tag = "Tag::Events")]
impl Logs {
    /// Show where a log ends
    ///
    /// Scope `audit`.
    #[oai(path = "/v1/logs/:log/head", method = "get", operation_id = "get_log_head")]
    async fn head(
        &self,
        ask: Ask<Audit>,
        /// `control` or `activity`.
        log: Path<String>,
    ) -> Result<Found<LogHead>, ReadFailure> {
        let log = path_log(&log.0)?;
        let control = &ask.state.control;
        let (position, epoch, hash, at, id) = match log {
            LogName::Control => {
                let view = control.state();
                (view.position, view.epoch, view.hash, view.at, control.log().id())
            }
            LogName::Activity => {
                let view = control.activity();
                (view.position, view.epoch, view.hash, view.at, control.activity_log().id())
            }
        };
        let position = LogPosition { log, position };
        let body = LogHead {
            log: log.to_string(),
            id: id.map(|id| id.to_string()),
            position: position.to_string(),
            epoch,
            hash: hash.to_string(),
            recorded_at: at.to_string(),
        };
        Ok(Found::new(body, position))
    }

    /// Export a log
    ///
    /// JSON lines of CloudEvents 1.0, one event a line, from which the log can be checked and made again bit for bit;
    /// `docs/format/export-v1.md` describes them. What is appended meanwhile is not part of it. An export that breaks
    /// off ends without its last line. Scope `audit`.
    #[oai(path = "/v1/logs/:log/export", method = "get", operation_id = "export_log")]
    async fn export(
        &self,
        ask: Ask<Audit>,
        /// `control` or `activity`.
        log: Path<String>,
        /// Only events after this position.
        after: Query<Option<u64>>,
        /// Only events up to and with this position.
        until: Query<Option<u64>>,
    ) -> Result<ExportAnswer, ReadFailure> {
        let log = path_log(&log.0)?;
        let permit = Arc::clone(&ask.state.replays).try_acquire_owned().map_err(|_| {
            Problem::later("server.busy", "other requests are reading whole logs", Duration::from_secs(5))
        })?;
        let selection = Selection {
            after: Position(after.0.unwrap_or_default()),
            until: until.0.map(Position),
            // Only whole frames can be checked by who gets them.
            whole_frames: true,
        };
        let export = ask.state.control.export(log, selection).await.map_err(|error| unreadable(&error))?;
        let at = LogPosition { log, position: export.end() };
        let lines = export.into_stream().map(move |line| {
            let _while_it_lasts = &permit;
            match line {
                Ok(line) => Ok(format!("{line}\n")),
                Err(error) => {
                    tracing::error!(%error, "an export breaks off");
                    Err(std::io::Error::other(error))
                }
            }
        });
        Ok(ExportAnswer { lines: Body::from_bytes_stream(lines), at })
    }

    /// Verify a log
    ///
    /// Reads it from its beginning and checks every frame, the density of positions, the chain of hashes and the
    /// versions of streams. What is damaged is in the answer, with the first position. Scope `audit`.
    #[oai(path = "/v1/logs/:log/verify", method = "get", operation_id = "verify_log")]
    async fn verify(
        &self,
        ask: Ask<Audit>,
        /// `control` or `activity`.
        log: Path<String>,
    ) -> Result<Found<LogVerified>, ReadFailure> {
        let log = path_log(&log.0)?;
        let _permit = permit(&ask.state)?;
        let control = &ask.state.control;
        let verified = match log {
            LogName::Control => control.log().verify().await,
            LogName::Activity => control.activity_log().verify().await,
        };
        let verified = verified.map_err(|error| unreadable(&error))?;
        let position = LogPosition { log, position: verified.head };
        let (bad, reason) = verified.bad.unzip();
        let body = LogVerified {
            ok: verified.ok,
            log: log.to_string(),
            position: position.to_string(),
            hash: verified.hash.to_string(),
            frames: verified.frames,
            events: verified.events,
            trimmed: (verified.trimmed.0 > 0)
                .then(|| LogPosition { log, position: verified.trimmed }.to_string()),
            bad_position: bad.map(|position| LogPosition { log, position }.to_string()),
            reason,
        };
        Ok(Found::new(body, position))
    }
}
