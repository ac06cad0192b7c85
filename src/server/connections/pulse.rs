//! Progress of the client of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Minimum number of bytes that counts as progress of a client. Fewer bytes, however often, do not.
pub(in crate::server) const STEP: usize = 16 << 10;

/// State of a connection: its last progress, and whether the server is waiting for the client.
#[derive(Debug)]
pub(in crate::server) struct Pulse {
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
    /// Creates the state of a connection established now, to a server that `began` before.
    pub(in crate::server) fn new(began: Instant) -> Self {
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

    /// Records that the client sent something genuine, or identified itself.
    pub(in crate::server) fn prove(&self) {
        self.is_proved.store(true, Ordering::Relaxed);
    }

    /// Returns whether anything genuine has come over the connection yet.
    pub(in crate::server) fn is_proved(&self) -> bool {
        self.is_proved.load(Ordering::Relaxed)
    }

    /// Records that the client sent or read `bytes` bytes.
    pub(in crate::server) fn moved(&self, bytes: usize) {
        if self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes >= STEP {
            self.beat();
        }
    }

    /// Marks the server as working on a request until the guard is dropped: it is not waiting for the client.
    pub(in crate::server) fn work(self: &Arc<Self>) -> Turn {
        self.has_request.store(true, Ordering::Relaxed);
        self.had_request.store(true, Ordering::Relaxed);
        self.turn(true)
    }

    /// Marks the server as waiting for the client until the guard is dropped.
    pub(in crate::server) fn wait_for_client(self: &Arc<Self>) -> Turn {
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

    /// Makes the connection look as if nothing had moved for `millis` milliseconds.
    #[cfg(test)]
    pub(in crate::server) fn was_idle_for(&self, millis: u64) {
        let last = self.last().saturating_sub(millis);
        self.last.store(last, Ordering::Relaxed);
    }

    fn beat(&self) {
        self.moved.store(0, Ordering::Relaxed);
        self.last.store(millis(self.began), Ordering::Relaxed);
    }

    /// Records whether a part of an answer is still unread by the client.
    pub(in crate::server) fn unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Ordering::Relaxed);
    }

    /// Returns whether there is a request, complete or with a part of its body, whose answer the client has not read
    /// yet.
    pub(in crate::server) fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed) || self.is_unread.load(Ordering::Relaxed)
    }

    /// Returns whether there has been any request.
    pub(in crate::server) fn had_request(&self) -> bool {
        self.had_request.load(Ordering::Relaxed)
    }

    /// Returns whether the server is waiting for the client.
    pub(in crate::server) fn is_waiting(&self) -> bool {
        !self.is_working.load(Ordering::Relaxed)
    }

    /// Returns the time of the client's last progress, in milliseconds since the server began.
    pub(in crate::server) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// Guard that marks whose turn it is until dropped.
#[derive(Debug)]
pub(in crate::server) struct Turn {
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

/// Returns the milliseconds since `since`.
pub(in crate::server) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
