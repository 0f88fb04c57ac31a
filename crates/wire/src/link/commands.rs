//! What a client may ask of its node over the link, and the answers.
//!
//! Each command has an id of 16 random bytes, by which its answer is found and by which the server knows a
//! repetition (asked again after a lost link, it runs once). Answers come in any order.

/// A request to change or to tell something.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The command's id, 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// What to do. None: newer than this release; answer with the failure `unsupported`.
    #[prost(oneof = "Request", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub request: Option<Request>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Request {
    /// Make a mapping from a public port to a target of this client.
    #[prost(message, tag = "2")]
    Expose(ExposeMapping),
    /// Remove a mapping for good.
    #[prost(message, tag = "3")]
    Remove(RemoveMapping),
    /// All mappings of this client.
    #[prost(message, tag = "4")]
    List(ListMappings),
    /// Offer a target of this client by a connection code.
    #[prost(message, tag = "5")]
    IssueCode(IssueCode),
    /// Use another client's connection code.
    #[prost(message, tag = "6")]
    RedeemCode(RedeemCode),
    /// Take a code back that was not used yet.
    #[prost(message, tag = "7")]
    RevokeCode(RevokeCode),
    /// What the server knows of this client.
    #[prost(message, tag = "8")]
    Status(Status),
    /// What happened to a mapping.
    #[prost(message, tag = "9")]
    History(History),
}

/// Makes a mapping, or adopts the one that this client made before.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExposeMapping {
    /// Its name; none: derived from the target.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The server's port; none: the server picks one.
    #[prost(uint32, optional, tag = "2")]
    pub port: Option<u32>,
    /// What this client dials, `host:port`.
    #[prost(string, tag = "3")]
    pub target: String,
    /// Whether its tunnels are sealed.
    #[prost(enumeration = "super::Seal", tag = "4")]
    pub seal: i32,
    /// How many tunnels it may have at once.
    #[prost(uint32, optional, tag = "5")]
    pub max_connections: Option<u32>,
    /// A tunnel that is idle for so many seconds ends.
    #[prost(uint32, optional, tag = "6")]
    pub idle_timeout_s: Option<u32>,
    /// When it ends, in milliseconds since the epoch.
    #[prost(uint64, optional, tag = "7")]
    pub expires_at_ms: Option<u64>,
    /// Whether the same mapping made before is taken, and changed where it differs.
    #[prost(bool, tag = "8")]
    pub adopt: bool,
}

/// Removes a mapping.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RemoveMapping {
    /// Its id as text, or its name.
    #[prost(string, tag = "1")]
    pub mapping: String,
}

/// Asks for all mappings of the client.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListMappings {}

/// Offers a target by a code. The server gets the public half and a hash, never the secret half.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IssueCode {
    /// The nine symbols to look the code up by.
    #[prost(string, tag = "1")]
    pub lookup: String,
    /// The hash of the code's redeem proof, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub redeem_hash: Vec<u8>,
    /// What this client dials, `host:port`.
    #[prost(string, tag = "3")]
    pub target: String,
    /// The code can be used for so many seconds; none: the server's default.
    #[prost(uint64, optional, tag = "4")]
    pub activation_s: Option<u64>,
    /// Who used it has access for so many seconds; none: the server's default.
    #[prost(uint64, optional, tag = "5")]
    pub access_s: Option<u64>,
    /// How many tunnels the mapping may have at once.
    #[prost(uint32, optional, tag = "6")]
    pub max_connections: Option<u32>,
    /// A tunnel that is idle for so many seconds ends.
    #[prost(uint32, optional, tag = "7")]
    pub idle_timeout_s: Option<u32>,
}

/// Uses a code.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RedeemCode {
    /// The nine symbols to look the code up by.
    #[prost(string, tag = "1")]
    pub lookup: String,
    /// The proof that this client has the secret half, 32 bytes.
    #[prost(message, optional, tag = "2")]
    pub proof: Option<super::SecretBytes>,
    /// Where this client will listen, `ip:port`.
    #[prost(string, tag = "3")]
    pub listen: String,
}

/// Takes a code back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RevokeCode {
    /// The code's id as text, or its nine symbols to look up.
    #[prost(string, tag = "1")]
    pub code: String,
}

/// Asks what the server knows of the client.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Status {}

/// Asks what happened to a mapping.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct History {
    /// Its id as text, or its name.
    #[prost(string, tag = "1")]
    pub mapping: String,
    /// At most so many events, the newest; 0: the server's default.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
}

/// What became of a command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// The command's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// What became of it. None: newer than this release, but done.
    #[prost(oneof = "Outcome", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub outcome: Option<Outcome>,
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Outcome {
    /// It was refused or failed.
    #[prost(message, tag = "2")]
    Failed(Failure),
    /// It is done; there is nothing to tell.
    #[prost(message, tag = "3")]
    Done(Done),
    /// The mapping that [`Request::Expose`] made or adopted.
    #[prost(message, tag = "4")]
    Exposed(MappingMade),
    /// The answer to [`Request::List`].
    #[prost(message, tag = "5")]
    Mappings(Mappings),
    /// The answer to [`Request::IssueCode`].
    #[prost(message, tag = "6")]
    CodeIssued(CodeIssued),
    /// The answer to [`Request::RedeemCode`].
    #[prost(message, tag = "7")]
    CodeRedeemed(CodeRedeemed),
    /// The answer to [`Request::Status`].
    #[prost(message, tag = "8")]
    Status(StatusInfo),
    /// The answer to [`Request::History`].
    #[prost(message, tag = "9")]
    Lines(Lines),
}

