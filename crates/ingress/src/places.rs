//! How many callers are served at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers that a node serves at once on all its public ports. Each holds a socket and two buffers; more than
/// this are reset.
pub(crate) const CALLERS_MAX: usize = 32_768;

/// Of these, how many one port may have: however it is flooded, the others keep as many.
const CALLERS_OF_PORT_MAX: usize = CALLERS_MAX / 2;

/// The places of a node.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    each: usize,
}

/// The places of one port.
#[derive(Debug)]
pub(crate) struct PortPlaces {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// The place of one caller, given back when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(CALLERS_MAX, CALLERS_OF_PORT_MAX)
    }
}

impl Places {
    fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each }
    }

    /// The places of a port that begins to listen.
    pub(crate) fn of_port(&self) -> PortPlaces {
        PortPlaces { all: Arc::clone(&self.all), own: Arc::new(Semaphore::new(self.each)) }
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

impl PortPlaces {
    /// A place for one more caller, if there is one.
    pub(crate) fn take(&self) -> Option<Place> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _own: own, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooded_port_leaves_places_to_the_others() {
        let places = Places::new(4, 2);
        let (flooded, quiet, third) = (places.of_port(), places.of_port(), places.of_port());
        let taken: Vec<_> = std::iter::from_fn(|| flooded.take()).collect();
        assert_eq!(taken.len(), 2);
        let other = [quiet.take().unwrap(), quiet.take().unwrap()];
        assert_eq!(places.free(), 0);
        assert!(third.take().is_none(), "all together have a limit, too");
        drop(taken);
        assert!(third.take().is_some(), "places come back");
        drop(other);
        assert_eq!(places.free(), 4, "a place that was refused for want of another is not lost");
    }
}
