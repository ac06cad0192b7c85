//! The memory and the work of reading what was fetched.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::FetchError;
use super::budget::Budget;

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

/// The lane of heavy visits: one at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
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
}
