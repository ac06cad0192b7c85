//! Places of fetches: who wants one, who pays for it, and how long a turn in it is.

use std::sync::Arc;
use std::time::Duration;

use super::demand::{Demand, Waiting};
use super::lane::FetchLane;
use super::ledger::{Payer, Pressed};

/// The most doublings of the bounds of the large lane.
const DOUBLED_MAX: u32 = 5;

/// Bounds on the time that a server is waited for while other fetches are waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Maximum time beyond what the received bytes pay for. Fast bytes at the start do not pay for later
    /// time.
    pub(super) unpaid: Duration,
    /// Maximum total time, however fast the server is: a push that takes longer is too large for the
    /// lane.
    pub(super) all: Duration,
}

impl Bound {
    /// Returns the bound with at least this much time, whatever comes.
    pub(super) fn at_least(self, time: Duration) -> Self {
        Self {
            unpaid: self.unpaid.max(time),
            all: self.all.max(time),
        }
    }
}

/// In the large lane, the first time.
pub(super) const LARGE_FIRST: Bound = Bound {
    unpaid: Duration::from_secs(2),
    all: Duration::from_secs(3),
};

/// In the large lane, while others of the same owner want the place. A fetch that had to leave has twice as long the
/// next time, so that it ends some day.
pub(super) const EQUALS: Bound = Bound {
    unpaid: Duration::from_secs(10),
    all: Duration::from_secs(30),
};

/// Time for which a server may send nothing while others wait for a place apart, the first time.
const SILENCE: Duration = Duration::from_secs(1);

/// Time for which a fetch that had to leave the large lane stays out of it. The accounts decide which one is next.
const REST: Duration = Duration::from_secs(1);

/// The longest time that a heavy visit is at work while others wait, the first time.
pub(super) const TURN: Duration = Duration::from_secs(2);

/// Place of a fetch and the demand for it.
#[derive(Debug, Clone, Default)]
pub struct FetchPlace {
    /// Lane of the place.
    pub lane: FetchLane,
    /// Demand for such places.
    pub demand: Arc<Demand>,
    /// Demand for such places by others of the same host, owner or repository.
    pub own: Vec<Arc<Demand>>,
    /// Demand for such places by other hosts.
    pub others: Arc<Demand>,
    /// Time that the fetch has in an ordinary place while only others of its host want it, if that is more than it has
    /// otherwise.
    pub usual: Duration,
    /// `true` if the fetch is read apart from others because a worker died while it held its work item.
    pub is_apart: bool,
    /// Account that is charged for the time in the place.
    pub payer: Payer,
    /// Number of times that the fetch had to leave the large lane because others were waiting.
    pub outpaced: u32,
    /// It gave way often enough: this time it has its turn whoever waits, and had so many such turns before.
    pub kept: Option<u32>,
}

impl FetchPlace {
    /// Returns the demand for the place by whomever.
    pub(super) fn waiting(&self) -> Waiting {
        let own = self.own.iter().map(|demand| demand.waiting());
        own.fold(self.demand.waiting(), Waiting::max)
    }

    /// Returns whether nobody wants the place urgently but others of the same host, which are no better off elsewhere.
    pub(super) fn is_among_equals(&self) -> bool {
        let own = self.own.iter().map(|demand| demand.waiting());
        self.others.waiting() == Waiting::Nobody && own.max() < Some(Waiting::Urgently)
    }

    /// Returns the time for which a fetch that had to leave the large lane stays out of it.
    pub fn rest() -> Duration {
        REST
    }

    /// Returns how long a turn of one that keeps its place whoever waits may be, after so many of them.
    pub fn kept_turn(kept: u32) -> Duration {
        EQUALS.all.saturating_mul(doubled(kept))
    }

    /// Returns for how many first turns it stays while others want its place that much. `None` if it gives way after
    /// a longer time only, or not at all.
    pub(super) fn turns(&self, pressed: Pressed) -> Option<u32> {
        match pressed {
            Pressed::No | Pressed::ByEquals => None,
            _ if self.kept.is_some() => None,
            Pressed::ByLess => Some(self.times()),
            Pressed::ByMuchLess => Some(1),
        }
    }

    /// Returns how long a heavy visit may be at work while others want the lane that much.
    pub(super) fn heavy_turn(&self, pressed: Pressed) -> Option<Duration> {
        if pressed == Pressed::No {
            return None;
        }
        let times = self.turns(pressed).unwrap_or(self.times());
        Some(TURN * times)
    }

    /// Returns how long what was fetched may be read in a place while others want that much to have it.
    pub(super) fn reading_turn(&self, pressed: Pressed) -> Option<Duration> {
        if pressed == Pressed::No {
            return None;
        }
        let first = self.turns(pressed).map(|times| LARGE_FIRST.all * times);
        Some(first.unwrap_or(EQUALS.all * self.times()))
    }

    /// Returns how long its server may send nothing while others wait for a place apart.
    pub(super) fn silence(&self) -> Duration {
        SILENCE * doubled(self.outpaced)
    }

    /// Returns how many times as long as the first time its turn is.
    pub(super) fn times(&self) -> u32 {
        doubled(self.kept.unwrap_or(self.outpaced))
    }
}

fn doubled(times: u32) -> u32 {
    1 << times.min(DOUBLED_MAX)
}
