//! Accounting of the memory and work needed to read what was fetched.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::FetchError;
use super::budget::{FetchLane, Seat};
use super::demand::Waiting;
use super::patience::{Place, TURN};

/// Maximum memory of a visit that does not need the lane of heavy visits, in bytes.
const LIGHT_VISIT: usize = 1 << 20;

/// Maximum number of bytes that a visit inflates without that lane: about a quarter of a second of work.
const LIGHT_WORK: u64 = 64 << 20;

/// Maximum processor time of a visit without that lane. For most texts the scan rate makes it equivalent
/// to the limit on bytes, but their authors determine how much there is to check.
const LIGHT_TIME: Duration = Duration::from_millis(500);

/// Maximum memory of a visit, in bytes: an object of the largest size that is read and the paths of a
/// large repository, or a delta of 16 MiB with its base. Anything that does not fit is omitted and
/// counted.
const HEAVY_VISIT: usize = 48 << 20;

/// Number of items for which memory is reserved at once when a list begins.
const FIRST_ITEMS: usize = 64;

/// How many visits may wait for the lane of heavy ones from ordinary places, each of which it keeps meanwhile.
/// More would take the places of small ones.
const WAITING_VISITS: usize = 3;

/// Maximum time that a visit in an ordinary place waits for the lane, and the same while the place is
/// wanted.
const ORDINARY_PATIENCE: Duration = Duration::from_secs(2);
const WANTED_PATIENCE: Duration = Duration::from_millis(500);

/// Maximum time that a visit waits for the lane in a place among the medium pushes, and in that of the
/// large one.
const MEDIUM_PATIENCE: Duration = Duration::from_secs(20);
const LARGE_PATIENCE: Duration = Duration::from_mins(1);

/// Interval at which the demand for the place is checked.
const LOOK: Duration = Duration::from_millis(250);

fn lane_patience(place: &Place) -> Duration {
    match place.lane {
        FetchLane::Ordinary if place.demand.waiting() > Waiting::Nobody => WANTED_PATIENCE,
        FetchLane::Ordinary => ORDINARY_PATIENCE,
        FetchLane::Medium => MEDIUM_PATIENCE,
        FetchLane::Large => LARGE_PATIENCE,
    }
}

/// Lane of heavy visits: one at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    state: Mutex<LaneState>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct LaneState {
    taken: bool,
    /// Those who wait: how often each had to leave the large lane.
    waiting: Vec<u32>,
}

impl LaneState {
    /// Returns whether one that waits so may not have the lane: somebody has it, or had less of it so far and waits too.
    fn is_for_others(&self, rank: u32) -> bool {
        self.taken || self.waiting.iter().any(|waits| *waits < rank)
    }
}

