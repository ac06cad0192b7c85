//! Places and memory shared by the fetches in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::FetchError;
use super::heavy::HeavyLane;
use super::lane::FetchLane;
use super::ledger::{Ledger, Payer, Turn};
use super::long_list::LongLists;
use super::place::FetchPlace;
use crate::memory;

/// Number of places in the medium lane.
const MEDIUM_PLACES: usize = memory::MEDIUM_PACKS;

/// Memory shared by concurrent fetches: many small packs, few medium ones and one large one, and likewise
/// for the data inflated from them. The maximum is therefore known, whatever is pushed.
#[derive(Debug)]
pub(super) struct Budget {
    ordinary: Places,
    medium: Places,
    large: Places,
    pub(super) long_lists: Arc<LongLists>,
    pub(super) heavy: HeavyLane,
}

/// Places of a lane.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// Recent usage of the places, and the fetches that wait for one.
    ledger: Arc<Ledger>,
}

impl Places {
    fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            ledger: Arc::default(),
        }
    }
}

impl Budget {
    pub(super) fn new(concurrent: usize) -> Self {
        Self {
            ordinary: Places::new(concurrent.max(1)),
            medium: Places::new(MEDIUM_PLACES),
            large: Places::new(1),
            long_lists: Arc::default(),
            heavy: HeavyLane::default(),
        }
    }

    fn places(&self, lane: FetchLane) -> &Places {
        match lane {
            FetchLane::Ordinary => &self.ordinary,
            FetchLane::Medium => &self.medium,
            FetchLane::Large => &self.large,
        }
    }

    /// Returns the accounts of a lane.
    pub(super) fn ledger(&self, lane: FetchLane) -> &Arc<Ledger> {
        &self.places(lane).ledger
    }

    /// Returns whether somebody waits for a place of a lane.
    pub(super) fn is_waited_for(&self, lane: FetchLane) -> bool {
        self.ledger(lane).is_waited_for()
    }

    /// Begins a turn in a lane, if that has but few places.
    pub(super) fn turns(&self, lane: FetchLane, payer: &Payer) -> Turns {
        if lane == FetchLane::Ordinary {
            return Turns::new();
        }
        vec![(lane, Arc::new(self.ledger(lane).begin(payer)))]
    }

    /// Waits for a place.
    pub(super) async fn admit(
        &self,
        lane: FetchLane,
        payer: &Payer,
    ) -> Result<Admission, FetchError> {
        let places = self.places(lane);
        let waiter = places.ledger.wait(payer);
        let place = Arc::clone(&places.free).acquire_owned().await;
        drop(waiter);
        Ok(Admission {
            place: place.map_err(|_| FetchError::Busy)?,
            lane,
            own: lane,
            turns: self.turns(lane, payer),
        })
    }
}

/// Place of a fetch, and the budget shared by all fetches.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) budget: Arc<Budget>,
    pub(super) place: FetchPlace,
    /// The turns in lanes of few places: that of the place, and that of the memory if it is another one's.
    pub(super) turns: Turns,
}

pub(super) type Turns = Vec<(FetchLane, Arc<Turn>)>;

impl Seat {
    pub(super) fn new(budget: &Arc<Budget>, place: FetchPlace) -> Self {
        Self {
            budget: Arc::clone(budget),
            place,
            turns: Turns::new(),
        }
    }
}

#[cfg(test)]
impl Seat {
    /// Creates an ordinary place in a budget of its own.
    pub(super) fn alone() -> Self {
        Self::new(&Arc::new(Budget::new(1)), FetchPlace::default())
    }
}

/// Memory reserved for one fetch. It is released on drop.
#[derive(Debug)]
pub(super) struct Admission {
    place: OwnedSemaphorePermit,
    lane: FetchLane,
    /// The lane of the place, which it keeps when it takes memory of another.
    own: FetchLane,
    turns: Turns,
}

