//! Who asks.

use std::net::IpAddr;

use underpass_domain::{Actor, CommandId, LogPosition};

/// Who asks for a change, from where, and under which command id. All of it ends up in the records of the
/// events that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who is responsible.
    pub actor: Actor,
    /// The network address the request came from, where there is one.
    pub source: Option<IpAddr>,
    /// The id that makes a repeat of this command harmless. Without it every call is a new command.
    pub command: Option<CommandId>,
    /// What ties this command to others, such as the id of an HTTP request.
    pub correlation: Option<[u8; 16]>,
    /// The event that made somebody ask, such as the one that is undone.
    pub causation: Option<LogPosition>,
}

impl Caller {
    /// A caller without address, command id, correlation and cause.
    pub fn new(actor: Actor) -> Self {
        Self { actor, source: None, command: None, correlation: None, causation: None }
    }

    /// The node itself: expiry, reaping, start and stop.
    pub fn system() -> Self {
        Self::new(Actor::System)
    }

    /// Whoever may open the data folder or its control socket.
    pub fn operator() -> Self {
        Self::new(Actor::Operator)
    }

    /// The same caller, from this address.
    pub fn from_address(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The same caller, because of this event.
    pub fn because_of(mut self, event: LogPosition) -> Self {
        self.causation = Some(event);
        self
    }

    /// The same caller, for a command that may be repeated.
    pub fn with_command(mut self, command: CommandId) -> Self {
        self.command = Some(command);
        self
    }
}
