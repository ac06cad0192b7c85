//! Limits on the time that a fetch may keep a place for which others are waiting.
//!
//! It is not known beforehand which server is slow, or which push is large. So all fetches begin in the
//! same lane, and one that keeps others waiting for longer than its bytes justify gives up its place and
//! continues in a lane for slower ones. While no other fetch is waiting, none is hurried.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::FetchError;
use super::budget::{FetchLane, Seat};
use super::demand::{Demand, Waiting};

/// Interval at which the demand is checked while a server is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// Rate at which received bytes pay for the time of a server, in bytes per second.
const RATE: u64 = 1 << 20;

/// The most doublings of the bounds of the large lane.
const DOUBLED_MAX: u32 = 5;

/// Bounds on the time that a server is waited for while other fetches are waiting.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Maximum time beyond what the received bytes pay for. Fast bytes at the start do not pay for later
    /// time.
    unpaid: Duration,
    /// Maximum total time, however fast the server is: a push that takes longer is too large for the
    /// lane.
    all: Duration,
}

const URGENTLY_WANTED: Bound = Bound {
    unpaid: Duration::from_millis(1_500),
    all: Duration::from_secs(4),
};

const WANTED: Bound = Bound {
    unpaid: Duration::from_secs(4),
    all: Duration::from_secs(8),
};

const MEDIUM: Bound = Bound {
    unpaid: Duration::from_secs(2),
    all: Duration::from_secs(4),
};

/// In the large lane, while one waits that has had less of it: the first turn of each is as short as this, and none
/// that had it keeps others from theirs.
const LARGE_FIRST: Bound = Bound {
    unpaid: Duration::from_secs(2),
    all: Duration::from_secs(3),
};

/// Of that memory in a smaller place, taken because nobody wanted it then.
const LARGE_TAKEN: Bound = Bound {
    unpaid: Duration::from_secs(1),
    all: Duration::from_secs(2),
};

/// In the large lane, from when others want the place that have had as much of it. A fetch that had to leave has
/// twice as long the next time, so that it ends some day.
const LARGE: Bound = Bound {
    unpaid: Duration::from_secs(10),
    all: Duration::from_secs(30),
};

/// The longest time that a fetch which had to leave the large lane keeps out of it.
const REST_MAX: Duration = Duration::from_secs(30);

/// The longest time that a heavy visit is at work while others wait, the first time.
pub(super) const TURN: Duration = Duration::from_secs(2);

/// Place of a fetch and the demand for it.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Lane of the place.
    pub lane: FetchLane,
    /// Demand for such places.
    pub demand: Arc<Demand>,
    /// Number of times that the fetch had to leave the large lane because others were waiting.
    pub outpaced: u32,
    /// It gave way often enough: this time it has its turn whoever waits, and had so many such turns before.
    pub kept: Option<u32>,
}

impl Place {
    /// Returns the time for which a fetch that had to leave the large lane stays out of it, so that
    /// others have their turn.
    pub fn rest(outpaced: u32) -> Duration {
        let rest = LARGE_FIRST.all.saturating_mul(doubled(outpaced));
        rest.min(REST_MAX)
    }

    /// Returns how long a turn of one that keeps its place whoever waits may be, after so many of them.
    pub fn kept_turn(kept: u32) -> Duration {
        LARGE.all.saturating_mul(doubled(kept))
    }

    /// Returns how long a heavy visit may be at work while others wait for their turn at that, of whom one had to leave
    /// no more often than this.
    pub(super) fn turn(&self, waits: u32) -> Duration {
        if self.gives_way_to(waits) {
            TURN
        } else {
            TURN * self.times()
        }
    }

    /// Returns how often it had to leave, as far as that counts when it waits for others.
    pub(super) fn rank(&self) -> u32 {
        self.kept.map_or(self.outpaced, |_| 0)
    }

    /// Returns whether one that had to leave so often has had less than this one, which had its first turn.
    fn gives_way_to(&self, waits: u32) -> bool {
        self.kept.is_none() && waits < self.outpaced.max(1)
    }

    /// Returns how many times as long as the first time its turn is.
    fn times(&self) -> u32 {
        doubled(self.kept.unwrap_or(self.outpaced))
    }
}

fn doubled(times: u32) -> u32 {
    1 << times.min(DOUBLED_MAX)
}

