//! Delays that grow from failure to failure: of tries, polls, redeliveries, pauses of hosts, transactions.
//!
//! This is the curve; the first and the longest delay stand where they are used. Tables of delays that are no such
//! curve, and that end in a decision, stand in `work/ends.rs`.
//!
//! Turns that grow with their number, as those of fetches (`fetch/patience.rs`), are shares of a place, not delays.

use std::time::Duration;

/// The most doublings. Beyond 2¹⁶ times the first delay, each maximum is reached.
const DOUBLINGS_MAX: u32 = 16;

/// Delays before something that failed is tried again: the first one, twice as long after each further failure, and no
/// longer than a maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// Largest random deviation, as a part of the delay.
    jitter: f64,
}

impl Backoff {
    /// Creates delays that begin with `first` and grow to `max`, without jitter.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            jitter: 0.0,
        }
    }

    /// Creates delays that do not grow, without jitter.
    pub(crate) const fn steady(delay: Duration) -> Self {
        Self::new(delay, delay)
    }

    /// Lets each delay deviate at random by up to this part of it, above the maximum as well, so that those who failed
    /// together do not come again together.
    #[must_use]
    pub(crate) const fn with_jitter(self, part: f64) -> Self {
        Self {
            jitter: part,
            ..self
        }
    }

    /// Returns the delay after a failure before which there were `earlier` ones in a row.
    pub(crate) fn after(&self, earlier: u32) -> Duration {
        self.deviating(earlier, rand::random_range(-1.0..=1.0))
    }

    /// Returns the delay for a given random number between -1 and 1.
    fn deviating(&self, earlier: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << earlier.min(DOUBLINGS_MAX));
        let delay = doubled.min(self.max);
        if self.jitter == 0.0 {
            return delay;
        }
        delay.mul_f64(1.0 + self.jitter * random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_maximum() {
        let backoff = Backoff::new(SECOND, 60 * SECOND);
        let delays = [0, 1, 2, 5, 6, 7, 31, 32, u32::MAX].map(|earlier| backoff.after(earlier));
        let expected = [1, 2, 4, 32, 60, 60, 60, 60, 60];
        assert_eq!(delays, expected.map(Duration::from_secs));
        let unbounded = Backoff::new(Duration::MAX / 2, Duration::MAX);
        assert_eq!(unbounded.after(u32::MAX), Duration::MAX);
    }

    #[test]
    fn a_first_delay_above_the_maximum_is_cut_and_steady_ones_do_not_grow() {
        assert_eq!(Backoff::new(9 * SECOND, SECOND).after(0), SECOND);
        assert_eq!(Backoff::steady(SECOND).after(9), SECOND);
    }

    #[test]
    fn jitter_deviates_to_both_sides_and_is_applied_to_the_maximum_too() {
        let backoff = Backoff::new(SECOND, 4 * SECOND).with_jitter(0.5);
        assert_eq!(backoff.deviating(1, 0.0), 2 * SECOND);
        assert_eq!(backoff.deviating(1, -1.0), SECOND);
        assert_eq!(backoff.deviating(1, 1.0), 3 * SECOND);
        assert_eq!(backoff.deviating(9, 1.0), 6 * SECOND);
        let delays: Vec<Duration> = (0..100).map(|_| backoff.after(0)).collect();
        let range = SECOND / 2..=SECOND * 3 / 2;
        assert!(delays.iter().all(|delay| range.contains(delay)));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
