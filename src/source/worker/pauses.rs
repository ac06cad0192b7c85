//! Hosts that asked to slow down or cannot be reached, and repositories of which nothing good comes.
//!
//! A host is left alone for what is its own doing: it asks for it, or there is no connection to it. Whatever comes
//! after that may be for the repository that was asked for, which anybody may have put there: it is left alone, and
//! its host's other repositories are not. When nothing else of the host answers either, it costs no tries.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::store::NewWorkItem;

/// How many different items of a repository have to fail in a row, with none that gets an answer in between,
/// until it is the repository and not the item that is in trouble; and how many repositories, for the host.
const FAILED_IN_TROUBLE: usize = 3;

/// How long something in trouble is left alone the first time; each further time twice as long.
const TROUBLE: Duration = Duration::from_secs(20);

/// The wait after the first failure of a repository in a row; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The time for which a repository that failed lets others of its host go first.
const LATELY: Duration = Duration::from_mins(1);

/// The longest that something in trouble is left alone.
const TROUBLE_MAX: Duration = Duration::from_mins(15);

/// The most hosts, and the most repositories, of which anything is known. Strangers can name more.
const KNOWN_MAX: usize = 1_024;

/// The failure that an item got instead of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no connection to its host.
    Unreachable,
    /// There was one, but nothing good came of it.
    Answerless,
}

/// Until when which host or repository is not to be asked. Shared by the items under way, so that one refusal
/// spares the host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Which cannot be reached, or asked for a pause; and for which repositories.
    hosts: Troubles<String, String>,
    /// Of which nothing answers, whatever the reason, and which repositories do not. They are not left alone.
    silent: Troubles<String, String>,
    /// By host and identifier, of which items fail.
    repositories: Troubles<(String, String), Uuid>,
}

/// What is known of each of some kind.
#[derive(Debug)]
struct Troubles<Name, What>(HashMap<Name, Trouble<What>>);

impl<Name, What> Default for Troubles<Name, What> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[derive(Debug)]
struct Trouble<What> {
    /// The end of the pause.
    until: Instant,
    /// How often it was in trouble since it last answered.
    times: u32,
    /// What failed since it last answered, as far as it takes to be in trouble.
    failed: HashSet<What>,
    /// How often anything of it failed since then, and when it last did.
    failures: u32,
    failed_at: Option<Instant>,
}

