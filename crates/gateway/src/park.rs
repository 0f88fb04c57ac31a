//! The parked target channels of one link.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Callers that may wait for a channel of one client. More than this means that the client does not keep up,
/// and a quick refusal helps more than a long wait.
const WAITERS_MAX: usize = 4096;

/// Tickets of one link that are under way. As each arrives another may be issued, so this bounds a burst of
/// dials, not the number of channels.
pub(crate) const EXPECTED_MAX: usize = 64;

/// The park shrinks towards its minimum by half when it was big enough for this long.
const SHRINK_AFTER: Duration = Duration::from_secs(30);

/// Channels of one client that wait for work, newest used first.
///
/// Its size follows demand: each caller that finds it empty makes it larger by one, and half a minute of
/// finding enough makes it smaller. `C` is a channel; tests use numbers.
#[derive(Debug)]
pub(crate) struct Park<C> {
    min: usize,
    max: usize,
    inner: Mutex<Inner<C>>,
}

#[derive(Debug)]
struct Inner<C> {
    idle: Vec<(C, Instant)>,
    /// Out of `idle` only to be asked for a sign of life.
    examined: usize,
    waiting: VecDeque<oneshot::Sender<C>>,
    /// When each ticket that is under way runs out.
    expected: VecDeque<Instant>,
    wanted: usize,
    enough_since: Instant,
    closed: bool,
}

/// What a caller finds.
#[derive(Debug)]
pub(crate) enum Taken<C> {
    Channel(C),
    /// None is free; the next is yours.
    Wait(oneshot::Receiver<C>),
    /// Too many wait already.
    Full,
    /// The link is over.
    Closed,
}

