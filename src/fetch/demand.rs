//! Who waits for the places that fetches have.

use std::sync::atomic::{AtomicU8, Ordering};

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
pub struct Demand(AtomicU8);

impl Demand {
    /// Notes who waits now.
    pub fn set(&self, waiting: Waiting) {
        self.0.store(waiting as u8, Ordering::Relaxed);
    }

    /// Returns who waits.
    pub fn waiting(&self) -> Waiting {
        match self.0.load(Ordering::Relaxed) {
            0 => Waiting::Nobody,
            1 => Waiting::Somebody,
            _ => Waiting::Urgently,
        }
    }
}
