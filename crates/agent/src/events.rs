//! What the agent tells those who watch it.

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use underpass_domain::{ClientId, MappingId, NodeId};

use crate::core::End;

/// Events kept for a watcher that is slower than the agent; older ones are dropped for that watcher alone.
pub(crate) const EVENTS_KEPT: usize = 1024;

/// Something a person in front of the agent wants to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AgentEvent {
    /// The link stands.
    Connected {
        /// Us.
        client: ClientId,
        /// The node at the other end.
        node: NodeId,
        /// What carries the link, for example `tcp`.
        transport: String,
    },
    /// The link is gone, or an attempt to make one failed.
    Disconnected {
        /// Why.
        reason: String,
        /// The next attempt comes after so many milliseconds.
        retry_in_ms: u64,
    },
    /// A mapping is served as wanted.
    MappingReady {
        /// The mapping.
        mapping: MappingId,
        /// Where it is listened on, when this client is the ingress.
        listen: Option<std::net::SocketAddr>,
    },
    /// A mapping can't be served for now.
    MappingFailed {
        /// The mapping.
        mapping: MappingId,
        /// Stable code.
        code: String,
        /// One sentence.
        message: String,
    },
    /// A mapping is no longer served here.
    MappingGone {
        /// The mapping.
        mapping: MappingId,
    },
    /// A tunnel runs.
    TunnelOpened {
        /// Its mapping.
        mapping: MappingId,
        /// Its id, 32 hex digits.
        tunnel: String,
        /// Who connected to the ingress, `ADDR:PORT`.
        caller: String,
        /// `end-to-end`, `pinned`, `node` or `plain`.
        sealed: String,
    },
    /// A tunnel is over.
    TunnelClosed {
        /// Its mapping.
        mapping: MappingId,
        /// Its id.
        tunnel: String,
        /// Bytes from the caller to the target.
        in_bytes: u64,
        /// Bytes from the target to the caller.
        out_bytes: u64,
        /// How it ended.
        how: String,
    },
    /// A caller could not be served.
    TunnelRefused {
        /// Its mapping.
        mapping: MappingId,
        /// Its id.
        tunnel: String,
        /// Stable code.
        code: String,
        /// One sentence.
        message: String,
    },
    /// The server ended the link for good.
    Kicked {
        /// Why.
        reason: String,
    },
    /// The agent that owned the state folder has ended, this process goes on in its place.
    TookOver,
}

/// A watcher's end of the event stream.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<AgentEvent>,
    end: watch::Receiver<Option<End>>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<AgentEvent>, end: watch::Receiver<Option<End>>) -> Self {
        Self { receiver, end }
    }

    /// The next event; `None` when the agent has ended. A watcher that was too slow goes on with the oldest
    /// event that is still kept.
    pub async fn next(&mut self) -> Option<AgentEvent> {
        loop {
            let received = tokio::select! {
                // What was told before the end is heard before the end.
                biased;
                received = self.receiver.recv() => received,
                _ = self.end.wait_for(Option::is_some) => return None,
            };
            match received {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    tracing::debug!(count, "events dropped for a slow watcher");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
