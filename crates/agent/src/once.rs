//! Tunnels that were opened here a moment ago.

use std::collections::{HashSet, VecDeque};

/// Ids that are remembered. A node asks again within seconds, so this is some thousand tunnels a second; a
/// megabyte when it is full.
const KEPT: usize = 16 * 1024;

/// The ids of the last tunnels, each good once.
///
/// A node that hears nothing on one channel asks on another, and the caller's first bytes go with each
/// request: were both acted on, the target would get them twice. The keys of a tunnel derive from its id, too.
#[derive(Debug, Default)]
pub(crate) struct Once {
    known: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Once {
    /// Uses an id up. `false`: it was used a moment ago.
    pub(crate) fn take(&mut self, id: [u8; 16]) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn an_id_is_good_once_and_the_oldest_are_forgotten() {
        let mut once = Once::default();
        for number in 0..KEPT {
            assert!(once.take(id(number)));
            assert!(!once.take(id(number)));
        }
        assert!(!once.take(id(0)), "all are known");
        assert!(once.take(id(KEPT)));
        assert!(once.take(id(0)), "the oldest has gone");
        assert_eq!((once.known.len(), once.order.len()), (KEPT, KEPT));
    }
}
