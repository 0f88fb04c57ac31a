//! The leases of a store that has no leases of its own.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::LEASES_MAX;
use crate::{Key, LeaseId, Renewal, StoreError};

/// Added to every deadline. The promise counts from the instant a call *returns*, the deadline from a
/// little before it, on a busy machine more than a little; well within [`Limits::expiry_slack`](crate::Limits::expiry_slack).
const GRACE: Duration = Duration::from_millis(500);

/// Which leases there are, until when, and what hangs on them. Plain bookkeeping: it deletes no entry and
/// looks at no clock.
#[derive(Debug, Default)]
pub struct Leases {
    by_id: HashMap<LeaseId, Lease>,
    /// By deadline, to find what is due.
    deadlines: BTreeSet<(Instant, LeaseId)>,
    /// The lease of each leased entry.
    holders: HashMap<Key, LeaseId>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Key>,
}

impl Leases {
    /// No leases.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a lease. `ttl` as [`Limits::lease_ttl`](crate::Limits::lease_ttl) gives it.
    pub fn grant(&mut self, lease: LeaseId, ttl: Duration, now: Instant) -> Result<(), StoreError> {
        if self.by_id.len() >= LEASES_MAX {
            return Err(StoreError::Refused {
                op: "grant",
                rule: "there are no more than LEASES_MAX leases",
            });
        }
        let deadline = now + ttl + GRACE;
        self.by_id.insert(lease, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, lease));
        Ok(())
    }

    /// Starts the ttl again.
    pub fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        let Some(lease) = self.by_id.get_mut(&id) else {
            return Renewal::Gone;
        };
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl + GRACE;
        self.deadlines.insert((lease.deadline, id));
        Renewal::Renewed
    }

    /// Whether there is such a lease.
    pub fn contains(&self, lease: LeaseId) -> bool {
        self.by_id.contains_key(&lease)
    }

    /// Notes that the entry at `key` now hangs on `lease`, or on none (any more).
    pub fn attach(&mut self, key: &Key, lease: Option<LeaseId>) {
        let before = match lease {
            Some(lease) => self.holders.insert(key.clone(), lease),
            None => self.holders.remove(key),
        };
        if let Some(before) = before.and_then(|before| self.by_id.get_mut(&before)) {
            before.keys.remove(key);
        }
        if let Some(after) = lease.and_then(|lease| self.by_id.get_mut(&lease)) {
            after.keys.insert(key.clone());
        }
    }

    /// The lease that the entry at `key` hangs on.
    pub fn holder(&self, key: &Key) -> Option<LeaseId> {
        self.holders.get(key).copied()
    }

    /// Takes a lease away and gives the keys of its entries in order; `None` if there is no such lease.
    pub fn end(&mut self, id: LeaseId) -> Option<Vec<Key>> {
        let lease = self.by_id.remove(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        for key in &lease.keys {
            self.holders.remove(key);
        }
        Some(lease.keys.into_iter().collect())
    }

    /// A lease that has run out by `now`, the earliest first.
    pub fn due(&self, now: Instant) -> Option<LeaseId> {
        let (deadline, lease) = self.deadlines.first()?;
        (*deadline <= now).then_some(*lease)
    }

    /// When the next lease runs out.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(2);

    #[test]
    fn a_lease_is_due_after_its_ttl_and_not_at_it() {
        let start = Instant::now();
        let mut leases = Leases::new();
        leases.grant(LeaseId(1), TTL, start).unwrap();
        assert_eq!(leases.due(start + TTL), None);
        assert_eq!(leases.due(start + TTL + GRACE), Some(LeaseId(1)));
        assert_eq!(leases.renew(LeaseId(1), start + TTL), Renewal::Renewed);
        assert_eq!(leases.due(start + TTL + GRACE), None);
        assert_eq!(leases.next_deadline(), Some(start + TTL + TTL + GRACE));
    }

    #[test]
    fn an_entry_hangs_on_the_lease_of_its_last_write() {
        let start = Instant::now();
        let mut leases = Leases::new();
        for id in 1..=2 {
            leases.grant(LeaseId(id), TTL, start).unwrap();
        }
        let [a, b, c] = ["a", "b", "c"].map(Key::from);
        for key in [&a, &b, &c] {
            leases.attach(key, Some(LeaseId(1)));
        }
        leases.attach(&b, Some(LeaseId(2)));
        leases.attach(&c, None);
        assert_eq!(leases.holder(&b), Some(LeaseId(2)));
        assert_eq!(leases.holder(&c), None);
        assert_eq!(leases.end(LeaseId(1)), Some(vec![a.clone()]));
        assert_eq!(leases.holder(&a), None);
        assert_eq!(leases.end(LeaseId(1)), None);
        assert_eq!(leases.end(LeaseId(2)), Some(vec![b]));
        assert_eq!(leases.next_deadline(), None);
    }

    #[test]
    fn leases_without_end_are_refused() {
        let start = Instant::now();
        let mut leases = Leases::new();
        for id in 0..LEASES_MAX {
            leases.grant(LeaseId(i64::try_from(id).unwrap()), TTL, start).unwrap();
        }
        assert!(matches!(leases.grant(LeaseId(-1), TTL, start), Err(StoreError::Refused { .. })));
    }
}
