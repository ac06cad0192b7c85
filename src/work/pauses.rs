//! Hosts that throttle or cannot be reached, and failing repositories.
//!
//! A host is paused only for its own faults: it throttles repositories of several owners, no connection to it can be
//! made, or it gives no answers although it can be reached, as a gateway does whose servers are down. Any other
//! failure may be caused by the requested repository, which anybody may have put there, so only that repository is
//! paused and the others of its host are not. If nothing else on the host responds either, the failure costs no tries.
//!
//! A configured host is probed every few seconds during an outage, however long it lasts, so that its work resumes
//! within seconds of recovery. Other hosts are paused for ever longer, since strangers can name as many as they like,
//! and each probe may hold a place for as long as a connection attempt may take.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::throttles::Throttles;
use super::troubles::{LATELY, PROBE_MAX, TROUBLE_MAX, Troubles};
use crate::store::NewWorkItem;

/// Duration of the first pause; doubles with each further one.
const TROUBLE: Duration = Duration::from_secs(20);

/// Duration of the first pause of a configured host that cannot be reached.
const PROBE: Duration = Duration::from_secs(1);

/// Maximum pause of a configured host that answers, but has given nothing to read for [`LASTING`].
const PROBE_LASTING: Duration = Duration::from_mins(1);
/// Time after which that is no short fault of the host any more.
const LASTING: Duration = Duration::from_mins(15);

/// Kind of failure of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection to the host could be made.
    Unreachable,
    /// A connection was made, but whatever is behind it gave no answer: an error of a gateway, or a connection that was
    /// closed before an answer came.
    Unanswered,
    /// There was an answer, but not one of git: a page for people, or noise.
    Garbled,
    /// A connection was made, but there was no usable response.
    Answerless,
    /// The API of the host issued no token, for a reason that passes by itself.
    Tokenless,
    /// The API of the host refuses to issue tokens.
    Refused,
}

/// Judgment of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// Delay of the item. `None` if the fault may lie with the item itself.
    pub(super) wait: Option<Duration>,
    /// `true` if the fault lies with the host as a whole.
    pub(super) is_hosts: bool,
}

