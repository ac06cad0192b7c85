//! How long a fetch may keep a place that others wait for.
//!
//! Nobody knows beforehand which server is slow, or which push is large. So each fetch begins where all do, and
//! whoever keeps others waiting for longer than its bytes justify gives its place back and goes on in a lane for
//! such as it. While nobody waits, nobody is hurried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::budget::{FetchLane, Seat};
use super::{FetchError, FetchLimits};

/// How often it is looked whether others wait, while a server is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// How long a server may be waited for in a place that something urgent wants, beside the time for its bytes.
const URGENT_PATIENCE: Duration = Duration::from_millis(1_500);

/// The same when what wants it is not urgent.
const PATIENCE: Duration = Duration::from_secs(4);

/// The same in the lane of medium pushes.
const MEDIUM_PATIENCE: Duration = Duration::from_secs(2);

/// The same in the large lane the first time, from when somebody wants it. A fetch that had to leave has twice as
/// long the next time, so that it ends some day.
const LARGE_PATIENCE: Duration = Duration::from_secs(10);

/// How often that is doubled at most: 160 s then.
const DOUBLED_MAX: u32 = 4;

/// The bytes per second for which a server may be waited for longer, in all lanes but the large one.
const RATE: u64 = 1 << 20;

/// Who waits for places like the one of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Waiting {
    /// Nobody.
    #[default]
    Nobody,
    /// Somebody.
    Somebody,
    /// Something that others must not hold up.
    Urgently,
}

/// Who waits for places of some kind, as whoever hands them out knows. Shared by the fetches that have them.
#[derive(Debug, Default)]
pub struct Demand(AtomicU8);

impl Demand {
    /// Notes who waits now.
    pub fn set(&self, waiting: Waiting) {
        self.0.store(waiting as u8, Ordering::Relaxed);
    }

    /// Returns who waits.
    pub fn waiting(&self) -> Waiting {
        match self.0.load(Ordering::Relaxed) {
            0 => Waiting::Nobody,
            1 => Waiting::Somebody,
            _ => Waiting::Urgently,
        }
    }
}

/// Where a push is fetched, and who waits for that place.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The lane.
    pub lane: FetchLane,
    /// Who waits for such a place.
    pub demand: Arc<Demand>,
    /// How often the fetch had to leave the large lane because others waited.
    pub outpaced: u32,
}

impl Place {
    /// How long a fetch that had to leave the large lane keeps out of it, so that others have their turn.
    pub fn rest(outpaced: u32) -> Duration {
        LARGE_PATIENCE.saturating_mul(1 << outpaced.min(DOUBLED_MAX))
    }
}

/// Counts how long a server was waited for, and says when that is too long for others.
#[derive(Debug)]
pub(super) struct Patience {
    seat: Seat,
    /// The least bytes per second in the large lane.
    large_rate: u64,
    /// The lane whose memory the fetch has: it may hold more than its place allows, when that is free.
    holds: FetchLane,
    waited: Duration,
    bytes: u64,
    /// How long was waited, and for how many bytes, when somebody began to want the large lane.
    hurried: Option<(Duration, u64)>,
}

impl Patience {
    pub(super) fn new(seat: Seat, limits: &FetchLimits) -> Self {
        Self {
            holds: seat.place.lane,
            seat,
            large_rate: limits.large_rate.max(1),
            waited: Duration::ZERO,
            bytes: 0,
            hurried: None,
        }
    }

    /// How long the server was waited for so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// The fetch has the memory of this lane now.
    pub(super) fn holds(&mut self, lane: FetchLane) {
        self.holds = lane;
    }

    /// Waits for something of the server's.
    ///
    /// # Errors
    /// [`FetchError::Outpaced`] when others waited for too long.
    pub(super) async fn wait<T>(
        &mut self,
        answer: impl Future<Output = T>,
    ) -> Result<T, FetchError> {
        tokio::pin!(answer);
        loop {
            let begun = Instant::now();
            let answered = timeout(LOOK, &mut answer).await;
            self.waited += begun.elapsed();
            match answered {
                Ok(answer) => return Ok(answer),
                Err(_) => self.check()?,
            }
        }
    }

