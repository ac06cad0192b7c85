//! Records of failing things of one kind: how often each failed, since when, and for how long it is paused.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// Number of different items of a repository that must fail in a row, with no success in between, for the fault to lie
/// with the repository rather than the items. The same number of repositories applies to a host.
const FAILED_IN_TROUBLE: usize = 3;

/// Delay after the first of several failures of a repository in a row.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Delays after further ones.
const WAITS: Backoff = Backoff::new(FIRST_WAIT, TROUBLE_MAX);

/// Time for which a repository that failed yields to others of its host, and for which a failure after an answer of its
/// host is its own.
pub(super) const LATELY: Duration = Duration::from_mins(1);

/// Maximum duration of a pause.
pub(super) const TROUBLE_MAX: Duration = Duration::from_mins(15);

/// Maximum pause of a configured host that cannot be reached. Together with the connect timeout and the interval
/// between two attempts of TCP, it stays well below the ten seconds within which leaks are answered.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(3);

/// Maximum number of hosts, and of repositories, that are tracked. Strangers can name more.
pub(super) const KNOWN_MAX: usize = 1_024;

/// Records by name.
#[derive(Debug)]
pub(super) struct Troubles<Name, What>(pub(super) HashMap<Name, Trouble<What>>);

impl<Name, What> Default for Troubles<Name, What> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// Record of one host or repository.
#[derive(Debug)]
pub(super) struct Trouble<What> {
    /// End of the pause.
    pub(super) until: Instant,
    /// Number of pauses since its last success.
    pub(super) times: u32,
    /// Different parts that failed since its last success, up to [`FAILED_IN_TROUBLE`].
    failed: HashSet<What>,
    /// Number of failures since its last success.
    failures: u32,
    /// Time of the first failure since its last success.
    pub(super) failing_since: Option<Instant>,
    /// Time of the latest failure since its last success.
    failed_at: Option<Instant>,
    /// Reason for the pause, if it is to be reported.
    pub(super) why: Option<String>,
}

impl<Name: Eq + Hash + Clone, What: Eq + Hash> Troubles<Name, What> {
    pub(super) fn of(&mut self, name: &Name, now: Instant) -> &mut Trouble<What> {
        make_room(&mut self.0, name, |trouble| trouble.until, now);
        self.0.entry(name.clone()).or_insert_with(|| Trouble {
            until: now,
            times: 0,
            failed: HashSet::new(),
            failures: 0,
            failing_since: None,
            failed_at: None,
            why: None,
        })
    }

    pub(super) fn left(&self, name: &Name, now: Instant) -> Option<Duration> {
        let left = self.0.get(name)?.until.saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }

    /// Returns whether it was paused and has not succeeded since.
    pub(super) fn is_in_trouble(&self, name: &Name) -> bool {
        self.0.get(name).is_some_and(|trouble| trouble.times > 0)
    }

    /// Records that `what` failed. Returns the remaining pause, if it is paused. The first pause lasts `waits.0`; each
    /// further one is twice as long, up to `waits.1`.
    pub(super) fn failed(
        &mut self,
        name: &Name,
        what: What,
        now: Instant,
        waits: (Duration, Duration),
    ) -> Option<Duration> {
        let trouble = self.of(name, now);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.failing_since.get_or_insert(now);
        trouble.failed_at = Some(now);
        if trouble.failed.len() < FAILED_IN_TROUBLE {
            trouble.failed.insert(what);
        }
        if trouble.failed.len() < FAILED_IN_TROUBLE {
            return None;
        }
        // The failure of an item that was already in flight when the pause began says nothing new.
        if trouble.until <= now {
            trouble.until = now + Backoff::new(waits.0, waits.1).after(trouble.times);
            trouble.times = trouble.times.saturating_add(1);
        }
        Some(trouble.until - now)
    }

    /// Records a failure that it is not responsible for.
    pub(super) fn note_failed(&mut self, name: &Name, now: Instant) {
        let trouble = self.of(name, now);
        trouble.failing_since.get_or_insert(now);
        trouble.failed_at = Some(now);
    }

    /// Returns whether it failed recently and has not succeeded since.
    pub(super) fn failed_lately(&self, name: &Name, now: Instant) -> bool {
        let failed_at = self.0.get(name).and_then(|trouble| trouble.failed_at);
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < LATELY)
    }

    /// Returns the delay after its number of failures in a row.
    pub(super) fn wait(&self, name: &Name) -> Duration {
        let failures = self.0.get(name).map_or(1, |trouble| trouble.failures);
        WAITS.after(failures.saturating_sub(1))
    }

    pub(super) fn answered(&mut self, name: &Name, now: Instant) {
        if let Some(trouble) = self.0.get_mut(name) {
            trouble.failed.clear();
            trouble.times = 0;
            trouble.failures = 0;
            trouble.failing_since = None;
            trouble.failed_at = None;
            if trouble.until <= now {
                self.0.remove(name);
            }
        }
    }
}

/// Makes room for one more entry by dropping those that are not paused, or if there are none, the one whose pause ends
/// first.
pub(super) fn make_room<N: Eq + Hash + Clone, V>(
    known: &mut HashMap<N, V>,
    name: &N,
    until: impl Fn(&V) -> Instant,
    now: Instant,
) {
    if known.len() < KNOWN_MAX || known.contains_key(name) {
        return;
    }
    known.retain(|_, of| until(of) > now);
    if known.len() >= KNOWN_MAX {
        let first = known.iter().min_by_key(|(_, of)| until(of));
        let first = first.map(|(name, _)| name.clone());
        first.map(|first| known.remove(&first));
    }
}
