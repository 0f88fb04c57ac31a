//! The fold of the control log, with everything that answers are looked up in.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::command::ControlCommand;
use super::model::{
    ApiKey, Client, Code, CodeStatus, Ingress, Invite, InviteStatus, Mapping, MappingStatus, Node,
};
use crate::ids::{ClientId, CodeId, InviteId, KeyId, LogId, MappingId, NodeId};
use crate::limits::{CLOSED_KEPT_MAX, DUE_BATCH_MAX, NODES_KEPT_MAX};
use crate::maps::{Map, Set, Table};
use crate::meta::{Entity, Position, StreamId};
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

/// What the control log amounts to. Cloning takes constant time: the maps are persistent.
///
/// All maps are ordered, so that equal states have equal snapshots, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlState {
    pub(super) log: Option<LogId>,
    pub(super) clients: Table<ClientId, Client>,
    client_keys: Map<PublicKey, ClientId>,
    pub(super) mappings: Table<MappingId, Mapping>,
    ports: Map<u16, MappingId>,
    /// By target client and name.
    names: Map<(ClientId, String), MappingId>,
    /// By listen client and address, but for port 0.
    listens: Map<(ClientId, SocketAddr), MappingId>,
    /// Which client takes part in which mapping, as listener or target.
    members: Set<(ClientId, MappingId)>,
    pub(super) codes: Table<CodeId, Code>,
    lookups: Map<String, CodeId>,
    open_codes: Set<(ClientId, CodeId)>,
    pub(super) invites: Table<InviteId, Invite>,
    invite_hashes: Map<Digest32, InviteId>,
    open_invites: Set<InviteId>,
    pub(super) keys: Table<KeyId, ApiKey>,
    key_hashes: Map<Digest32, KeyId>,
    active_keys: Set<KeyId>,
    pub(super) nodes: Table<NodeId, Node>,
    pub(super) deadlines: Set<(Timestamp, Due)>,
    /// What is used up, in that order.
    closed: Map<Position, Closed>,
    pub(super) trimmed: Position,
}

/// What a deadline is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Due {
    Mapping(MappingId),
    Code(CodeId),
    Invite(InviteId),
    Key(KeyId),
}

impl Due {
    /// Before all others of one time.
    pub(super) const FIRST: Self = Self::Mapping(MappingId::from_bytes([0; 16]));
    /// After all others.
    pub(super) const LAST: Self = Self::Key(KeyId::from_bytes([0xff; 16]));
}

/// Something that is remembered for a while only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Closed {
    Code(CodeId),
    Invite(InviteId),
    Key(KeyId),
}

/// Reading.
impl ControlState {
    /// All clients, by id.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// How many clients there are.
    pub fn client_count(&self) -> usize {
        self.clients.size()
    }

