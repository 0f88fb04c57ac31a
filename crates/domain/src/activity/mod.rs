//! The activity log: sessions, usage totals, failed authentications.

mod carry;
mod decide;
mod state;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use carry::{FinishedCarry, RunningCarry};
pub use decide::ActivityRefusal;
pub use state::ActivityState;

use crate::aggregate::{Aggregate, Decision};
use crate::events::{ActivityEvent, v1};
use crate::ids::{ClientId, LogId, MappingId, NodeId, SessionId};
use crate::meta::{EventMeta, LogName, Meta, Position};
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

/// A request to note something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ActivityCommand {
    /// A link was established. An open session of the same client is closed: a client has one link.
    OpenSession {
        /// The id it gets.
        session: SessionId,
        /// The client.
        client: ClientId,
        /// The node.
        node: NodeId,
        /// Where the client comes from.
        address: SocketAddr,
        /// The transport.
        transport: String,
        /// The release of the client's program, as it says. Cut to
        /// [`WORD_BYTES_MAX`](crate::limits::WORD_BYTES_MAX).
        release: Option<String>,
    },
    /// A link ended.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Why. Cut to [`REASON_BYTES_MAX`](crate::limits::REASON_BYTES_MAX).
        reason: String,
    },
    /// A link ended with its node.
    ExpireSession {
        /// The session.
        session: SessionId,
    },
    /// What passed through a mapping since the last such command. All zero is nothing.
    RecordUsage {
        /// The mapping.
        mapping: MappingId,
        /// Bytes from callers to the target.
        bytes_in: u64,
        /// Bytes from the target to callers.
        bytes_out: u64,
        /// Tunnels that ended.
        tunnels: u64,
        /// Callers that were refused.
        refused: u64,
    },
    /// Somebody failed to prove who they are.
    RecordAuthFailure {
        /// From which address.
        address: IpAddr,
        /// With which key, when it came so far.
        identity: Option<PublicKey>,
        /// What was wrong. Cut to [`REASON_BYTES_MAX`](crate::limits::REASON_BYTES_MAX).
        reason: String,
    },
    /// Begin to say again all that is remembered. One that runs is given up: the newest counts.
    StartCarry,
    /// Say again some of what the running carry has not said yet. No event: it has said all.
    Carry {
        /// How much at most; at least one thing, never more than
        /// [`CARRY_BATCH_MAX`](crate::limits::CARRY_BATCH_MAX).
        limit: usize,
    },
    /// Note that the running carry has said all.
    FinishCarry,
    /// Note that what lies before a finished carry was deleted from this log on purpose.
    NoteTrimmed {
        /// The last position that went.
        until: Position,
        /// The chained hash of the frame that ended there.
        hash: Digest32,
    },
}

/// The life of one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The client.
    pub client: ClientId,
    /// The node.
    pub node: NodeId,
    /// Where the client came from.
    pub address: SocketAddr,
    /// The transport.
    pub transport: String,
    /// The release of the client's program, as it said. `None`: it did not, or this was not noted yet.
    pub release: Option<String>,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when, and why it ended; `None` while it is open.
    pub closed: Option<(Timestamp, String)>,
}

/// What passed through a mapping so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes from callers to the target.
    pub bytes_in: u64,
    /// Bytes from the target to callers.
    pub bytes_out: u64,
    /// Tunnels that ended.
    pub tunnels: u64,
    /// Callers that were refused.
    pub refused: u64,
    /// When something passed last.
    pub last_at: Timestamp,
}

/// Somebody failed to prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthFailure {
    /// When.
    pub at: Timestamp,
    /// From which address.
    pub address: IpAddr,
    /// With which key.
    pub identity: Option<PublicKey>,
    /// What was wrong.
    pub reason: String,
}

impl Aggregate for ActivityState {
    const LOG: LogName = LogName::Activity;
    type Command = ActivityCommand;
    type Event = ActivityEvent;
    type Refusal = ActivityRefusal;

    fn decide(
        &self,
        meta: &Meta,
        command: &ActivityCommand,
    ) -> Result<Decision<ActivityEvent>, ActivityRefusal> {
        decide::decide(self, meta, command)
    }

    fn evolve(&mut self, event: &ActivityEvent, at: &EventMeta) {
        self.apply(event, at);
    }

    fn genesis(log: LogId) -> ActivityEvent {
        v1::LogCreated { log }.into()
    }

    fn log_id(&self) -> Option<LogId> {
        self.log
    }
}
