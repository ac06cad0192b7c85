//! Limits on the time that a fetch may keep a place for which others are waiting.
//!
//! It is not known beforehand which server is slow, or which push is large. So all fetches begin in the
//! same lane, and one that keeps others waiting for longer than its bytes justify gives up its place and
//! continues in a lane for slower ones. While no other fetch is waiting, none is hurried.
//!
//! In those lanes a fetch gives way only to one whose host, or else owner, had less of the lane lately. It loses what
//! came so far, so it has twice as long the next time, unless somebody waits that had less before it even began.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::FetchError;
use super::budget::Seat;
use super::demand::Waiting;
use super::lane::FetchLane;
use super::ledger::Pressed;
use super::place::{Bound, EQUALS, LARGE_FIRST};

/// Interval at which the demand is checked while a server is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// Rate at which received bytes pay for the time of a server, in bytes per second.
const RATE: u64 = 1 << 20;

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

/// Of its memory in a smaller place, taken because nobody wanted it then.
const LARGE_TAKEN: Bound = Bound {
    unpaid: Duration::from_secs(1),
    all: Duration::from_secs(2),
};

/// Tracks the time that a server was waited for, and detects when it is too long for other fetches.
#[derive(Debug)]
pub(super) struct Patience {
    seat: Seat,
    /// Lane whose memory the fetch holds, if any. It may be larger than the lane of its place, if the
    /// larger lane had a free place.
    holds: Option<FetchLane>,
    /// Time since the start.
    spent: Spent,
    /// Time since another fetch of the same owner began to want the lane.
    hurried: Option<Spent>,
    /// Time at which it was last looked who waits.
    looked: Duration,
    /// `true` once anything but keep-alives came.
    has_data: bool,
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
            looked: Duration::ZERO,
            has_data: false,
        }
    }

    /// Returns the time that the server was waited for so far.
    pub(super) fn waited(&self) -> Duration {
        self.spent.all
    }

    /// Returns the lane whose memory the fetch holds.
    pub(super) fn lane(&self) -> Option<FetchLane> {
        self.holds
    }

    /// Records that the fetch, whose place is `seat`, holds the memory of `lane` now.
    pub(super) fn holds(&mut self, lane: FetchLane, seat: &Seat) {
        self.holds = Some(lane);
        self.seat = seat.clone();
    }

    /// Waits for something from the server.
    ///
    /// # Errors
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
    /// Returns the errors of [`wait`](Self::wait).
    pub(super) fn received(&mut self, bytes: usize) -> Result<(), FetchError> {
        self.has_data |= bytes > 0;
        self.spent.received(bytes);
        if let Some(hurried) = &mut self.hurried {
            hurried.received(bytes);
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), FetchError> {
        let is_wanted = self.is_wanted();
        if self.spent.all.saturating_sub(self.looked) < LOOK && !is_wanted {
            return Ok(());
        }
        if is_wanted || self.is_silent_apart() || self.is_over_turn() {
            let seconds = self.waited().as_secs();
            return Err(FetchError::Outpaced { seconds });
        }
        self.looked = self.spent.all;
        Ok(())
    }

    /// Returns whether the server was waited for too long for an ordinary place.
    fn is_wanted(&self) -> bool {
        let place = &self.seat.place;
        if place.lane > FetchLane::Ordinary {
            return false;
        }
        let is_own = self.holds == Some(FetchLane::Ordinary);
        let bound = match place.waiting() {
            Waiting::Urgently => URGENTLY_WANTED,
            Waiting::Somebody => WANTED,
            Waiting::Nobody if is_own && self.seat.budget.is_waited_for(place.lane) => WANTED,
            Waiting::Nobody => return false,
        };
        if place.is_among_equals() {
            return self.spent.is_beyond(bound.at_least(place.usual), 1);
        }
        self.spent.is_beyond(bound, 1)
    }

    /// Returns whether nothing came for too long for one of the places apart: whoever waits for these may be innocent,
    /// and what has sent nothing has killed no worker by its contents.
    fn is_silent_apart(&self) -> bool {
        let place = &self.seat.place;
        let is_wanted = place.is_apart && place.demand.waiting() > Waiting::Nobody;
        is_wanted && !self.has_data && self.spent.all > place.silence()
    }

    /// Returns whether the server was waited for too long for any of few places.
    fn is_over_turn(&mut self) -> bool {
        let Seat { place, turns, .. } = &self.seat;
        let is_wanted =
            place.lane > FetchLane::Ordinary && place.demand.waiting() > Waiting::Nobody;
        let mut is_wanted_by_equals = is_wanted;
        for (lane, turn) in turns {
            let first = match (lane, place.lane) {
                (FetchLane::Large, FetchLane::Large) => LARGE_FIRST,
                (FetchLane::Large, _) => LARGE_TAKEN,
                _ => MEDIUM,
            };
            let pressed = turn.pressed();
            is_wanted_by_equals |= pressed > Pressed::No;
            let times = place.turns(pressed);
            if times.is_some_and(|times| self.spent.is_beyond(first, times)) {
                return true;
            }
        }
        if !is_wanted_by_equals {
            return false;
        }
        // The progress so far would be lost, so the time is counted from now on.
        let hurried = self.hurried.get_or_insert_default();
        hurried.is_beyond(EQUALS, place.times())
    }
}

#[cfg(test)]
mod tests;
