//! Hosts that throttle or cannot be reached, and failing repositories.
//!
//! A host is paused only for its own faults: it throttles, or no connection to it can be made. Any later failure may
//! be caused by the requested repository, which anybody may have put there, so only that repository is paused and the
//! others of its host are not. If nothing else on the host responds either, the failure costs no tries.
//!
//! A configured host is probed every few seconds while it cannot be reached, however long the outage lasts, so that
//! its work resumes within seconds of recovery. Other hosts are paused for ever longer, since strangers can name as
//! many as they like, and each probe may hold a place for as long as a connection attempt may take.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::troubles::{TROUBLE_MAX, Troubles};
use crate::store::NewWorkItem;

/// Duration of the first pause; doubles with each further one.
const TROUBLE: Duration = Duration::from_secs(20);

/// Duration of the first pause of a configured host that cannot be reached.
const PROBE: Duration = Duration::from_secs(1);
/// Maximum pause of a configured host that cannot be reached. Together with the connect timeout and the interval
/// between two attempts of TCP, it stays well below the ten seconds within which leaks are answered.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(3);

/// Kind of failure of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection to the host could be made.
    Unreachable,
    /// A connection was made, but there was no usable response.
    Answerless,
    /// The API of the host issued no token.
    Tokenless,
}

/// Pauses of hosts and repositories. Shared by all items in flight, so that one refusal spares the host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    known: Mutex<Known>,
    /// Hosts that the configuration names.
    configured: HashSet<String>,
}

#[derive(Debug, Default)]
struct Known {
    /// Hosts that throttled requests.
    asked: Troubles<String, String>,
    /// Hosts that cannot be reached, with the repositories that were tried.
    hosts: Troubles<String, String>,
    /// Hosts that never respond, for any reason, with the repositories that were tried. They are not paused.
    silent: Troubles<String, String>,
    /// Failing repositories, by host and identifier, with the items that failed.
    repositories: Troubles<(String, String), Uuid>,
}

impl Known {
    /// Records that no connection could be made for an item. Returns the remaining pause of its host, if it is paused.
    fn unreachable(
        &mut self,
        item: &NewWorkItem,
        now: Instant,
        waits: (Duration, Duration),
        why: &str,
    ) -> Option<Duration> {
        let (host, what) = (&item.host, item.repository_id.clone());
        if !self.hosts.0.contains_key(host) {
            tracing::warn!(
                host,
                error = why,
                "a host cannot be reached: what is to be read there waits"
            );
        }
        self.hosts.of(host, now).why = Some(why.to_owned());
        self.hosts.failed(host, what, now, waits)
    }

    fn left_of_host(&self, host: &String, now: Instant) -> Option<Duration> {
        self.asked.left(host, now).max(self.hosts.left(host, now))
    }
}

impl Pauses {
    /// Creates an empty record for the configured hosts.
    pub(super) fn new(configured: HashSet<String>) -> Self {
        Self {
            configured,
            ..Self::default()
        }
    }

    /// Returns the remaining pause of an item's host or repository, if there is one.
    pub(super) fn left(&self, host: &str, repository: &str) -> Option<Duration> {
        let (now, known) = (Instant::now(), self.lock());
        let of_host = known.left_of_host(&host.to_owned(), now);
        let of_repository = known.repositories.left(&name(host, repository), now);
        of_host.max(of_repository)
    }

    /// Returns the reason for a host's pause, in redacted text, if it is paused.
    pub(super) fn why(&self, host: &str) -> Option<String> {
        let (now, known, host) = (Instant::now(), self.lock(), host.to_owned());
        let troubles = [&known.asked, &known.hosts].into_iter();
        let mut paused = troubles.filter(|troubles| troubles.left(&host, now).is_some());
        paused.find_map(|troubles| troubles.0.get(&host)?.why.clone())
    }

    /// Returns the remaining pause of a host, if there is one.
    pub(super) fn left_of_host(&self, host: &str) -> Option<Duration> {
        self.lock().left_of_host(&host.to_owned(), Instant::now())
    }

    /// Returns whether a failed connection is attributed to the host: it is configured, or known to be unreachable.
    pub(super) fn blames(&self, host: &str) -> bool {
        self.configured.contains(host) || self.is_in_trouble(host)
    }

    /// Returns the repositories of a host that are paused now.
    pub(super) fn paused_of(&self, host: &str) -> Vec<String> {
        let (now, known) = (Instant::now(), self.lock());
        let paused = known.repositories.0.iter();
        paused
            .filter(|((at, _), trouble)| at == host && trouble.until > now)
            .map(|((_, repository), _)| repository.clone())
            .collect()
    }

    /// Returns whether a host became unreachable and has not responded since. One item is enough to probe it.
    pub(super) fn is_in_trouble(&self, host: &str) -> bool {
        self.lock().hosts.is_in_trouble(&host.to_owned())
    }

    /// Returns whether several repositories of a host failed and none has responded since.
    pub(super) fn is_silent(&self, host: &str) -> bool {
        self.lock().silent.is_in_trouble(&host.to_owned())
    }

    /// Pauses a host for `wait`, at its own request.
    pub(super) fn pause(&self, host: &str, wait: Duration, why: &str) {
        let now = Instant::now();
        let mut known = self.lock();
        let trouble = known.asked.of(&host.to_owned(), now);
        trouble.until = trouble.until.max(now + wait);
        trouble.why = Some(why.to_owned());
    }

