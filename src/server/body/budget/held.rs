//! Room held by a body, and the pace that the body has to keep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::Waiting;
use super::{Budget, Reading, Sender};

/// Room held by a body.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) sender: Sender,
    pub(super) bytes: usize,
    pub(super) began: Instant,
    /// Time of its turn when the room was granted.
    pub(super) turn: Instant,
    /// Bytes that had arrived when the share last grew, and the time from which the others are waited for.
    before: usize,
    since: Instant,
    /// `None` once the body can no longer be evicted.
    pub(super) reading: Option<Arc<Reading>>,
}

/// Time that a body has, compared with the usual one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leeway {
    /// Half: many others wait.
    Little,
    /// As much as usual.
    Usual,
    /// Twice as much: those that wait are of worse standing.
    Much,
    /// Four times as much: it is a proved sender's, and others wait. They have room of their own, and an ordinary line is
    /// no reason to put off who is known.
    Most,
}

impl Leeway {
    pub(super) fn of(self, usual: Duration) -> Duration {
        match self {
            Self::Little => usual / 2,
            Self::Usual => usual,
            Self::Much => usual * 2,
            Self::Most => usual * 4,
        }
    }

    /// Returns how long the body of this sender may take while none but worse ones wait, or a crowd for itself.
    pub(super) fn more_for(self, sender: Sender) -> Self {
        match self {
            _ if sender.is_proved() => Self::Most,
            Self::Little => Self::Usual,
            Self::Usual | Self::Much | Self::Most => Self::Much,
        }
    }
}

impl Held {
    pub(super) fn of(waiting: &Waiting) -> Self {
        let now = Instant::now();
        Self {
            sender: waiting.sender,
            bytes: waiting.bytes,
            began: now,
            turn: waiting.turn,
            before: 0,
            since: now,
            reading: Some(Arc::clone(&waiting.reading)),
        }
    }

    /// Begins to count the time anew.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    pub(super) fn grow(&mut self, bytes: usize) {
        self.before = self.arrived();
        self.since = Instant::now();
        self.bytes += bytes;
    }

    fn arrived(&self) -> usize {
        let reading = self.reading.as_ref();
        reading.map_or(0, |reading| reading.arrived())
    }

    /// Returns whether the body can be evicted and has not been told to make room yet.
    pub(super) fn is_staying(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| !reading.is_turned_out())
    }

    /// Returns whether the body was told to make room and has not done so yet.
    pub(super) fn is_leaving(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.is_turned_out())
    }

    /// Returns whether the body is itself waiting for room, here or elsewhere.
    pub(super) fn is_waiting(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.is_waiting())
    }

    /// Returns the time at which the body becomes late, should nothing more arrive until then. Returns `None` if everything that there is room for has arrived, or if the client is not to blame.
    pub(super) fn late_at(&self, budget: &Budget, leeway: Leeway) -> Option<Instant> {
        let expected = self.bytes.saturating_sub(self.before) as u128;
        let came = self.arrived().saturating_sub(self.before) as u128;
        if came >= expected || self.is_waiting() {
            return None;
        }
        let grace = budget.grace.as_micros();
        let whole = grace + expected * 1_000_000 / budget.rate.max(1);
        let next = ((came + 1) * whole).div_ceil(expected).max(grace);
        let next = Duration::from_micros(u64::try_from(next).unwrap_or(u64::MAX));
        self.since.checked_add(leeway.of(next))
    }

    pub(super) fn turn_out(&self, is_slow: bool) {
        if let Some(reading) = &self.reading {
            reading.turn_out(is_slow);
        }
    }
}
