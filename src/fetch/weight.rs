//! Accounting of the memory and work needed to read what was fetched.

use std::thread::{self, ThreadId};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::FetchError;
use super::budget::Seat;
use super::ledger::Turn;
use crate::memory;

/// Maximum memory of a visit that does not need the lane of heavy visits, in bytes.
const LIGHT_VISIT: usize = memory::LIGHT_VISIT;

/// Maximum number of bytes that a visit inflates without that lane: about a quarter of a second of work.
const LIGHT_WORK: u64 = 64 << 20;

/// Maximum processor time of a visit without that lane. For most texts the scan rate makes it equivalent
/// to the limit on bytes, but their authors determine how much there is to check.
const LIGHT_TIME: Duration = Duration::from_millis(500);

/// Maximum memory of a visit, in bytes: an object of the largest size that is read and the paths of a
/// large repository, or a delta of 16 MiB with its base. Anything that does not fit is omitted and
/// counted.
const HEAVY_VISIT: usize = memory::HEAVY_VISIT;

/// Number of items for which memory is reserved at once when a list begins.
const FIRST_ITEMS: usize = 64;

/// Processor time between two looks for those who wait for the lane.
const LOOK_BUSY: Duration = Duration::from_millis(20);

/// Memory and work of one visit. Beyond [`LIGHT_VISIT`], [`LIGHT_WORK`] or [`LIGHT_TIME`] the visit holds
/// the lane of heavy visits, until it ends or has kept others waiting for too long.
#[derive(Debug)]
pub(super) struct Weight {
    seat: Seat,
    /// The turn in the lane of heavy visits.
    heavy: Option<Turn>,
    held: usize,
    worked: u64,
    /// Processor time since the visit began or, if it holds the lane, since it took it.
    busy: Duration,
    /// The processor time at which it was last looked who waits.
    looked: Duration,
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
            heavy: None,
            held: 0,
            worked: 0,
            busy: Duration::ZERO,
            looked: Duration::ZERO,
            timer: Timer::start(),
        }
    }

    /// Reserves `bytes` that are about to be held. Returns `false` if a visit may not hold that much.
    ///
    /// May wait for the lane of heavy visits, which blocks the thread.
    ///
    /// # Errors
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
    /// Returns the errors of [`hold`](Self::hold).
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
    /// Returns the errors of [`hold`](Self::hold), and [`FetchError::Outpaced`] if other visits have waited for the
    /// lane for too long, or other fetches for the place.
    pub(super) fn work(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.worked = self.worked.saturating_add(bytes);
        self.busy += self.timer.lap();
        let is_light = self.worked <= LIGHT_WORK && self.busy <= LIGHT_TIME;
        if self.heavy.is_none() && !is_light {
            self.need_lane()?;
        }
        if self.busy.saturating_sub(self.looked) < LOOK_BUSY {
            return Ok(());
        }
        self.looked = self.busy;
        self.give_way()
    }

    fn give_way(&self) -> Result<(), FetchError> {
        let Seat { place, turns, .. } = &self.seat;
        let heavy = self.heavy.as_ref();
        let heavy = heavy.and_then(|turn| place.heavy_turn(turn.pressed()));
        let is_over = |turn: &Turn| {
            let longest = place.reading_turn(turn.pressed());
            longest.is_some_and(|longest| turn.lasts() > longest)
        };
        if heavy.is_some_and(|turn| self.busy > turn) || turns.iter().any(|(_, turn)| is_over(turn))
        {
            let seconds = self.busy.as_secs();
            return Err(FetchError::Outpaced { seconds });
        }
        Ok(())
    }

    /// Waits for the lane at once if `bytes` are likely to be held.
    ///
    /// # Errors
    /// Returns the errors of [`hold`](Self::hold).
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), FetchError> {
        if self.held.saturating_add(bytes) > LIGHT_VISIT {
            self.need_lane()?;
        }
        Ok(())
    }

    /// Returns `true` if the visit holds the lane of heavy visits.
    #[cfg(test)]
    pub(super) fn is_heavy(&self) -> bool {
        self.heavy.is_some()
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
        if self.heavy.is_none() {
            let Seat { budget, place, .. } = &self.seat;
            self.heavy = Some(budget.heavy.take(place)?);
            (self.busy, self.looked) = (Duration::ZERO, Duration::ZERO);
        }
        Ok(())
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        if let Some(turn) = self.heavy.take() {
            drop(turn);
            self.seat.budget.heavy.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
