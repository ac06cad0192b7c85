//! Times at which something is done.

mod crontab;

use std::fmt;

use jiff::{SignedDuration, Timestamp};

pub use crontab::CronSchedule;

/// Times at which a source is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// As often as the server allows.
    Poll,
    /// At the times of a cron expression, in UTC.
    Cron(CronSchedule),
}

/// The unit of a cron expression: what begins a little later than its minute still goes by it.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

impl Schedule {
    /// Returns whether it goes by the clock.
    pub fn is_cron(&self) -> bool {
        matches!(self, Self::Cron(_))
    }

    /// Returns the first time after `at` when it is due, not before `allowed_at`. A minute of a cron expression that
    /// has begun when it is allowed is not missed. Returns `None` if that is never.
    pub fn next(&self, at: Timestamp, allowed_at: Timestamp) -> Option<Timestamp> {
        let Self::Cron(cron) = self else {
            return Some(allowed_at);
        };
        let minute_before = allowed_at.checked_sub(MINUTE).unwrap_or(Timestamp::MIN);
        let next = cron.next_after(at.max(minute_before))?;
        Some(next.max(allowed_at))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll => f.write_str("poll"),
            Self::Cron(schedule) => schedule.fmt(f),
        }
    }
}
