//! Two loops side by side in one task, until both are through or something ends them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{Counters, Options};

/// Silence is looked for this many times within the time allowed, so that a tunnel outlives its
/// limit by a quarter at most and no timer is touched when bytes move.
const LOOKS: u32 = 4;

/// Time-outs shorter than this are taken for this: below, the timer is no longer exact.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);

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
    let (mut inwards, mut outwards) = (pin!(inwards), pin!(outwards));
    let mut stopped = pin!(options.stop.cancelled());
    let mut silent = pin!(silence(flow, options));
    poll_fn(|cx| {
        if let Poll::Ready(failure) = inwards.as_mut().poll(cx) {
            return Poll::Ready(Cause::Failed(failure));
        }
        if let Poll::Ready(failure) = outwards.as_mut().poll(cx) {
            return Poll::Ready(Cause::Failed(failure));
        }
        if flow.done() == (true, true) {
            return Poll::Ready(Cause::BothDone);
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
