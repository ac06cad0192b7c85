//! Bounds on what one fetch may take, and the memory that all of them share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::FetchError;
use super::pace::PaceLimits;

/// What a pack may hold before it needs the lane for large ones.
pub(super) const SMALL_PACK: usize = 4 << 20;

/// What a visit may hold in memory before it needs the lane for heavy ones, in bytes.
const LIGHT_VISIT: usize = 2 << 20;

/// What a visit may inflate before it needs that lane, in bytes: about a quarter of a second of work.
const LIGHT_WORK: u64 = 64 << 20;

/// The most that a visit may hold, in bytes: an object of the largest size that is read and the paths of a
/// large repository, or a delta of 16 MiB with its base. What does not fit is left out and counted.
const HEAVY_VISIT: usize = 48 << 20;

/// Items for which memory is taken at once when a list begins.
const FIRST_ITEMS: usize = 64;

/// How many visits may wait for the lane of heavy ones, each with its place among the fetches under way.
/// More would take the places of small ones.
const WAITING_VISITS: u32 = 3;

/// How long a visit waits for the lane.
const LANE_PATIENCE: Duration = Duration::from_mins(1);

/// What may be inflated of any pack, in bytes.
const BASE_ALLOWANCE: u64 = 64 << 20;

/// What more may be inflated for each byte of a pack. Source code deflates to a fourth, deltas to less. A
/// history that needs more is read in halves.
const ALLOWANCE_RATIO: u64 = 32;

/// How long somebody who found the large lane taken counts as waiting for it.
const WANTED: Duration = Duration::from_mins(10);

/// Bounds on one fetch. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Pack bytes received for one range. What comes beyond is not read.
    pub max_fetch_bytes: u64,
    /// Pack bytes that are held at a time. A history that is larger is read in halves, a single commit part by
    /// part.
    pub max_held_bytes: usize,
    /// Size of one object, inflated. Larger ones are left out.
    pub max_blob_bytes: u64,
    /// Bytes inflated for one pack, the results of deltas included. For a small pack it is less: 64 MiB and 32
    /// bytes for each byte received.
    pub max_inflated_bytes: u64,
    /// Objects in one pack.
    pub max_objects: u32,
    /// Fetches under way at the same time, each with up to 4 MiB of pack. One more may be larger.
    pub concurrent: usize,
    /// How long the server may send nothing.
    pub stall: Duration,
    /// How long the server may be waited for in all.
    pub total: Duration,
    /// Over which time the rate of an answer is measured. At its beginning the server has half of it for
    /// putting the pack together.
    pub window: Duration,
    /// The least bytes per second. A server below it is left.
    pub rate: u64,
    /// The least bytes per second of a pack of more than 4 MiB, while others wait: there is one such at a time.
    pub large_rate: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_fetch_bytes: 256 << 20,
            max_held_bytes: 32 << 20,
            max_blob_bytes: 32 << 20,
            max_inflated_bytes: 4 << 30,
            max_objects: 500_000,
            concurrent: 8,
            stall: Duration::from_secs(20),
            total: Duration::from_mins(10),
            window: Duration::from_secs(20),
            rate: 32 << 10,
            large_rate: 256 << 10,
        }
    }
}

impl FetchLimits {
    /// What may be inflated of a pack of `received` bytes.
    pub(super) fn allowance(&self, received: u64) -> u64 {
        let more = received.saturating_mul(ALLOWANCE_RATIO);
        self.max_inflated_bytes
            .min(BASE_ALLOWANCE.saturating_add(more))
    }

    /// The bounds for a push that a process ended with, `deaths` times so far: a quarter of them for each.
    #[must_use]
    pub fn tightened(&self, deaths: u32) -> Self {
        let shift = deaths.saturating_mul(2).min(16);
        Self {
            max_fetch_bytes: self.max_fetch_bytes >> shift,
            max_blob_bytes: self.max_blob_bytes >> shift,
            max_inflated_bytes: self.max_inflated_bytes >> shift,
            max_held_bytes: self.max_held_bytes >> shift,
            max_objects: self.max_objects >> shift,
            ..self.clone()
        }
    }

    /// The pace of an answer, when the server was waited for that long before.
    pub(super) fn pace_after(&self, waited: Duration) -> PaceLimits {
        PaceLimits {
            stall: self.stall,
            total: self.total.saturating_sub(waited),
            grace: self.window / 2,
            window: self.window,
            rate: self.rate,
        }
    }
}

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
    heavy: Lane,
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