/// Tracks the time that a server was waited for, and detects when it is too long for other fetches.
#[derive(Debug)]
pub(super) struct Patience {
    seat: Seat,
    /// Lane whose memory the fetch holds, if any. It may be larger than the lane of its place, if the
    /// larger lane had a free place.
    holds: Option<FetchLane>,
    /// Time since the start.
    spent: Spent,
    /// Time since another fetch began to want the large lane.
    hurried: Option<Spent>,
}

/// Time that a server was waited for.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    unpaid: Duration,
    all: Duration,
}

impl Spent {
    fn waited(&mut self, time: Duration) {
        self.unpaid += time;
        self.all += time;
    }

    fn received(&mut self, bytes: usize) {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / RATE;
        self.unpaid = self.unpaid.saturating_sub(Duration::from_nanos(nanos));
    }

    fn is_beyond(&self, bound: Bound, times: u32) -> bool {
        self.unpaid > bound.unpaid * times || self.all > bound.all * times
    }
}

impl Patience {
    pub(super) fn new(seat: Seat) -> Self {
        Self {
            holds: None,
            seat,
            spent: Spent::default(),
            hurried: None,
        }
    }

    /// Returns the time that the server was waited for so far.
    pub(super) fn waited(&self) -> Duration {
        self.spent.all
    }

    /// Records that the fetch holds the memory of `lane` now.
    pub(super) fn holds(&mut self, lane: FetchLane) {
        self.holds = Some(lane);
    }

    /// Waits for something from the server.
    ///
    /// # Errors
    ///
    /// Returns [`FetchError::Outpaced`] if other fetches waited for too long.
    pub(super) async fn wait<T>(
        &mut self,
        answer: impl Future<Output = T>,
    ) -> Result<T, FetchError> {
        tokio::pin!(answer);
        loop {
            let begun = Instant::now();
            let answered = timeout(LOOK, &mut answer).await;
            self.spend(begun.elapsed());
            match answered {
                Ok(answer) => return Ok(answer),
                Err(_) => self.check()?,
            }
        }
    }

    fn spend(&mut self, time: Duration) {
        self.spent.waited(time);
        if let Some(hurried) = &mut self.hurried {
            hurried.waited(time);
        }
    }

    /// Counts bytes that arrived, 0 for a keep-alive.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub(super) fn received(&mut self, bytes: usize) -> Result<(), FetchError> {
        self.spent.received(bytes);
        if let Some(hurried) = &mut self.hurried {
            hurried.received(bytes);
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), FetchError> {
        let place = &self.seat.place;
        let (lane, (waiting, waits)) = (place.lane, place.demand.wanted());
        let mut is_too_long = self.is_too_long(lane, waiting, waits);
        if let Some(holds) = self.holds
            && let Some(waits) = self.seat.budget.waited_for_by(holds)
        {
            is_too_long |= self.is_too_long(holds, Waiting::Somebody, waits);
        }
        if is_too_long {
            let seconds = self.waited().as_secs();
            return Err(FetchError::Outpaced { seconds });
        }
        Ok(())
    }

