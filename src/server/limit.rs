//! Rate limits with bounded memory.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// The most things that are counted at a time: about 2 MiB of counters.
const MAX_COUNTED: usize = 16_384;

/// A limit per thing, for any number of things.
///
/// Each thing has a counter of its own, so that nobody pays for somebody else, however many addresses a stranger
/// sends from. Counters that are back at their start are forgotten when there are too many; when that does not
/// help, all are. Whoever can bring that about has so many addresses that no limit per address holds him.
#[derive(Debug)]
pub(super) struct SharedLimit {
    quota: Quota,
    most: usize,
    counters: Mutex<DefaultKeyedRateLimiter<u64>>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl SharedLimit {
    /// `burst` at once, then one more every `burst`-th part of a minute.
    pub(super) fn per_minute(burst: NonZeroU32) -> Self {
        let quota = Quota::per_minute(burst);
        Self {
            quota,
            most: MAX_COUNTED,
            counters: Mutex::new(RateLimiter::keyed(quota)),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Counts one; how long to wait when that is one too many.
    pub(super) fn check(&self, thing: &impl Hash) -> Result<(), Duration> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= self.most {
            counters.retain_recent();
            // With room for many, so that not every further thing has all of them looked through.
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

    /// Counts one; whether it is within the limit.
    pub(super) fn allows(&self, thing: &impl Hash) -> bool {
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

    /// A stranger with a /48 of IPv6 has 65,536 networks of 64 bits to send from.
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
        // A thousand a second and more: after a moment each is as if it had never been counted.
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
