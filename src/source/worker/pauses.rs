//! Hosts that asked to slow down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Until when which host is not to be asked. Shared by the items under way, so that one refusal spares the
/// host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<String, Timestamp>>);

impl Pauses {
    /// The end of a host's pause, if that is still to come.
    pub(super) fn until(&self, host: &str, now: Timestamp) -> Option<Timestamp> {
        let end = self.lock().get(host).copied();
        end.filter(|end| *end > now)
    }

    /// Leaves a host alone until `end`.
    pub(super) fn pause(&self, host: &str, end: Timestamp) {
        let mut pauses = self.lock();
        let until = pauses.entry(host.to_owned()).or_insert(end);
        *until = (*until).max(end);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
