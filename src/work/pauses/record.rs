//! Record of what failed, by cause.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::throttles::Throttles;
use super::super::troubles::{LATELY, PROBE_MAX, Troubles};
use super::{Failure, name_of};
use crate::store::NewWorkItem;

/// Duration of the first pause of a configured host that cannot be reached.
pub(super) const PROBE: Duration = Duration::from_secs(1);
/// Maximum pause of a configured host that answers, but has given nothing to read for [`LASTING`].
const PROBE_LASTING: Duration = Duration::from_mins(1);
/// Time after which that is no short fault of the host any more.
pub(super) const LASTING: Duration = Duration::from_mins(15);

/// Record of what failed, by cause.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) throttles: Throttles,
    /// Hosts that cannot be reached, with the repositories that were tried.
    pub(super) hosts: Troubles<String, String>,
    /// Configured hosts that can be reached but give no answers, with the repositories that were tried.
    pub(super) gateways: Troubles<String, String>,
    /// Configured hosts that answer, but not with anything to read: they deny repositories, or do not speak git. With
    /// the repositories that were tried.
    pub(super) barren: Troubles<String, String>,
    /// Times of the latest answers of configured hosts.
    pub(super) answered: HashMap<String, Instant>,
    /// Hosts that never respond, for any reason, with the repositories that were tried. They are not paused.
    pub(super) silent: Troubles<String, String>,
    /// Failing repositories, by host and remote, with the items that failed.
    pub(super) repositories: Troubles<(String, String), Uuid>,
    /// Owners at configured hosts with whom something failed.
    pub(super) owners: Troubles<(String, String), ()>,
    /// Times at which something of a configured host was last tried, or looked for, although it was paused.
    pub(super) probed: HashMap<String, Instant>,
}

impl Record {
    /// Records that no connection could be made for an item. Returns the remaining pause of its host, if it is paused.
    pub(super) fn unreachable(
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

    /// Records that a configured host answered for an item, but with nothing to read. Returns the remaining pause of
    /// the host if it did so for several repositories in a row, for longer than a moment.
    pub(super) fn barren(
        &mut self,
        item: &NewWorkItem,
        now: Instant,
        why: &str,
    ) -> Option<Duration> {
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
    pub(super) fn outage(
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
            // The first to notice that the host is down, or a repository that is. No other waits for it, and it is
            // tried again soon.
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
    pub(super) fn answered_lately(&self, host: &str, now: Instant) -> bool {
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
    pub(super) fn alive(&mut self, item: &NewWorkItem, now: Instant) {
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
    pub(super) fn is_away(&self, host: &String) -> bool {
        let (hosts, gateways) = (&self.hosts.0, &self.gateways.0);
        hosts.contains_key(host) || gateways.contains_key(host) || self.barren.is_in_trouble(host)
    }

    pub(super) fn left_of_host(&self, host: &String, now: Instant) -> Option<Duration> {
        let others = self.left_but_for_denials(host, now);
        others.max(self.barren.left(host, now))
    }

    /// Returns what is left of a host's pause if it is for more than giving nothing to read.
    pub(super) fn left_but_for_denials(&self, host: &String, now: Instant) -> Option<Duration> {
        let asked = self.throttles.left_of_host(host, now);
        let hosts = self.hosts.left(host, now);
        let gateways = self.gateways.left(host, now);
        asked.max(hosts).max(gateways)
    }
}