impl<Name: Eq + Hash + Clone, What: Eq + Hash> Troubles<Name, What> {
    fn of(&mut self, name: &Name, now: Instant) -> &mut Trouble<What> {
        if self.0.len() >= KNOWN_MAX && !self.0.contains_key(name) {
            self.make_room(now);
        }
        self.0.entry(name.clone()).or_insert_with(|| Trouble {
            until: now,
            times: 0,
            failed: HashSet::new(),
            failures: 0,
            failed_at: None,
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

    fn left(&self, name: &Name, now: Instant) -> Option<Duration> {
        let left = self.0.get(name)?.until.saturating_duration_since(now);
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether it was in trouble and has not answered since.
    fn is_in_trouble(&self, name: &Name) -> bool {
        self.0.get(name).is_some_and(|trouble| trouble.times > 0)
    }

    /// Notes that `what` of it failed; for how long it is left alone, when it is in trouble.
    fn failed(&mut self, name: &Name, what: What, now: Instant) -> Option<Duration> {
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
            let wait = TROUBLE.saturating_mul(1 << trouble.times.min(16));
            trouble.until = now + wait.min(TROUBLE_MAX);
            trouble.times += 1;
        }
        Some(trouble.until - now)
    }

    /// Returns whether something of it failed a short while ago, with no answer since.
    fn failed_lately(&self, name: &Name, now: Instant) -> bool {
        let failed_at = self.0.get(name).and_then(|trouble| trouble.failed_at);
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < LATELY)
    }

    /// Returns how long to wait after as many failures in a row.
    fn wait(&self, name: &Name) -> Duration {
        let failures = self.0.get(name).map_or(1, |trouble| trouble.failures);
        let doubled = 1 << failures.saturating_sub(1).min(16);
        FIRST_WAIT.saturating_mul(doubled).min(TROUBLE_MAX)
    }

    fn answered(&mut self, name: &Name, now: Instant) {
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

impl Pauses {
    /// How long the pause of an item's host or repository still lasts, if there is one.
    pub(super) fn left(&self, host: &str, repository: &str) -> Option<Duration> {
        let (now, known) = (Instant::now(), self.lock());
        let of_host = known.hosts.left(&host.to_owned(), now);
        let of_repository = known.repositories.left(&name(host, repository), now);
        of_host.max(of_repository)
    }

    /// How long the pause of a host still lasts, if it has one.
    pub(super) fn left_of_host(&self, host: &str) -> Option<Duration> {
        self.lock().hosts.left(&host.to_owned(), Instant::now())
    }

    /// The repositories of a host that are left alone at present.
    pub(super) fn paused_of(&self, host: &str) -> Vec<String> {
        let (now, known) = (Instant::now(), self.lock());
        let paused = known.repositories.0.iter();
        paused
            .filter(|((at, _), trouble)| at == host && trouble.until > now)
            .map(|((_, repository), _)| repository.clone())
            .collect()
    }

    /// Returns whether a host could not be reached and has not answered since: one item is enough to see.
    pub(super) fn is_in_trouble(&self, host: &str) -> bool {
        self.lock().hosts.is_in_trouble(&host.to_owned())
    }

    /// Returns whether several repositories of a host failed and none has answered since.
    pub(super) fn is_silent(&self, host: &str) -> bool {
        self.lock().silent.is_in_trouble(&host.to_owned())
    }

    /// Leaves a host alone for a while.
    pub(super) fn pause(&self, host: &str, wait: Duration) {
        let now = Instant::now();
        let mut known = self.lock();
        let trouble = known.hosts.of(&host.to_owned(), now);
        trouble.until = trouble.until.max(now + wait);
    }

    /// Notes that a host answered in good health, whatever it said.
    pub(super) fn answered(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        known.hosts.answered(&item.host, now);
        known.silent.answered(&item.host, now);
        let name = name(&item.host, &item.repository_id);
        known.repositories.answered(&name, now);
    }

    /// Returns whether a repository failed a short while ago: others of its host go first.
    pub(super) fn failed_lately(&self, host: &str, repository: &str) -> bool {
        let known = self.lock();
        known
            .repositories
            .failed_lately(&name(host, repository), Instant::now())
    }

    /// Notes that nothing good came of an item. When that is the trouble of its repository, or of its whole host,
    /// which others have no luck with either, says for how long the item is to wait.
    pub(super) fn failed(
        &self,
        id: Uuid,
        item: &NewWorkItem,
        failure: Failure,
    ) -> Option<Duration> {
        let now = Instant::now();
        let mut known = self.lock();
        let repository = name(&item.host, &item.repository_id);
        let of_repository = known.repositories.failed(&repository, id, now);
        let id = &item.repository_id;
        let is_silent = known.silent.failed(&item.host, id.clone(), now).is_some();
        let of_host = match failure {
            Failure::Unreachable => known.hosts.failed(&item.host, id.clone(), now),
            Failure::Answerless => is_silent.then(|| known.repositories.wait(&repository)),
        };
        of_host.max(of_repository)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(host: &str, repository: &str) -> (String, String) {
    (host.to_owned(), repository.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::{Priority, WorkKind};

    pub(in super::super) fn item(host: &str, repository: &str) -> NewWorkItem {
        NewWorkItem {
            kind: WorkKind::Range,
            host: host.to_owned(),
            repository_id: repository.to_owned(),
            repository: "acme/shop".to_owned(),
            clone_url: None,
            ref_name: String::new(),
            before: String::new(),
            after: String::new(),
            source: String::new(),
            priority: Priority::Webhook,
            event_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn fails(pauses: &Pauses, host: &str, repository: &str) -> Option<Duration> {
        let failure = Failure::Unreachable;
        pauses.failed(Uuid::now_v7(), &item(host, repository), failure)
    }

    #[test]
    fn the_longest_pause_counts_and_ends() {
        let pauses = Pauses::default();
        pauses.pause("a", Duration::from_mins(5));
        pauses.pause("a", Duration::ZERO);
        pauses.pause("b", Duration::ZERO);
        assert!(pauses.left("a", "1").unwrap() > Duration::from_mins(4));
        assert_eq!((pauses.left("b", "1"), pauses.left("c", "1")), (None, None));
        // To ask to slow down is no trouble.
        assert!(!pauses.is_in_trouble("a"));
    }

    #[test]
    fn one_item_that_fails_for_ever_is_no_trouble_of_others() {
        let pauses = Pauses::default();
        let (id, one) = (Uuid::now_v7(), item("a", "1"));
        assert!((0..20).all(|_| pauses.failed(id, &one, Failure::Answerless).is_none()));
        assert_eq!(fails(&pauses, "a", "1"), None);
        assert!(fails(&pauses, "a", "1").is_some());
        assert!(pauses.left("a", "1").is_some() && pauses.left("a", "2").is_none());
        pauses.answered(&item("a", "2"));
        assert!(
            pauses.left("a", "1").is_some(),
            "another's answer is none of its own"
        );
        pauses.answered(&one);
        assert_eq!(fails(&pauses, "a", "1").map(|_| ()), None);
    }

    #[test]
    fn several_repositories_without_a_connection_are_the_hosts_trouble() {
        let pauses = Pauses::default();
        assert_eq!(fails(&pauses, "a", "1"), None);
        assert_eq!(fails(&pauses, "a", "2"), None);
        pauses.answered(&item("a", "3"));
        assert_eq!(fails(&pauses, "a", "1"), None);
        assert_eq!(fails(&pauses, "a", "2"), None);
        assert_eq!(fails(&pauses, "a", "3"), Some(TROUBLE));
        assert!(pauses.left("a", "4").is_some() && pauses.is_in_trouble("a"));
        assert!(pauses.left("b", "4").is_none());
    }

    #[test]
    fn what_repositories_answer_is_not_the_hosts_trouble() {
        let pauses = Pauses::default();
        let fails = |repository: &str| {
            let failed = item("a", repository);
            pauses.failed(Uuid::now_v7(), &failed, Failure::Answerless)
        };
        for n in 0..20 {
            let wait = fails(&n.to_string());
            // None of them is alone, so it is no fault of its own; but each is asked again soon.
            assert_eq!(wait, (n >= 2).then_some(FIRST_WAIT), "{n}");
            assert!(pauses.left("a", "quiet").is_none() && pauses.left_of_host("a").is_none());
        }
        assert!(!pauses.is_in_trouble("a") && pauses.is_silent("a"));
        assert_eq!(fails("5"), Some(FIRST_WAIT * 2));
        assert!(pauses.failed_lately("a", "5") && !pauses.failed_lately("a", "quiet"));
        pauses.answered(&item("a", "quiet"));
        assert_eq!(fails("6"), None, "others answer, so it is its own");
        assert!(!pauses.is_silent("a"));
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let mut troubles = Troubles::<String, Uuid>::default();
        let (mut now, name) = (Instant::now(), "a".to_owned());
        let mut waits = Vec::new();
        while waits.len() < 8 {
            let failed = troubles.failed(&name, Uuid::now_v7(), now);
            if let Some(wait) = failed {
                waits.push(wait.as_secs());
                now += wait;
            }
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 900, 900]);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let pauses = Pauses::default();
        for n in 0..3 * KNOWN_MAX {
            let host = format!("{n}.example");
            pauses.pause(&host, Duration::from_secs(60 + n as u64));
            fails(&pauses, &host, "1");
        }
        let known = pauses.lock();
        assert!(known.hosts.0.len() <= KNOWN_MAX && known.repositories.0.len() <= KNOWN_MAX);
        let last = format!("{}.example", 3 * KNOWN_MAX - 1);
        assert!(
            known.hosts.0.contains_key(&last),
            "the longest pauses are kept"
        );
    }
}
