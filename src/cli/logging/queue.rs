//! Bounded queue of log lines. Adding a line never blocks.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory;

/// Maximum size of the queue in bytes, including [`OVERHEAD`].
const MAX_BYTES: usize = memory::LOG;

/// Memory taken by a line besides its text, in bytes.
const OVERHEAD: usize = 64;

/// Priority of a line when space is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// A level below `info`. Limited to half of the space, so that it never displaces other lines.
    Detail,
    Ordinary,
    /// A report of missing lines, or the error that ends the process. Always accepted; there are only a few per
    /// second.
    Own,
}

/// Queue of lines in bounded memory. Lines that do not fit are counted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    added: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
    /// Set while a line was taken that may not have been written yet.
    is_writing: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, or counts it as dropped if it does not fit.
    pub(super) fn add(&self, line: String, rank: Rank) {
        let most = match rank {
            Rank::Detail => MAX_BYTES / 2,
            Rank::Ordinary => MAX_BYTES,
            Rank::Own => usize::MAX,
        };
        let mut state = self.state();
        let bytes = state.bytes + weight(&line);
        // A line larger than the whole space is in memory anyway, so it may pass alone.
        if bytes > most && !state.lines.is_empty() {
            state.dropped += 1;
            return;
        }
        state.bytes = bytes;
        state.lines.push_back(line);
        drop(state);
        self.added.notify_one();
    }

    /// Removes the oldest line, or returns `None` if there is none within `patience`. A call also confirms that the
    /// previous line was written.
    pub(super) fn take(&self, patience: Duration) -> Option<String> {
        let mut state = self.state();
        state.is_writing = false;
        if state.lines.is_empty() {
            self.emptied.notify_all();
            let waited = self
                .added
                .wait_timeout_while(state, patience, |state| state.lines.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let line = state.lines.pop_front()?;
        state.bytes -= weight(&line);
        state.is_writing = true;
        Some(line)
    }

    /// Returns the number of lines dropped since the last call, and resets it.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state().dropped)
    }

    /// Waits up to `patience` for every line to be written. Returns whether that happened.
    pub(super) fn wait_until_written(&self, patience: Duration) -> bool {
        let ends = Instant::now() + patience;
        let mut state = self.state();
        while state.is_writing || !state.lines.is_empty() {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn weight(line: &str) -> usize {
    line.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(queue: &Queue, rank: Rank) -> usize {
        let line = "x".repeat(1024 - OVERHEAD);
        let mut added = 0;
        while queue.take_dropped() == 0 {
            queue.add(line.clone(), rank);
            added += 1;
            assert!(added < 100_000, "no bound");
        }
        added - 1
    }

    #[test]
    fn what_finds_no_room_is_counted_and_details_displace_nothing() {
        let queue = Queue::default();
        assert_eq!(fill(&queue, Rank::Detail), 512);
        assert_eq!(fill(&queue, Rank::Ordinary), 512);
        for _ in 0..7 {
            queue.add("lost".to_owned(), Rank::Ordinary);
        }
        queue.add("told".to_owned(), Rank::Own);
        assert_eq!(queue.take_dropped(), 7);
        assert_eq!(queue.take_dropped(), 0);
        let mut taken = Vec::new();
        while let Some(line) = queue.take(Duration::ZERO) {
            taken.push(line);
        }
        assert_eq!(taken.len(), 1025);
        assert_eq!(taken.last().map(String::as_str), Some("told"));
        assert_eq!(queue.state().bytes, 0);
    }

    #[test]
    fn a_line_larger_than_the_room_passes_alone() {
        let queue = Queue::default();
        queue.add("x".repeat(2 * MAX_BYTES), Rank::Detail);
        queue.add("y".to_owned(), Rank::Ordinary);
        assert_eq!(queue.take_dropped(), 1);
        assert!(queue.take(Duration::ZERO).is_some());
        queue.add("z".to_owned(), Rank::Ordinary);
        assert_eq!(queue.take(Duration::ZERO).as_deref(), Some("z"));
    }

    #[test]
    fn a_line_that_was_taken_is_written_when_the_next_is_asked_for() {
        let queue = Queue::default();
        assert!(queue.wait_until_written(Duration::ZERO));
        queue.add("x".to_owned(), Rank::Ordinary);
        assert!(!queue.wait_until_written(Duration::ZERO));
        assert!(queue.take(Duration::ZERO).is_some());
        assert!(!queue.wait_until_written(Duration::from_millis(1)));
        assert!(queue.take(Duration::ZERO).is_none());
        assert!(queue.wait_until_written(Duration::ZERO));
    }
}
