//! Who waits for the places that fetches have.

use std::sync::atomic::{AtomicU64, Ordering};

/// The demand for places like the one of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Waiting {
    /// Nobody.
    #[default]
    Nobody,
    /// Somebody.
    Somebody,
    /// Something that others must not hold up.
    Urgently,
}

/// The present demand for places of some kind, as whoever hands them out knows. Shared by the fetches that have them.
#[derive(Debug, Default)]
pub struct Demand(AtomicU64);

impl Demand {
    /// Notes who waits now.
    pub fn set(&self, waiting: Waiting) {
        self.set_of(waiting, u32::MAX);
    }

    /// Notes who waits now, and how often those who may hurry others had to leave, at least.
    pub fn set_of(&self, waiting: Waiting, outpaced: u32) {
        let both = u64::from(outpaced) << 8 | waiting as u64;
        self.0.store(both, Ordering::Relaxed);
    }

    /// Returns who waits.
    pub fn waiting(&self) -> Waiting {
        self.wanted().0
    }

    /// Returns both.
    pub(super) fn wanted(&self) -> (Waiting, u32) {
        let both = self.0.load(Ordering::Relaxed);
        let waiting = match both & 0xff {
            0 => Waiting::Nobody,
            1 => Waiting::Somebody,
            _ => Waiting::Urgently,
        };
        (waiting, u32::try_from(both >> 8).unwrap_or(u32::MAX))
    }
}
