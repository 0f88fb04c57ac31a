//! Keeps logs from growing for ever.
//!
//! - Now and then everything that is remembered of the activity log is said again in it (a *carry*), so that it can
//!   be cut right before.
//! - What is older than activity is kept goes to the archive, if there is one, and out of the store.
//! - Where the store should stay small, frames of the control log that no start needs go to the archive, too.
//!
//! A cut is an event first (`log.trimmed`). After a kill in between, the next look goes on.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ActivityCommand, ControlCommand, LogName, Position, Timestamp};
use underpass_eventlog::{
    Archive, ArchivedFrames, Cut, LogError, TrimError, archive, cut_before, cut_below_snapshots,
    delete_trimmed, trim,
};

use crate::caller::Caller;
use crate::control::Control;
use crate::error::ControlError;

/// Events of a carry that go out with one command.
const CARRIED_AT_ONCE: usize = 256;
/// Commands younger than this are remembered, and their frames stay in the store.
const REMEMBERED: Duration = underpass_eventlog::REMEMBERED_FOR;

/// Why old frames are still where they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// No archive is configured.
    #[error("frames are archived in the data folder, and this server has no archive there")]
    NoArchive,
    /// The log did not take an event.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Frames could not be read, archived or deleted.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl KeepError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoArchive => "archive.needed",
            Self::Control(error) => error.code(),
            Self::Trim(error) => error.code(),
            Self::Log(error) => error.code(),
        }
    }
}

/// What trimming comes to, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trimming {
    /// Which log.
    pub log: LogName,
    /// The last position that is cut off; `None` if there is nothing to cut.
    pub cut: Option<Cut>,
    /// Whether what is cut off is in the archive.
    pub archived: bool,
    /// Frames that were deleted.
    pub frames: u64,
}

/// Looks now and then until told to stop.
pub(crate) async fn run(control: &Control, stop: &CancellationToken) {
    loop {
        if control.may_write()
            && let Err(error) = look(control, stop).await
        {
            tracing::warn!(%error, code = error.code(), "old frames stay where they are for now");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(control.options.keep.look_every) => {}
        }
    }
}

async fn look(control: &Control, stop: &CancellationToken) -> Result<(), KeepError> {
    let keep = &control.options.keep;
    let now = control.clock.now();
    if carry_is_due(control, now).await? {
        control.carry(stop).await?;
    }
    let before = now.minus(keep.activity.max(REMEMBERED));
    for log in LogName::ALL {
        if log == LogName::Activity || keep.trim_control {
            let system = Caller::system();
            let done = control.trim(&system, log, before, false, stop).await?;
            if let Some(cut) = done.cut {
                tracing::info!(%log, until = cut.until.0, frames = done.frames, "old frames left the store");
            }
        }
    }
    Ok(())
}

/// A carry is due when the last one is old, and something has happened since.
async fn carry_is_due(control: &Control, now: Timestamp) -> Result<bool, KeepError> {
    let view = control.activity();
    let every = control.options.keep.carry_every;
    if let Some(last) = view.state.finished_carries().next_back() {
        return Ok(last.finished < view.position && last.started_at.plus(every) <= now);
    }
    // The first one waits until the log is as old as that.
    let first = control.activity_log().read(Position(0), 1).await?;
    Ok(first.first().is_some_and(|event| event.recorded_at.plus(every) <= now))
}

impl Control {
    /// Says again in the activity log everything that is remembered of it, so that the log can be cut there.
    ///
    /// # Errors
    /// The log takes no events; a later call begins anew.
    pub async fn carry(&self, stop: &CancellationToken) -> Result<(), KeepError> {
        let system = Caller::system();
        self.record(&system, ActivityCommand::StartCarry).await?;
        loop {
            let carried = self.record(&system, ActivityCommand::Carry { limit: CARRIED_AT_ONCE }).await?;
            if carried.events.is_empty() {
                break;
            }
            if stop.is_cancelled() {
                return Err(TrimError::Stopped.into());
            }
        }
        self.record(&system, ActivityCommand::FinishCarry).await?;
        Ok(())
    }

