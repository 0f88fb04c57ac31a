//! How many tunnels of one mapping run at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use underpass_domain::MappingId;

/// Counts the running tunnels of each mapping. A mapping without tunnels takes no room.
///
/// The limit is looked up at each admission, not stored, so that a changed limit holds for the next caller.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    running: Mutex<HashMap<MappingId, u32>>,
}

impl Limits {
    /// Room for one more tunnel, or `None` when `max` are running.
    pub(crate) fn admit(self: &Arc<Self>, mapping: MappingId, max: Option<u32>) -> Option<Permit> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.get(&mapping).copied().unwrap_or_default();
        if count >= max.unwrap_or(u32::MAX) {
            return None;
        }
        running.insert(mapping, count + 1);
        Some(Permit { limits: self.clone(), mapping })
    }
}

/// One of the tunnels a mapping may have. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Limits>,
    mapping: MappingId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.limits.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.mapping) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.mapping);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c29_of_a_thousand_racing_callers_exactly_as_many_as_allowed_get_in() {
        let limits = Arc::new(Limits::default());
        let mapping = MappingId::from_bytes([7; 16]);
        let kept = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..125).filter_map(|_| limits.admit(mapping, Some(10))).collect::<Vec<_>>()
                    })
                })
                .collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(kept.len(), 10);
        drop(kept);
        assert!(limits.running.lock().unwrap().is_empty(), "an idle mapping takes no room");
    }

    #[test]
    fn a_permit_that_is_dropped_makes_room_for_one() {
        let limits = Arc::new(Limits::default());
        let mapping = MappingId::from_bytes([7; 16]);
        let first = limits.admit(mapping, Some(1));
        assert!(first.is_some() && limits.admit(mapping, Some(1)).is_none());
        drop(first);
        assert!(limits.admit(mapping, Some(1)).is_some());
    }
}
