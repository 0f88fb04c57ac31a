//! What follows from a request to note something.

use std::net::SocketAddr;

use super::{ActivityCommand as Command, ActivityState};
use crate::aggregate::{Decision, Subject};
use crate::events::{ActivityEvent, v1, v2};
use crate::ids::SessionId;
use crate::limits::{CARRY_BATCH_MAX, REASON_BYTES_MAX, WORD_BYTES_MAX};
use crate::meta::{Actor, Meta, Position};

/// Why something was not noted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActivityRefusal {
    /// Only nodes note what happens on them.
    #[error("not allowed: only nodes write the activity log")]
    Forbidden,
    /// No such session, or it closed so long ago that it is forgotten.
    #[error("there is no session {session}")]
    SessionUnknown {
        /// Which.
        session: SessionId,
    },
    /// The id of a new session is in use.
    #[error("session {session} exists already")]
    SessionExists {
        /// Which.
        session: SessionId,
    },
    /// Nothing is being carried.
    #[error("no carry is under way")]
    CarryNone,
    /// The carry has not said all.
    #[error("the carry has not said {left} things yet")]
    CarryUnfinished {
        /// How many are left.
        left: usize,
    },
    /// What was deleted is not known from a carry behind it.
    #[error("no carry behind {until} is finished, so what lies up to there is not to be deleted")]
    TrimUncarried {
        /// The last position that should have gone.
        until: Position,
    },
    /// The log was trimmed as far already.
    #[error("that the log was trimmed up to {until} can't be noted: it was up to {trimmed}")]
    TrimNoted {
        /// The last position that should have gone now.
        until: Position,
        /// The last one that went.
        trimmed: Position,
    },
}

impl ActivityRefusal {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::SessionUnknown { .. } => "session.not_found",
            Self::SessionExists { .. } => "session.exists",
            Self::CarryNone => "carry.none",
            Self::CarryUnfinished { .. } => "carry.unfinished",
            Self::TrimUncarried { .. } => "trim.uncarried",
            Self::TrimNoted { .. } => "trim.noted",
        }
    }
}

pub(super) fn decide(
    state: &ActivityState,
    meta: &Meta,
    command: &Command,
) -> Result<Decision<ActivityEvent>, ActivityRefusal> {
    if let Actor::Client(_) = meta.actor {
        return Err(ActivityRefusal::Forbidden);
    }
    match *command {
        Command::OpenSession { session, client, node, address, ref transport, ref release } => {
            let opened = v2::SessionOpened {
                session,
                client,
                node,
                // Zones and flow labels are not kept on disk.
                address: SocketAddr::new(address.ip(), address.port()),
                transport: cut(transport, WORD_BYTES_MAX),
                release: release.as_ref().map(|release| cut(release, WORD_BYTES_MAX)),
            };
            match state.session(session) {
                Some(same) if same.closed.is_none() && same.client == client && same.node == node => {
                    return Ok(Decision::already(session));
                }
                Some(_) => return Err(ActivityRefusal::SessionExists { session }),
                None => {}
            }
            let replaced = state.open_session_of(client).map(|old| {
                v1::SessionClosed { session: old.id, client, reason: "replaced by a newer link".into() }
                    .into()
            });
            Ok(Decision::new(session, replaced.into_iter().chain([opened.into()]).collect()))
        }
        Command::CloseSession { session, ref reason } => close(state, session, |client| {
            v1::SessionClosed { session, client, reason: cut(reason, REASON_BYTES_MAX) }.into()
        }),
        Command::ExpireSession { session } => {
            close(state, session, |client| v1::SessionExpired { session, client }.into())
        }
        Command::RecordUsage { mapping, bytes_in, bytes_out, tunnels, refused } => {
            if (bytes_in, bytes_out, tunnels, refused) == (0, 0, 0, 0) {
                return Ok(Decision::already(mapping));
            }
            let usage = v1::UsageRecorded { mapping, bytes_in, bytes_out, tunnels, refused };
            Ok(Decision::one(mapping, usage.into()))
        }
        Command::RecordAuthFailure { address, identity, ref reason } => {
            let failed = v1::AuthFailed { address, identity, reason: cut(reason, REASON_BYTES_MAX) };
            Ok(Decision::one(Subject::None, failed.into()))
        }
        Command::StartCarry | Command::Carry { .. } | Command::FinishCarry
            if !matches!(meta.actor, Actor::System | Actor::Node(_)) =>
        {
            Err(ActivityRefusal::Forbidden)
        }
        Command::StartCarry => Ok(match state.log {
            Some(log) => Decision::one(Subject::None, v1::CarryStarted { log }.into()),
            // Before its first event a log amounts to nothing.
            None => Decision::already(Subject::None),
        }),
        Command::Carry { limit } => {
            let next = state.next_carried(limit.clamp(1, CARRY_BATCH_MAX));
            Ok(Decision::new(Subject::None, next.ok_or(ActivityRefusal::CarryNone)?))
        }
        Command::FinishCarry => {
            let running = state.running_carry().ok_or(ActivityRefusal::CarryNone)?;
            if running.left > 0 {
                return Err(ActivityRefusal::CarryUnfinished { left: running.left });
            }
            Ok(Decision::one(Subject::None, v1::CarryFinished { started: running.started }.into()))
        }
        Command::NoteTrimmed { until, hash } => {
            let trimmed = state.trimmed();
            if until <= trimmed {
                return Err(ActivityRefusal::TrimNoted { until, trimmed });
            }
            if !state.finished_carries().any(|carry| until < carry.started) {
                return Err(ActivityRefusal::TrimUncarried { until });
            }
            Ok(Decision::one(Subject::None, v1::LogTrimmed { until, hash }.into()))
        }
    }
}

fn close(
    state: &ActivityState,
    session: SessionId,
    event: impl FnOnce(crate::ids::ClientId) -> ActivityEvent,
) -> Result<Decision<ActivityEvent>, ActivityRefusal> {
    let known = state.session(session).ok_or(ActivityRefusal::SessionUnknown { session })?;
    if known.closed.is_some() {
        return Ok(Decision::already(session));
    }
    Ok(Decision::one(session, event(known.client)))
}

/// The beginning of a text, at most so many bytes, never half a character.
fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}
