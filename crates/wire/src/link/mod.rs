//! Messages of a link, and how they are cut into chunks.

mod commands;
mod framing;
mod lists;
mod messages;
mod secret;

pub use commands::{
    Answer, CodeIssued, CodeRedeemed, Command, Done, ExposeMapping, Failure, FailureClass, History,
    IssueCode, Lines, ListMappings, MappingInfo, MappingMade, MappingStatus, Mappings, Outcome, RedeemCode,
    RemoveMapping, Request, RevokeCode, Status, StatusInfo,
};
pub use framing::{
    CHUNK_BYTES_MAX, Direction, LANE_QUEUE_BYTES_MAX, LANE_QUEUE_MESSAGES_MAX, Lane, LinkDecoder,
    LinkEncoder, LinkError, MESSAGE_BYTES_MAX, PushError, Received, STRANGER_MESSAGE_BYTES_MAX,
};
pub use lists::LIST_ITEMS_MAX;
pub use messages::{
    Applied, Body, ChannelRole, Desired, DesiredMapping, ENVELOPE_PAYLOAD_BYTES_MAX, Envelope, GoingAway,
    Hello, IngressKind, Kick, KickReason, LinkMessage, MappingResult, MappingRole, MappingUsage, Ping, Pong,
    Refused, Report, ResultStatus, Seal, Subject, Ticket, TicketRequest, Tickets, Unsupported, Welcome,
};
pub use secret::SecretBytes;