/// Condition of a host, which limits how many of its items are read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Some of its repositories respond, or it is not known that none does.
    Well,
    /// Several of its repositories failed and none has responded since.
    Silent,
    /// No connection could be made, and it has not responded since.
    Unreachable,
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
    throttles: Throttles,
    /// Hosts that cannot be reached, with the repositories that were tried.
    hosts: Troubles<String, String>,
    /// Configured hosts that can be reached but give no answers, with the repositories that were tried.
    gateways: Troubles<String, String>,
    /// Configured hosts that answer, but not with anything to read: they deny repositories, or do not speak git. With
    /// the repositories that were tried.
    barren: Troubles<String, String>,
    /// Times of the latest answers of configured hosts.
    answered: HashMap<String, Instant>,
    /// Hosts that never respond, for any reason, with the repositories that were tried. They are not paused.
    silent: Troubles<String, String>,
    /// Failing repositories, by host and remote, with the items that failed.
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
        let (host, what) = (&item.host, item.remote());
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

    /// Records that a configured host gave no answer for an item. Returns the delay of the item.
    fn unanswered(&mut self, item: &NewWorkItem, now: Instant, why: &str) -> Duration {
        let (host, what) = (&item.host, item.remote());
        if !self.gateways.0.contains_key(host) {
            tracing::warn!(
                host,
                error = why,
                "a host gives no answers: what is to be read there waits"
            );
        }
        self.gateways.of(host, now).why = Some(why.to_owned());
        let of_host = self.gateways.failed(host, what, now, (PROBE, PROBE_MAX));
        let wait = of_host.unwrap_or(PROBE_MAX);
        // One repository may have many items, and be the only one of its host.
        let repository = self.repositories.of(&name_of(item), now);
        repository.until = repository.until.max(now + wait);
        wait
    }

    /// Records that a configured host answered for an item, but with nothing to read. Returns the remaining pause of the
    /// host if it did so for several repositories in a row, for longer than a moment.
    fn barren(&mut self, item: &NewWorkItem, now: Instant, why: &str) -> Option<Duration> {
        let (host, what) = (&item.host, item.remote());
        // Any repository may be gone. Whoever has many that are must not hold up a host that others can read.
        if self.answered_lately(host, now) {
            return None;
        }
        let since = self.barren.of(host, now).failing_since;
        let lasts = since.is_some_and(|since| now.saturating_duration_since(since) > LASTING);
        let most = if lasts { PROBE_LASTING } else { PROBE_MAX };
        let wait = self.barren.failed(host, what, now, (PROBE, most))?;
        let trouble = self.barren.of(host, now);
        if trouble.why.is_none() {
            tracing::warn!(
                host,
                error = why,
                "a host gives nothing to read: what is to be read there waits"
            );
        }
        trouble.why = Some(why.to_owned());
        Some(wait)
    }

    /// Records a failure at a configured host, if it is one of the host as a whole that passes by itself. Returns the
    /// delay of the item.
    fn outage(
        &mut self,
        item: &NewWorkItem,
        failure: Failure,
        why: &str,
        now: Instant,
    ) -> Option<Duration> {
        let is_own = match failure {
            Failure::Unreachable | Failure::Tokenless => false,
            Failure::Unanswered => self.answers_others(item),
            Failure::Garbled => return self.barren(item, now, why),
            Failure::Answerless | Failure::Refused => true,
        };
        if is_own {
            return None;
        }
        // The next try goes to another repository, which may have better luck.
        self.repositories.note_failed(&name_of(item), now);
        if failure == Failure::Unanswered && self.answered_lately(&item.host, now) {
            // The first to notice that the host is down, or a repository that is. No other waits for it, and it is tried
            // again soon.
            let repository = self.repositories.of(&name_of(item), now);
            repository.until = repository.until.max(now + PROBE_MAX);
            return Some(PROBE_MAX);
        }
        Some(if failure == Failure::Unanswered {
            self.unanswered(item, now, why)
        } else {
            let of_host = self.unreachable(item, now, (PROBE, PROBE_MAX), why);
            of_host.unwrap_or(PROBE_MAX)
        })
    }

    /// Returns whether a configured host has answered within the last minute.
    fn answered_lately(&self, host: &str, now: Instant) -> bool {
        let answered = self.answered.get(host);
        answered.is_some_and(|at| now.saturating_duration_since(*at) < LATELY)
    }

    /// Returns whether its host has answered others since an item's repository began to fail. The fault lies with the
    /// repository in that case.
    fn answers_others(&self, item: &NewWorkItem) -> bool {
        let repository = self.repositories.0.get(&name_of(item));
        let since = repository.and_then(|repository| repository.failing_since);
        let answered = self.answered.get(&item.host);
        matches!((since, answered), (Some(since), Some(answered)) if *answered > since)
    }

    /// Records that the host of an item can be reached and answers.
    fn alive(&mut self, item: &NewWorkItem, now: Instant) {
        let was_away = self.hosts.0.remove(&item.host).is_some();
        let was_silent = self.gateways.0.remove(&item.host).is_some();
        let was_barren = self.barren.is_in_trouble(&item.host);
        self.barren.0.remove(&item.host);
        if was_away || was_silent || was_barren {
            tracing::info!(host = item.host, "a host answers again");
        }
        self.silent.answered(&item.host, now);
    }

    /// Returns whether a host cannot be reached, or gives no answers, or nothing to read.
    fn is_away(&self, host: &String) -> bool {
        let (hosts, gateways) = (&self.hosts.0, &self.gateways.0);
        hosts.contains_key(host) || gateways.contains_key(host) || self.barren.is_in_trouble(host)
    }

    fn left_of_host(&self, host: &String, now: Instant) -> Option<Duration> {
        let asked = self.throttles.left_of_host(host, now);
        let hosts = self.hosts.left(host, now);
        let gateways = self.gateways.left(host, now);
        asked
            .max(hosts)
            .max(gateways)
            .max(self.barren.left(host, now))
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
    pub(super) fn left(&self, host: &str, remote: &str) -> Option<Duration> {
        let (now, known) = (Instant::now(), self.lock());
        let of_host = known.left_of_host(&host.to_owned(), now);
        let name = name(host, remote);
        let of_repository = known.repositories.left(&name, now);
        of_host
            .max(of_repository)
            .max(known.throttles.left(&name, now))
    }

    /// Returns the reason for a host's pause, in redacted text, if it is paused.
    pub(super) fn why(&self, host: &str) -> Option<String> {
        let (now, known, host) = (Instant::now(), self.lock(), host.to_owned());
        let troubles = [&known.hosts, &known.gateways, &known.barren].into_iter();
        let mut paused = troubles.filter(|troubles| troubles.left(&host, now).is_some());
        let asked = known.throttles.why(&host, now);
        asked.or_else(|| paused.find_map(|troubles| troubles.0.get(&host)?.why.clone()))
    }

    /// Returns the remaining pause of a host, if there is one.
    pub(super) fn left_of_host(&self, host: &str) -> Option<Duration> {
        self.lock().left_of_host(&host.to_owned(), Instant::now())
    }

    /// Returns the remotes of a host that are paused now.
    pub(super) fn paused_of(&self, host: &str) -> Vec<String> {
        let (now, known) = (Instant::now(), self.lock());
        let in_trouble = known.repositories.0.iter();
        let in_trouble = in_trouble
            .filter(|((at, _), trouble)| at == host && trouble.until > now)
            .map(|((_, repository), _)| repository);
        let paused: HashSet<&String> = in_trouble
            .chain(known.throttles.paused_of(host, now))
            .collect();
        paused.into_iter().cloned().collect()
    }

    /// Returns the condition of a host.
    pub(super) fn condition(&self, host: &str) -> Condition {
        let (known, host) = (self.lock(), host.to_owned());
        if known.hosts.is_in_trouble(&host) {
            Condition::Unreachable
        } else if known.answered_lately(&host, Instant::now()) {
            Condition::Well
        } else if [&known.silent, &known.gateways, &known.barren]
            .iter()
            .any(|troubles| troubles.is_in_trouble(&host))
        {
            Condition::Silent
        } else {
            Condition::Well
        }
    }

    /// Records that the repository of an item asked to be left alone for `wait`. Returns the pause that follows.
    pub(super) fn asked(&self, item: &NewWorkItem, wait: Duration, why: &str) -> Judged {
        let now = Instant::now();
        let mut known = self.lock();
        known.alive(item, now);
        let wait = known.throttles.asked(item, wait, why, now);
        Judged {
            wait: Some(wait),
            is_hosts: known.throttles.left_of_host(&item.host, now).is_some(),
        }
    }

    /// Records that a host itself asked to be left alone for `wait`. Returns the pause that follows.
    pub(super) fn host_asked(&self, host: &str, wait: Duration, why: &str) -> Judged {
        let wait = self
            .lock()
            .throttles
            .host_asked(host, wait, why, Instant::now());
        Judged {
            wait: Some(wait),
            is_hosts: true,
        }
    }

    /// Records that a host is healthy, whatever its response was. A pause that it asked for stays in force.
    pub(super) fn answered(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        known.alive(item, now);
        known.throttles.answered(item, now);
        if self.configured.contains(&item.host) {
            known.answered.insert(item.host.clone(), now);
        }
        known.repositories.answered(&name_of(item), now);
    }

    /// Records that a host denied the repository of an item. Returns the pause that follows if it does so to all: any
    /// repository may be gone, and then it is no sign of anything else.
    pub(super) fn denied(&self, item: &NewWorkItem, why: &str) -> Option<Judged> {
        let now = Instant::now();
        let mut known = self.lock();
        // It can be reached. Whether what is behind it works is another matter.
        known.hosts.0.remove(&item.host);
        known.throttles.answered(item, now);
        // The next try goes to another repository, which may have better luck.
        known.repositories.note_failed(&name_of(item), now);
        if !self.configured.contains(&item.host) {
            return None;
        }
        let wait = known.barren(item, now, why)?;
        Some(Judged {
            wait: Some(wait),
            is_hosts: true,
        })
    }

    /// Returns whether a repository failed recently, or asked to be left alone. Others of its host take precedence.
    pub(super) fn failed_lately(&self, host: &str, remote: &str) -> bool {
        let (known, name) = (self.lock(), name(host, remote));
        let failed = known.repositories.failed_lately(&name, Instant::now());
        failed || known.throttles.asks(&name)
    }

    /// Records the failure of an item, and decides whether it lies with its repository, or with its whole host, on
    /// which others fail as well.
    pub(super) fn failed(
        &self,
        id: Uuid,
        item: &NewWorkItem,
        failure: Failure,
        why: &str,
    ) -> Judged {
        let now = Instant::now();
        let mut known = self.lock();
        if self.configured.contains(&item.host)
            && let Some(wait) = known.outage(item, failure, why, now)
        {
            return Judged {
                wait: Some(wait),
                is_hosts: known.is_away(&item.host),
            };
        }
        let waits = (TROUBLE, TROUBLE_MAX);
        let repository = name_of(item);
        let of_repository = known.repositories.failed(&repository, id, now, waits);
        let (host, what) = (&item.host, item.remote());
        let silent = known.silent.failed(host, what, now, waits);
        let of_host = match failure {
            Failure::Unreachable | Failure::Tokenless | Failure::Refused => {
                known.unreachable(item, now, waits, why)
            }
            Failure::Unanswered | Failure::Garbled | Failure::Answerless => {
                silent.map(|_| known.repositories.wait(&repository))
            }
        };
        let is_down = failure == Failure::Unreachable && known.hosts.is_in_trouble(host);
        Judged {
            wait: of_host.max(of_repository),
            is_hosts: is_down,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(item: &NewWorkItem) -> (String, String) {
    name(&item.host, &item.remote())
}

fn name(host: &str, remote: &str) -> (String, String) {
    (host.to_owned(), remote.to_owned())
}

#[cfg(test)]
pub(super) mod tests;