    /// The client with this id.
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(&id)
    }

    /// The client with this key.
    pub fn client_by_key(&self, key: &PublicKey) -> Option<&Client> {
        self.client_keys.get(key).and_then(|id| self.clients.get(id))
    }

    /// All mappings, by id.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.values()
    }

    /// The mapping with this id.
    pub fn mapping(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(&id)
    }

    /// The mapping with this public port.
    pub fn mapping_on_port(&self, port: u16) -> Option<&Mapping> {
        self.ports.get(&port).and_then(|id| self.mappings.get(id))
    }

    /// The mapping that this target client calls so.
    pub fn mapping_by_name(&self, client: ClientId, name: &str) -> Option<&Mapping> {
        self.names.get(&(client, name.to_owned())).and_then(|id| self.mappings.get(id))
    }

    /// The mapping for which this client listens there. Never one with port 0.
    pub fn mapping_on_listen(&self, client: ClientId, listen: SocketAddr) -> Option<&Mapping> {
        self.listens.get(&(client, listen)).and_then(|id| self.mappings.get(id))
    }

    /// All mappings in which the client takes part, served or not, by id.
    pub fn mappings_of(&self, client: ClientId) -> impl Iterator<Item = &Mapping> {
        let first = (client, MappingId::from_bytes([0; 16]));
        let last = (client, MappingId::from_bytes([0xff; 16]));
        self.members.range(first..=last).filter_map(|(_, mapping)| self.mappings.get(mapping))
    }

    /// All codes that are remembered, by id.
    pub fn codes(&self) -> impl Iterator<Item = &Code> {
        self.codes.values()
    }

    /// The code with this id.
    pub fn code(&self, id: CodeId) -> Option<&Code> {
        self.codes.get(&id)
    }

    /// The code with this lookup part.
    pub fn code_by_lookup(&self, lookup: &str) -> Option<&Code> {
        self.lookups.get(&lookup.to_owned()).and_then(|id| self.codes.get(id))
    }

    /// Codes of the client that were neither redeemed nor revoked nor noted as expired, by id.
    pub fn open_codes_of(&self, client: ClientId) -> impl Iterator<Item = &Code> {
        let first = (client, CodeId::from_bytes([0; 16]));
        let last = (client, CodeId::from_bytes([0xff; 16]));
        self.open_codes.range(first..=last).filter_map(|(_, code)| self.codes.get(code))
    }

    /// All invites that are remembered, by id.
    pub fn invites(&self) -> impl Iterator<Item = &Invite> {
        self.invites.values()
    }

    /// The invite with this id.
    pub fn invite(&self, id: InviteId) -> Option<&Invite> {
        self.invites.get(&id)
    }

    /// The invite whose secret has this hash.
    pub fn invite_by_hash(&self, hash: &Digest32) -> Option<&Invite> {
        self.invite_hashes.get(hash).and_then(|id| self.invites.get(id))
    }

    /// All keys that are remembered, by id.
    pub fn keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.keys.values()
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<&ApiKey> {
        self.keys.get(&id)
    }

    /// The key whose token has this hash.
    pub fn key_by_hash(&self, hash: &Digest32) -> Option<&ApiKey> {
        self.key_hashes.get(hash).and_then(|id| self.keys.get(id))
    }

    /// All nodes that are remembered, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The last position that was noted as deleted from this log on purpose; 0: none was.
    pub fn trimmed(&self) -> Position {
        self.trimmed
    }

    /// How often something has changed, its beginning included. `None`: it is not there, or has no versions.
    pub fn version(&self, of: StreamId) -> Option<u64> {
        let StreamId { entity, id } = of;
        match entity {
            Entity::Client => self.client(ClientId::from_bytes(id)).map(|client| client.version),
            Entity::Mapping => self.mapping(MappingId::from_bytes(id)).map(|mapping| mapping.version),
            Entity::Code => self.code(CodeId::from_bytes(id)).map(|code| code.version),
            Entity::Invite => self.invite(InviteId::from_bytes(id)).map(|invite| invite.version),
            Entity::Key => self.key(KeyId::from_bytes(id)).map(|key| key.version),
            Entity::Log | Entity::User | Entity::Session | Entity::Node => None,
        }
    }

    /// What a client has to do: the mappings that are served and in which it takes part, by id.
    /// Nothing for a client that is blocked or unknown.
    pub fn desired(&self, client: ClientId, now: Timestamp) -> Vec<&Mapping> {
        self.mappings_of(client).filter(|mapping| self.serves(mapping, now)).collect()
    }

    /// Whether tunnels of the mapping may be opened: it is switched on, its time has not run out, and
    /// nobody who takes part in it is blocked.
    pub fn serves(&self, mapping: &Mapping, now: Timestamp) -> bool {
        let active = |client: ClientId| self.client(client).is_some_and(Client::is_active);
        mapping.status == MappingStatus::Active
            && !mapping.is_past(now)
            && active(mapping.target.client)
            && mapping.listener().is_none_or(active)
    }

    /// When the next thing expires.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What is past its time and not yet noted as such: the commands that note it, the most overdue
    /// first, at most [`DUE_BATCH_MAX`].
    pub fn due(&self, now: Timestamp) -> Vec<ControlCommand> {
        let overdue = self.deadlines.iter().take_while(|(at, _)| *at <= now).take(DUE_BATCH_MAX);
        overdue
            .map(|(_, due)| match *due {
                Due::Mapping(mapping) => ControlCommand::ExpireMapping { mapping },
                Due::Code(code) => ControlCommand::ExpireCode { code },
                Due::Invite(invite) => ControlCommand::ExpireInvite { invite },
                Due::Key(key) => ControlCommand::ExpireKey { key },
            })
            .collect()
    }

    pub(super) fn involvements(&self, client: ClientId) -> usize {
        self.mappings_of(client).count()
    }

    pub(super) fn open_invite_count(&self) -> usize {
        self.open_invites.size()
    }

    pub(super) fn active_key_count(&self) -> usize {
        self.active_keys.size()
    }
}

