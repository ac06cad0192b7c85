//! Rate limits with bounded memory.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Maximum number of counters: about 2 MiB of them.
const MAX_COUNTED: usize = 16_384;

/// Rate limit per item, for any number of items.
///
/// Each item has a counter of its own, so that no client pays for another, however many addresses the other sends from.
/// If there are too many counters, those that are back at their start are dropped; if that does not help, all are. A
/// client that can bring that about has so many addresses that no limit per address can hold it.
#[derive(Debug)]
pub(in crate::server) struct SharedLimit {
    quota: Quota,
    most: usize,
    counters: Mutex<DefaultKeyedRateLimiter<u64>>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl SharedLimit {
    /// Creates a limit of `burst` at once, and one more every `burst`-th part of a minute.
    pub(in crate::server) fn per_minute(burst: NonZeroU32) -> Self {
        let quota = Quota::per_minute(burst);
        Self {
            quota,
            most: MAX_COUNTED,
            counters: Mutex::new(RateLimiter::keyed(quota)),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Counts one event.
    ///
    /// # Errors
    /// Returns the time to wait if the limit is exceeded.
    pub(in crate::server) fn check(&self, thing: &impl Hash) -> Result<(), Duration> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= self.most {
            counters.retain_recent();
            // Leaves room for many, so that not every further item requires a scan of all counters.
            if counters.len() > self.most / 4 * 3 {
                *counters = RateLimiter::keyed(self.quota);
            } else {
                counters.shrink_to_fit();
            }
        }
        counters
            .check_key(&self.hasher.hash_one(thing))
            .map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    /// Counts one event and returns whether it is within the limit.
    pub(in crate::server) fn allows(&self, thing: &impl Hash) -> bool {
        self.check(thing).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(limit: &SharedLimit) -> usize {
        limit.counters.lock().unwrap().len()
    }

    #[test]
    fn each_thing_has_its_own_burst() {
        let limit = SharedLimit::per_minute(NonZeroU32::new(3).unwrap());
        let allowed = (0..5).filter(|_| limit.allows(&"a")).count();
        assert_eq!(allowed, 3);
        let wait = limit.check(&"a").unwrap_err();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_mins(1),
            "{wait:?}"
        );
        assert!(limit.allows(&"b"));
    }

    /// A stranger with an IPv6 /48 has 65,536 networks of 64 bits to send from.
    #[test]
    fn a_stranger_with_many_addresses_uses_up_nobody_elses_limit() {
        let limit = SharedLimit::per_minute(NonZeroU32::new(2).unwrap());
        for network in 0_u64..65_536 {
            while limit.allows(&("stranger", network)) {}
        }
        for neighbor in 0..1000 {
            assert!(limit.allows(&("somebody", neighbor)), "{neighbor}");
        }
    }

    #[test]
    fn counters_are_bounded_and_those_at_their_start_go_first() {
        let mut limit = SharedLimit::per_minute(NonZeroU32::new(2).unwrap());
        limit.most = 100;
        for thing in 0..10_000 {
            let _ = limit.check(&thing);
            assert!(counted(&limit) <= 100);
        }
        // More than a thousand a second: after a moment each counter is back at its start.
        let mut limit = SharedLimit::per_minute(NonZeroU32::new(6_000_000).unwrap());
        limit.most = 100;
        for thing in 0..100 {
            let _ = limit.check(&thing);
        }
        std::thread::sleep(Duration::from_millis(20));
        let _ = limit.check(&100);
        assert_eq!(counted(&limit), 1);
    }
}
