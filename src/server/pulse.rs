//! Whether a client keeps a connection going.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What counts as progress of a client, in bytes. Less of it, however often, does not.
pub(super) const STEP: usize = 16 << 10;

/// When a client last moved something along, and whether it is its turn.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    last: AtomicU64,
    moved: AtomicUsize,
    is_working: AtomicBool,
    has_request: AtomicBool,
    had_request: AtomicBool,
    is_unread: AtomicBool,
    is_proved: AtomicBool,
}

impl Pulse {
    /// Of a connection that begins now, to a server that `began` before.
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            last: AtomicU64::new(millis(began)),
            moved: AtomicUsize::new(0),
            is_working: AtomicBool::new(false),
            has_request: AtomicBool::new(false),
            had_request: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
            is_proved: AtomicBool::new(false),
        }
    }

    /// The client sent something genuine, or showed who it is.
    pub(super) fn prove(&self) {
        self.is_proved.store(true, Ordering::Relaxed);
    }

    /// Returns whether anything genuine came over the connection yet.
    pub(super) fn is_proved(&self) -> bool {
        self.is_proved.load(Ordering::Relaxed)
    }

    /// The client sent or took so many bytes.
    pub(super) fn moved(&self, bytes: usize) {
        if self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes >= STEP {
            self.beat();
        }
    }

    /// The server works on a request as long as this is kept: it is not the client that is waited for.
    pub(super) fn work(self: &Arc<Self>) -> Turn {
        self.has_request.store(true, Ordering::Relaxed);
        self.had_request.store(true, Ordering::Relaxed);
        self.turn(true)
    }

    /// The server waits for the client as long as this is kept.
    pub(super) fn wait_for_client(self: &Arc<Self>) -> Turn {
        self.turn(false)
    }

    fn turn(self: &Arc<Self>, is_working: bool) -> Turn {
        let before = self.is_working.swap(is_working, Ordering::Relaxed);
        if is_working {
            self.beat();
        }
        Turn {
            pulse: Arc::clone(self),
            before,
            is_request: is_working,
        }
    }

    /// As if nothing had moved for so long.
    #[cfg(test)]
    pub(super) fn was_idle_for(&self, millis: u64) {
        let last = self.last().saturating_sub(millis);
        self.last.store(last, Ordering::Relaxed);
    }

    fn beat(&self) {
        self.moved.store(0, Ordering::Relaxed);
        self.last.store(millis(self.began), Ordering::Relaxed);
    }

    /// Notes whether the client has not taken all of an answer yet.
    pub(super) fn unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Ordering::Relaxed);
    }

    /// Returns whether there is a request, whole or with a part of its body, whose answer the client does not have yet.
    pub(super) fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed) || self.is_unread.load(Ordering::Relaxed)
    }

    /// Returns whether there ever was a request.
    pub(super) fn had_request(&self) -> bool {
        self.had_request.load(Ordering::Relaxed)
    }

    /// Whether it is the client's turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_working.load(Ordering::Relaxed)
    }

    /// When the client last moved something along, in milliseconds since the server began.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// Whose turn it is, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    pulse: Arc<Pulse>,
    before: bool,
    is_request: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.before {
            // The answer begins, and with it the client's time to read it.
            self.pulse.beat();
        }
        if self.is_request {
            self.pulse.has_request.store(false, Ordering::Relaxed);
        }
        self.pulse.is_working.store(self.before, Ordering::Relaxed);
    }
}

/// Milliseconds since then.
pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
