//! What client and node say to each other, except commands.
//!
//! The encoding is tagged: a field that the reader doesn't know is skipped, one that the writer doesn't know
//! arrives as zero or empty. Tags are for ever; a field that is no longer used keeps its tag. Ids and keys
//! are byte strings here; [`bytes16`](crate::bytes16) and [`bytes32`](crate::bytes32) check their length.
//! Enumerations arrive as numbers; the accessor of the same name gives `Unspecified` for unknown ones.

use super::{Answer, Command, Lane, SecretBytes};

/// How long the payload of an [`Envelope`] may be. The longest pair handshake message has about 1.2 KiB.
pub const ENVELOPE_PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// One message of a link, as it is encoded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinkMessage {
    /// What it says. None: a kind that this release does not know.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    pub body: Option<Body>,
}

/// What a message says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Client: the first message. It proves the handshake.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Node: the link is up.
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    /// Node: the link is not wanted. Closes.
    #[prost(message, tag = "3")]
    Refused(Refused),
    /// Both: are you there?
    #[prost(message, tag = "4")]
    Ping(Ping),
    /// Both: the answer.
    #[prost(message, tag = "5")]
    Pong(Pong),
    /// Node: all mappings that the client must serve now.
    #[prost(message, tag = "6")]
    Desired(Desired),
    /// Client: what became of them.
    #[prost(message, tag = "7")]
    Applied(Applied),
    /// Client: wants to dial data channels.
    #[prost(message, tag = "8")]
    TicketRequest(TicketRequest),
    /// Node: dial this many data channels and park them.
    #[prost(message, tag = "9")]
    Tickets(Tickets),
    /// Both: something from or to another client.
    #[prost(message, tag = "10")]
    Envelope(Envelope),
    /// Client: what it did lately.
    #[prost(message, tag = "11")]
    Report(Report),
    /// Node: will stop soon; connect elsewhere or again.
    #[prost(message, tag = "12")]
    GoingAway(GoingAway),
    /// Node: this link ends now, for this reason. Closes.
    #[prost(message, tag = "13")]
    Kick(Kick),
    /// Client: please do this.
    #[prost(message, tag = "14")]
    Command(Command),
    /// Node: what became of it.
    #[prost(message, tag = "15")]
    Answer(Answer),
    /// Both: a message came that this release does not know.
    #[prost(message, tag = "16")]
    Unsupported(Unsupported),
}

impl Body {
    /// How urgent the message is.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Refused(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::GoingAway(_)
            | Self::Kick(_)
            | Self::Unsupported(_) => Lane::Pulse,
            Self::TicketRequest(_)
            | Self::Tickets(_)
            | Self::Envelope(_)
            | Self::Report(_)
            | Self::Command(_) => Lane::Work,
            // Results belong behind the commands that they depend on, not in front of tickets.
            Self::Desired(_) | Self::Applied(_) | Self::Answer(_) => Lane::Bulk,
        }
    }
}

/// The client presents itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The release, for people.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The name that the client would like, e.g. its host name. Counts at enrolment only.
    #[prost(string, tag = "2")]
    pub name: String,
    /// System and processor, e.g. `linux/x86_64`.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// The invite's secret, 16 bytes, at enrolment.
    #[prost(message, optional, tag = "4")]
    pub invite: Option<SecretBytes>,
    /// Whether the processor has AES instructions.
    #[prost(bool, tag = "5")]
    pub aes: bool,
}

/// The node lets the client in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// The client's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub client: Vec<u8>,
    /// The session's id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub session: Vec<u8>,
    /// The node's id, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub node: Vec<u8>,
    /// The server's release, for people.
    #[prost(string, tag = "4")]
    pub server_version: String,
    /// The id of the control log, 16 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub log_id: Vec<u8>,
    /// The log's epoch. Positions compare only within one.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// How often both sides ping, in milliseconds.
    #[prost(uint32, tag = "7")]
    pub ping_interval_ms: u32,
    /// Silence of this many milliseconds means that the other side is gone.
    #[prost(uint32, tag = "8")]
    pub ping_timeout_ms: u32,
    /// Whether the node's processor has AES instructions.
    #[prost(bool, tag = "9")]
    pub aes: bool,
    /// The key that will replace the server's, 32 bytes, or empty. To be pinned beside the present one.
    #[prost(bytes = "vec", tag = "10")]
    pub successor_key: Vec<u8>,
    /// The client's name, as the server knows it.
    #[prost(string, tag = "11")]
    pub name: String,
    /// Where public ports of mappings are reached, for people: a host name or address, or empty.
    #[prost(string, tag = "12")]
    pub public_host: String,
}

