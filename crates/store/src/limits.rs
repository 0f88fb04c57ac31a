//! How large things may be.

use std::time::Duration;

use crate::{Key, StoreError};

/// Keys are names; what is longer is data. etcd has no limit of its own here.
pub const KEY_BYTES_MAX: usize = 1024;

/// Leaves room in a commit for the head, the ids and the guards that go with a large value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// etcd's default for the operations of a transaction. It counts compares and writes each by
/// themselves, and so do we.
pub const COMMIT_OPS_MAX: usize = 128;

/// etcd's default for the size of a request, 1.5 MiB, less 64 KiB: there, every key of a commit has an
/// installation's prefix and some framing around it, and what [`COMMIT_OP_BYTES`] doesn't cover of that has to
/// find room for as many guards and writes as a commit may have.
pub const COMMIT_BYTES_MAX: usize = (1536 - 64) * 1024;

/// What a guard or a write costs in a commit beside its key and value: room for a backend's framing and
/// for the prefix it may put before keys.
pub const COMMIT_OP_BYTES: usize = 64;

/// The shortest lease that every backend can do (etcd: one and a half election time-outs).
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// How long entries may outlive their lease at most, whatever the backend. etcd counts in whole seconds from an
/// instant before the promise does, so it is asked for a second more; it looks twice a second for what has run
/// out; and a machine under load takes its time.
pub const EXPIRY_SLACK_MAX: Duration = Duration::from_secs(3);

/// Longer is not a lease. Keeps deadlines far from the end of the clock.
pub const LEASE_TTL_MAX: Duration = Duration::from_hours(366 * 24);

/// Leases belong to nodes and hours, not to clients: so many are a leak.
pub const LEASES_MAX: usize = 16 * 1024;

/// The limits of a backend. Calls beyond them are [`StoreError::Refused`].
///
/// [`Limits::COMMON`] is what every backend can do; code that stays within it runs on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes.
    pub key_bytes_max: usize,
    /// Largest value, in bytes.
    pub value_bytes_max: usize,
    /// Most writes of a commit, and most guards of a commit.
    pub commit_ops_max: usize,
    /// Largest commit, as [`Commit::bytes`](crate::Commit::bytes) counts it.
    pub commit_bytes_max: usize,
    /// Shortest lease; a shorter one is lengthened to it.
    pub lease_ttl_min: Duration,
    /// How long entries may outlive their lease.
    pub expiry_slack: Duration,
}

impl Limits {
    /// The least of all backends.
    pub const COMMON: Self = Self {
        key_bytes_max: KEY_BYTES_MAX,
        value_bytes_max: VALUE_BYTES_MAX,
        commit_ops_max: COMMIT_OPS_MAX,
        commit_bytes_max: COMMIT_BYTES_MAX,
        lease_ttl_min: LEASE_TTL_MIN,
        expiry_slack: EXPIRY_SLACK_MAX,
    };

    /// Whether `key` may name an entry.
    pub fn check_key(&self, op: &'static str, key: &Key) -> Result<(), StoreError> {
        if key.is_empty() {
            return Err(StoreError::Refused { op, rule: "the empty key names no entry" });
        }
        self.check_bound(op, key)
    }

    /// Whether `key` may bound a scan or be the prefix of a watch.
    pub fn check_bound(&self, op: &'static str, key: &Key) -> Result<(), StoreError> {
        if key.len() > self.key_bytes_max {
            return Err(StoreError::Refused { op, rule: "a key is no longer than key_bytes_max" });
        }
        Ok(())
    }

    /// Whether a value may have `bytes` bytes.
    pub fn check_value(&self, op: &'static str, bytes: usize) -> Result<(), StoreError> {
        if bytes > self.value_bytes_max {
            return Err(StoreError::Refused { op, rule: "a value is no larger than value_bytes_max" });
        }
        Ok(())
    }

    /// The ttl that a lease gets that is asked for with `ttl`: whole seconds, at least the shortest.
    pub fn lease_ttl(&self, op: &'static str, ttl: Duration) -> Result<Duration, StoreError> {
        if ttl > LEASE_TTL_MAX {
            return Err(StoreError::Refused { op, rule: "a lease is no longer than LEASE_TTL_MAX" });
        }
        let whole = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        Ok(whole.max(self.lease_ttl_min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up_to_whole_seconds_and_to_the_shortest() {
        let ttl = |millis| Limits::COMMON.lease_ttl("grant", Duration::from_millis(millis)).unwrap();
        assert_eq!(ttl(0), Duration::from_secs(2));
        assert_eq!(ttl(2_000), Duration::from_secs(2));
        assert_eq!(ttl(2_001), Duration::from_secs(3));
        assert!(Limits::COMMON.lease_ttl("grant", Duration::MAX).is_err());
    }
}
