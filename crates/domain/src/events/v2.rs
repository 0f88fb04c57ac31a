//! Payloads, version 2. Released: never edited.
//!
//! Only those that have a second version, each with what is made of the first. The rules are those of [`v1`]: what
//! these structs look like is what is on disk.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::v1;
use crate::ids::{ClientId, NodeId, SessionId};

/// A client's link was established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionOpened {
    /// The session.
    pub session: SessionId,
    /// The client.
    pub client: ClientId,
    /// The node it is linked to.
    pub node: NodeId,
    /// The address it comes from, as the node sees it.
    pub address: SocketAddr,
    /// The transport of the link.
    pub transport: String,
    /// The release of the client's program, as it says. Absent: it did not say, or the event is of version 1.
    pub release: Option<String>,
}

impl From<v1::SessionOpened> for SessionOpened {
    fn from(old: v1::SessionOpened) -> Self {
        let v1::SessionOpened { session, client, node, address, transport } = old;
        Self { session, client, node, address, transport, release: None }
    }
}