impl<C> Park<C> {
    pub(crate) fn new(min: usize, max: usize, now: Instant) -> Self {
        Self {
            min,
            max: max.max(min),
            inner: Mutex::new(Inner {
                idle: Vec::new(),
                examined: 0,
                waiting: VecDeque::new(),
                expected: VecDeque::new(),
                wanted: min,
                enough_since: now,
                closed: false,
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel that was used last, or a place in the queue.
    pub(crate) fn take(&self, now: Instant) -> Taken<C> {
        let mut inner = self.lock();
        if inner.closed {
            return Taken::Closed;
        }
        if let Some((channel, _)) = inner.idle.pop() {
            return Taken::Channel(channel);
        }
        inner.waiting.retain(|waiter| !waiter.is_closed());
        if inner.waiting.len() >= WAITERS_MAX {
            return Taken::Full;
        }
        inner.wanted = (inner.wanted + 1).min(self.max);
        inner.enough_since = now;
        let (sender, receiver) = oneshot::channel();
        inner.waiting.push_back(sender);
        Taken::Wait(receiver)
    }

    /// Parks a channel, or gives it to whoever waits. A channel too many is dropped, which closes it.
    pub(crate) fn put(&self, channel: C, now: Instant) {
        let mut surplus = None;
        {
            let mut inner = self.lock();
            let mut channel = channel;
            while let Some(waiter) = inner.waiting.pop_front() {
                match waiter.send(channel) {
                    Ok(()) => return,
                    Err(back) => channel = back,
                }
            }
            if inner.closed || inner.idle.len() >= inner.wanted {
                surplus = Some(channel);
            } else {
                inner.idle.push((channel, now));
            }
        }
        drop(surplus); // Closing a socket needs no lock.
    }

    /// A channel that was asked for has come.
    pub(crate) fn arrived(&self, channel: C, now: Instant) {
        self.lock().expected.pop_front();
        self.put(channel, now);
    }

    /// How many tickets to issue now. They count as under way until `expires` or their arrival.
    pub(crate) fn shortfall(&self, now: Instant, expires: Instant) -> usize {
        let mut inner = self.lock();
        if inner.closed {
            return 0;
        }
        inner.waiting.retain(|waiter| !waiter.is_closed());
        inner.expected.retain(|end| *end > now);
        let have = inner.idle.len() + inner.examined + inner.expected.len();
        let need = inner.waiting.len() + inner.wanted;
        let count = need.saturating_sub(have).min(EXPECTED_MAX.saturating_sub(inner.expected.len()));
        inner.expected.extend(std::iter::repeat_n(expires, count));
        count
    }

    /// Tickets that were never sent are not under way after all.
    pub(crate) fn not_sent(&self, count: usize) {
        let mut inner = self.lock();
        for _ in 0..count {
            inner.expected.pop_back();
        }
    }

    /// Takes out what has been idle for `age`, to be asked for a sign of life. Each comes back by
    /// [`Park::examined`].
    pub(crate) fn due(&self, now: Instant, age: Duration) -> Vec<C> {
        let mut inner = self.lock();
        let (due, rest) = std::mem::take(&mut inner.idle)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, since)| now.duration_since(*since) >= age);
        inner.idle = rest;
        inner.examined += due.len();
        due.into_iter().map(|(channel, _)| channel).collect()
    }

    /// A channel came back from its examination, or `None` did: it was dead.
    pub(crate) fn examined(&self, channel: Option<C>, now: Instant) {
        {
            let mut inner = self.lock();
            inner.examined = inner.examined.saturating_sub(1);
        }
        if let Some(channel) = channel {
            self.put(channel, now);
        }
    }

    /// Lets a park that was large enough for a while become smaller.
    pub(crate) fn shrink(&self, now: Instant) {
        let mut surplus = Vec::new();
        {
            let mut inner = self.lock();
            if inner.wanted > self.min && now.duration_since(inner.enough_since) >= SHRINK_AFTER {
                inner.wanted -= (inner.wanted - self.min).div_ceil(2);
                inner.enough_since = now;
            }
            while inner.idle.len() > inner.wanted {
                surplus.push(inner.idle.remove(0)); // The one that was not needed for longest.
            }
        }
        drop(surplus);
    }

    /// Goes back to the minimum at once: somebody needs the descriptors more.
    pub(crate) fn shed(&self) {
        let surplus: Vec<_> = {
            let mut inner = self.lock();
            inner.wanted = self.min;
            let count = inner.idle.len().saturating_sub(self.min);
            inner.idle.drain(..count).collect()
        };
        drop(surplus);
    }

    /// Parked channels, those under examination included.
    pub(crate) fn len(&self) -> usize {
        let inner = self.lock();
        inner.idle.len() + inner.examined
    }

    /// The link is over: everything parked is closed, nobody waits any longer.
    pub(crate) fn close(&self) {
        let (idle, waiting) = {
            let mut inner = self.lock();
            inner.closed = true;
            (std::mem::take(&mut inner.idle), std::mem::take(&mut inner.waiting))
        };
        drop((idle, waiting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn park() -> (Park<u32>, Instant) {
        let now = Instant::now();
        (Park::new(2, 4, now), now)
    }

    fn taken(park: &Park<u32>, now: Instant) -> Option<u32> {
        match park.take(now) {
            Taken::Channel(channel) => Some(channel),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_new_park_asks_for_its_minimum_once() {
        let (park, now) = park();
        assert_eq!(park.shortfall(now, now + TTL), 2);
        assert_eq!(park.shortfall(now, now + TTL), 0, "two are under way");
        assert_eq!(park.shortfall(now + TTL, now + TTL + TTL), 2, "they did not come");
    }

    #[tokio::test]
    async fn a_waiting_caller_gets_the_next_channel() {
        let (park, now) = park();
        let Taken::Wait(mut gone) = park.take(now) else { panic!("empty") };
        let Taken::Wait(mut waiting) = park.take(now) else { panic!("empty") };
        gone.close();
        park.arrived(7, now);
        assert_eq!(waiting.try_recv(), Ok(7), "not to the one that gave up");
        assert!(gone.try_recv().is_err());
    }

    #[tokio::test]
    async fn the_channel_used_last_is_used_next() {
        let (park, now) = park();
        park.put(1, now);
        park.put(2, now);
        assert_eq!((taken(&park, now), taken(&park, now)), (Some(2), Some(1)));
    }

    #[tokio::test]
    async fn the_park_grows_with_demand_up_to_its_bound_and_shrinks_again() {
        let (park, now) = park();
        for _ in 0..9 {
            drop(park.take(now));
        }
        for channel in 0..9 {
            park.put(channel, now);
        }
        assert_eq!(park.len(), 4, "the rest is closed");
        park.shrink(now + SHRINK_AFTER);
        assert_eq!(park.len(), 3);
        park.shrink(now + 2 * SHRINK_AFTER);
        park.shrink(now + 3 * SHRINK_AFTER);
        assert_eq!(park.len(), 2, "the minimum stays");
    }

    #[tokio::test]
    async fn a_park_in_need_keeps_its_minimum_alone() {
        let (park, now) = park();
        for _ in 0..4 {
            drop(park.take(now));
        }
        for channel in 0..4 {
            park.put(channel, now);
        }
        assert_eq!(park.len(), 4);
        park.shed();
        assert_eq!(park.len(), 2);
        assert_eq!(taken(&park, now), Some(3), "what was used last is kept");
    }

    #[tokio::test]
    async fn a_dead_channel_is_replaced() {
        let (park, now) = park();
        assert_eq!(park.shortfall(now, now + TTL), 2);
        park.arrived(1, now);
        park.arrived(2, now);
        let later = now + Duration::from_secs(30);
        assert_eq!(park.due(later, Duration::from_secs(30)).len(), 2);
        assert_eq!(park.shortfall(later, later + TTL), 0, "they may well be alive");
        park.examined(None, later);
        park.examined(Some(2), later);
        assert_eq!(park.shortfall(later, later + TTL), 1);
    }

    #[tokio::test]
    async fn a_closed_park_keeps_nothing() {
        let (park, now) = park();
        park.put(1, now);
        let Taken::Channel(running) = park.take(now) else { panic!("parked") };
        let Taken::Wait(mut waiting) = park.take(now) else { panic!("empty") };
        park.close();
        park.put(running, now);
        assert!(waiting.try_recv().is_err());
        assert_eq!(park.len(), 0);
        assert!(matches!(park.take(now), Taken::Closed));
        assert_eq!(park.shortfall(now, now + TTL), 0);
    }

    #[tokio::test]
    async fn tickets_under_way_are_bounded() {
        let (park, now) = park();
        let waiting: Vec<_> = (0..500).map(|_| park.take(now)).collect();
        assert_eq!(park.shortfall(now, now + TTL), EXPECTED_MAX);
        park.arrived(1, now);
        assert_eq!(park.shortfall(now, now + TTL), 1);
        drop(waiting);
    }
}