impl Admission {
    /// Ensures that packs of `bytes` in total may be held, changing to another lane if necessary.
    ///
    /// # Errors
    /// Returns [`FetchError::Busy`] or [`FetchError::LargeBusy`] if that has no place free, or somebody waits for it
    /// that had less of it than `payer`.
    pub(super) fn cover(
        &mut self,
        budget: &Budget,
        bytes: usize,
        payer: &Payer,
    ) -> Result<(), FetchError> {
        let needed = FetchLane::for_bytes(bytes);
        if needed <= self.lane {
            return Ok(());
        }
        let places = budget.places(needed);
        let free = Arc::clone(&places.free).try_acquire_owned().ok();
        let free = free.filter(|_| !places.ledger.is_for_others(payer));
        self.place = free.ok_or(match needed {
            FetchLane::Large => FetchError::LargeBusy,
            FetchLane::Ordinary | FetchLane::Medium => FetchError::Busy,
        })?;
        self.lane = needed;
        self.turns.retain(|(lane, _)| *lane == self.own);
        self.turns.extend(budget.turns(needed, payer));
        Ok(())
    }

    /// Returns the lane whose memory it has.
    pub(super) fn lane(&self) -> FetchLane {
        self.lane
    }

    /// Returns its turns.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::lane::{MEDIUM_PACK, SMALL_PACK};

    #[tokio::test]
    async fn what_is_larger_than_its_place_takes_another_or_ends() {
        use FetchLane::{Large, Medium, Ordinary};
        let (budget, payer) = (Budget::new(4), Payer::default());
        let free = |lane| budget.places(lane).free.available_permits();
        let mut fetches = Vec::new();
        for _ in 0..4 {
            fetches.push(budget.admit(Ordinary, &payer).await.unwrap());
        }
        assert_eq!(free(Ordinary), 0);
        let [first, second, third, fourth] = &mut fetches[..] else {
            unreachable!()
        };
        let covered = |fetch: &mut Admission, bytes| {
            let covered = fetch.cover(&budget, bytes, &payer);
            covered.map(|()| fetch.lane())
        };
        assert_eq!(covered(first, SMALL_PACK).unwrap(), Ordinary);
        assert!(first.turns().is_empty());
        assert_eq!(covered(first, SMALL_PACK + 1).unwrap(), Medium);
        assert!(first.turns().len() == 1);
        assert_eq!(covered(first, MEDIUM_PACK + 1).unwrap(), Large);
        assert_eq!(covered(second, MEDIUM_PACK).unwrap(), Medium);
        assert_eq!(covered(third, MEDIUM_PACK).unwrap(), Medium);
        assert_eq!((free(Ordinary), free(Medium), free(Large)), (3, 0, 0));
        let busy = covered(fourth, SMALL_PACK + 1);
        assert!(matches!(busy, Err(FetchError::Busy)));
        let busy = covered(fourth, MEDIUM_PACK + 1);
        assert!(matches!(busy, Err(FetchError::LargeBusy)));
        assert!(covered(fourth, SMALL_PACK).is_ok());
        fetches.clear();
        assert_eq!((free(Ordinary), free(Medium), free(Large)), (4, 2, 1));
    }

    #[tokio::test]
    async fn a_free_place_is_kept_for_those_that_had_less_of_it() {
        let budget = Budget::new(2);
        let (busy, idle) = (Payer::new("a", "a", "x", ""), Payer::new("b", "b", "y", ""));
        let ledger = budget.ledger(FetchLane::Large);
        ledger.charge(&busy, 3.0);
        ledger.tell([idle.clone()]);
        let mut fetch = budget.admit(FetchLane::Ordinary, &busy).await.unwrap();
        let covered = fetch.cover(&budget, MEDIUM_PACK + 1, &busy);
        assert!(matches!(covered, Err(FetchError::LargeBusy)));
        ledger.tell([]);
        fetch.cover(&budget, MEDIUM_PACK + 1, &busy).unwrap();
    }

    #[tokio::test]
    async fn who_waits_is_seen_and_forgotten() {
        use FetchLane::{Large, Medium};
        let (budget, payer) = (Budget::new(1), Payer::default());
        let first = budget.admit(Large, &payer).await.unwrap();
        assert!(!budget.ledger(Large).is_waited_for());
        let mut second = Box::pin(budget.admit(Large, &payer));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(budget.ledger(Large).is_waited_for());
        assert!(!budget.ledger(Medium).is_waited_for());
        drop(second);
        assert!(!budget.ledger(Large).is_waited_for());
        drop(first);
        budget.admit(Large, &payer).await.unwrap();
    }
}