/// The lane of heavy visits: one at a time.
#[derive(Debug, Default)]
struct Lane {
    state: Mutex<LaneState>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct LaneState {
    taken: bool,
    waiting: u32,
}

impl Lane {
    /// Takes the lane, waiting for it unless too many do already. Blocks the thread.
    fn take(&self) -> Result<(), FetchError> {
        let mut state = self.state();
        if state.taken && state.waiting >= WAITING_VISITS {
            return Err(FetchError::Busy);
        }
        let deadline = Instant::now() + LANE_PATIENCE;
        state.waiting += 1;
        while state.taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.freed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        if state.taken {
            return Err(FetchError::Busy);
        }
        state.taken = true;
        Ok(())
    }

    fn give_back(&self) {
        self.state().taken = false;
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one visit holds in memory, and how much it did. Beyond [`LIGHT_VISIT`] and [`LIGHT_WORK`] it has the
/// lane of heavy visits for itself, to its end.
#[derive(Debug)]
pub(super) struct Weight {
    budget: Arc<Budget>,
    is_heavy: bool,
    held: usize,
    worked: u64,
}

impl Weight {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            is_heavy: false,
            held: 0,
            worked: 0,
        }
    }

    /// Counts `bytes` in that are about to be held; says no when a visit may not hold that much. May wait for
    /// the lane of heavy visits, which blocks the thread.
    ///
    /// # Errors
    /// [`FetchError::Busy`] when the lane cannot be had.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<bool, FetchError> {
        let held = self.held.saturating_add(bytes);
        if held > HEAVY_VISIT {
            return Ok(false);
        }
        self.held = held;
        if held > LIGHT_VISIT {
            self.need_lane()?;
        }
        Ok(true)
    }

    /// Makes room for `more` items at the end of a list, counted in as memory is taken for them; says no when
    /// a visit may not hold that much.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub(super) fn room<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<bool, FetchError> {
        let free = list.capacity() - list.len();
        if more <= free {
            return Ok(true);
        }
        // Half as much again: growing stays linear, and less is taken than is used.
        let grow = (more - free).max(list.capacity() / 2).max(FIRST_ITEMS);
        if !self.hold(grow.saturating_mul(size_of::<T>()))? {
            return Ok(false);
        }
        list.reserve_exact(free + grow);
        Ok(true)
    }

    /// Counts `bytes` out.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// Counts `bytes` that are about to be inflated or made.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub(super) fn work(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.worked = self.worked.saturating_add(bytes);
        if self.worked > LIGHT_WORK {
            self.need_lane()?;
        }
        Ok(())
    }

    /// Waits for the lane at once if `bytes` are likely to be held.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), FetchError> {
        if self.held.saturating_add(bytes) > LIGHT_VISIT {
            self.need_lane()?;
        }
        Ok(())
    }

    /// Whether it has the lane of heavy visits.
    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Counts everything out but `bytes`.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.held = bytes;
    }

    /// Counts everything out, and gives the lane back.
    pub(super) fn end(&mut self) {
        *self = Self::new(&self.budget);
    }

    fn need_lane(&mut self) -> Result<(), FetchError> {
        if !self.is_heavy {
            self.budget.heavy.take()?;
            self.is_heavy = true;
        }
        Ok(())
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        if self.is_heavy {
            self.budget.heavy.give_back();
        }
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

    #[test]
    fn each_death_leaves_a_quarter() {
        let limits = FetchLimits::default();
        let tight = limits.tightened(2);
        assert_eq!(tight.max_fetch_bytes, limits.max_fetch_bytes / 16);
        assert_eq!(tight.max_objects, limits.max_objects / 16);
        assert_eq!(limits.tightened(0).max_blob_bytes, limits.max_blob_bytes);
    }

    /// Threads that want the lane take turns, and only so many of them wait.
    #[test]
    fn one_heavy_visit_at_a_time_and_few_that_wait() {
        let budget = Arc::new(Budget::new(8));
        let mut first = Weight::new(&budget);
        assert!(first.hold(LIGHT_VISIT + 1).unwrap());
        assert!(!first.hold(HEAVY_VISIT).unwrap());
        let heavy = |budget: &Arc<Budget>| {
            let budget = Arc::clone(budget);
            std::thread::spawn(move || Weight::new(&budget).work(LIGHT_WORK + 1).is_ok())
        };
        let waiting: Vec<_> = (0..WAITING_VISITS).map(|_| heavy(&budget)).collect();
        while budget.heavy.state().waiting < WAITING_VISITS {
            std::thread::yield_now();
        }
        assert!(!heavy(&budget).join().unwrap());
        let mut light = Weight::new(&budget);
        assert!(light.hold(LIGHT_VISIT).unwrap());
        light.work(LIGHT_WORK).unwrap();
        drop(first);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    }

    #[test]
    fn a_small_pack_may_not_become_anything() {
        let limits = FetchLimits::default();
        assert_eq!(limits.allowance(0), 64 << 20);
        assert_eq!(limits.allowance(4 << 20), 192 << 20);
        assert_eq!(limits.allowance(u64::MAX), limits.max_inflated_bytes);
    }
}