/// The node does not let the client in. Says nothing about why: the log and `explain` do.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Refused {}

/// Is somebody there?
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ping {
    /// Comes back in the [`Pong`].
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
}

/// Yes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pong {
    /// That of the [`Ping`].
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
}

/// What a client must serve: the whole set, as of a position.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Desired {
    /// The id of the control log, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub log_id: Vec<u8>,
    /// The log's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The position. In the same log and epoch, a lower one than that applied is ignored.
    #[prost(uint64, tag = "3")]
    pub position: u64,
    /// All of them. What is not among them is not served any more.
    #[prost(message, repeated, tag = "4")]
    pub mappings: Vec<DesiredMapping>,
}

/// One mapping that the client listens for, or is the target of, or both.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DesiredMapping {
    /// The mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where traffic enters.
    #[prost(enumeration = "IngressKind", tag = "3")]
    pub ingress: i32,
    /// The address to listen on, `ip:port`, for [`IngressKind::Client`].
    #[prost(string, tag = "4")]
    pub listen: String,
    /// The server's port, for [`IngressKind::Port`].
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// The address to dial, `host:port`.
    #[prost(string, tag = "6")]
    pub target: String,
    /// The target client's id, 16 bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub target_client: Vec<u8>,
    /// The target client's public key, 32 bytes.
    #[prost(bytes = "vec", tag = "8")]
    pub target_key: Vec<u8>,
    /// The listen client's id, 16 bytes, for [`IngressKind::Client`].
    #[prost(bytes = "vec", tag = "9")]
    pub listen_client: Vec<u8>,
    /// The listen client's public key, 32 bytes, for [`IngressKind::Client`].
    #[prost(bytes = "vec", tag = "10")]
    pub listen_key: Vec<u8>,
    /// Whether its tunnels are sealed.
    #[prost(enumeration = "Seal", tag = "11")]
    pub seal: i32,
    /// How many tunnels it may have at once.
    #[prost(uint32, optional, tag = "12")]
    pub max_connections: Option<u32>,
    /// A tunnel that is idle for so many seconds ends.
    #[prost(uint32, optional, tag = "13")]
    pub idle_timeout_s: Option<u32>,
    /// What the reader of this message is for it.
    #[prost(enumeration = "MappingRole", tag = "14")]
    pub role: i32,
    /// The public half of the connection code that it was made with, or empty. Such a pair met by the code.
    #[prost(string, tag = "15")]
    pub code_lookup: String,
    /// When it ends, in milliseconds since the epoch.
    #[prost(uint64, optional, tag = "16")]
    pub expires_at_ms: Option<u64>,
}

/// Where a mapping's traffic enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum IngressKind {
    /// Not said, or newer than this release. The mapping can't be served here.
    Unspecified = 0,
    /// A port of a client.
    Client = 1,
    /// A public port of the server.
    Port = 2,
}

/// Whether tunnels are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Seal {
    /// Not said. Means [`Seal::Auto`].
    Unspecified = 0,
    /// As the server thinks right, which is: sealed.
    Auto = 1,
    /// Sealed.
    On = 2,
    /// Plain, for networks that are trusted.
    Off = 3,
}

/// What a client is for a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MappingRole {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// It dials the target.
    Target = 1,
    /// It listens.
    Listen = 2,
    /// It does both.
    Both = 3,
}

/// What became of [`Desired`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Applied {
    /// The position that was applied.
    #[prost(uint64, tag = "1")]
    pub position: u64,
    /// One for each mapping of it.
    #[prost(message, repeated, tag = "2")]
    pub results: Vec<MappingResult>,
    /// The epoch of the position.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
}

