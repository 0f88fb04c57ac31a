//! Becoming known to a server.

use std::sync::Arc;
use std::time::Duration;

use underpass_domain::{ClientId, PublicKey, Random};
use underpass_pipeline::aes_is_fast;
use underpass_transport::Connector;
use underpass_wire::link::Hello;
use underpass_wire::link::SecretBytes;
use underpass_wire::token::Invite;

use crate::core::off_the_runtime;
use crate::error::AgentError;
use crate::link::{ConnectFailure, Introduced, connect, introduce};
use crate::local::FolderLock;
use crate::state::{ServerFile, StateDir};

/// What `join` needs beside the invite.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The name this client would like; the server decides. Empty: derived by the server.
    pub name: String,
    /// This program's release, for people.
    pub version: String,
    /// Ways to the server, tried in order.
    pub connectors: Vec<Arc<dyn Connector>>,
    /// Where keys come from.
    pub random: Arc<dyn Random>,
    /// How long one address is tried.
    pub connect_deadline: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// This client's id.
    pub client: ClientId,
    /// The address that answered.
    pub server: String,
    /// This client's name, as the server knows it.
    pub name: String,
}

/// Joins the server of an invite: makes a key, proves the invite to the server, and keeps what the server
/// says. Nothing but the key is stored before the server's welcome, and that is taken back when the server
/// refuses. After a failure on the way the same call is repeated with the same key, and finds the same client.
/// A folder that has joined the invite's server already joins it again with its key: as the same client where
/// the server knows it, as a new one where it was removed.
///
/// # Errors
///
/// `link.unreachable`, `link.refused`, `state.*`. A folder that belongs to another server is left alone
/// (`state.joined`), and so is one that an agent or another join has at this moment (`agent.running`).
pub async fn join(state: &StateDir, invite: &Invite, options: &JoinOptions) -> Result<Joined, AgentError> {
    // Until the end of the join: the server gives the link of a key to who proves it last, so that a join beside
    // a running agent would end that agent's link.
    let _lock = {
        let (state, server_key) = (state.clone(), PublicKey(invite.server_key()));
        off_the_runtime(move || take_folder(&state, server_key)).await?
    };
    let key = {
        let (state, random) = (state.clone(), options.random.clone());
        off_the_runtime(move || state.joining_key(&*random)).await?
    };
    let hello = Hello {
        version: options.version.clone(),
        name: options.name.clone(),
        platform: platform(),
        invite: Some(SecretBytes::from(invite.secret())),
        aes: aes_is_fast(),
    };
    let addresses = invite.addresses().to_vec();
    let made = async {
        let link =
            connect(&addresses, &options.connectors, &key, &invite.server_key(), options.connect_deadline)
                .await?;
        introduce(link, hello).await
    };
    let Introduced { mut link, welcome } = match made.await {
        Ok(introduced) => introduced,
        Err(ConnectFailure::Refused) => {
            let state = state.clone();
            off_the_runtime(move || state.forget_joining_key()).await?;
            return Err(AgentError::CredentialsRefused { why: ConnectFailure::Refused.to_string() });
        }
        Err(ConnectFailure::Unreachable(why)) => {
            return Err(AgentError::Unreachable { server: addresses.join(", "), why });
        }
        Err(ConnectFailure::Protocol(what)) => return Err(AgentError::Protocol { what }),
    };
    let client = welcome.client.as_slice().try_into().map(ClientId::from_bytes);
    let client =
        client.map_err(|_| AgentError::Protocol { what: "the server's welcome names no client".into() })?;
    // The address that answered comes first from now on.
    let mut ordered = vec![link.address.clone()];
    ordered.extend(addresses.into_iter().filter(|address| *address != link.address));
    let name = if welcome.name.is_empty() { options.name.clone() } else { welcome.name };
    let file = ServerFile {
        addresses: ordered,
        server_key: PublicKey(invite.server_key()),
        client,
        name: name.clone(),
    };
    {
        let (state, random) = (state.clone(), options.random.clone());
        off_the_runtime(move || state.joined(&file, &*random)).await?;
    }
    link.writer.close().await;
    Ok(Joined { client, server: link.address, name })
}

/// The folder's lock, unless somebody has it, or the folder belongs to another server than the one with this key.
fn take_folder(state: &StateDir, server_key: PublicKey) -> Result<FolderLock, AgentError> {
    let lock = FolderLock::take(state)?;
    // Looked at under the lock: another join may have been first.
    let before = if state.has_joined() { Some(state.server()?) } else { None };
    let path = state.path().to_owned();
    match (lock, before) {
        (_, Some(before)) if before.server_key != server_key => {
            Err(AgentError::AlreadyJoined { path, server: before.addresses.join(", ") })
        }
        (Some(lock), _) => Ok(lock),
        (None, Some(before)) => Err(AgentError::Running { path, server: before.addresses.join(", ") }),
        (None, None) => Err(AgentError::Joining { path }),
    }
}

/// System and processor.
pub(crate) fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