/// Writing: whatever changes an entity goes through here, so that no index is forgotten.
impl ControlState {
    pub(super) fn put_client(&mut self, client: Client) {
        self.take_client(client.id);
        self.client_keys.insert_mut(client.public_key, client.id);
        self.clients.insert_mut(client.id, client);
    }

    /// Changes a client where it stands; its key never changes.
    pub(super) fn change_client(&mut self, id: ClientId, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients.get_mut(&id) {
            change(client);
        }
    }

    pub(super) fn take_client(&mut self, id: ClientId) -> Option<Client> {
        let client = self.clients.take(&id)?;
        self.client_keys.remove_mut(&client.public_key);
        Some(client)
    }

    pub(super) fn put_mapping(&mut self, mapping: Mapping) {
        let id = mapping.id;
        self.take_mapping(id);
        self.members.insert_mut((mapping.target.client, id));
        self.names.insert_mut((mapping.target.client, mapping.name.clone()), id);
        self.note_ingress(id, mapping.ingress);
        if let Some(end) = mapping.options.expires_at {
            self.deadlines.insert_mut((end, Due::Mapping(id)));
        }
        self.mappings.insert_mut(id, mapping);
    }

    /// Changes a mapping where it stands. Of the indexes, only those are touched that look at what is different:
    /// most changes are of its status or its options, and those of one mapping come often.
    pub(super) fn change_mapping(&mut self, id: MappingId, change: impl FnOnce(&mut Mapping)) {
        let Some(mapping) = self.mappings.get_mut(&id) else { return };
        let was = (mapping.name.clone(), mapping.ingress, mapping.options.expires_at);
        change(mapping);
        let client = mapping.target.client;
        let name = (mapping.name != was.0).then(|| mapping.name.clone());
        let (ingress, end) = (mapping.ingress, mapping.options.expires_at);
        if let Some(name) = name {
            self.names.remove_mut(&(client, was.0));
            self.names.insert_mut((client, name), id);
        }
        if ingress != was.1 {
            self.forget_ingress(id, was.1, client);
            self.note_ingress(id, ingress);
        }
        if end != was.2 {
            if let Some(end) = was.2 {
                self.deadlines.remove_mut(&(end, Due::Mapping(id)));
            }
            if let Some(end) = end {
                self.deadlines.insert_mut((end, Due::Mapping(id)));
            }
        }
    }

    pub(super) fn take_mapping(&mut self, id: MappingId) -> Option<Mapping> {
        let mapping = self.mappings.take(&id)?;
        self.members.remove_mut(&(mapping.target.client, id));
        self.names.remove_mut(&(mapping.target.client, mapping.name.clone()));
        self.forget_ingress(id, mapping.ingress, mapping.target.client);
        if let Some(end) = mapping.options.expires_at {
            self.deadlines.remove_mut(&(end, Due::Mapping(id)));
        }
        Some(mapping)
    }

    fn note_ingress(&mut self, id: MappingId, ingress: Ingress) {
        match ingress {
            Ingress::Port { port } => {
                self.ports.insert_mut(port, id);
            }
            Ingress::Client { client, listen } => {
                self.members.insert_mut((client, id));
                if listen.port() != 0 {
                    self.listens.insert_mut((client, listen), id);
                }
            }
        }
    }

