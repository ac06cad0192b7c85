//! A worker's view of the database, which decides whether it can tell that other workers are dead.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum delay until the next look for dead workers: what has expired may be locked by whoever else reclaims it.
const AGAIN: Duration = Duration::from_millis(50);

/// View of the database: the time of its last response, and the gaps before. Whatever keeps this worker from the
/// database may keep others from renewing their leases, which may then have expired through no fault of the items they
/// hold.
#[derive(Debug)]
pub(super) struct Sight {
    lease: Duration,
    /// Time of the last response.
    answered: Instant,
    /// Time until which others may still come back and renew their leases.
    doubtful_until: Instant,
    /// `true` if an operation failed since the last response.
    is_lost: bool,
}

impl Sight {
    /// Creates the view of a worker that starts now. It may start because the database has just come back, but then
    /// the others do as well, and renew their leases several times within half a lease.
    pub(super) fn new(lease: Duration, now: Instant) -> Self {
        Self {
            lease,
            answered: now,
            doubtful_until: now + lease / 2,
            is_lost: false,
        }
    }

    /// Records a response of the database. After a gap in which leases may have expired, their holders have a whole
    /// lease to come back.
    pub(super) fn answered(&mut self, now: Instant) {
        if now.duration_since(self.answered) > self.lease / 2 {
            self.doubt(now);
        }
        self.answered = now;
        self.is_lost = false;
    }

    /// Records that an operation failed.
    pub(super) fn failed(&mut self) {
        self.is_lost = true;
    }

    /// Records that nothing could be written, or not in time. Others may have been unable to write either.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubtful_until = now + self.lease;
    }

    /// Returns whether an operation failed since the last response.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Returns whether an expired lease proves that its holder is dead.
    pub(super) fn tells_deaths(&self, now: Instant) -> bool {
        !self.is_lost
            && now >= self.doubtful_until
            && now.duration_since(self.answered) <= self.lease / 2
    }

    /// Returns the delay until the next look for dead workers, `usual` at most: the first lease of another worker ends
    /// after `ends`, and proves its death as soon as nothing is doubtful.
    pub(super) fn next_look(&self, now: Instant, ends: Duration, usual: Duration) -> Duration {
        if self.is_lost {
            return usual;
        }
        let doubtful = self.doubtful_until.saturating_duration_since(now);
        ends.max(doubtful).max(AGAIN).min(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(8);

    /// Start of the clock, from which seconds are counted.
    struct Seconds(Instant);

    impl Seconds {
        fn at(&self, second: u64) -> Instant {
            self.0 + Duration::from_secs(second)
        }

        /// Returns the seconds at which `sight` can tell deaths, given a response of the database at each second.
        fn told(&self, sight: &mut Sight, seconds: std::ops::Range<u64>) -> Vec<u64> {
            let mut told = seconds.collect::<Vec<_>>();
            told.retain(|second| {
                sight.answered(self.at(*second));
                sight.tells_deaths(self.at(*second))
            });
            told
        }
    }

    #[test]
    fn after_a_gap_others_have_a_lease_to_come_back() {
        let seconds = Seconds(Instant::now());
        let mut sight = Sight::new(LEASE, seconds.at(0));
        assert_eq!(seconds.told(&mut sight, 0..6), [4, 5], "just begun");
        // A single failure between responses ends no lease.
        sight.failed();
        assert!(sight.is_lost() && !sight.tells_deaths(seconds.at(6)));
        assert_eq!(seconds.told(&mut sight, 7..8), [7]);
        // The database hangs for longer than leases last, without an error.
        assert!(!sight.tells_deaths(seconds.at(16)));
        assert_eq!(seconds.told(&mut sight, 16..26), [24, 25]);
    }

    #[test]
    fn whoever_cannot_write_believes_nobody_dead() {
        let seconds = Seconds(Instant::now());
        let mut sight = Sight::new(LEASE, seconds.at(0));
        assert_eq!(seconds.told(&mut sight, 0..5), [4]);
        sight.doubt(seconds.at(5));
        assert_eq!(seconds.told(&mut sight, 5..15), [13, 14]);
    }

    #[test]
    fn the_next_look_is_when_a_lease_ends_that_proves_a_death() {
        let seconds = Seconds(Instant::now());
        let mut sight = Sight::new(LEASE, seconds.at(0));
        let millis = Duration::from_millis;
        let usual = millis(1_000);
        let mut next = |second, ends, is_lost| {
            sight.answered(seconds.at(second));
            if is_lost {
                sight.failed();
            }
            sight.next_look(seconds.at(second), millis(ends), usual)
        };
        assert_eq!(next(4, 300, false), millis(300));
        assert_eq!(next(4, 6_000, false), usual);
        // Expired, and still there: somebody else is about to take it.
        assert_eq!(next(4, 0, false), AGAIN);
        assert_eq!(next(4, 0, true), usual);
        // It is to be doubted until second 4 whether others have renewed theirs.
        assert_eq!(next(2, 0, false), usual);
        let almost = seconds.at(4) - millis(300);
        assert_eq!(sight.next_look(almost, millis(100), usual), millis(300));
    }
}
