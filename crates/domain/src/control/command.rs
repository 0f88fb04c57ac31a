//! What can be asked of the control log.

use std::net::SocketAddr;

use serde::Serialize;

use super::model::{Ingress, Mapping, MappingOptions, OptionsChange, Scope, Target};
use super::undo::Past;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, MappingId, NodeId, UserId};
use crate::meta::{Position, StreamId};
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

/// A request to change something.
///
/// Its serialised form is *what was asked for*, and is compared when a command id comes again. So it
/// leaves out what the server made up on the way: new ids, hashes of secrets that the server drew,
/// deadlines that it computed from "now", the port range of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ControlCommand {
    /// Allow one enrolment.
    IssueInvite {
        /// The id it gets.
        #[serde(skip_serializing)]
        invite: InviteId,
        /// The hash of its secret.
        #[serde(skip_serializing)]
        secret_hash: Digest32,
        /// Until when it can be used; at most [`INVITE_TTL_MAX`](crate::limits::INVITE_TTL_MAX) ahead.
        #[serde(skip_serializing)]
        expires_at: Timestamp,
        /// What it is for.
        label: Option<String>,
    },
    /// Take an invite back.
    RevokeInvite {
        /// The invite.
        invite: InviteId,
    },
    /// Note that an invite was not used in time.
    ExpireInvite {
        /// The invite.
        invite: InviteId,
    },
    /// Make a client known. With a key that is known already, nothing happens and the subject is the
    /// client that has it.
    EnrolClient {
        /// The id it gets.
        #[serde(skip_serializing)]
        client: ClientId,
        /// Its key, proven by the caller of this command.
        public_key: PublicKey,
        /// Its name.
        name: String,
        /// What it says about its machine.
        platform: String,
        /// The hash of the secret of its invite.
        invite_hash: Option<Digest32>,
        /// Whether the server lets in whoever comes without an invite.
        open_enrolment: bool,
    },
    /// Give a client another name.
    RenameClient {
        /// The client.
        client: ClientId,
        /// The name.
        name: String,
    },
    /// Let a client in no longer.
    BlockClient {
        /// The client.
        client: ClientId,
        /// Why.
        reason: String,
    },
    /// Let a client in again.
    UnblockClient {
        /// The client.
        client: ClientId,
    },
    /// Forget a client. Its mappings and open codes go with it.
    RemoveClient {
        /// The client.
        client: ClientId,
    },
    /// Make a mapping, or adopt the one made before.
    CreateMapping {
        /// The id it gets.
        #[serde(skip_serializing)]
        mapping: MappingId,
        /// Whose it is.
        owner: Option<UserId>,
        /// Its name. `None`: `port-` and the port of its target, with a number when that is taken.
        name: Option<String>,
        /// Where traffic enters.
        ingress: IngressRequest,
        /// Where it goes.
        target: Target,
        /// How.
        options: MappingOptions,
        /// The ports that may be given, first and last.
        #[serde(skip_serializing)]
        ports: (u16, u16),
        /// Whether a mapping of the same target client, the same kind of ingress and the same name
        /// (unnamed: the same target address) is taken as the one meant. What differs is changed.
        adopt: bool,
    },
    /// Change a mapping. `None`: as it is. What is asked for is said, not what comes of it: a repeat is told
    /// by its content, and the mapping may have changed since.
    ChangeMapping {
        /// The mapping.
        mapping: MappingId,
        /// Its name.
        name: Option<String>,
        /// What the target client dials.
        target_address: Option<String>,
        /// Its options.
        options: OptionsChange,
    },
    /// Serve a disabled mapping again.
    EnableMapping {
        /// The mapping.
        mapping: MappingId,
    },
    /// Serve a mapping no longer, but keep its name and port.
    DisableMapping {
        /// The mapping.
        mapping: MappingId,
    },
    /// Remove a mapping; its name and port are free.
    RemoveMapping {
        /// The mapping.
        mapping: MappingId,
    },
    /// Note that the time of a mapping ran out.
    ExpireMapping {
        /// The mapping.
        mapping: MappingId,
    },
    /// Offer one target to whoever redeems the code.
    IssueCode {
        /// The id it gets.
        #[serde(skip_serializing)]
        code: CodeId,
        /// The client that offers.
        client: ClientId,
        /// The part it is looked up by.
        lookup: String,
        /// The hash of what proves its secret part.
        redeem_hash: Digest32,
        /// What the client dials.
        target: String,
        /// Until when it can be redeemed.
        #[serde(skip_serializing)]
        activate_until: Timestamp,
        /// Seconds of access, from the redemption on.
        access_s: u64,
        /// Options of the mapping it becomes.
        options: MappingOptions,
    },
    /// Take a code back. Mappings it has become stay.
    RevokeCode {
        /// The code.
        code: CodeId,
    },
    /// Note that a code was not redeemed in time.
    ExpireCode {
        /// The code.
        code: CodeId,
    },
    /// Redeem a code. The same client again gets its mapping again.
    RedeemCode {
        /// The part it is looked up by.
        lookup: String,
        /// The hash of the proof that was shown.
        proof_hash: Digest32,
        /// Who redeems, and will listen.
        client: ClientId,
        /// The id that the mapping gets.
        #[serde(skip_serializing)]
        mapping: MappingId,
        /// Where it will listen.
        listen: SocketAddr,
    },
    /// Make an API key good.
    IssueKey {
        /// The id it gets.
        #[serde(skip_serializing)]
        key: KeyId,
        /// The hash of its token.
        #[serde(skip_serializing)]
        hash: Digest32,
        /// What it may do.
        scopes: Vec<Scope>,
        /// What it is for.
        label: Option<String>,
        /// Until when it is good.
        #[serde(skip_serializing)]
        expires_at: Option<Timestamp>,
    },
    /// Take an API key back.
    RevokeKey {
        /// The key.
        key: KeyId,
    },
    /// Note that the time of an API key ran out.
    ExpireKey {
        /// The key.
        key: KeyId,
    },
    /// Note that a node started.
    StartNode {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// The version of its program.
        version: String,
    },
    /// Note that a node stopped.
    StopNode {
        /// The node.
        node: NodeId,
    },
    /// Note that what lies before a position was deleted from this log on purpose.
    NoteTrimmed {
        /// The last position that went.
        until: Position,
        /// The chained hash of the frame that ended there.
        hash: Digest32,
    },
    /// Do something only if a thing still is as whoever asks has seen it. A thing that is not there holds
    /// nothing back: the command itself says so.
    OnlyAt {
        /// The thing: a client, mapping, code, invite or key.
        of: StreamId,
        /// The versions that will do. None: no version does.
        versions: Vec<u64>,
        /// What to do.
        command: Box<Self>,
    },
    /// Make a mapping what it was, in some things. `None`: as it is.
    RevertMapping {
        /// The mapping.
        mapping: MappingId,
        /// Its name.
        name: Option<String>,
        /// Where traffic enters.
        ingress: Option<Ingress>,
        /// What the target client dials.
        target_address: Option<String>,
        /// Its options.
        options: OptionsChange,
    },
    /// Bring a removed mapping back, with its id and all that it was.
    RestoreMapping {
        /// What it was.
        was: Box<Mapping>,
    },
    /// Undo a whole command by the one that compensates it. What that is, is found when this is decided: so
    /// nothing can come between.
    Undo {
        /// The event that was named, out of those of the command.
        position: Position,
        /// The command.
        #[serde(skip_serializing)]
        past: Box<Past>,
    },
}

/// Where traffic shall enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum IngressRequest {
    /// At a local TCP port of a client.
    Client {
        /// The listen client.
        client: ClientId,
        /// Where it listens. Port 0: the client takes any.
        listen: SocketAddr,
    },
    /// At a public TCP port of the server.
    Port {
        /// The port. `None`: the server picks one.
        port: Option<u16>,
    },
}
