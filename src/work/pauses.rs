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
//!
//! All of it is concluded from what some repositories answered, and those may be strangers'. So while a configured host
//! is paused, an item of an owner with whom nothing failed lately is tried every two seconds all the same, and one
//! answer ends the pause.

mod record;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::troubles::TROUBLE_MAX;
use crate::store::NewWorkItem;
use record::Record;

/// Interval at which something is tried of a configured host that is paused.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Duration of the first pause; doubles with each further one.
const TROUBLE: Duration = Duration::from_secs(20);

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
    /// Several of its repositories failed, or asked to be left alone, and none has responded since.
    Silent,
    /// No connection could be made, and it has not responded since.
    Unreachable,
}

/// Pauses of hosts and repositories. Shared by all items in flight, so that one refusal spares the host the others.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    record: Mutex<Record>,
    /// Hosts that the configuration names.
    configured: HashSet<String>,
}

impl Pauses {
    /// Creates an empty record for the configured hosts.
    pub(super) fn new(configured: HashSet<String>) -> Self {
        Self {
            configured,
            ..Self::default()
        }
    }

    /// Returns whether the configuration names a host.
    pub(super) fn is_configured(&self, host: &str) -> bool {
        self.configured.contains(host)
    }

    /// Returns the remaining pause of a repository, apart from that of its host, if there is one.
    pub(super) fn left_of_repository(&self, host: &str, remote: &str) -> Option<Duration> {
        let (now, record, name) = (Instant::now(), self.lock(), name(host, remote));
        let of_repository = record.repositories.left(&name, now);
        of_repository.max(record.throttles.left(&name, now))
    }

    /// Returns whether something of a host may be claimed: it is not paused, or it is time to try something all the
    /// same.
    pub(super) fn is_open(&self, host: &str) -> bool {
        let (now, record) = (Instant::now(), self.lock());
        if record.left_of_host(&host.to_owned(), now).is_none() {
            return true;
        }
        let probed = record.probed.get(host);
        self.configured.contains(host)
            && !record.throttles.asked_itself(host, now)
            && probed.is_none_or(|at| now.saturating_duration_since(*at) >= PROBE_EVERY)
    }

    /// Returns whether an item may be tried while its host is paused: nothing failed with its owner lately.
    pub(super) fn may_probe(&self, host: &str, owner: &str, remote: &str) -> bool {
        let owner = name(host, owner);
        let failed = self.lock().owners.failed_lately(&owner, Instant::now());
        !failed && !self.failed_lately(host, remote)
    }

    /// Records that something of a host is tried, or was looked for in vain. Returns whether it is paused, so that this
    /// was all for now.
    ///
    /// A host that merely denies what it is asked for does so at once: it is asked for one after the other, or whoever
    /// has many repositories that are gone would keep an owner who is not among them waiting for all of those.
    pub(super) fn probed(&self, host: &str, is_found: bool) -> bool {
        let (now, mut record, host) = (Instant::now(), self.lock(), host.to_owned());
        let is_paused = record.left_of_host(&host, now).is_some();
        let is_quick = is_found && record.left_but_for_denials(&host, now).is_none();
        if is_paused && !is_quick && self.configured.contains(&host) {
            record.probed.insert(host, now);
        }
        is_paused
    }

    /// Returns the reason for a host's pause, in redacted text, if it is paused.
    pub(super) fn why(&self, host: &str) -> Option<String> {
        let (now, record, host) = (Instant::now(), self.lock(), host.to_owned());
        let troubles = [&record.hosts, &record.gateways, &record.barren].into_iter();
        let mut paused = troubles.filter(|troubles| troubles.left(&host, now).is_some());
        let asked = record.throttles.why(&host, now);
        asked.or_else(|| paused.find_map(|troubles| troubles.0.get(&host)?.why.clone()))
    }

    /// Returns the remaining pause of a host, if there is one.
    pub(super) fn left_of_host(&self, host: &str) -> Option<Duration> {
        self.lock().left_of_host(&host.to_owned(), Instant::now())
    }

    /// Returns the remotes of a host that are paused now.
    pub(super) fn paused_of(&self, host: &str) -> Vec<String> {
        let (now, record) = (Instant::now(), self.lock());
        let in_trouble = record.repositories.0.iter();
        let in_trouble = in_trouble
            .filter(|((at, _), trouble)| at == host && trouble.until > now)
            .map(|((_, repository), _)| repository);
        let paused: HashSet<&String> = in_trouble
            .chain(record.throttles.paused_of(host, now))
            .collect();
        paused.into_iter().cloned().collect()
    }