    /// Counts bytes that came. What is only a sign of life has none.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) fn received(&mut self, bytes: usize) -> Result<(), FetchError> {
        self.bytes += bytes as u64;
        self.check()
    }

    fn check(&mut self) -> Result<(), FetchError> {
        let place = &self.seat.place;
        let by_place = place.demand.waiting();
        let mut is_outpaced = self.is_too_long(place.lane, by_place);
        if self.seat.budget.is_waited_for(self.holds) {
            is_outpaced |= self.is_too_long(self.holds, Waiting::Somebody);
        }
        if is_outpaced {
            let seconds = self.waited.as_secs();
            return Err(FetchError::Outpaced { seconds });
        }
        Ok(())
    }

    /// Whether the server was waited for too long for a place in this lane, with these waiting.
    fn is_too_long(&mut self, lane: FetchLane, waiting: Waiting) -> bool {
        if waiting == Waiting::Nobody {
            return false;
        }
        let (waited, bytes) = (self.waited, self.bytes);
        let (since, patience, rate) = match lane {
            FetchLane::Ordinary if waiting == Waiting::Urgently => {
                ((Duration::ZERO, 0), URGENT_PATIENCE, RATE)
            }
            FetchLane::Ordinary => ((Duration::ZERO, 0), PATIENCE, RATE),
            FetchLane::Medium => ((Duration::ZERO, 0), MEDIUM_PATIENCE, RATE),
            // What came so far would be lost: it has its time from now on.
            FetchLane::Large => (
                *self.hurried.get_or_insert((waited, bytes)),
                Place::rest(self.seat.place.outpaced),
                self.large_rate,
            ),
        };
        let earned = Duration::from_millis((bytes - since.1).saturating_mul(1_000) / rate);
        waited.saturating_sub(since.0) > patience.saturating_add(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn patience(lane: FetchLane, outpaced: u32) -> (Patience, Arc<Demand>) {
        let demand = Arc::new(Demand::default());
        let place = Place {
            lane,
            demand: Arc::clone(&demand),
            outpaced,
        };
        let seat = Seat {
            budget: Arc::new(Budget::new(8)),
            place,
        };
        (Patience::new(seat, &FetchLimits::default()), demand)
    }

    /// How many seconds a server that sends at this rate keeps a place from when others wait, 1000 at most.
    fn kept(lane: FetchLane, outpaced: u32, waiting: Waiting, rate: usize) -> u64 {
        let (mut patience, demand) = patience(lane, outpaced);
        demand.set(waiting);
        (1..=1_000)
            .find(|_| {
                patience.waited += Duration::from_secs(1);
                patience.received(rate).is_err()
            })
            .unwrap_or(1_000)
    }

    #[test]
    fn bytes_earn_time_and_nobody_is_hurried_for_nobody() {
        use FetchLane::{Large, Medium, Ordinary};
        for lane in [Ordinary, Medium, Large] {
            assert_eq!(kept(lane, 0, Waiting::Nobody, 0), 1_000);
            assert_eq!(kept(lane, 0, Waiting::Urgently, 2 << 20), 1_000);
        }
        assert_eq!(kept(Ordinary, 0, Waiting::Urgently, 0), 2);
        assert_eq!(kept(Ordinary, 0, Waiting::Somebody, 0), 5);
        assert_eq!(kept(Medium, 0, Waiting::Somebody, 0), 3);
        assert_eq!(kept(Medium, 0, Waiting::Somebody, 300 << 10), 3);
        assert_eq!(kept(Large, 0, Waiting::Somebody, 0), 12);
        assert_eq!(kept(Large, 2, Waiting::Somebody, 0), 42);
        assert_eq!(kept(Large, 99, Waiting::Somebody, 0), 162);
    }

    #[test]
    fn a_large_one_has_its_time_from_when_somebody_comes() {
        let (mut patience, demand) = patience(FetchLane::Large, 0);
        patience.waited = Duration::from_secs(500);
        patience.received(1_000).unwrap();
        demand.set(Waiting::Somebody);
        patience.received(0).unwrap();
        patience.waited += Duration::from_secs(10);
        patience.received(0).unwrap();
        patience.waited += Duration::from_secs(1);
        assert!(patience.received(0).is_err());
    }

    #[tokio::test]
    async fn whoever_is_silent_is_left_while_it_is_waited_for() {
        let (mut patience, demand) = patience(FetchLane::Ordinary, 0);
        demand.set(Waiting::Urgently);
        let error = patience.wait(std::future::pending::<()>()).await;
        assert!(matches!(error, Err(FetchError::Outpaced { seconds: 1 })));
        assert!(patience.waited() < Duration::from_secs(3));
    }
}
