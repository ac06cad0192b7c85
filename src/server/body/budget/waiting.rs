//! Bodies that wait for room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ask::Sender;
use super::progress::Progress;

/// Body that waits for room: for all that it needs, or for more than it has.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) want: Want,
    /// Time of the request for room, and the time from which the turn is computed.
    pub(super) asked: Instant,
    pub(super) since: Instant,
    pub(super) sender: Sender,
    /// Bytes for which it lets smaller ones pass.
    pub(super) weight: usize,
    /// Time for which its client was waited for until now.
    pub(super) took: Duration,
    pub(super) progress: Arc<Progress>,
    pub(super) go: oneshot::Sender<()>,
}

/// Room that a body waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) id: u64,
    pub(super) bytes: usize,
    /// Bytes that it will have to get in all, at most, these among them.
    pub(super) missing: usize,
    /// `true` if it holds room already.
    pub(super) is_begun: bool,
}

impl Want {
    /// Returns what it will still miss when it has got what it waits for.
    pub(super) fn missing_then(self) -> usize {
        self.missing.saturating_sub(self.bytes)
    }
}
