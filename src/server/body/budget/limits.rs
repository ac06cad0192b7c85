//! Limits of a budget: how much room there is, and how long bodies may take and wait.

use std::time::Duration;

/// Time that any body may take to arrive while others wait for its room, and the time that those wait before a body
/// that is itself waiting has to make room.
const GRACE: Duration = Duration::from_secs(1);

/// Minimum rate of a body beyond [`GRACE`], in bytes per second. Retransmissions and round trips cost little, and a
/// sender of much sends it fast.
const RATE: u128 = 8 << 20;

/// Longest total wait of a body. Senders of webhooks wait 10 seconds for their answer, partners up to a minute.
const PATIENCE: Duration = Duration::from_secs(18);

/// Time for which a body that wants the whole budget lets smaller ones go first.
const WEIGHT: Duration = Duration::from_secs(36);

/// Same, for the work on one. Less than [`PATIENCE`], so that it gets its turn in any flood of little work.
const WEIGHT_OF_WORK: Duration = Duration::from_secs(8);

/// Maximum number of bodies that wait at a time. Together with those being read they leave some connections to others.
pub(super) const MOST_WAITING: usize = 1536;

/// Part of the room, and of the places to wait in, that proved senders have before all others: whatever they do, the
/// rest stays for others.
const PART: (usize, usize) = (3, 4);

/// Limits of a budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Room in bytes.
    pub(super) total: usize,
    /// Room that proved senders have before all others.
    pub(super) of_proved: usize,
    pub(super) grace: Duration,
    pub(super) rate: u128,
    pub(super) patience: Duration,
    pub(super) weight: Duration,
}

impl Limits {
    /// Returns the limits on `total` bytes of bodies, the largest of which has `largest` bytes.
    pub(super) fn of_bodies(total: usize, largest: usize) -> Self {
        let limits = Self::with(total, GRACE, RATE, PATIENCE);
        Self {
            // A body that no part holds would wait for ever.
            of_proved: limits.of_proved.max(largest),
            weight: WEIGHT,
            ..limits
        }
    }

    /// Returns the limits on `total` bytes made of bodies.
    pub(super) fn of_work(total: usize) -> Self {
        Self {
            weight: WEIGHT_OF_WORK,
            ..Self::with(total, GRACE, RATE, PATIENCE)
        }
    }

    pub(super) fn with(total: usize, grace: Duration, rate: u128, patience: Duration) -> Self {
        Self {
            total,
            of_proved: part(total),
            grace,
            rate,
            patience,
            weight: 2 * patience,
        }
    }

    /// Returns the room that bodies which miss more than they hold may take together: beyond it, no further one begins.
    pub(super) fn for_beginnings(&self) -> usize {
        part(self.total)
    }

    /// Returns the time that `bytes` bytes may take in all.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        let beyond = bytes as u128 * 1_000_000 / self.rate.max(1);
        self.grace + Duration::from_micros(u64::try_from(beyond).unwrap_or(u64::MAX))
    }
}

/// Returns the part of `all` that proved senders have before all others.
pub(super) fn part(all: usize) -> usize {
    let (part, of) = PART;
    all * part / of
}
