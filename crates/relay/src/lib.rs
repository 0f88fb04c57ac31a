//! Moves the bytes of tunnels.
//!
//! A tunnel joins a *plain* stream (a caller or a target) and a *channel* on which records are
//! spoken. [`tunnel()`] is one end of it, [`forward()`] the node in the middle that reads headers and
//! nothing else. Both run in the task that calls them: two loops side by side, no queue between
//! them, no lock and no allocation for a chunk, one write for a record.
//!
//! - **Half-close is kept**: each direction ends by itself, by a `FIN` record or, once it went raw,
//!   by the channel's own end.
//! - **Truncation shows**: whatever ends a tunnel early reaches both plain sides as a reset, never
//!   as an end of stream.
//! - **Nothing is held while nothing flows**: buffers and pipes belong to the thread and are lent
//!   for the time between a read and its write.
//! - **A channel outlives its tunnels**: after both ends of stream it carries the next one.

mod channel;
mod copy;
mod drive;
mod duplex;
mod forward;
mod inward;
mod options;
mod outward;
mod pool;
mod records;
mod splice;
mod tunnel;

pub use channel::{QUEUE_BYTES_MAX, Record, RecordChannel};
pub use duplex::{AsyncDuplex, Duplex};
pub use forward::forward;
pub use options::{BULK_AFTER, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Counters, Ended, How, LINGER, Options};
pub use records::RecordError;
pub use tunnel::tunnel;
