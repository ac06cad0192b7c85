//! The places and the memory that fetches under way share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::FetchError;
use super::weight::Lane;

/// What a pack may hold before it needs the lane for large ones.
pub(super) const SMALL_PACK: usize = 4 << 20;

/// How long somebody who found the large lane taken counts as waiting for it.
const WANTED: Duration = Duration::from_mins(10);

/// Where a push is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchLane {
    /// Among others. When it turns out to be large, it takes the other lane if that is free, and else ends with
    /// [`FetchError::Busy`], to be fetched again when it has its turn there: it keeps nobody waiting meanwhile.
    Ordinary,
    /// Alone in the lane for large pushes, which is waited for.
    Large,
}

/// The memory that concurrent fetches share: many small packs or one large one, and the same for what is
/// inflated from them. So the most that is held is known, whatever is pushed.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    long_lists: Semaphore,
    pub(super) heavy: Lane,
    /// When somebody last found the large lane taken.
    wanted_at: Mutex<Option<Instant>>,
}

impl Budget {
    pub(super) fn new(concurrent: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(concurrent.max(1))),
            large: Arc::new(Semaphore::new(1)),
            long_lists: Semaphore::new(1),
            heavy: Lane::default(),
            wanted_at: Mutex::new(None),
        }
    }

    /// Waits for a place.
    pub(super) async fn admit(&self, lane: FetchLane) -> Result<Admission, FetchError> {
        let places = match lane {
            FetchLane::Ordinary => &self.small,
            FetchLane::Large => &self.large,
        };
        if lane == FetchLane::Large && self.large.available_permits() == 0 {
            self.want_large();
        }
        let place = Arc::clone(places).acquire_owned().await;
        Ok(Admission {
            place: place.map_err(|_| FetchError::Busy)?,
            is_large: lane == FetchLane::Large,
        })
    }

    /// Waits up to `patience` for the lane of long lists of references.
    pub(super) async fn long_list(
        &self,
        patience: Duration,
    ) -> Result<SemaphorePermit<'_>, FetchError> {
        let permit = tokio::time::timeout(patience, self.long_lists.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(FetchError::Busy)
    }

    fn want_large(&self) {
        *self.wanted_at() = Some(Instant::now());
    }

    /// Whether somebody found the large lane taken lately. Those wait in the queue, where they are not seen.
    pub(super) fn is_large_wanted(&self) -> bool {
        self.wanted_at().is_some_and(|at| at.elapsed() < WANTED)
    }

    fn wanted_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.wanted_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one fetch. Given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    place: OwnedSemaphorePermit,
    is_large: bool,
}

impl Admission {
    /// Makes sure that packs of `bytes` in all may be held, changing to the large lane where needed; says
    /// whether others wait for that.
    ///
    /// # Errors
    /// [`FetchError::Busy`] when somebody else is.
    pub(super) fn cover(&mut self, budget: &Budget, bytes: usize) -> Result<bool, FetchError> {
        let is_large = bytes > SMALL_PACK;
        if is_large && !self.is_large {
            let large = Arc::clone(&budget.large).try_acquire_owned();
            self.place = large.map_err(|_| {
                budget.want_large();
                FetchError::Busy
            })?;
            self.is_large = true;
        }
        Ok(is_large && budget.is_large_wanted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_large_pack_at_a_time_and_it_keeps_no_other_place() {
        let budget = Budget::new(2);
        let mut first = budget.admit(FetchLane::Ordinary).await.unwrap();
        let mut second = budget.admit(FetchLane::Ordinary).await.unwrap();
        assert_eq!(budget.small.available_permits(), 0);
        assert!(!first.cover(&budget, SMALL_PACK + 1).unwrap());
        assert_eq!(budget.small.available_permits(), 1);
        assert!(!second.cover(&budget, SMALL_PACK).unwrap());
        let busy = second.cover(&budget, SMALL_PACK + 1);
        assert!(matches!(busy, Err(FetchError::Busy)));
        assert!(
            first.cover(&budget, SMALL_PACK + 1).unwrap(),
            "it is waited for"
        );
        drop(second);
        assert_eq!(budget.small.available_permits(), 2);
        drop(first);
        let mut third = budget.admit(FetchLane::Large).await.unwrap();
        assert!(third.cover(&budget, SMALL_PACK + 1).is_ok());
        assert_eq!(budget.small.available_permits(), 2);
    }
}
