//! Progress of a body that is not complete yet, as its reader and the budget see it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// State of a body that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Progress {
    arrived: AtomicUsize,
    is_waiting: AtomicBool,
    is_turned_out: AtomicBool,
    is_slow: AtomicBool,
    turn_out: Notify,
}

impl Progress {
    pub(super) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether the body waits for room in another budget.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    pub(super) fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    pub(super) fn is_turned_out(&self) -> bool {
        self.is_turned_out.load(Ordering::Relaxed)
    }

    /// Returns whether the body had to go for being slow, if it had to.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Tells the reader of the body that it has to make room.
    pub(super) fn turn_out(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
        self.is_turned_out.store(true, Ordering::Relaxed);
        self.turn_out.notify_one();
    }

    /// Cancels that.
    pub(super) fn stay(&self) {
        self.is_turned_out.store(false, Ordering::Relaxed);
    }

    /// Waits until the body has to make room, and returns whether that is for being slow.
    pub(super) async fn turned_out(&self) -> bool {
        loop {
            self.turn_out.notified().await;
            // The body may have been allowed to stay since.
            if self.is_turned_out() {
                return self.is_slow();
            }
        }
    }
}
