//! Rate limits with bounded memory.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// A limit per thing, for any number of things. Things share one of 65,536 counters, chosen by a hash
/// that nobody outside can foresee: so memory stays below a few MiB, and hardly anybody pays for
/// somebody else.
#[derive(Debug)]
pub(super) struct SharedLimit {
    counters: DefaultKeyedRateLimiter<u16>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl SharedLimit {
    /// `burst` at once, then one more every `burst`-th part of a minute.
    pub(super) fn per_minute(burst: NonZeroU32) -> Self {
        Self {
            counters: RateLimiter::keyed(Quota::per_minute(burst)),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Counts one; how long to wait when that is one too many.
    pub(super) fn check(&self, thing: &impl Hash) -> Result<(), Duration> {
        let [low, high, ..] = self.hasher.hash_one(thing).to_le_bytes();
        self.counters
            .check_key(&u16::from_le_bytes([low, high]))
            .map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    /// Counts one; whether it is within the limit.
    pub(super) fn allows(&self, thing: &impl Hash) -> bool {
        self.check(thing).is_ok()
    }
}

/// What one client is counted by: its address, or for IPv6 the network of 64 bits that one subscriber
/// has at least.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Two of a hundred things may share a counter with "a"; all of them cannot.
        assert!((0..100).any(|thing| limit.allows(&thing)));
    }

    #[test]
    fn a_subscriber_is_one_client() {
        let client = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
