//! The only place where the current time enters the program, so that tests can control it; and ticks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Interval, MissedTickBehavior};

/// A source of the current time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time, truncated to whole microseconds: the finest unit that the database and
    /// the log keep.
    fn now(&self) -> Timestamp;
}

/// A clock shared by all parts of the program.
pub type SharedClock = Arc<dyn Clock>;

/// The system clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        whole_micros(Timestamp::now())
    }
}

/// Returns ticks with this interval, the first at once. One that is late delays those after it, instead of having them
/// come in a row.
pub(crate) fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A clock that only moves when it is advanced.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Creates a clock that shows `at`, truncated to whole microseconds.
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(whole_micros(at)))
    }

    /// Moves the clock forward or, if the duration is negative, back.
    ///
    /// # Panics
    /// Panics if the result is outside the range of [`Timestamp`].
    pub fn advance(&self, by: SignedDuration) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *at = at
            .checked_add(by)
            .expect("the clock stays within the range of Timestamp");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