impl Lane {
    /// Takes the lane, waiting for it as long as the place allows. Fails at once if too many visits are
    /// waiting already. Blocks the thread.
    fn take(&self, place: &Place) -> Result<(), FetchError> {
        let mut state = self.state();
        let is_ordinary = place.lane == FetchLane::Ordinary;
        if state.taken && is_ordinary && state.waiting.len() >= WAITING_VISITS {
            return Err(FetchError::Busy);
        }
        let (begun, rank) = (Instant::now(), place.rank());
        state.waiting.push(rank);
        while state.is_for_others(rank) {
            let left = lane_patience(place).saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.freed.wait_timeout(state, left.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(at) = state.waiting.iter().position(|waits| *waits == rank) {
            state.waiting.swap_remove(at);
        }
        if state.is_for_others(rank) {
            return Err(FetchError::Busy);
        }
        state.taken = true;
        Ok(())
    }

    /// Returns how often those who wait had to leave the large lane, at least; `None` when nobody waits.
    fn wanted_by(&self) -> Option<u32> {
        self.state().waiting.iter().min().copied()
    }

    fn give_back(&self) {
        self.state().taken = false;
        self.freed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory and work of one visit. Beyond [`LIGHT_VISIT`], [`LIGHT_WORK`] or [`LIGHT_TIME`] the visit holds
/// the lane of heavy visits, until it ends or has kept others waiting for too long.
#[derive(Debug)]
pub(super) struct Weight {
    seat: Seat,
    is_heavy: bool,
    held: usize,
    worked: u64,
    /// Processor time since the visit began or, if it holds the lane, since it took it.
    busy: Duration,
    timer: Timer,
}

/// Measures the processor time of a visit, on whichever thread it runs.
#[derive(Debug)]
struct Timer {
    thread: ThreadId,
    last: Duration,
}

impl Timer {
    fn start() -> Self {
        Self {
            thread: thread::current().id(),
            last: processor_time(),
        }
    }

    /// Returns the processor time since the last call, or zero if that was on another thread.
    fn lap(&mut self) -> Duration {
        let last = std::mem::replace(self, Self::start());
        if last.thread == self.thread {
            self.last.saturating_sub(last.last)
        } else {
            Duration::ZERO
        }
    }
}

/// Returns the processor time of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Weight {
    pub(super) fn new(seat: &Seat) -> Self {
        Self {
            seat: seat.clone(),
            is_heavy: false,
            held: 0,
            worked: 0,
            busy: Duration::ZERO,
            timer: Timer::start(),
        }
    }

    /// Reserves `bytes` that are about to be held. Returns `false` if a visit may not hold that much.
    ///
    /// May wait for the lane of heavy visits, which blocks the thread.
    ///
    /// # Errors
    ///
    /// Returns [`FetchError::Busy`] if the lane is not available.
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

    /// Makes room for `more` items at the end of a list, reserving the memory that is allocated for them.
    /// Returns `false` if a visit may not hold that much.
    ///
    /// # Errors
    ///
    /// As for [`hold`](Self::hold).
    pub(super) fn room<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<bool, FetchError> {
        let free = list.capacity() - list.len();
        if more <= free {
            return Ok(true);
        }
        // Half as much again: growth stays linear, and less is allocated than with doubling.
        let grow = (more - free).max(list.capacity() / 2).max(FIRST_ITEMS);
        if !self.hold(grow.saturating_mul(size_of::<T>()))? {
            return Ok(false);
        }
        list.reserve_exact(free + grow);
        Ok(true)
    }

    /// Releases `bytes` that are no longer held.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// Counts `bytes` that are about to be inflated or built, and the processor time since the last call.
    ///
    /// # Errors
    ///
    /// As for [`hold`](Self::hold), and [`FetchError::Outpaced`] if other visits have waited for the lane
    /// for too long.
    pub(super) fn work(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.worked = self.worked.saturating_add(bytes);
        self.busy += self.timer.lap();
        let Seat { budget, place } = &self.seat;
        if self.is_heavy {
            let is_over = |waits| self.busy > place.turn(waits);
            if self.busy > TURN && budget.heavy.wanted_by().is_some_and(is_over) {
                let seconds = self.busy.as_secs();
                return Err(FetchError::Outpaced { seconds });
            }
        } else if self.worked > LIGHT_WORK || self.busy > LIGHT_TIME {
            self.need_lane()?;
        }
        Ok(())
    }

    /// Waits for the lane at once if `bytes` are likely to be held.
    ///
    /// # Errors
    ///
    /// As for [`hold`](Self::hold).
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), FetchError> {
        if self.held.saturating_add(bytes) > LIGHT_VISIT {
            self.need_lane()?;
        }
        Ok(())
    }

    /// Returns `true` if the visit holds the lane of heavy visits.
    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Releases everything but `bytes`.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.held = bytes;
    }

    /// Releases everything, including the lane.
    pub(super) fn end(&mut self) {
        *self = Self::new(&self.seat.clone());
    }

    fn need_lane(&mut self) -> Result<(), FetchError> {
        if !self.is_heavy {
            let Seat { budget, place } = &self.seat;
            budget.heavy.take(place)?;
            self.is_heavy = true;
            self.busy = Duration::ZERO;
        }
        Ok(())
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        if self.is_heavy {
            self.seat.budget.heavy.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::budget::Budget;
    use super::*;

    fn heavy(seat: &Seat) -> std::thread::JoinHandle<bool> {
        let seat = seat.clone();
        std::thread::spawn(move || Weight::new(&seat).work(LIGHT_WORK + 1).is_ok())
    }

    /// Threads that want the lane take turns, and only a limited number of them wait in ordinary places.
    #[test]
    fn one_heavy_visit_at_a_time_and_few_that_wait() {
        let seat = Seat::alone();
        let mut first = Weight::new(&seat);
        assert!(first.hold(LIGHT_VISIT + 1).unwrap());
        assert!(!first.hold(HEAVY_VISIT).unwrap());
        let lane = &seat.budget.heavy;
        let waiting: Vec<_> = (0..WAITING_VISITS).map(|_| heavy(&seat)).collect();
        while lane.state().waiting.len() < WAITING_VISITS {
            std::thread::yield_now();
        }
        assert!(!heavy(&seat).join().unwrap());
        let medium = Seat {
            place: Place {
                lane: FetchLane::Medium,
                ..Place::default()
            },
            ..seat.clone()
        };
        let patient = heavy(&medium);
        while lane.state().waiting.len() <= WAITING_VISITS {
            std::thread::yield_now();
        }
        let mut light = Weight::new(&seat);
        assert!(light.hold(LIGHT_VISIT).unwrap());
        light.work(LIGHT_WORK).unwrap();
        drop(first);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        assert!(patient.join().unwrap());
    }

    /// A visit in the large lane that had to leave it before has a longer turn, unless one waits that had less.
    #[test]
    fn a_longer_turn_is_for_when_nobody_waits_that_had_less() {
        let alone = Seat::alone();
        let large = |outpaced| Seat {
            place: Place {
                lane: FetchLane::Large,
                outpaced,
                ..Place::default()
            },
            ..alone.clone()
        };
        let lane = &alone.budget.heavy;
        let mut first = Weight::new(&large(3));
        first.work(LIGHT_WORK + 1).unwrap();
        first.busy = TURN * 2;
        let equal = heavy(&large(3));
        while lane.wanted_by() != Some(3) {
            thread::yield_now();
        }
        first.work(0).unwrap();
        let fresh = heavy(&large(0));
        while lane.wanted_by() != Some(0) {
            thread::yield_now();
        }
        assert!(matches!(first.work(0), Err(FetchError::Outpaced { .. })));
        drop(first);
        assert!(fresh.join().unwrap() && equal.join().unwrap());
    }

    #[test]
    fn an_ordinary_place_is_not_kept_for_the_lane() {
        let seat = Seat {
            budget: Arc::new(Budget::new(8)),
            place: Place::default(),
        };
        let mut first = Weight::new(&seat);
        first.work(LIGHT_WORK + 1).unwrap();
        let begun = Instant::now();
        let waiting = heavy(&seat);
        // It waits a few seconds, unless others want its place.
        seat.place.demand.set(Waiting::Somebody);
        assert!(!waiting.join().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(seat.budget.heavy.state().waiting.is_empty());
    }

    #[test]
    fn slow_texts_are_heavy_and_leave_when_others_have_waited() {
        let seat = Seat::alone();
        let mut slow = Weight::new(&seat);
        slow.work(1).unwrap();
        assert!(!slow.is_heavy());
        slow.busy = LIGHT_TIME;
        while !slow.is_heavy() {
            slow.work(0).unwrap();
        }
        slow.busy = TURN;
        slow.work(0).unwrap();
        let waiting = heavy(&seat);
        while seat.budget.heavy.wanted_by().is_none() {
            std::thread::yield_now();
        }
        let ended = loop {
            if let Err(error) = slow.work(0) {
                break error;
            }
        };
        assert!(matches!(ended, FetchError::Outpaced { seconds: 2.. }));
        drop(slow);
        assert!(waiting.join().unwrap());
    }
}
