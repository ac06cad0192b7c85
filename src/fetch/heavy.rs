//! The lane of heavy visits: one at a time reads what takes much memory or much work.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::FetchError;
use super::demand::Waiting;
use super::lane::FetchLane;
use super::ledger::{Ledger, Turn};
use super::place::FetchPlace;

/// Maximum number of visits in ordinary places that may wait for the lane of heavy visits. Each occupies its place
/// meanwhile, and more would take the places of small pushes.
pub(super) const WAITING_VISITS: usize = 3;

/// Maximum time that a visit in an ordinary place waits for the lane.
const ORDINARY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum time that a visit in an ordinary place waits for the lane while others want the place.
const WANTED_PATIENCE: Duration = Duration::from_millis(500);

/// Maximum time that a visit in a place of the medium pushes waits for the lane.
const MEDIUM_PATIENCE: Duration = Duration::from_secs(20);

/// Maximum time that a visit in the place of the large push waits for the lane.
const LARGE_PATIENCE: Duration = Duration::from_mins(1);

/// Interval at which the demand for the place is checked.
const LOOK: Duration = Duration::from_millis(250);

fn lane_patience(place: &FetchPlace) -> Duration {
    match place.lane {
        FetchLane::Ordinary if place.demand.waiting() > Waiting::Nobody => WANTED_PATIENCE,
        FetchLane::Ordinary => ORDINARY_PATIENCE,
        FetchLane::Medium => MEDIUM_PATIENCE,
        FetchLane::Large => LARGE_PATIENCE,
    }
}

/// Lane of heavy visits: one at a time.
#[derive(Debug, Default)]
pub(super) struct HeavyLane {
    taken: Mutex<bool>,
    freed: Condvar,
    /// Recent usage of the lane, and the visits that wait for it.
    pub(super) ledger: Arc<Ledger>,
}

impl HeavyLane {
    /// Takes the lane, waiting for it as long as the place allows, and until none waits that had less of it. Fails at
    /// once if too many visits are waiting already. Blocks the thread.
    pub(super) fn take(&self, place: &FetchPlace) -> Result<Turn, FetchError> {
        let mut taken = self.taken();
        let is_ordinary = place.lane == FetchLane::Ordinary;
        if *taken && is_ordinary && self.ledger.waiting() >= WAITING_VISITS {
            return Err(FetchError::Busy);
        }
        let begun = Instant::now();
        let waiter = self.ledger.wait(&place.payer);
        let is_kept = place.kept.is_some();
        let is_for_others =
            |taken: bool| taken || (!is_kept && self.ledger.is_for_others(&place.payer));
        while is_for_others(*taken) {
            let left = lane_patience(place).saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let woken = self.freed.wait_timeout(taken, left.min(LOOK));
            taken = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_for_others = is_for_others(*taken);
        drop(waiter);
        if is_for_others {
            return Err(FetchError::Busy);
        }
        *taken = true;
        Ok(self.ledger.begin(&place.payer))
    }

    pub(super) fn give_back(&self) {
        *self.taken() = false;
        self.freed.notify_all();
    }

    fn taken(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
