//! Hosts that asked to slow down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Until when which host is not to be asked. Shared by the items under way, so that one refusal spares the
/// host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<String, Instant>>);

impl Pauses {
    /// How long a host's pause still lasts, if it has one.
    pub(super) fn left(&self, host: &str) -> Option<Duration> {
        let end = self.lock().get(host).copied()?;
        end.checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// Leaves a host alone for a while.
    pub(super) fn pause(&self, host: &str, wait: Duration) {
        let end = Instant::now() + wait;
        let mut pauses = self.lock();
        let until = pauses.entry(host.to_owned()).or_insert(end);
        *until = (*until).max(end);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
