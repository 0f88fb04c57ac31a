//! What a tunnel is told, what it counts, and how it ends.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use underpass_pipeline::record::BODY_BYTES_MAX;

/// The chunk of a tunnel that isn't in bulk: more than a request or an answer usually takes.
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;

/// The chunk of bulk, which is the longest body of a record.
pub const CHUNK_BYTES_MAX: usize = BODY_BYTES_MAX;

/// How long a tunnel may be silent once one of its directions has ended.
pub const LINGER: Duration = Duration::from_mins(1);

/// Bytes in one direction after which it counts as bulk and may go raw: by then the extra calls of
/// splice are a small part, and most requests and answers are over.
pub const BULK_AFTER: u64 = 1024 * 1024;

/// How one tunnel is to be run. `Options::default()` limits nothing but the linger.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ends a tunnel through which nothing has moved for this long (and at most a quarter more).
    pub idle_timeout: Option<Duration>,
    /// The same, once one direction has ended; the shorter of both holds.
    pub linger: Duration,
    /// The longest chunk, cut to [`CHUNK_BYTES_MIN`]..=[`CHUNK_BYTES_MAX`].
    pub chunk_max: usize,
    /// Lets an unsealed direction between two TCP sockets turn into the bare stream once it is bulk.
    /// Such a channel serves no further tunnel.
    pub allow_raw: bool,
    /// Bytes already taken from the plain side. They are sent first.
    pub early: Bytes,
    /// Ends the tunnel at once when cancelled.
    pub stop: CancellationToken,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            linger: LINGER,
            chunk_max: CHUNK_BYTES_MAX,
            allow_raw: true,
            early: Bytes::new(),
            stop: CancellationToken::new(),
        }
    }
}

/// Bytes moved, added to while tunnels run. One may count many tunnels (all of a mapping).
#[derive(Debug, Default)]
pub struct Counters {
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Counters {
    /// Bytes that came in from the plain side and were written to the channel. Of [`forward()`]:
    /// from the first channel to the second.
    ///
    /// [`forward()`]: crate::forward()
    pub fn in_bytes(&self) -> u64 {
        self.in_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were written to the plain side. Of [`forward()`]: from the second channel to the first.
    ///
    /// [`forward()`]: crate::forward()
    pub fn out_bytes(&self) -> u64 {
        self.out_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_in(&self, bytes: u64) {
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_out(&self, bytes: u64) {
        self.out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a tunnel ended and what it moved.
#[derive(Debug)]
pub struct Ended {
    /// Why it is over.
    pub how: How,
    /// As [`Counters::in_bytes`], of this tunnel.
    pub in_bytes: u64,
    /// As [`Counters::out_bytes`], of this tunnel.
    pub out_bytes: u64,
    pub(crate) reusable: bool,
}

impl Ended {
    /// Whether the channel may carry another tunnel. Also true after a tunnel that was cut off, if
    /// both ends agreed on where its records stop. [`forward()`](crate::forward()) speaks of both channels.
    pub fn channel_reusable(&self) -> bool {
        self.reusable
    }
}

/// Why a tunnel is over.
#[derive(Debug)]
#[non_exhaustive]
pub enum How {
    /// Both directions came to their end.
    Finished {
        /// Whether the channel may carry another tunnel: not after a raw direction.
        channel_reusable: bool,
    },
    /// Nothing moved for the time allowed.
    Idle,
    /// The other end cut the tunnel off.
    Reset,
    /// The caller or the target failed; the other end was told.
    PlainFailed(io::Error),
    /// The channel failed or ended in the middle, or its peer broke the rules of records.
    ChannelFailed(io::Error),
    /// A record was changed, repeated or out of order on the way.
    Forged,
    /// [`Options::stop`] was cancelled.
    Stopped,
}