/// What became of one mapping at the client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MappingResult {
    /// The mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mapping: Vec<u8>,
    /// Whether it works.
    #[prost(enumeration = "ResultStatus", tag = "2")]
    pub status: i32,
    /// For people: the address listened on, or why it doesn't work.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Whether a mapping works at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ResultStatus {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// The client listens for it.
    Listening = 1,
    /// The client dials its target when asked.
    Offered = 2,
    /// The port to listen on is taken.
    PortInUse = 3,
    /// The client's own rules forbid the target.
    Denied = 4,
    /// It can't be served, for another reason.
    Failed = 5,
}

/// What a data channel is for, from the agent's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ChannelRole {
    /// Not said, or newer than this release. Refused.
    Unspecified = 0,
    /// The node parks it and opens tunnels to the agent's targets.
    Target = 1,
    /// The agent parks it and dials for its own callers.
    Caller = 2,
}

/// The client wants to dial channels.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TicketRequest {
    /// What for.
    #[prost(enumeration = "ChannelRole", tag = "1")]
    pub role: i32,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// The right to dial channels; dial them now.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tickets {
    /// What for.
    #[prost(enumeration = "ChannelRole", tag = "1")]
    pub role: i32,
    /// One for each channel.
    #[prost(message, repeated, tag = "2")]
    pub tickets: Vec<Ticket>,
}

/// The right to dial one channel, once, within 10 s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ticket {
    /// Its id, 16 bytes, which the channel shows.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its key, 32 bytes, which never leaves the link.
    #[prost(message, optional, tag = "2")]
    pub key: Option<SecretBytes>,
}

/// Something from one client to another. Nodes pass it on and can't read it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// To the node: for whom. From the node: from whom. 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub peer: Vec<u8>,
    /// From the node: the sender's public key as the server knows it, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub peer_key: Vec<u8>,
    /// What it is about. The node passes it on only between the two clients of that subject.
    #[prost(oneof = "Subject", tags = "3, 4")]
    pub subject: Option<Subject>,
    /// A [`PairMessage`](crate::noise::PairMessage); at most [`ENVELOPE_PAYLOAD_BYTES_MAX`].
    #[prost(bytes = "vec", tag = "5")]
    pub payload: Vec<u8>,
}

/// What an envelope is about.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Subject {
    /// A mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    Mapping(Vec<u8>),
    /// The public half of a connection code.
    #[prost(string, tag = "4")]
    CodeLookup(String),
}

/// What the client did since its last report.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Report {
    /// Per mapping.
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<MappingUsage>,
    /// How many caller channels it holds parked.
    #[prost(uint32, tag = "2")]
    pub parked: u32,
}

/// What went through a mapping.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MappingUsage {
    /// The mapping's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mapping: Vec<u8>,
    /// Bytes towards the target.
    #[prost(uint64, tag = "2")]
    pub bytes_in: u64,
    /// Bytes from the target.
    #[prost(uint64, tag = "3")]
    pub bytes_out: u64,
    /// Tunnels that began.
    #[prost(uint64, tag = "4")]
    pub tunnels: u64,
    /// Callers that were turned away.
    #[prost(uint64, tag = "5")]
    pub refused: u64,
}

/// The node will stop.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GoingAway {
    /// Running tunnels may finish within so many milliseconds.
    #[prost(uint32, tag = "1")]
    pub grace_ms: u32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The node ends the link.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Kick {
    /// Why, and with it, whether to come back.
    #[prost(enumeration = "KickReason", tag = "1")]
    pub reason: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Why a link was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum KickReason {
    /// Not said, or newer than this release. Come back later.
    Unspecified = 0,
    /// The same client connected again; that link counts. Don't come back.
    Replaced = 1,
    /// The client was blocked.
    Blocked = 2,
    /// The client was removed.
    Removed = 3,
    /// An administrator ended the session. Come back.
    Disconnected = 4,
    /// The client broke the protocol.
    Protocol = 5,
    /// The node stops. Come back.
    Stopping = 6,
}

/// A message came that this release does not know. The link goes on.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Unsupported {
    /// The tag of its kind.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
}
