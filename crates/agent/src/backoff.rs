//! How long to wait before the next attempt.

use std::time::Duration;

use underpass_domain::Random;

/// The upper bound of the first delay.
pub(crate) const FIRST: Duration = Duration::from_millis(250);
/// No delay is longer: a server that is back is found within half a minute.
pub(crate) const CAP: Duration = Duration::from_secs(30);
/// A link that stood this long was good; the next loss starts from the first delay again.
pub(crate) const STABLE: Duration = Duration::from_mins(1);

/// Exponential back-off with full jitter: each delay is uniform in `0..=bound`, and the bound doubles up to
/// [`CAP`]. Full jitter spreads a thousand clients that lost one server at the same instant over the whole
/// interval.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { bound: FIRST }
    }

    /// Starts over.
    pub(crate) fn reset(&mut self) {
        self.bound = FIRST;
    }

    /// The delay before the next attempt. Without random bytes the whole bound is waited: late, never wild.
    pub(crate) fn next(&mut self, random: &dyn Random) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(CAP);
        let mut bytes = [0; 8];
        if random.fill(&mut bytes).is_err() {
            return bound;
        }
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(u64::from_le_bytes(bytes) % (millis + 1))
    }
}

#[cfg(test)]
mod tests {
    use underpass_domain::RandomFailed;

    use super::*;

    #[derive(Debug)]
    struct Fixed(u8);
    impl Random for Fixed {
        fn fill(&self, out: &mut [u8]) -> Result<(), RandomFailed> {
            out.fill(self.0);
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Broken;
    impl Random for Broken {
        fn fill(&self, _: &mut [u8]) -> Result<(), RandomFailed> {
            Err(RandomFailed::new("broken"))
        }
    }

    // C17
    #[test]
    fn c17_bounds_double_up_to_the_cap_and_start_over_on_reset() {
        let mut backoff = Backoff::new();
        let bounds: Vec<_> = (0..10).map(|_| backoff.next(&Broken).as_millis()).collect();
        assert_eq!(bounds, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(&Broken), FIRST);
    }

    // C17
    #[test]
    fn c17_delays_are_spread_over_the_whole_interval() {
        let mut low = Backoff::new();
        assert_eq!(low.next(&Fixed(0)), Duration::ZERO);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..=255 {
            let delay = Backoff::new().next(&Fixed(seed));
            assert!(delay <= FIRST);
            seen.insert(delay.as_millis() / 50);
        }
        assert!(seen.len() >= 4, "only {} of 5 buckets used", seen.len());
    }
}