    /// Copies frames up to `until` (the end of the log, if `None`) to the archive. The store keeps them.
    ///
    /// # Errors
    /// There is no archive, or it or the log can't be used.
    pub async fn archive(
        &self,
        log: LogName,
        until: Option<Position>,
        stop: &CancellationToken,
    ) -> Result<ArchivedFrames, KeepError> {
        let _alone = self.keeping.lock().await;
        let place = self.archive_of(log)?.ok_or(KeepError::NoArchive)?;
        let until = until.unwrap_or(Position(u64::MAX));
        Ok(archive(&self.bare, &place, until, stop).await?)
    }

    /// Takes what was recorded before `before` out of a log: to the archive, if there is one, and out of the store.
    /// The log is cut at the newest possible place before that time; with `only_look` nothing is changed.
    ///
    /// # Errors
    /// The control log is not cut without an archive.
    pub async fn trim(
        &self,
        caller: &Caller,
        log: LogName,
        before: Timestamp,
        only_look: bool,
        stop: &CancellationToken,
    ) -> Result<Trimming, KeepError> {
        let _alone = self.keeping.lock().await;
        let place = self.archive_of(log)?;
        let archived = place.is_some();
        if log == LogName::Control && !archived {
            return Err(KeepError::NoArchive);
        }
        let cut = self.cut(log, before).await?;
        let trimming = Trimming { log, cut, archived, frames: 0 };
        if only_look {
            return Ok(trimming);
        }
        let frames = match cut {
            None => self.go_on(log, place.as_deref(), stop).await?,
            Some(cut) => {
                if let Some(place) = &place {
                    archive(&self.bare, place, cut.until, stop).await?;
                }
                self.note_cut(caller, log, cut).await?;
                trim(&self.bare, log, cut, place.as_deref(), stop).await?.frames
            }
        };
        Ok(Trimming { frames, ..trimming })
    }

    async fn cut(&self, log: LogName, before: Timestamp) -> Result<Option<Cut>, KeepError> {
        let noted = self.noted_cut(log);
        let cut = match log {
            LogName::Control => {
                let remembered = self.clock.now().minus(REMEMBERED);
                cut_below_snapshots(&self.bare, log, before.min(remembered)).await?
            }
            LogName::Activity => match self.activity().state.last_carry_before(before) {
                Some(carry) => cut_before(&self.bare, log, carry.started).await?,
                None => None,
            },
        };
        Ok(cut.filter(|cut| cut.until > noted))
    }

    /// Ends what was noted, and then cut short by the end of the process.
    async fn go_on(
        &self,
        log: LogName,
        place: Option<&Archive>,
        stop: &CancellationToken,
    ) -> Result<u64, KeepError> {
        let noted = self.noted_cut(log);
        if noted.0 == 0 {
            return Ok(0);
        }
        match cut_before(&self.bare, log, noted.next()).await? {
            Some(cut) => Ok(trim(&self.bare, log, cut, place, stop).await?.frames),
            // The tail says so already: only frames may be left over.
            None => Ok(delete_trimmed(&self.bare, log, stop).await?),
        }
    }

    fn noted_cut(&self, log: LogName) -> Position {
        match log {
            LogName::Control => self.state().state.trimmed(),
            LogName::Activity => self.activity().state.trimmed(),
        }
    }

    async fn note_cut(&self, caller: &Caller, log: LogName, cut: Cut) -> Result<(), KeepError> {
        let Cut { until, hash } = cut;
        match log {
            LogName::Control => {
                self.execute(caller, ControlCommand::NoteTrimmed { until, hash }).await?;
            }
            LogName::Activity => {
                self.record(caller, ActivityCommand::NoteTrimmed { until, hash }).await?;
            }
        }
        Ok(())
    }

    fn archive_of(&self, log: LogName) -> Result<Option<Arc<Archive>>, KeepError> {
        let Some(archives) = self.archives.as_ref().filter(|_| self.options.keep.archiving) else {
            return Ok(None);
        };
        let id = match log {
            LogName::Control => self.log().id(),
            LogName::Activity => self.activity_log().id(),
        };
        let Some(id) = id else { return Ok(None) };
        let archive = archives.of(log, id).map_err(|source| TrimError::Archive { log, source })?;
        Ok(Some(archive))
    }
}
