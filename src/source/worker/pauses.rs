//! Hosts that asked to slow down, and hosts that do not answer.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// How many different items have to fail in a row, with none that gets an answer in between, until it is the
/// host and not the repository that is in trouble.
const ITEMS_IN_TROUBLE: usize = 3;

/// How long a host in trouble is left alone.
const TROUBLE: Duration = Duration::from_secs(20);

/// Until when which host is not to be asked. Shared by the items under way, so that one refusal spares the
/// host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<Hosts>);

#[derive(Debug, Default)]
struct Hosts {
    until: HashMap<String, Instant>,
    /// Items that failed since the host last answered.
    failed: HashMap<String, HashSet<Uuid>>,
}

impl Pauses {
    /// How long a host's pause still lasts, if it has one.
    pub(super) fn left(&self, host: &str) -> Option<Duration> {
        let end = self.lock().until.get(host).copied()?;
        end.checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// The hosts that are not to be asked now.
    pub(super) fn hosts(&self) -> Vec<String> {
        let now = Instant::now();
        let mut hosts = self.lock();
        hosts.until.retain(|_, end| *end > now);
        hosts.until.keys().cloned().collect()
    }

    /// Leaves a host alone for a while.
    pub(super) fn pause(&self, host: &str, wait: Duration) {
        let end = Instant::now() + wait;
        let mut hosts = self.lock();
        let until = hosts.until.entry(host.to_owned()).or_insert(end);
        *until = (*until).max(end);
    }

    /// Notes that a host answered, whatever it said.
    pub(super) fn answered(&self, host: &str) {
        self.lock().failed.remove(host);
    }

    /// Notes that a host did not answer, or not as a server in good health does. When it is the host that is
    /// in trouble, it is left alone; says for how long.
    pub(super) fn failed(&self, host: &str, item: Uuid) -> Option<Duration> {
        let mut hosts = self.lock();
        let failed = hosts.failed.entry(host.to_owned()).or_default();
        failed.insert(item);
        let in_trouble = failed.len() >= ITEMS_IN_TROUBLE;
        drop(hosts);
        in_trouble.then(|| {
            self.pause(host, TROUBLE);
            TROUBLE
        })
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_counts_and_ends() {
        let pauses = Pauses::default();
        pauses.pause("a", Duration::from_mins(5));
        pauses.pause("a", Duration::ZERO);
        pauses.pause("b", Duration::ZERO);
        assert!(pauses.left("a").unwrap() > Duration::from_mins(4));
        assert_eq!((pauses.left("b"), pauses.left("c")), (None, None));
        assert_eq!(pauses.hosts(), ["a"]);
    }

    #[test]
    fn one_item_that_fails_for_ever_is_no_trouble_of_the_host() {
        let pauses = Pauses::default();
        let item = Uuid::now_v7();
        assert!((0..20).all(|_| pauses.failed("a", item).is_none()));
        let others = [Uuid::now_v7(), Uuid::now_v7()];
        assert_eq!(pauses.failed("a", others[0]), None);
        assert_eq!(pauses.failed("a", others[1]), Some(TROUBLE));
        assert!(pauses.left("a").is_some() && pauses.left("b").is_none());
        pauses.answered("a");
        assert_eq!(pauses.failed("a", item), None);
    }
}
