//! What a log's handles and its tasks share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Aggregate, Clock, Position, Random};

use crate::batch::Request;
use crate::options::{Fence, LogOptions};
use crate::reader::Reader;
use crate::replay::View;

#[derive(Debug)]
pub(crate) struct Shared<A: Aggregate> {
    pub(crate) reader: Reader,
    pub(crate) options: LogOptions,
    /// The largest frame that the store commits.
    pub(crate) frame_bytes_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) queue: mpsc::Sender<Request<A>>,
    pub(crate) view: ArcSwap<View<A>>,
    pub(crate) changes: watch::Sender<Position>,
    pub(crate) fence: ArcSwapOption<Fence>,
    /// Revision of the head that the state stands at.
    pub(crate) revision: AtomicU64,
    /// Rings when the head may have moved.
    pub(crate) look: Notify,
    /// Cancelled by [`Log::close`](crate::Log::close).
    pub(crate) closing: CancellationToken,
    /// Cancelled when the appender has answered all and stored its last snapshot, or failed.
    pub(crate) finished: CancellationToken,
}
