//! Data channels that wait here for callers.
//!
//! A caller that finds one costs no round trip for a new connection. How many are kept follows the demand: a
//! caller that finds none doubles the number, a quiet half minute takes one away.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use underpass_wire::channel::DataRole;
use underpass_wire::link::{Body, ChannelRole, Ticket, TicketRequest};

use crate::core::Core;
use crate::parked::{DIALS_MAX, DataChannel};
use crate::session::Session;
use crate::sync::lock;

/// How often a waiting channel is asked whether the node is there.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// A channel that does not answer in this time is dead.
const KEEPALIVE_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Channels that wait at most: more than this many callers in one round trip pay for their own.
const KEPT_MAX: usize = 16;
/// Tickets of one request, as the node takes them.
const TICKETS_PER_REQUEST: usize = 16;
/// Callers that wait for a channel at once; further ones are refused.
const WAITING_MAX: usize = 1024;
/// Before tickets are asked for again after a failure, while callers wait.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct CallerPool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest last; it is lent first, so that the others grow old and go.
    idle: Vec<DataChannel>,
    waiting: VecDeque<oneshot::Sender<DataChannel>>,
    /// How many tickets each request that has no answer yet asked for.
    requested: VecDeque<usize>,
    /// Channels that are asked for or being dialled.
    coming: usize,
    /// How many should wait.
    wanted: usize,
    /// The fewest that waited since the last look.
    lowest: usize,
    closed: bool,
}

/// Why there is no channel for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoChannel {
    /// Too many callers wait already.
    Crowded,
    /// None came in time, or the link is gone.
    None,
}

impl CallerPool {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default() }
    }

    /// How many wait.
    pub(crate) fn idle(&self) -> usize {
        lock(&self.state).idle.len()
    }

    /// Nothing more is lent; what waits is closed.
    pub(crate) fn close(&self) {
        let (idle, waiting) = {
            let mut state = lock(&self.state);
            state.closed = true;
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.waiting))
        };
        drop((idle, waiting));
    }

    /// Puts a channel to use: for a caller that waits, or among the waiting ones.
    pub(crate) fn give(&self, channel: DataChannel) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let mut channel = channel;
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(channel) {
                Ok(()) => return,
                // That caller has gone meanwhile.
                Err(back) => channel = back,
            }
        }
        if state.idle.len() < KEPT_MAX {
            state.idle.push(channel);
        }
    }

    /// How many tickets to ask for now. They count as coming.
    fn shortfall(&self) -> usize {
        let mut state = lock(&self.state);
        if state.closed {
            return 0;
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        let needed = state.waiting.len() + state.wanted.saturating_sub(state.idle.len());
        let count = needed.min(DIALS_MAX).saturating_sub(state.coming).min(TICKETS_PER_REQUEST);
        if count > 0 {
            state.coming += count;
            state.requested.push_back(count);
        }
        count
    }

    fn failed(&self, count: usize) {
        let mut state = lock(&self.state);
        state.coming = state.coming.saturating_sub(count);
    }
}

/// A channel that waits, unless there is none.
fn pop(session: &Session) -> Option<DataChannel> {
    let mut state = lock(&session.pool.state);
    let channel = state.idle.pop();
    state.lowest = state.lowest.min(state.idle.len());
    if channel.is_none() {
        state.wanted = (state.wanted * 2).clamp(1, KEPT_MAX);
    }
    channel
}

