//! Numbers that may be used once.

use underpass_wire::channel::labels::PAIR_SEQ_WINDOW as WINDOW;

const WORDS: usize = (WINDOW / 64) as usize;

/// Remembers which numbers of a growing sequence were used. A recording of an old one is refused.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    /// One above the highest number used.
    next: u64,
    /// Bit `n % WINDOW` is number `n`, for the numbers `next - WINDOW .. next`.
    used: [u64; WORDS],
}

impl ReplayWindow {
    pub(crate) fn new() -> Self {
        Self { next: 0, used: [0; WORDS] }
    }

    /// Uses a number. `false`: it was used before, or is too old to tell.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        // The last number is never taken: nothing could follow it.
        let Some(after) = number.checked_add(1) else { return false };
        if number >= self.next {
            if after - self.next >= WINDOW {
                self.used = [0; WORDS];
            } else {
                (self.next..number).for_each(|skipped| self.set(skipped, false));
            }
            self.next = after;
        } else if self.next - number > WINDOW || self.is_set(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn is_set(&self, number: u64) -> bool {
        let bit = number % WINDOW;
        self.used[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, number: u64, used: bool) {
        let bit = number % WINDOW;
        let word = &mut self.used[(bit / 64) as usize];
        *word = *word & !(1 << (bit % 64)) | u64::from(used) << (bit % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c32_a_number_is_good_once() {
        let mut window = ReplayWindow::new();
        for number in [0, 2, 1, 5] {
            assert!(window.take(number));
            assert!(!window.take(number));
        }
        assert!(window.take(3) && window.take(4));
    }

    #[test]
    fn what_is_too_old_to_tell_is_refused() {
        let mut window = ReplayWindow::new();
        assert!(window.take(10_000));
        assert!(!window.take(10_000 - WINDOW));
        assert!(window.take(10_000 - WINDOW + 1));
        assert!(window.take(9_999));
    }

    #[test]
    fn jumps_forget_exactly_what_they_pass() {
        let mut window = ReplayWindow::new();
        assert!(window.take(7));
        // The bit of 7 is reused by 7 + WINDOW.
        assert!(window.take(7 + WINDOW - 1));
        assert!(!window.take(7));
        assert!(window.take(7 + WINDOW));
        assert!(window.take(8));
        assert!(window.take(100 * WINDOW));
        assert!(window.take(100 * WINDOW - 1));
        assert!(!window.take(u64::MAX));
    }

    #[test]
    fn it_agrees_with_a_plain_set() {
        let mut window = ReplayWindow::new();
        let (mut seen, mut highest) = (std::collections::BTreeSet::new(), 0_u64);
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (highest + (state >> 33) % 64).saturating_sub((state >> 45) % 5_000);
            let fresh = !seen.contains(&number) && (seen.is_empty() || number + WINDOW > highest);
            assert_eq!(window.take(number), fresh, "{number} with {highest}");
            if fresh {
                seen.insert(number);
                highest = highest.max(number);
            }
        }
    }
}
