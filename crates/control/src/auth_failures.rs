//! Which authentication failures become events.
//!
//! Whoever knocks decides how often; the log decides how much of it is written. Of one address at most one
//! failure in [`RECORD_EVERY`] is recorded, of all addresses together at most [`BURST_MAX`] at once and one more
//! each [`REFILL_EVERY`]. The recorded reason says how many went unrecorded since.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two recorded failures of one address.
pub const RECORD_EVERY: Duration = Duration::from_secs(10);
/// How many addresses are remembered. At some 40 bytes each this is 160 KiB; when it is full, the ones that
/// may be recorded again are forgotten first, and without any such the new one is not recorded.
pub const ADDRESSES_MAX: usize = 4_096;
/// How many failures of different addresses are recorded at once.
const BURST_MAX: u32 = 64;
/// The time after which one more may be recorded: 120 events a minute at the most.
const REFILL_EVERY: Duration = Duration::from_millis(500);

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Record it; so many of this address went unrecorded before.
    Record { unrecorded: u32 },
    /// Count it only.
    Count,
}

#[derive(Debug)]
pub(crate) struct Limiter {
    seen: HashMap<IpAddr, Seen>,
    tokens: u32,
    refilled: Instant,
}

#[derive(Debug)]
struct Seen {
    recorded: Instant,
    unrecorded: u32,
}

impl Limiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { seen: HashMap::new(), tokens: BURST_MAX, refilled: now }
    }

    pub(crate) fn failed(&mut self, address: IpAddr, now: Instant) -> Verdict {
        self.refill(now);
        let address = neighbourhood(address);
        if let Some(seen) = self.seen.get_mut(&address) {
            if now < seen.recorded + RECORD_EVERY || self.tokens == 0 {
                seen.unrecorded = seen.unrecorded.saturating_add(1);
                return Verdict::Count;
            }
            self.tokens -= 1;
            seen.recorded = now;
            return Verdict::Record { unrecorded: std::mem::take(&mut seen.unrecorded) };
        }
        if self.seen.len() >= ADDRESSES_MAX {
            self.seen.retain(|_, seen| now < seen.recorded + RECORD_EVERY);
        }
        if self.tokens == 0 || self.seen.len() >= ADDRESSES_MAX {
            return Verdict::Count;
        }
        self.tokens -= 1;
        self.seen.insert(address, Seen { recorded: now, unrecorded: 0 });
        Verdict::Record { unrecorded: 0 }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_millis() / REFILL_EVERY.as_millis();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        if more == 0 {
            return;
        }
        if self.tokens.saturating_add(more) >= BURST_MAX {
            self.tokens = BURST_MAX;
            self.refilled = now;
        } else {
            self.tokens += more;
            self.refilled += REFILL_EVERY * more;
        }
    }
}

/// Whoever has one IPv6 address has its whole /64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_address_one_failure_in_ten_seconds_is_recorded() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        assert_eq!(limiter.failed(address(1), start), Verdict::Record { unrecorded: 0 });
        for _ in 0..1_000 {
            assert_eq!(limiter.failed(address(1), start + Duration::from_secs(9)), Verdict::Count);
        }
        assert_eq!(limiter.failed(address(1), start + RECORD_EVERY), Verdict::Record { unrecorded: 1_000 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_bounded_in_events_and_memory() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut recorded = 0;
        for n in 0..100_000_u32 {
            let now = start + Duration::from_millis(u64::from(n) / 100);
            if limiter.failed(address(n), now) != Verdict::Count {
                recorded += 1;
            }
        }
        // One second passed: the burst and two refills.
        assert!((64..=66).contains(&recorded), "{recorded}");
        assert!(limiter.seen.len() <= ADDRESSES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_in_one_ipv6_network_count_as_one() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let first: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let second: IpAddr = "2001:db8:1:2:ffff::2".parse().unwrap();
        let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(limiter.failed(first, start), Verdict::Record { unrecorded: 0 });
        assert_eq!(limiter.failed(second, start), Verdict::Count);
        assert_eq!(limiter.failed(other, start), Verdict::Record { unrecorded: 0 });
    }
}