    /// Records that a host is healthy, whatever its response was. A pause that it asked for stays in force.
    pub(super) fn answered(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        if known.hosts.0.remove(&item.host).is_some() {
            tracing::info!(host = item.host, "a host can be reached again");
        }
        known.silent.answered(&item.host, now);
        let name = name(&item.host, &item.repository_id);
        known.repositories.answered(&name, now);
    }

    /// Returns whether a repository failed recently. Others of its host take precedence.
    pub(super) fn failed_lately(&self, host: &str, repository: &str) -> bool {
        let known = self.lock();
        known
            .repositories
            .failed_lately(&name(host, repository), Instant::now())
    }

    /// Records the failure of an item. Returns the delay of the item if the fault lies with its repository, or with
    /// its whole host, on which others fail as well.
    pub(super) fn failed(
        &self,
        id: Uuid,
        item: &NewWorkItem,
        failure: Failure,
        why: &str,
    ) -> Option<Duration> {
        let now = Instant::now();
        let mut known = self.lock();
        let (host, of_item) = (&item.host, &item.repository_id);
        if failure == Failure::Unreachable && self.configured.contains(host) {
            // The next try goes to another repository, which may have better luck.
            known.repositories.note_failed(&name(host, of_item), now);
            let of_host = known.unreachable(item, now, (PROBE, PROBE_MAX), why);
            return Some(of_host.unwrap_or(PROBE_MAX));
        }
        let waits = (TROUBLE, TROUBLE_MAX);
        let repository = name(host, of_item);
        let of_repository = known.repositories.failed(&repository, id, now, waits);
        let silent = known.silent.failed(host, of_item.clone(), now, waits);
        let of_host = match failure {
            Failure::Unreachable | Failure::Tokenless => known.unreachable(item, now, waits, why),
            Failure::Answerless => silent.map(|_| known.repositories.wait(&repository)),
        };
        of_host.max(of_repository)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(host: &str, repository: &str) -> (String, String) {
    (host.to_owned(), repository.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;

    use super::super::troubles::{FIRST_WAIT, KNOWN_MAX};
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
        pauses.failed(Uuid::now_v7(), &item(host, repository), failure, "")
    }

    #[test]
    fn the_longest_pause_counts_and_ends() {
        let pauses = Pauses::default();
        pauses.pause("a", Duration::from_mins(5), "slower");
        pauses.pause("a", Duration::ZERO, "slower");
        pauses.pause("b", Duration::ZERO, "slower");
        assert!(pauses.left("a", "1").unwrap() > Duration::from_mins(4));
        assert_eq!((pauses.left("b", "1"), pauses.left("c", "1")), (None, None));
        assert_eq!(pauses.why("a").as_deref(), Some("slower"));
        // Throttling is no failure, and other responses do not end a pause that was asked for.
        assert!(!pauses.is_in_trouble("a"));
        pauses.answered(&item("a", "1"));
        assert!(pauses.left_of_host("a").unwrap() > Duration::from_mins(4));
    }

    #[test]
    fn one_item_that_fails_for_ever_is_no_trouble_of_others() {
        let pauses = Pauses::default();
        let (id, one) = (Uuid::now_v7(), item("a", "1"));
        assert!((0..20).all(|_| pauses.failed(id, &one, Failure::Answerless, "").is_none()));
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
    fn a_configured_host_is_tried_every_few_seconds_until_one_answer_ends_it() {
        let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
        // No try of a single item counts either, and the next try goes to another repository.
        assert_eq!(fails(&pauses, "a", "1"), Some(PROBE_MAX));
        assert!(pauses.failed_lately("a", "1") && !pauses.failed_lately("a", "2"));
        assert!(pauses.left_of_host("a").is_none());
        fails(&pauses, "a", "2");
        assert_eq!(fails(&pauses, "a", "3"), Some(PROBE));
        for times in [1, 5, 100] {
            let mut known = pauses.lock();
            let trouble = known.hosts.of(&"a".to_owned(), Instant::now());
            (trouble.until, trouble.times) = (Instant::now(), times);
            drop(known);
            let wait = fails(&pauses, "a", "3").unwrap();
            assert!(PROBE < wait && wait <= PROBE_MAX, "{wait:?}");
        }
        assert!(pauses.is_in_trouble("a") && pauses.left("a", "4").is_some());
        // An item that was in flight gets through.
        pauses.answered(&item("a", "5"));
        assert!(!pauses.is_in_trouble("a") && pauses.left("a", "3").is_none());
        assert_eq!(pauses.why("a"), None);
    }

    #[test]
    fn what_repositories_answer_is_not_the_hosts_trouble() {
        let pauses = Pauses::default();
        let fails = |repository: &str| {
            let failed = item("a", repository);
            pauses.failed(Uuid::now_v7(), &failed, Failure::Answerless, "")
        };
        for n in 0..20 {
            let wait = fails(&n.to_string());
            // No repository fails alone, so none is at fault; but each is retried soon.
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
            let failed = troubles.failed(&name, Uuid::now_v7(), now, (TROUBLE, TROUBLE_MAX));
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
            pauses.pause(&host, Duration::from_secs(60 + n as u64), "");
            fails(&pauses, &host, "1");
        }
        let known = pauses.lock();
        let hosts = known.hosts.0.len().max(known.asked.0.len());
        assert!(hosts <= KNOWN_MAX && known.repositories.0.len() <= KNOWN_MAX);
        let last = format!("{}.example", 3 * KNOWN_MAX - 1);
        assert!(
            known.asked.0.contains_key(&last),
            "the longest pauses are kept"
        );
    }
}
