//! Payloads, version 1. Released: never edited.
//!
//! What these structs look like is what is on disk. So they use nothing that may grow: ids, times,
//! numbers, texts and types of this module, which have no other use.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, CodeId, InviteId, KeyId, LogId, MappingId, NodeId, SessionId, UserId};
use crate::meta::Position;
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

/// Where a mapping's traffic enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ingress {
    /// A local port of a client.
    Client {
        /// The listen client.
        client: ClientId,
        /// Where it listens.
        listen: SocketAddr,
    },
    /// A public TCP port of the server.
    Port {
        /// The port.
        port: u16,
    },
}

/// Whether tunnels are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// As the program thinks best.
    Auto,
    /// Sealed.
    On,
    /// Not sealed.
    Off,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The program itself.
    System,
    /// Whoever may read the data folder.
    Operator,
    /// A node.
    Node(NodeId),
    /// A client.
    Client(ClientId),
    /// Who holds this API key.
    Key(KeyId),
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Read everything but the audit trail.
    Read,
    /// Read the audit trail.
    Audit,
    /// Read metrics.
    Metrics,
    /// Everything about one user's own things.
    User(UserId),
}

payloads! {
    /// The options of a mapping.
    Options {
        /// Whether tunnels are sealed.
        seal: Seal,
        /// Connections at a time. Absent: as many as the server allows.
        max_connections: Option<u32>,
        /// Seconds without a byte after which a tunnel ends. Absent: as the server has it.
        idle_timeout_s: Option<u32>,
        /// When the mapping ends. Absent: never.
        expires_at: Option<Timestamp>,
    }

    /// A log began.
    LogCreated {
        /// Its id, random.
        log: LogId,
    }

    /// An invite was issued.
    InviteIssued {
        /// The invite.
        invite: InviteId,
        /// The hash of its secret.
        secret_hash: Digest32,
        /// Until when it can be used.
        expires_at: Timestamp,
        /// What it is for, in the words of who issued it.
        label: Option<String>,
    }

    /// An invite was used.
    InviteUsed {
        /// The invite.
        invite: InviteId,
        /// The client that enrolled with it.
        client: ClientId,
    }

    /// An invite was revoked.
    InviteRevoked {
        /// The invite.
        invite: InviteId,
    }

    /// An invite was not used in time.
    InviteExpired {
        /// The invite.
        invite: InviteId,
    }

    /// A client became known.
    ClientEnrolled {
        /// The client.
        client: ClientId,
        /// Whose it is.
        owner: Option<UserId>,
        /// Its name.
        name: String,
        /// Its X25519 key.
        public_key: PublicKey,
        /// What it says about its machine.
        platform: String,
        /// The invite it used.
        invite: Option<InviteId>,
    }

    /// A client got another name.
    ClientRenamed {
        /// The client.
        client: ClientId,
        /// The name it has now.
        name: String,
    }

    /// A client was blocked, or the reason changed.
    ClientBlocked {
        /// The client.
        client: ClientId,
        /// Why.
        reason: String,
    }

    /// A client is no longer blocked.
    ClientUnblocked {
        /// The client.
        client: ClientId,
    }

    /// A client was removed. Its mappings and open codes went before, in the same decision.
    ClientRemoved {
        /// The client.
        client: ClientId,
        /// The name it had.
        name: String,
    }

    /// A mapping was made.
    MappingCreated {
        /// The mapping.
        mapping: MappingId,
        /// Whose it is.
        owner: Option<UserId>,
        /// Its name, unique among the mappings of the target client.
        name: String,
        /// Where traffic enters.
        ingress: Ingress,
        /// The client that dials the target.
        client: ClientId,
        /// What it dials, `host:port`.
        target: String,
        /// Options.
        options: Options,
        /// The connection code it came from.
        code: Option<CodeId>,
    }

    /// A mapping was changed. Holds what it is like now, changed or not.
    MappingChanged {
        /// The mapping.
        mapping: MappingId,
        /// Its name.
        name: String,
        /// Where traffic enters.
        ingress: Ingress,
        /// What the target client dials, `host:port`.
        target: String,
        /// Options.
        options: Options,
    }

    /// A disabled mapping is served again.
    MappingEnabled {
        /// The mapping.
        mapping: MappingId,
        /// Its name.
        name: String,
    }

    /// A mapping is no longer served; it keeps its name and port.
    MappingDisabled {
        /// The mapping.
        mapping: MappingId,
        /// Its name.
        name: String,
    }

    /// A mapping was removed. Its name and port are free.
    MappingRemoved {
        /// The mapping.
        mapping: MappingId,
        /// The name it had.
        name: String,
    }

    /// The time of a mapping ran out. Its name and port are free.
    MappingExpired {
        /// The mapping.
        mapping: MappingId,
        /// The name it had.
        name: String,
    }

    /// A removed mapping is back. Holds everything that it was.
    MappingRestored {
        /// The mapping.
        mapping: MappingId,
        /// Whose it is.
        owner: Option<UserId>,
        /// Its name.
        name: String,
        /// Where traffic enters.
        ingress: Ingress,
        /// The client that dials the target.
        client: ClientId,
        /// What it dials, `host:port`.
        target: String,
        /// Options.
        options: Options,
        /// The connection code it came from.
        code: Option<CodeId>,
        /// Whether it is switched on.
        enabled: bool,
        /// When it was made first.
        created_at: Timestamp,
        /// Who made it first.
        created_by: Actor,
    }

    /// A connection code was issued.
    CodeIssued {
        /// The code.
        code: CodeId,
        /// Whose it is.
        owner: Option<UserId>,
        /// The client that offers the target.
        client: ClientId,
        /// The part it is looked up by. Not secret.
        lookup: String,
        /// The hash of what proves its secret part.
        redeem_hash: Digest32,
        /// What the client dials, `host:port`.
        target: String,
        /// Until when it can be redeemed.
        activate_until: Timestamp,
        /// Seconds of access, from the redemption on.
        access_s: u64,
        /// Options of the mapping it becomes.
        options: Options,
    }

    /// A connection code was redeemed.
    CodeRedeemed {
        /// The code.
        code: CodeId,
        /// By whom.
        client: ClientId,
        /// The mapping it became.
        mapping: MappingId,
    }

    /// A connection code was revoked.
    CodeRevoked {
        /// The code.
        code: CodeId,
    }

    /// A connection code was not redeemed in time.
    CodeExpired {
        /// The code.
        code: CodeId,
    }

    /// An API key was issued.
    KeyIssued {
        /// The key.
        key: KeyId,
        /// The hash of its token.
        hash: Digest32,
        /// What it may do.
        scopes: Vec<Scope>,
        /// What it is for, in the words of who issued it.
        label: Option<String>,
        /// Until when it is good. Absent: until it is revoked.
        expires_at: Option<Timestamp>,
    }

    /// An API key was revoked.
    KeyRevoked {
        /// The key.
        key: KeyId,
    }

    /// The time of an API key ran out.
    KeyExpired {
        /// The key.
        key: KeyId,
    }

    /// A node started.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
        /// The version of its program.
        version: String,
    }

    /// A node stopped.
    NodeStopped {
        /// The node.
        node: NodeId,
    }

    /// A client's link was established.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// The client.
        client: ClientId,
        /// The node it is linked to.
        node: NodeId,
        /// The address it comes from, as the node sees it.
        address: SocketAddr,
        /// The transport of the link.
        transport: String,
    }

    /// A link ended.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// The client.
        client: ClientId,
        /// Why.
        reason: String,
    }

    /// A link ended without anybody saying so: its node is gone.
    SessionExpired {
        /// The session.
        session: SessionId,
        /// The client.
        client: ClientId,
    }

    /// What passed through a mapping since the last such event.
    UsageRecorded {
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
    }

    /// Somebody failed to prove who they are.
    AuthFailed {
        /// From which address.
        address: IpAddr,
        /// With which key, when it came so far.
        identity: Option<PublicKey>,
        /// What was wrong.
        reason: String,
    }

    /// A carry began: a block of events that repeats what this log amounts to, so that what lies before it can
    /// be done without.
    CarryStarted {
        /// The id of the log, for whoever reads from here on.
        log: LogId,
    }

    /// How a session ended.
    SessionEnd {
        /// When.
        at: Timestamp,
        /// The position of the event that says so.
        position: Position,
        /// Why.
        reason: String,
    }

    /// What is known of a session, said again.
    SessionCarried {
        /// The session.
        session: SessionId,
        /// The client.
        client: ClientId,
        /// The node it is linked to.
        node: NodeId,
        /// The address it comes from, as the node sees it.
        address: SocketAddr,
        /// The transport of the link.
        transport: String,
        /// The release of the client's program, as it says. Absent: it did not say.
        release: Option<String>,
        /// Since when.
        opened_at: Timestamp,
        /// How it ended. Absent: it is open.
        closed: Option<SessionEnd>,
    }

    /// What passed through a mapping so far, said again: totals.
    UsageCarried {
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
        /// When something passed last.
        last_at: Timestamp,
        /// The position of the event that says so.
        position: Position,
    }

    /// A failed authentication, said again.
    AuthFailureCarried {
        /// The position of the event that said so first.
        position: Position,
        /// When it was.
        at: Timestamp,
        /// From which address.
        address: IpAddr,
        /// With which key, when it came so far.
        identity: Option<PublicKey>,
        /// What was wrong.
        reason: String,
    }

    /// A carry is whole: what this log amounts to is known from its beginning on.
    CarryFinished {
        /// The position of its `carry.started`.
        started: Position,
    }

    /// The frames of this log up to a position were deleted on purpose.
    LogTrimmed {
        /// The last position that went.
        until: Position,
        /// The chained hash of the frame that ended there.
        hash: Digest32,
    }

    /// The log was damaged; what could not be trusted was cut off, and a new epoch began.
    LogRepaired {
        /// The first position of the epoch before that is no more, or is another now: that of this event.
        cut_from: Position,
        /// How many positions are known to be lost; 0, if none is.
        lost: u64,
        /// The chained hash of the last frame that stayed.
        cut_hash: Digest32,
        /// What was wrong.
        reason: String,
    }
}
