//! Whether a worker sees the database well enough to tell that others are dead.

use std::time::Duration;

use tokio::time::Instant;

/// The view that this worker has of the database: its last answer, and the gaps before. Whatever keeps it from doing so may keep
/// others from saying that they are alive, so their leases may have ended for no fault of what they hold.
#[derive(Debug)]
pub(super) struct Sight {
    lease: Duration,
    /// When it answered last.
    answered: Instant,
    /// Until then others may still come back, and say that they are alive.
    doubtful_until: Instant,
    /// An operation failed since it answered last.
    is_lost: bool,
}

impl Sight {
    /// Of a worker that begins now: maybe because the database is only just back, but then others are as well,
    /// and say so twice in half a lease.
    pub(super) fn new(lease: Duration, now: Instant) -> Self {
        Self {
            lease,
            answered: now,
            doubtful_until: now + lease / 2,
            is_lost: false,
        }
    }

    /// The database answered. After a gap in which leases may have ended, those who held them have a whole one to
    /// come back.
    pub(super) fn answered(&mut self, now: Instant) {
        if now.duration_since(self.answered) > self.lease / 2 {
            self.doubt(now);
        }
        self.answered = now;
        self.is_lost = false;
    }

    /// An operation failed.
    pub(super) fn failed(&mut self) {
        self.is_lost = true;
    }

    /// Nothing could be written, or not in time: others may not have been able to either.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubtful_until = now + self.lease;
    }

    /// Returns whether an operation failed since the database answered last.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Returns whether a lease that has ended means that whoever had it is dead.
    pub(super) fn tells_deaths(&self, now: Instant) -> bool {
        !self.is_lost
            && now >= self.doubtful_until
            && now.duration_since(self.answered) <= self.lease / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(8);

    /// Seconds after the beginning.
    struct Seconds(Instant);

    impl Seconds {
        fn at(&self, second: u64) -> Instant {
            self.0 + Duration::from_secs(second)
        }

        /// Returns when it tells deaths, of these seconds, in each of which the database answers.
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
        // One failure between answers ends no lease.
        sight.failed();
        assert!(sight.is_lost() && !sight.tells_deaths(seconds.at(6)));
        assert_eq!(seconds.told(&mut sight, 7..8), [7]);
        // It hangs for longer than leases last, and says nothing about it.
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
}
