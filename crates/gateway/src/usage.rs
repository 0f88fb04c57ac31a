//! What mappings carried, on its way to the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use underpass_control::{Caller, Control};
use underpass_domain::{ActivityCommand, Actor, MappingId, Subject};

/// Mappings whose counts are kept while the log can't take them. One entry is 48 bytes; a mapping beyond
/// this many loses its counts, not its tunnels.
const PENDING_MAX: usize = 100_000;

/// What one mapping carried since it was last written down. Bytes are the callers' own, without headers or
/// tags: `bytes_in` flowed from callers to the target, `bytes_out` back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Tunnels that were opened.
    pub tunnels: u64,
    /// Callers that got none.
    pub refused: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.tunnels = self.tunnels.saturating_add(other.tunnels);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

/// Counts per mapping, gathered here and written to the activity log once a minute: one record per mapping
/// with traffic, however many tunnels it had.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pending: Mutex<HashMap<MappingId, Totals>>,
}

impl Usage {
    pub(crate) fn add(&self, mapping: MappingId, totals: Totals) {
        if totals == Totals::default() {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() >= PENDING_MAX && !pending.contains_key(&mapping) {
            tracing::warn!(%mapping, "usage is not counted: too many mappings wait to be written down");
            return;
        }
        pending.entry(mapping).or_default().add(totals);
    }

    fn take(&self) -> HashMap<MappingId, Totals> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what has gathered, for the log. While earlier facts wait for it, counts go on adding up here:
    /// however long the store is away, a mapping has one record when it is back.
    pub(crate) fn flush(&self, control: &Control) {
        if control.noted() > 0 {
            return;
        }
        self.flush_now(control);
    }

    /// The same, whatever waits: there is no next time.
    pub(crate) fn flush_now(&self, control: &Control) {
        let caller = Caller::new(Actor::Node(control.node()));
        for (mapping, totals) in self.take() {
            let Totals { bytes_in, bytes_out, tunnels, refused } = totals;
            let command = ActivityCommand::RecordUsage { mapping, bytes_in, bytes_out, tunnels, refused };
            let _ = control.note(&caller, Subject::Mapping(mapping), command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_mapping_add_up_and_are_taken_once() {
        let usage = Usage::default();
        let mapping = MappingId::from_bytes([1; 16]);
        usage.add(mapping, Totals { bytes_in: 1, tunnels: 1, ..Totals::default() });
        usage.add(mapping, Totals { bytes_in: 2, bytes_out: 5, refused: 1, ..Totals::default() });
        let taken = usage.take();
        assert_eq!(taken[&mapping], Totals { bytes_in: 3, bytes_out: 5, tunnels: 1, refused: 1 });
        assert!(usage.take().is_empty());
    }

    #[test]
    fn a_mapping_without_traffic_is_not_mentioned() {
        let usage = Usage::default();
        usage.add(MappingId::from_bytes([1; 16]), Totals::default());
        assert!(usage.take().is_empty());
    }
}
