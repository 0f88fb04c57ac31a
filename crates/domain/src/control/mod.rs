//! The control log: clients, mappings, codes, invites, keys, nodes.

mod command;
mod decide;
mod difference;
mod evolve;
mod model;
mod no_undo;
mod parts;
mod refusal;
mod state;
#[cfg(test)]
mod tests;
mod touched;
mod undo;

pub use command::{ControlCommand, IngressRequest};
pub use difference::{Change, ChangeKind, Difference, FieldChange};
pub use model::{
    ApiKey, Client, ClientStatus, Code, CodeStatus, Ingress, Invite, InviteStatus, Mapping, MappingOptions,
    MappingStatus, Node, OptionsChange, Scope, Seal, Target,
};
pub use no_undo::NoUndo;
pub use refusal::{Quota, Refusal, RefusalClass};
pub use state::ControlState;
pub use touched::Touched;
pub use undo::Past;

use crate::aggregate::{Aggregate, Decision};
use crate::events::{ControlEvent, v1};
use crate::ids::LogId;
use crate::meta::{EventMeta, LogName, Meta};

impl Aggregate for ControlState {
    const LOG: LogName = LogName::Control;
    type Command = ControlCommand;
    type Event = ControlEvent;
    type Refusal = Refusal;

    fn decide(&self, meta: &Meta, command: &ControlCommand) -> Result<Decision<ControlEvent>, Refusal> {
        decide::decide(self, meta, command)
    }

    fn evolve(&mut self, event: &ControlEvent, at: &EventMeta) {
        evolve::evolve(self, event, at);
    }

    fn genesis(log: LogId) -> ControlEvent {
        v1::LogCreated { log }.into()
    }

    fn log_id(&self) -> Option<LogId> {
        self.log
    }
}