/// A channel for a caller, waiting or new.
pub(crate) async fn take(session: &Arc<Session>, deadline: Instant) -> Result<DataChannel, NoChannel> {
    if let Some(channel) = pop(session) {
        ask(session);
        return Ok(channel);
    }
    let receiver = {
        let mut state = lock(&session.pool.state);
        if state.closed {
            return Err(NoChannel::None);
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(NoChannel::Crowded);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        receiver
    };
    ask(session);
    timeout_at(deadline, receiver).await.ok().and_then(Result::ok).ok_or(NoChannel::None)
}

/// Sees to it that at least one channel waits: there is something to listen for.
pub(crate) fn keep_some(session: &Session) {
    {
        let mut state = lock(&session.pool.state);
        state.wanted = state.wanted.max(1);
    }
    ask(session);
}

/// Asks for as many tickets as are short.
fn ask(session: &Session) {
    loop {
        let count = session.pool.shortfall();
        let Ok(count @ 1..) = u32::try_from(count) else { return };
        if !session.send(Body::TicketRequest(TicketRequest { role: ChannelRole::Caller.into(), count })) {
            return;
        }
    }
}

/// The answer to the oldest request. Dials, one channel for each ticket.
pub(crate) fn take_tickets(core: &Arc<Core>, session: &Arc<Session>, tickets: Vec<Ticket>) {
    let asked = lock(&session.pool.state).requested.pop_front();
    let Some(asked) = asked else {
        tracing::debug!("tickets that nobody asked for");
        return;
    };
    let taken = tickets.len().min(asked);
    if taken < asked {
        session.pool.failed(asked - taken);
        retry(core, session);
    }
    for ticket in tickets.into_iter().take(taken) {
        let (core, session) = (core.clone(), session.clone());
        core.clone().tasks.spawn_job("caller channel", |stop| async move {
            let dialled = tokio::select! {
                dialled = DataChannel::dial(&session, &ticket, DataRole::Caller) => dialled,
                () = session.over.cancelled() => return Ok::<_, Infallible>(()),
                () = stop.cancelled() => return Ok(()),
            };
            session.pool.failed(1);
            match dialled {
                Ok(channel) => session.pool.give(channel),
                Err(failure) => {
                    tracing::debug!(error = &failure as &dyn std::error::Error, "no caller channel");
                    retry(&core, &session);
                }
            }
            Ok(())
        });
    }
}

/// Asks again in a moment. Those who wait bound it: they leave at their deadline.
fn retry(core: &Arc<Core>, session: &Arc<Session>) {
    let session = session.clone();
    core.tasks.spawn_job("ask for tickets again", |stop| async move {
        tokio::select! {
            () = sleep(RETRY_PAUSE) => ask(&session),
            () = session.over.cancelled() => {}
            () = stop.cancelled() => {}
        }
        Ok::<_, Infallible>(())
    });
}

/// Keeps what waits alive and lets go of what is too much, until the link ends.
pub(crate) fn tend(core: &Arc<Core>, session: &Arc<Session>) {
    let session = session.clone();
    core.tasks.spawn_job("caller pool", |stop| async move {
        loop {
            tokio::select! {
                () = sleep(KEEPALIVE_EVERY) => {}
                () = session.over.cancelled() => break,
                () = stop.cancelled() => break,
            }
            let old = {
                let mut state = lock(&session.pool.state);
                if state.lowest > 0 && state.wanted > 1 {
                    state.wanted -= 1;
                }
                let surplus = state.idle.len().saturating_sub(state.wanted);
                // The oldest are the first.
                drop(state.idle.drain(..surplus));
                state.lowest = state.idle.len();
                std::mem::take(&mut state.idle)
            };
            let checks = old.into_iter().map(|mut channel| async {
                channel.check(KEEPALIVE_ANSWER_MAX).await.is_ok().then_some(channel)
            });
            let mut checks = std::pin::pin!(all(checks));
            tokio::select! {
                alive = &mut checks => alive.into_iter().for_each(|channel| session.pool.give(channel)),
                () = session.over.cancelled() => break,
                () = stop.cancelled() => break,
            }
            ask(&session);
        }
        session.pool.close();
        Ok::<_, Infallible>(())
    });
}

/// Runs them side by side and keeps what came of those that succeeded.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = Option<T>>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::with_capacity(running.len());
    std::future::poll_fn(|context| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.extend(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}
