//! Undoing a command of the past.

use std::time::Duration;

use underpass_domain::{
    ControlCommand, ControlEvent, DecodeError, DomainEvent, LogName, LogPosition, Past, Position,
};
use underpass_eventlog::{AsOf, Committed, LogError, Recorded};

use crate::caller::Caller;
use crate::control::Control;
use crate::error::ControlError;

/// Events looked through at once for what has happened since.
const READ_AT_ONCE: usize = 1_000;
/// How long a node that is behind the store may take to catch up with the command.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);

impl Control {
    /// Undoes the whole command that made the event at `position` of the control log, by the command that
    /// compensates it. Its events name the position as their cause.
    ///
    /// What compensates it is decided at the head of the log, so nothing can come between; what has changed
    /// since is left alone and refused. Reads the log from `position` on.
    pub async fn undo(
        &self,
        caller: &Caller,
        position: Position,
    ) -> Result<Committed<ControlEvent>, ControlError> {
        let cause = LogPosition { log: LogName::Control, position };
        let command = self.log().command_at(position).await?;
        let command = command.ok_or(ControlError::NoEvent { position: cause })?;
        let (Some(first), Some(last)) = (command.first(), command.last()) else {
            return Err(ControlError::NoEvent { position: cause });
        };
        let (first, last) = (first.position, last.position);
        if !self.log().wait_for(last, CATCH_UP_WAIT).await {
            return Err(ControlError::unavailable(format!("this node has not seen {last} yet")));
        }
        let before = self.log().as_of(AsOf::Position(Position(first.0.saturating_sub(1)))).await?;
        let events = command.iter().map(decoded).collect::<Result<_, _>>()?;
        let past = Past::new(&before.state, events);
        let overtaken = self.overtaken(&past, last).await?;
        let past = Box::new(past.overtaken_at(overtaken));
        self.execute(&caller.clone().because_of(cause), ControlCommand::Undo { position, past }).await
    }

    /// The newest event after `last` that has changed what the command had left.
    async fn overtaken(&self, past: &Past, last: Position) -> Result<Option<Position>, ControlError> {
        let (of, head) = (past.of(), self.state().position);
        let (mut at, mut newest) = (last, None);
        while at < head {
            let page = self.log().read(at, READ_AT_ONCE).await?;
            let Some(end) = page.last().map(|event| event.position) else { break };
            for event in page.iter().filter(|event| event.stream == of) {
                if past.overtaken_by(&decoded(event)?) {
                    newest = Some(event.position);
                }
            }
            at = end;
        }
        Ok(newest)
    }
}

pub(crate) fn decoded<E: DomainEvent>(event: &Recorded) -> Result<E, ControlError> {
    event.decode().map_err(|error| {
        let (log, position, why) = (event.log, event.position, error.to_string());
        let newer = matches!(error, DecodeError::Unknown { .. } | DecodeError::UnknownCodec { .. });
        let source = if newer {
            LogError::Newer { log, position, why }
        } else {
            LogError::Corrupt { log, position, why }
        };
        ControlError::Unreadable { source }
    })
}
