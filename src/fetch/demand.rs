//! Demand for the places of fetches.

use std::sync::atomic::{AtomicU8, Ordering};

/// Demand for places of the kind that a fetch occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Waiting {
    /// No one waits.
    #[default]
    Nobody,
    /// A fetch waits.
    Somebody,
    /// A fetch waits that must not be held up by others.
    Urgently,
}

/// Current demand for places of one kind, set by whoever hands them out and shared by the fetches that occupy them.
#[derive(Debug, Default)]
pub struct Demand(AtomicU8);

impl Demand {
    /// Sets the current demand.
    pub fn set(&self, waiting: Waiting) {
        self.0.store(waiting as u8, Ordering::Relaxed);
    }

    /// Returns the current demand.
    pub fn waiting(&self) -> Waiting {
        match self.0.load(Ordering::Relaxed) {
            0 => Waiting::Nobody,
            1 => Waiting::Somebody,
            _ => Waiting::Urgently,
        }
    }
}
