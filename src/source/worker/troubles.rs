//! What is known of everything of some kind that was in trouble: how often, since when, and for how long it is left
//! alone.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How many different items of a repository have to fail in a row, with none that gets an answer in between,
/// until it is the repository and not the item that is in trouble; and how many repositories, for the host.
const FAILED_IN_TROUBLE: usize = 3;

/// The wait after the first failure of a repository in a row; each further one doubles it.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The time for which a repository that failed lets others of its host go first.
const LATELY: Duration = Duration::from_mins(1);

/// The longest that something in trouble is left alone.
pub(super) const TROUBLE_MAX: Duration = Duration::from_mins(15);

/// The most hosts, and the most repositories, of which anything is known. Strangers can name more.
pub(super) const KNOWN_MAX: usize = 1_024;

/// What is known of each of some kind.
#[derive(Debug)]
pub(super) struct Troubles<Name, What>(pub(super) HashMap<Name, Trouble<What>>);

impl<Name, What> Default for Troubles<Name, What> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// What is known of one of them.
#[derive(Debug)]
pub(super) struct Trouble<What> {
    /// The end of the pause.
    pub(super) until: Instant,
    /// How often it was in trouble since it last answered.
    pub(super) times: u32,
    /// What failed since it last answered, as far as it takes to be in trouble.
    failed: HashSet<What>,
    /// How often anything of it failed since then, and when it last did.
    failures: u32,
    failed_at: Option<Instant>,
    /// Why it is left alone, if that is to be told.
    pub(super) why: Option<String>,
}

impl<Name: Eq + Hash + Clone, What: Eq + Hash> Troubles<Name, What> {
    pub(super) fn of(&mut self, name: &Name, now: Instant) -> &mut Trouble<What> {
        if self.0.len() >= KNOWN_MAX && !self.0.contains_key(name) {
            self.make_room(now);
        }
        self.0.entry(name.clone()).or_insert_with(|| Trouble {
            until: now,
            times: 0,
            failed: HashSet::new(),
            failures: 0,
            failed_at: None,
            why: None,
        })
    }

    /// Forgets what is not paused; if that is nothing, what is paused for the shortest time.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, trouble| trouble.until > now);
        if self.0.len() >= KNOWN_MAX {
            let first = self.0.iter().min_by_key(|(_, trouble)| trouble.until);
            let first = first.map(|(name, _)| name.clone());
            first.map(|name| self.0.remove(&name));
        }
    }

    pub(super) fn left(&self, name: &Name, now: Instant) -> Option<Duration> {
        let left = self.0.get(name)?.until.saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether it was in trouble and has not answered since.
    pub(super) fn is_in_trouble(&self, name: &Name) -> bool {
        self.0.get(name).is_some_and(|trouble| trouble.times > 0)
    }

    /// Notes that `what` of it failed; for how long it is left alone, when it is in trouble. That is `waits.0` at
    /// first, and then longer up to `waits.1`.
    pub(super) fn failed(
        &mut self,
        name: &Name,
        what: What,
        now: Instant,
        waits: (Duration, Duration),
    ) -> Option<Duration> {
        let trouble = self.of(name, now);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.failed_at = Some(now);
        if trouble.failed.len() < FAILED_IN_TROUBLE {
            trouble.failed.insert(what);
        }
        if trouble.failed.len() < FAILED_IN_TROUBLE {
            return None;
        }
        // Those that were under way when the pause began say nothing new.
        if trouble.until <= now {
            let wait = waits.0.saturating_mul(1 << trouble.times.min(16));
            trouble.until = now + wait.min(waits.1);
            trouble.times = trouble.times.saturating_add(1);
        }
        Some(trouble.until - now)
    }

    /// Notes that something of it failed, through no fault of its own.
    pub(super) fn note_failed(&mut self, name: &Name, now: Instant) {
        self.of(name, now).failed_at = Some(now);
    }

    /// Returns whether something of it failed a short while ago, with no answer since.
    pub(super) fn failed_lately(&self, name: &Name, now: Instant) -> bool {
        let failed_at = self.0.get(name).and_then(|trouble| trouble.failed_at);
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < LATELY)
    }

    /// Returns how long to wait after as many failures in a row.
    pub(super) fn wait(&self, name: &Name) -> Duration {
        let failures = self.0.get(name).map_or(1, |trouble| trouble.failures);
        let doubled = 1 << failures.saturating_sub(1).min(16);
        FIRST_WAIT.saturating_mul(doubled).min(TROUBLE_MAX)
    }

    pub(super) fn answered(&mut self, name: &Name, now: Instant) {
        if let Some(trouble) = self.0.get_mut(name) {
            trouble.failed.clear();
            trouble.times = 0;
            trouble.failures = 0;
            trouble.failed_at = None;
            if trouble.until <= now {
                self.0.remove(name);
            }
        }
    }
}
