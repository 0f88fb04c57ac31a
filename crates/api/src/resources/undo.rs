//! Undoing a command of the past.

use poem_openapi::param::{Header, Path};
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use underpass_control::ControlError;
use underpass_domain::{LogName, LogPosition, NoUndo, Refusal};

use super::events::EventBody;
use super::logs::permit;
use super::{Tag, example};
use crate::answer::{Found, control_at};
use crate::auth::{Admin, Ask};
use crate::problem::{Problem, WriteFailure};

pub(crate) struct Undo;

/// What an undo has done.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Undone", example)]
pub(crate) struct UndoBody {
    /// The position at which the outcome can be read (`?at=`).
    position: String,
    /// `false`: this repeats an earlier request, and nothing was written.
    changed: bool,
    /// The position that was named.
    undone: String,
    /// What happened: the events of the command that compensates the one of that position. Undo one of them to
    /// have it back.
    events: Vec<EventBody>,
}

impl Example for UndoBody {
    fn example() -> Self {
        let mut event = EventBody::example();
        event.causation = Some("control:1790".into());
        Self {
            position: example::POSITION.into(),
            changed: true,
            undone: "control:1790".into(),
            events: vec![event],
        }
    }
}

#[OpenApi(tag = "Tag::Events")]
impl Undo {
    /// Undo a command
    ///
    /// Reverts the whole command that made this event, by the command that compensates it; its events carry the
    /// position as `causation`. What has no way back is refused with `undo.none`, what somebody has changed since
    /// with `undo.changed_since`; a removed mapping comes back with its id, unless its name, port or listen
    /// address was taken. Scope `admin`.
    #[oai(path = "/v1/events/:position/undo", method = "post", operation_id = "undo_event")]
    async fn undo(
        &self,
        ask: Ask<Admin>,
        /// A position of the control log, such as `control:1842` or `1842`.
        position: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
    ) -> Result<Found<UndoBody>, WriteFailure> {
        let unknown = || Problem::not_found("event.not_found", "event", &position.0);
        let at: LogPosition = position.0.parse().map_err(|_| unknown())?;
        if at.log != LogName::Control {
            return Err(ControlError::from(Refusal::from(NoUndo::ACTIVITY)).into());
        }
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let _permit = permit(&ask.state)?;
        let control = &ask.state.control;
        let committed = control.undo(&caller, at.position).await?;
        let events = match committed.positions {
            Some((first, _)) => control.log().command_at(first).await.map_err(ControlError::from)?,
            None => None,
        };
        let body = UndoBody {
            position: control_at(committed.head).to_string(),
            changed: committed.positions.is_some() && !committed.repeated,
            undone: at.to_string(),
            events: events.iter().flatten().map(EventBody::from).collect(),
        };
        Ok(Found::new(body, control_at(committed.head)))
    }
}