    /// Returns the condition of a host.
    pub(super) fn condition(&self, host: &str) -> Condition {
        let (record, host) = (self.lock(), host.to_owned());
        if record.hosts.is_in_trouble(&host) {
            Condition::Unreachable
        } else if record.throttles.is_in_doubt(&host, Instant::now()) {
            Condition::Silent
        } else if record.answered_lately(&host, Instant::now()) {
            Condition::Well
        } else if [&record.silent, &record.gateways, &record.barren]
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
        let mut record = self.lock();
        record.alive(item, now);
        self.note_failed(&mut record, item, now);
        let wait = record.throttles.asked(item, wait, why, now);
        Judged {
            wait: Some(wait),
            is_hosts: record.throttles.left_of_host(&item.host, now).is_some(),
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

    /// Records that a host is healthy, whatever its response was. A pause that it asked for itself stays in force.
    pub(super) fn answered(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut record = self.lock();
        record.alive(item, now);
        record.throttles.answered(item, now);
        record.throttles.end_doubt(&item.host, now);
        record.owners.answered(&owner_of(item), now);
        if self.configured.contains(&item.host) {
            record.answered.insert(item.host.clone(), now);
        }
        record.repositories.answered(&name_of(item), now);
    }

    /// Records that a host denied the repository of an item. Returns the pause that follows if it does so to all: any
    /// repository may be gone, and then it is no sign of anything else.
    pub(super) fn denied(&self, item: &NewWorkItem, why: &str) -> Option<Judged> {
        let now = Instant::now();
        let mut record = self.lock();
        self.note_failed(&mut record, item, now);
        // It can be reached. Whether what is behind it works is another matter.
        record.hosts.0.remove(&item.host);
        record.throttles.answered(item, now);
        // The next try goes to another repository, which may have better luck.
        record.repositories.note_failed(&name_of(item), now);
        if !self.configured.contains(&item.host) {
            return None;
        }
        let wait = record.barren(item, now, why)?;
        Some(Judged {
            wait: Some(wait),
            is_hosts: true,
        })
    }

    /// Returns whether a repository failed recently, or asked to be left alone. Others of its host take precedence.
    pub(super) fn failed_lately(&self, host: &str, remote: &str) -> bool {
        let (record, name) = (self.lock(), name(host, remote));
        let failed = record.repositories.failed_lately(&name, Instant::now());
        failed || record.throttles.asks(&name)
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
        let mut record = self.lock();
        self.note_failed(&mut record, item, now);
        if self.configured.contains(&item.host)
            && let Some(wait) = record.outage(item, failure, why, now)
        {
            return Judged {
                wait: Some(wait),
                is_hosts: record.is_away(&item.host),
            };
        }
        let waits = (TROUBLE, TROUBLE_MAX);
        let repository = name_of(item);
        let of_repository = record.repositories.failed(&repository, id, now, waits);
        let (host, what) = (&item.host, item.remote());
        let silent = record.silent.failed(host, what, now, waits);
        let of_host = match failure {
            Failure::Unreachable | Failure::Tokenless | Failure::Refused => {
                record.unreachable(item, now, waits, why)
            }
            Failure::Unanswered | Failure::Garbled | Failure::Answerless => {
                silent.map(|_| record.repositories.wait(&repository))
            }
        };
        let is_down = failure == Failure::Unreachable && record.hosts.is_in_trouble(host);
        Judged {
            wait: of_host.max(of_repository),
            is_hosts: is_down,
        }
    }

    /// Records that something failed with the owner of an item.
    fn note_failed(&self, record: &mut Record, item: &NewWorkItem, now: Instant) {
        if self.configured.contains(&item.host) {
            record.owners.note_failed(&owner_of(item), now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(item: &NewWorkItem) -> (String, String) {
    name(&item.host, &item.remote())
}

fn owner_of(item: &NewWorkItem) -> (String, String) {
    name(&item.host, &item.owner())
}

fn name(host: &str, remote: &str) -> (String, String) {
    (host.to_owned(), remote.to_owned())
}

#[cfg(test)]
pub(super) mod tests;
