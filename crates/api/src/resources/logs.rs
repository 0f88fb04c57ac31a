//! The logs themselves: where they end, and whether they are whole.

use std::time::Duration;

use poem::http::StatusCode;
use poem_openapi::param::Path;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use tokio::sync::SemaphorePermit;
use underpass_domain::{LogName, LogPosition};

use super::events::unreadable;
use super::{Tag, example};
use crate::answer::Found;
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
            bad_position: None,
            reason: None,
        }
    }
}

fn path_log(text: &str) -> Result<LogName, Problem> {
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
            bad_position: bad.map(|position| LogPosition { log, position }.to_string()),
            reason,
        };
        Ok(Found::new(body, position))
    }
}
