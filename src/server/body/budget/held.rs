//! Room held by a body, and the pace that the body has to keep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::Sender;
use super::limits::Limits;
use super::progress::Progress;
use super::waiting::Waiting;

/// Room held by a body.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) sender: Sender,
    pub(super) bytes: usize,
    /// Most that the body will hold.
    claim: usize,
    pub(super) began: Instant,
    /// Time of its turn when the room was granted.
    pub(super) turn: Instant,
    /// Time for which its client was waited for before `since`, and the time from which it is waited for now, unless it
    /// is the body that waits for more room.
    took: Duration,
    since: Option<Instant>,
    /// `None` once the body can no longer be evicted.
    pub(super) progress: Option<Arc<Progress>>,
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
    /// Four times as much: it is a proved sender's, and others wait. They have room of their own, and an ordinary line
    /// is no reason to put off who is known.
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
    /// Returns the room of a body whose turn has come.
    pub(super) fn of(waiting: &Waiting, turn: Instant) -> Self {
        let now = Instant::now();
        Self {
            sender: waiting.sender,
            bytes: waiting.want.bytes,
            claim: waiting.want.missing,
            began: now,
            turn,
            took: waiting.took,
            since: Some(now),
            progress: Some(Arc::clone(&waiting.progress)),
        }
    }

    /// Returns how much more than it holds the body may come to hold.
    pub(super) fn missing(&self) -> usize {
        self.claim.saturating_sub(self.bytes)
    }

    /// Begins to count the time, in addition to what was counted before.
    pub(super) fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Counts no time until the body [grows](Self::grow): it is this server that is waited for.
    pub(super) fn pause(&mut self) {
        self.took = self.took();
        self.since = None;
    }

    /// Returns the time for which the client was waited for.
    pub(super) fn took(&self) -> Duration {
        let now = self.since.map(|since| since.elapsed());
        self.took + now.unwrap_or_default()
    }

    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.begin();
    }

    /// Releases, and gives up, what exceeds `keep` bytes. Returns how much was held before.
    pub(super) fn shrink(&mut self, keep: usize) -> usize {
        let before = self.bytes;
        self.bytes = before.min(keep);
        self.claim = self.bytes;
        before
    }

    fn arrived(&self) -> usize {
        let progress = self.progress.as_ref();
        progress.map_or(0, |progress| progress.arrived())
    }

    /// Returns whether the body can be evicted and has not been told to make room yet.
    pub(super) fn is_staying(&self) -> bool {
        let progress = self.progress.as_ref();
        progress.is_some_and(|progress| !progress.is_turned_out())
    }

    /// Returns whether the body was told to make room and has not done so yet.
    pub(super) fn is_leaving(&self) -> bool {
        let progress = self.progress.as_ref();
        progress.is_some_and(|progress| progress.is_turned_out())
    }

    /// Returns whether the body is itself waiting for room elsewhere.
    pub(super) fn is_waiting(&self) -> bool {
        let progress = self.progress.as_ref();
        progress.is_some_and(|progress| progress.is_waiting())
    }

    /// Returns the time at which the body becomes late, should nothing more arrive until then. Returns `None` if
    /// everything that there is room for has arrived, or if the client is not to blame.
    pub(super) fn late_at(&self, limits: &Limits, leeway: Leeway) -> Option<Instant> {
        let (expected, came) = (self.bytes, self.arrived());
        if came >= expected || self.is_waiting() {
            return None;
        }
        let whole = limits.time_for(expected).as_micros();
        let next = ((came as u128 + 1) * whole).div_ceil(expected as u128);
        let next = Duration::from_micros(u64::try_from(next).unwrap_or(u64::MAX));
        let left = leeway.of(next.max(limits.grace)).saturating_sub(self.took);
        self.since?.checked_add(left)
    }

    pub(super) fn turn_out(&self, is_slow: bool) {
        if let Some(progress) = &self.progress {
            progress.turn_out(is_slow);
        }
    }
}