    /// `target` takes part in the mapping however its traffic enters.
    fn forget_ingress(&mut self, id: MappingId, ingress: Ingress, target: ClientId) {
        match ingress {
            Ingress::Port { port } => {
                self.ports.remove_mut(&port);
            }
            Ingress::Client { client, listen } => {
                if client != target {
                    self.members.remove_mut(&(client, id));
                }
                if listen.port() != 0 {
                    self.listens.remove_mut(&(client, listen));
                }
            }
        }
    }

    pub(super) fn put_code(&mut self, code: Code, at: Position) {
        let id = code.id;
        self.take_code(id);
        self.lookups.insert_mut(code.lookup.clone(), id);
        if code.status == CodeStatus::Open {
            self.open_codes.insert_mut((code.client, id));
            self.deadlines.insert_mut((code.activate_until, Due::Code(id)));
        } else {
            self.closed.insert_mut(at, Closed::Code(id));
        }
        self.codes.insert_mut(id, code);
        self.forget_closed();
    }

    pub(super) fn take_code(&mut self, id: CodeId) -> Option<Code> {
        let code = self.codes.take(&id)?;
        self.lookups.remove_mut(&code.lookup);
        self.open_codes.remove_mut(&(code.client, id));
        self.deadlines.remove_mut(&(code.activate_until, Due::Code(id)));
        Some(code)
    }

    pub(super) fn put_invite(&mut self, invite: Invite, at: Position) {
        let id = invite.id;
        self.take_invite(id);
        self.invite_hashes.insert_mut(invite.secret_hash, id);
        if invite.status == InviteStatus::Open {
            self.open_invites.insert_mut(id);
            self.deadlines.insert_mut((invite.expires_at, Due::Invite(id)));
        } else {
            self.closed.insert_mut(at, Closed::Invite(id));
        }
        self.invites.insert_mut(id, invite);
        self.forget_closed();
    }

    pub(super) fn take_invite(&mut self, id: InviteId) -> Option<Invite> {
        let invite = self.invites.take(&id)?;
        self.invite_hashes.remove_mut(&invite.secret_hash);
        self.open_invites.remove_mut(&id);
        self.deadlines.remove_mut(&(invite.expires_at, Due::Invite(id)));
        Some(invite)
    }

    pub(super) fn put_key(&mut self, key: ApiKey, at: Position) {
        let id = key.id;
        self.take_key(id);
        self.key_hashes.insert_mut(key.hash, id);
        if key.revoked || key.expired {
            self.closed.insert_mut(at, Closed::Key(id));
        } else {
            self.active_keys.insert_mut(id);
            if let Some(end) = key.expires_at {
                self.deadlines.insert_mut((end, Due::Key(id)));
            }
        }
        self.keys.insert_mut(id, key);
        self.forget_closed();
    }

    pub(super) fn take_key(&mut self, id: KeyId) -> Option<ApiKey> {
        let key = self.keys.take(&id)?;
        self.key_hashes.remove_mut(&key.hash);
        self.active_keys.remove_mut(&id);
        if let Some(end) = key.expires_at {
            self.deadlines.remove_mut(&(end, Due::Key(id)));
        }
        Some(key)
    }

    pub(super) fn put_node(&mut self, node: Node) {
        self.nodes.insert_mut(node.id, node);
        if self.nodes.size() > NODES_KEPT_MAX {
            // Nodes that never said that they stopped leave last.
            let longest = self
                .nodes
                .values()
                .min_by_key(|node| (node.stopped_at.unwrap_or(Timestamp::MAX), node.started_at, node.id));
            if let Some(id) = longest.map(|node| node.id) {
                self.nodes.remove_mut(&id);
            }
        }
    }

    fn forget_closed(&mut self) {
        while self.closed.size() > CLOSED_KEPT_MAX {
            let Some((at, closed)) = self.closed.first().map(|(at, closed)| (*at, *closed)) else { return };
            self.closed.remove_mut(&at);
            match closed {
                Closed::Code(id) => {
                    self.take_code(id);
                }
                Closed::Invite(id) => {
                    self.take_invite(id);
                }
                Closed::Key(id) => {
                    self.take_key(id);
                }
            }
        }
    }
}
