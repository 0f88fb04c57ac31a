//! Two loops side by side in one task, until both are through or something ends them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, sleep_until};

use crate::{Counters, Options};

/// Silence is looked for this many times within the time allowed, so that a tunnel outlives its
/// limit by a quarter at most and no timer is touched when bytes move.
const LOOKS: u32 = 4;

/// Time-outs shorter than this are taken for this: below, the timer is no longer exact.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);

/// Bytes that a loop moves before it lets the other loop of its tunnel, and the tunnels that share its
/// thread, have theirs: two chunks of bulk, well under a millisecond.
const TURN_BYTES: usize = 512 * 1024;

/// What the smallest move counts for. A call costs as much as copying about so many bytes.
const MOVE_BYTES: usize = 8 * 1024;

/// One loop's turn. The runtime's own budget is one for the whole task: a loop that always finds
/// something to do would use it up each time, and the loop polled after it would never get to run.
#[derive(Debug)]
pub(crate) struct Turn {
    left: usize,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self { left: TURN_BYTES }
    }

    /// Counts a move, and waits for the next turn when this one is used up.
    pub(crate) async fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes.max(MOVE_BYTES));
        if self.left == 0 {
            self.left = TURN_BYTES;
            yield_now().await;
        }
    }
}

/// What both loops of one tunnel tell of themselves. Relaxed atomics, because one task holds them in
/// two futures; nobody else looks.
#[derive(Debug)]
pub(crate) struct Flow<'a> {
    counters: &'a Counters,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
    touched: AtomicU64,
    in_done: AtomicBool,
    out_done: AtomicBool,
}

impl<'a> Flow<'a> {
    pub(crate) fn new(counters: &'a Counters) -> Self {
        Self {
            counters,
            in_bytes: AtomicU64::new(0),
            out_bytes: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            in_done: AtomicBool::new(false),
            out_done: AtomicBool::new(false),
        }
    }

    /// Something moved.
    pub(crate) fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_in(&self, bytes: usize) {
        self.in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.add_in(bytes as u64);
        self.touch();
    }

    pub(crate) fn add_out(&self, bytes: usize) {
        self.out_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.add_out(bytes as u64);
        self.touch();
    }

    pub(crate) fn in_bytes(&self) -> u64 {
        self.in_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn out_bytes(&self) -> u64 {
        self.out_bytes.load(Ordering::Relaxed)
    }

    /// The direction from the plain side (of the first channel) is through.
    pub(crate) fn in_done(&self) {
        self.in_done.store(true, Ordering::Relaxed);
    }

    /// The direction to the plain side (of the first channel) is through.
    pub(crate) fn out_done(&self) {
        self.out_done.store(true, Ordering::Relaxed);
    }

    fn done(&self) -> (bool, bool) {
        (self.in_done.load(Ordering::Relaxed), self.out_done.load(Ordering::Relaxed))
    }
}

/// What ended the loops.
#[derive(Debug)]
pub(crate) enum Cause<T> {
    BothDone,
    Failed(T),
    Idle,
    Stopped,
}

/// Runs both loops. A loop that is through says so in `flow` and goes on watching its streams; it
/// returns with a failure only.
pub(crate) async fn drive<T>(
    inwards: impl Future<Output = T>,
    outwards: impl Future<Output = T>,
    flow: &Flow<'_>,
    options: &Options,
) -> Cause<T> {
    // Each loop takes its own turns, see `Turn`.
    let (mut inwards, mut outwards) = (pin!(unconstrained(inwards)), pin!(unconstrained(outwards)));
    let mut stopped = pin!(unconstrained(options.stop.cancelled()));
    let mut silent = pin!(unconstrained(silence(flow, options)));
    poll_fn(|cx| {
        let mut failed = inwards.as_mut().poll(cx);
        if failed.is_pending() {
            failed = outwards.as_mut().poll(cx);
        }
        // Looked at first: whoever has heard both ends may close at once, and the loop that finished last
        // sees that in the same turn. It is no failure of this tunnel.
        if flow.done() == (true, true) {
            return Poll::Ready(Cause::BothDone);
        }
        if let Poll::Ready(failure) = failed {
            return Poll::Ready(Cause::Failed(failure));
        }
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Cause::Stopped);
        }
        silent.as_mut().poll(cx).map(|()| Cause::Idle)
    })
    .await
}

/// Returns when nothing has moved for as long as the options allow.
async fn silence(flow: &Flow<'_>, options: &Options) {
    let shorter = options.idle_timeout.map_or(options.linger, |idle| idle.min(options.linger));
    let every = (shorter / LOOKS).max(LOOK_EVERY_MIN);
    let (mut seen, mut quiet) = (flow.touched.load(Ordering::Relaxed), Duration::ZERO);
    loop {
        sleep_until(Instant::now() + every).await;
        let touched = flow.touched.load(Ordering::Relaxed);
        quiet = if touched == seen { quiet.saturating_add(every) } else { Duration::ZERO };
        seen = touched;
        let limit = match flow.done() {
            (false, false) => options.idle_timeout,
            _ => Some(shorter),
        };
        if limit.is_some_and(|limit| quiet >= limit) {
            return;
        }
    }
}