/// Why a command was not done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failure {
    /// Stable, e.g. `port.taken`.
    #[prost(string, tag = "1")]
    pub code: String,
    /// A sentence for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What people may do about it, or empty.
    #[prost(string, tag = "3")]
    pub hint: String,
    /// What programs may do about it.
    #[prost(enumeration = "FailureClass", tag = "4")]
    pub class: i32,
    /// Try again after so many milliseconds, for [`FailureClass::Unavailable`]; 0: not said.
    #[prost(uint32, tag = "5")]
    pub retry_after_ms: u32,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FailureClass {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// There is no such thing.
    NotFound = 1,
    /// It clashes with what is there.
    Conflict = 2,
    /// This client may not.
    Forbidden = 3,
    /// A limit is reached.
    Quota = 4,
    /// The request is malformed.
    Invalid = 5,
    /// Not now; the same command may succeed later.
    Unavailable = 6,
    /// The server does not know the request.
    Unsupported = 7,
}

/// It is done.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Done {
    /// The control log's position afterwards.
    #[prost(uint64, tag = "1")]
    pub position: u64,
}

/// A mapping was made or adopted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MappingMade {
    /// The mapping.
    #[prost(message, optional, tag = "1")]
    pub mapping: Option<MappingInfo>,
    /// Whether it was there before.
    #[prost(bool, tag = "2")]
    pub adopted: bool,
    /// The control log's position afterwards.
    #[prost(uint64, tag = "3")]
    pub position: u64,
}

/// Mappings of a client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mappings {
    /// In the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub mappings: Vec<MappingInfo>,
}

/// One mapping, for people and their scripts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MappingInfo {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where traffic enters.
    #[prost(enumeration = "super::IngressKind", tag = "3")]
    pub ingress: i32,
    /// The address where callers connect: `host:port` of the server, or the listen address of a client.
    #[prost(string, tag = "4")]
    pub public: String,
    /// What is dialled, `host:port`.
    #[prost(string, tag = "5")]
    pub target: String,
    /// The name of the client that dials.
    #[prost(string, tag = "6")]
    pub target_client: String,
    /// The name of the client that listens, or empty.
    #[prost(string, tag = "7")]
    pub listen_client: String,
    /// What the asking client is for it.
    #[prost(enumeration = "super::MappingRole", tag = "8")]
    pub role: i32,
    /// Whether it is in force.
    #[prost(enumeration = "MappingStatus", tag = "9")]
    pub status: i32,
    /// What is wrong with it just now, for people, or empty.
    #[prost(string, tag = "10")]
    pub trouble: String,
    /// Whether its tunnels are sealed.
    #[prost(enumeration = "super::Seal", tag = "11")]
    pub seal: i32,
    /// When it was made, in milliseconds since the epoch.
    #[prost(uint64, tag = "12")]
    pub created_at_ms: u64,
    /// When it ends, in milliseconds since the epoch.
    #[prost(uint64, optional, tag = "13")]
    pub expires_at_ms: Option<u64>,
    /// How many tunnels it may have at once.
    #[prost(uint32, optional, tag = "14")]
    pub max_connections: Option<u32>,
}

/// Whether a mapping is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MappingStatus {
    /// Not said, or newer than this release.
    Unspecified = 0,
    /// In force.
    Active = 1,
    /// Switched off.
    Disabled = 2,
}

/// A code is in force.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CodeIssued {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Until when it can be used, in milliseconds since the epoch.
    #[prost(uint64, tag = "2")]
    pub activate_until_ms: u64,
    /// For how many seconds who uses it has access.
    #[prost(uint64, tag = "3")]
    pub access_s: u64,
    /// The control log's position afterwards.
    #[prost(uint64, tag = "4")]
    pub position: u64,
}

/// A code was used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CodeRedeemed {
    /// The mapping it made.
    #[prost(message, optional, tag = "1")]
    pub mapping: Option<MappingInfo>,
    /// The id of the client that offers the target, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub target_client: Vec<u8>,
    /// The public key that the server knows of that client, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub target_key: Vec<u8>,
    /// The control log's position afterwards.
    #[prost(uint64, tag = "4")]
    pub position: u64,
}

/// What the server knows of a client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatusInfo {
    /// The client's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub client: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The session's id, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub session: Vec<u8>,
    /// Since when it lasts, in milliseconds since the epoch.
    #[prost(uint64, tag = "4")]
    pub since_ms: u64,
    /// The address that the node sees the client at.
    #[prost(string, tag = "5")]
    pub address: String,
    /// The node's name.
    #[prost(string, tag = "6")]
    pub node: String,
    /// The server's release.
    #[prost(string, tag = "7")]
    pub server_version: String,
    /// How many mappings the client has.
    #[prost(uint32, tag = "8")]
    pub mappings: u32,
    /// How many codes of the client can be used.
    #[prost(uint32, tag = "9")]
    pub open_codes: u32,
    /// How many of the client's tunnels run through this node.
    #[prost(uint32, tag = "10")]
    pub tunnels: u32,
    /// The control log's position.
    #[prost(uint64, tag = "11")]
    pub position: u64,
}

/// Lines of JSON.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Lines {
    /// One JSON object each, oldest first.
    #[prost(string, repeated, tag = "1")]
    pub lines: Vec<String>,
    /// Whether there were more.
    #[prost(bool, tag = "2")]
    pub truncated: bool,
}
