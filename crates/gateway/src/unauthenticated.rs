//! Channels that have proved nothing yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The set of channels whose peers are still strangers. It is bounded: one more than allowed closes the
/// *oldest*, so that a crowd of silent peers can't lock out those that get on with it. Authenticated
/// channels are not in here and can't be pushed out.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Unauthenticated {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), inner: Mutex::default() })
    }

    /// A place in the set, left when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Stranger {
        let evicted = CancellationToken::new();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.next;
        inner.next += 1;
        if inner.waiting.len() >= self.max
            && let Some((_, oldest)) = inner.waiting.pop_first()
        {
            oldest.cancel();
        }
        inner.waiting.insert(number, evicted.clone());
        Stranger { set: self.clone(), number, evicted }
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
    }
}

/// A channel's place among the unauthenticated.
#[derive(Debug)]
pub(crate) struct Stranger {
    set: Arc<Unauthenticated>,
    number: u64,
    /// Cancelled when younger channels took the place.
    pub(crate) evicted: CancellationToken,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.set.inner.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c13_the_oldest_stranger_makes_room_and_nobody_else() {
        let set = Unauthenticated::new(2);
        let (first, second, third) = (set.enter(), set.enter(), set.enter());
        assert!(first.evicted.is_cancelled());
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn a_place_is_free_again_when_its_guard_is_dropped() {
        let set = Unauthenticated::new(1);
        drop(set.enter());
        assert_eq!(set.len(), 0);
        let next = set.enter();
        assert!(!next.evicted.is_cancelled());
    }
}
