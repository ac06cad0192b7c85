//! Places and memory shared by the fetches in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::FetchError;
use super::patience::Place;
use super::weight::Lane;

/// Size of the largest pack in an ordinary place, in bytes.
pub(super) const SMALL_PACK: usize = 1 << 20;

/// Size of the largest pack in the medium lane, in bytes.
const MEDIUM_PACK: usize = 16 << 20;

/// Number of places in the medium lane.
const MEDIUM_PLACES: usize = 2;

/// The lane in which a push is fetched. When it turns out to be larger than its lane allows, it takes a place of
/// another lane if one is free, and else ends with [`FetchError::Busy`] or [`FetchError::LargeBusy`], to be fetched again
/// when it has its turn there: it keeps nobody waiting meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FetchLane {
    /// Many places, each for up to 1 MiB of pack.
    #[default]
    Ordinary,
    /// Few places, each for up to 16 MiB of pack.
    Medium,
    /// A single place, for as much as is held of any pack.
    Large,
}

impl FetchLane {
    /// Returns the first lane in which a pack of `bytes` may be held.
    fn for_bytes(bytes: usize) -> Self {
        if bytes <= SMALL_PACK {
            Self::Ordinary
        } else if bytes <= MEDIUM_PACK {
            Self::Medium
        } else {
            Self::Large
        }
    }
}

/// Memory shared by concurrent fetches: many small packs, few medium ones and one large one, and likewise
/// for the data inflated from them. The maximum is therefore known, whatever is pushed.
#[derive(Debug)]
pub(super) struct Budget {
    ordinary: Places,
    medium: Places,
    large: Places,
    long_lists: Semaphore,
    pub(super) heavy: Lane,
}

/// Places of a lane.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// Those who wait for one: how often each had to leave the large lane.
    waiting: Mutex<Vec<u32>>,
}

impl Places {
    fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u32>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits, until dropped, and how often he had to leave the large lane.
struct Waiter<'p>(&'p Places, u32);

impl<'p> Waiter<'p> {
    fn new(places: &'p Places, outpaced: u32) -> Self {
        places.waiting().push(outpaced);
        Self(places, outpaced)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        if let Some(at) = waiting.iter().position(|waits| *waits == self.1) {
            waiting.swap_remove(at);
        }
    }
}

impl Budget {
    pub(super) fn new(concurrent: usize) -> Self {
        Self {
            ordinary: Places::new(concurrent.max(1)),
            medium: Places::new(MEDIUM_PLACES),
            large: Places::new(1),
            long_lists: Semaphore::new(1),
            heavy: Lane::default(),
        }
    }

    fn places(&self, lane: FetchLane) -> &Places {
        match lane {
            FetchLane::Ordinary => &self.ordinary,
            FetchLane::Medium => &self.medium,
            FetchLane::Large => &self.large,
        }
    }

    /// Waits for a place, as one that had to leave the large lane so often.
    pub(super) async fn admit(
        &self,
        lane: FetchLane,
        outpaced: u32,
    ) -> Result<Admission, FetchError> {
        let places = self.places(lane);
        let _waiter = Waiter::new(places, outpaced);
        let place = Arc::clone(&places.free).acquire_owned().await;
        Ok(Admission {
            place: place.map_err(|_| FetchError::Busy)?,
            lane,
        })
    }

    /// Returns how often those who wait for a place of this lane had to leave the large one, at least; `None` when nobody
    /// waits.
    pub(super) fn waited_for_by(&self, lane: FetchLane) -> Option<u32> {
        self.places(lane).waiting().iter().min().copied()
    }

    /// Waits for the lane of long lists of references.
    pub(super) async fn long_list(&self) -> Result<SemaphorePermit<'_>, FetchError> {
        self.long_lists
            .acquire()
            .await
            .map_err(|_| FetchError::Busy)
    }
}

/// Place of a fetch, and the budget shared by all fetches.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) budget: Arc<Budget>,
    pub(super) place: Place,
}

#[cfg(test)]
impl Seat {
    /// Creates an ordinary place in a budget of its own.
    pub(super) fn alone() -> Self {
        Self {
            budget: Arc::new(Budget::new(1)),
            place: Place::default(),
        }
    }
}

/// Memory reserved for one fetch. It is released on drop.
#[derive(Debug)]
pub(super) struct Admission {
    place: OwnedSemaphorePermit,
    lane: FetchLane,
}

impl Admission {
    /// Ensures that packs of `bytes` in total may be held, changing to another lane if necessary. Returns
    /// the lane.
    ///
    /// # Errors
    /// [`FetchError::Busy`] or [`FetchError::LargeBusy`] when that has no place free.
    pub(super) fn cover(&mut self, budget: &Budget, bytes: usize) -> Result<FetchLane, FetchError> {
        let needed = FetchLane::for_bytes(bytes);
        if needed > self.lane {
            let free = Arc::clone(&budget.places(needed).free);
            self.place = free.try_acquire_owned().map_err(|_| match needed {
                FetchLane::Large => FetchError::LargeBusy,
                FetchLane::Ordinary | FetchLane::Medium => FetchError::Busy,
            })?;
            self.lane = needed;
        }
        Ok(self.lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_its_place_takes_another_or_ends() {
        use FetchLane::{Large, Medium, Ordinary};
        let budget = Budget::new(4);
        let free = |lane| budget.places(lane).free.available_permits();
        let mut fetches = Vec::new();
        for _ in 0..4 {
            fetches.push(budget.admit(Ordinary, 0).await.unwrap());
        }
        assert_eq!(free(Ordinary), 0);
        let [first, second, third, fourth] = &mut fetches[..] else {
            unreachable!()
        };
        assert_eq!(first.cover(&budget, SMALL_PACK).unwrap(), Ordinary);
        assert_eq!(first.cover(&budget, SMALL_PACK + 1).unwrap(), Medium);
        assert_eq!(first.cover(&budget, MEDIUM_PACK + 1).unwrap(), Large);
        assert_eq!(second.cover(&budget, MEDIUM_PACK).unwrap(), Medium);
        assert_eq!(third.cover(&budget, MEDIUM_PACK).unwrap(), Medium);
        assert_eq!((free(Ordinary), free(Medium), free(Large)), (3, 0, 0));
        let busy = fourth.cover(&budget, SMALL_PACK + 1);
        assert!(matches!(busy, Err(FetchError::Busy)));
        let busy = fourth.cover(&budget, MEDIUM_PACK + 1);
        assert!(matches!(busy, Err(FetchError::LargeBusy)));
        assert!(fourth.cover(&budget, SMALL_PACK).is_ok());
        fetches.clear();
        assert_eq!((free(Ordinary), free(Medium), free(Large)), (4, 2, 1));
    }

    #[tokio::test]
    async fn who_waits_is_seen_and_forgotten() {
        use FetchLane::{Large, Medium};
        let budget = Budget::new(1);
        let first = budget.admit(Large, 0).await.unwrap();
        assert_eq!(budget.waited_for_by(Large), None);
        let mut second = Box::pin(budget.admit(Large, 2));
        let mut third = Box::pin(budget.admit(Large, 1));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(budget.waited_for_by(Large), Some(2));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(budget.waited_for_by(Large), Some(1));
        assert_eq!(budget.waited_for_by(Medium), None);
        drop(third);
        assert_eq!(budget.waited_for_by(Large), Some(2));
        drop(second);
        assert_eq!(budget.waited_for_by(Large), None);
        drop(first);
        budget.admit(Large, 0).await.unwrap();
    }
}