    /// Returns whether the server was waited for too long for a place in this lane, with these waiting, one of whom
    /// had to leave so often.
    fn is_too_long(&mut self, lane: FetchLane, waiting: Waiting, waits: u32) -> bool {
        let bound = match (lane, waiting) {
            (_, Waiting::Nobody) => return false,
            (FetchLane::Ordinary, Waiting::Urgently) => URGENTLY_WANTED,
            (FetchLane::Ordinary, Waiting::Somebody) => WANTED,
            (FetchLane::Medium, _) => MEDIUM,
            (FetchLane::Large, _) if self.seat.place.gives_way_to(waits) => {
                if self.seat.place.lane == FetchLane::Large {
                    LARGE_FIRST
                } else {
                    LARGE_TAKEN
                }
            }
            // What came so far would be lost: it has its time from now on.
            (FetchLane::Large, _) => {
                let hurried = self.hurried.get_or_insert_default();
                return hurried.is_beyond(LARGE, self.seat.place.times());
            }
        };
        self.spent.is_beyond(bound, 1)
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
            kept: None,
        };
        let seat = Seat {
            budget: Arc::new(Budget::new(8)),
            place,
        };
        (Patience::new(seat), demand)
    }

    /// Returns the number of seconds, at most 1000, that a server sending at this rate keeps a place once
    /// others wait.
    fn kept(lane: FetchLane, outpaced: u32, waiting: Waiting, rate: usize) -> u64 {
        let (mut patience, demand) = patience(lane, outpaced);
        demand.set(waiting);
        (1..=1_000)
            .find(|_| {
                patience.spend(Duration::from_secs(1));
                patience.received(rate).is_err()
            })
            .unwrap_or(1_000)
    }

    #[test]
    fn bytes_earn_time_and_nobody_is_hurried_for_nobody() {
        use FetchLane::{Large, Medium, Ordinary};
        for lane in [Ordinary, Medium, Large] {
            assert_eq!(kept(lane, 0, Waiting::Nobody, 0), 1_000);
        }
        assert_eq!(kept(Ordinary, 0, Waiting::Urgently, 0), 2);
        assert_eq!(kept(Ordinary, 0, Waiting::Somebody, 0), 5);
        assert_eq!(kept(Medium, 0, Waiting::Somebody, 0), 3);
        assert_eq!(kept(Medium, 0, Waiting::Somebody, 300 << 10), 3);
        // However fast it is, the push is too large for these places.
        assert_eq!(kept(Ordinary, 0, Waiting::Urgently, 2 << 20), 5);
        assert_eq!(kept(Medium, 0, Waiting::Somebody, 2 << 20), 5);
        assert_eq!(kept(Large, 0, Waiting::Somebody, 2 << 20), 32);
        assert_eq!(kept(Large, 0, Waiting::Somebody, 0), 12);
        assert_eq!(kept(Large, 2, Waiting::Somebody, 0), 42);
        assert_eq!(kept(Large, 99, Waiting::Somebody, 0), 322);
    }

    #[test]
    fn whoever_had_a_turn_in_the_large_lane_gives_way_to_one_that_had_less() {
        let left_after = |outpaced, kept, waits| {
            let (mut patience, demand) = patience(FetchLane::Large, outpaced);
            patience.seat.place.kept = kept;
            demand.set_of(Waiting::Somebody, waits);
            (1..=1_000_u32).find(|_| {
                patience.spend(Duration::from_secs(1));
                patience.received(2 << 20).is_err()
            })
        };
        // However much it had, one that comes anew waits for no more than a first turn.
        for outpaced in [0, 1, 7] {
            assert_eq!(left_after(outpaced, None, 0), Some(4));
        }
        assert_eq!(left_after(3, None, 2), Some(4));
        // To whoever had as much it gives way when it has had its time.
        assert_eq!(left_after(1, None, 1), Some(62));
        assert_eq!(left_after(0, None, 1), Some(32));
        // Once it has given way often enough, it has a turn whoever waits, each longer than the last.
        assert_eq!(left_after(8, Some(0), 0), Some(32));
        assert_eq!(left_after(16, Some(1), 0), Some(62));
    }

    #[test]
    fn a_large_one_has_its_time_from_when_somebody_comes() {
        let (mut patience, demand) = patience(FetchLane::Large, 0);
        patience.spend(Duration::from_secs(500));
        patience.received(1_000).unwrap();
        demand.set(Waiting::Somebody);
        patience.received(0).unwrap();
        patience.spend(Duration::from_secs(10));
        patience.received(0).unwrap();
        patience.spend(Duration::from_secs(1));
        assert!(patience.received(0).is_err());
    }

    #[test]
    fn what_came_at_first_pays_for_nothing_later() {
        let (mut patience, demand) = patience(FetchLane::Medium, 0);
        patience.received(15 << 20).unwrap();
        patience.spend(Duration::from_secs(2));
        patience.received(0).unwrap();
        demand.set(Waiting::Somebody);
        patience.received(0).unwrap();
        patience.spend(Duration::from_secs(1));
        assert!(patience.received(100).is_err());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_memory_counts_too() {
        let (mut patience, _) = patience(FetchLane::Ordinary, 0);
        let budget = Arc::clone(&patience.seat.budget);
        let _held = budget.admit(FetchLane::Large, 0).await.unwrap();
        patience.holds(FetchLane::Large);
        let mut waiter = Box::pin(budget.admit(FetchLane::Large, 0));
        assert!(futures_util::poll!(&mut waiter).is_pending());
        patience.received(0).unwrap();
        patience.spend(LARGE_TAKEN.unpaid + LOOK);
        assert!(patience.received(0).is_err());
        drop(waiter);
        patience.received(0).unwrap();
        // One that had a turn has to wait longer for one that has had none.
        let mut waiter = Box::pin(budget.admit(FetchLane::Large, 1));
        assert!(futures_util::poll!(&mut waiter).is_pending());
        patience.received(0).unwrap();
        patience.spend(LARGE.unpaid + LOOK);
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
