//! Status of every source, combined from the configuration and the database.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::forge::Forge;
use crate::schedule::Schedule;
use crate::store::{SourceState, SourceWork, Store, StoreError};

/// Time that an item may wait, and that a poll may be overdue, before its source counts as behind.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Time after the last item that was read in which the failures of others do not make a source failing: among many
/// repositories, one is always broken.
const READ_LATELY: SignedDuration = SignedDuration::from_secs(5);

/// Source named in the configuration.
#[derive(Debug, Clone)]
pub struct ConfiguredSource {
    /// Name of the source, as in the log and in incidents.
    pub name: String,
    /// Kind of the source: `webhook`, or a kind of the configuration such as `github_events`.
    pub kind: String,
    /// Polling schedule. `None` for sources that deliver by themselves, such as webhooks.
    pub schedule: Option<Schedule>,
}

named! {
    /// Condition of a source.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum SourceCondition {
        /// Everything works.
        Ok = "ok",
        /// The source has not been polled yet, or has not delivered anything yet.
        Waiting = "waiting",
        /// The last poll failed, a part of the last delivery was lost, or the last item failed or was dead-lettered.
        Failing = "failing",
        /// An item has waited for too long, or waits for a host in backoff, or the poll is overdue.
        Behind = "behind",
        /// The source is no longer in the configuration.
        Removed = "removed",
    }
}

/// Status of a source.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// Name of the source.
    pub name: String,
    /// Kind of the source. Empty if it is not configured and only its items are known.
    pub kind: String,
    /// Condition of the source.
    pub condition: SourceCondition,
    /// Time of the next poll, by the schedule and by what the server allows.
    pub next_poll_at: Option<Timestamp>,
    /// State left by its polls. Empty if it has not been polled yet.
    pub polled: SourceState,
    /// Results of the workers for its items.
    pub work: SourceWork,
}

/// Returns the status of every source that is configured or known to the database, by name.
///
/// # Errors
/// Returns any [`StoreError`] of a read.
pub async fn source_statuses(
    store: &Store,
    configured: &[ConfiguredSource],
    now: Timestamp,
) -> Result<Vec<SourceStatus>, StoreError> {
    let states = store.list_sources().await?;
    let work = store.source_work().await?;
    Ok(statuses_of(configured, states, work, now))
}

/// Combines the configuration with what the database knows, which is nothing before it has been created. Sorted by
/// name.
pub fn statuses_of(
    configured: &[ConfiguredSource],
    states: Vec<SourceState>,
    work: Vec<SourceWork>,
    now: Timestamp,
) -> Vec<SourceStatus> {
    let mut found: BTreeMap<String, Found<'_>> = BTreeMap::new();
    for source in configured {
        found.entry(source.name.clone()).or_default().configured = Some(source);
    }
    for state in states {
        let of_name = found.entry(state.name.clone()).or_default();
        of_name.state = Some(state);
    }
    for work in work {
        let of_name = found.entry(work.source.clone()).or_default();
        of_name.work = Some(work);
    }
    let found = found.into_iter();
    found.map(|(name, found)| found.status(name, now)).collect()
}

/// Information found under one name.
#[derive(Default)]
struct Found<'c> {
    configured: Option<&'c ConfiguredSource>,
    state: Option<SourceState>,
    work: Option<SourceWork>,
}

impl Found<'_> {
    fn status(self, name: String, now: Timestamp) -> SourceStatus {
        let schedule = self.configured.and_then(|source| source.schedule.as_ref());
        // State from a clock that was ahead does not count.
        let state = self.state.as_ref().filter(|state| !state.is_ahead(now));
        let allowed_at = match &self.state {
            Some(ahead) if state.is_none() => now.checked_add(ahead.due_in(now)).ok(),
            _ => state.and_then(|state| state.next_poll_at),
        };
        let polled_at = state.and_then(|state| state.polled_at);
        let next_poll_at = schedule.and_then(|schedule| match schedule {
            Schedule::Poll => allowed_at,
            Schedule::Cron(_) => {
                let polled_at = polled_at.unwrap_or(now);
                schedule.next(polled_at, allowed_at.unwrap_or(polled_at))
            }
        });
        let condition = self.condition(next_poll_at, now);
        let death = self.death_in_words(&name);
        let failure = self.failure_in_words(now);
        let mut polled = self.state.unwrap_or_default();
        polled.error = polled.error.or(death).or(failure);
        if let Some(wait) = self.work.as_ref().and_then(|work| work.waits_for.as_ref()) {
            let error = polled.error.map(|error| format!("{error}; "));
            polled.error = Some(format!("{}{wait}", error.unwrap_or_default()));
        }
        let kind = match self.configured {
            Some(source) => source.kind.clone(),
            None if polled.kind.is_empty() && Forge::by_source(&name).is_some() => {
                "webhook".to_owned()
            }
            None => polled.kind.clone(),
        };
        SourceStatus {
            name,
            kind,
            condition,
            next_poll_at,
            polled,
            work: self.work.unwrap_or_default(),
        }
    }

    /// Returns the reason for which the last item was dead-lettered, if none was read since.
    fn last_death(&self) -> Option<&str> {
        self.work.as_ref()?.last_death.as_deref()
    }

    fn death_in_words(&self, name: &str) -> Option<String> {
        let why = self.last_death()?;
        let dead = self.work.as_ref().map_or(0, |work| work.dead);
        Some(format!(
            "{dead} items were dead-lettered, and none was read since; the last one because: {why}; `rescind sources dead \
             {name}` lists them, `rescind sources requeue --all {name}` tries them again"
        ))
    }

    /// Returns the reason for which the last item failed, if none was read since.
    fn last_failure(&self, now: Timestamp) -> Option<&str> {
        let work = self.work.as_ref()?;
        let was_read = |at: Timestamp| now.duration_since(at) < READ_LATELY;
        let why = work.last_failure.as_deref()?;
        (!work.scanned_at.is_some_and(was_read)).then_some(why)
    }

    fn failure_in_words(&self, now: Timestamp) -> Option<String> {
        let why = self.last_failure(now)?;
        let items = match self.work.as_ref().map_or(0, |work| work.failed) {
            1 => "1 item".to_owned(),
            count => format!("{count} items"),
        };
        Some(format!(
            "{items} could not be read and will be tried again, and none was read since; the last one because: {why}"
        ))
    }

    fn condition(&self, next_poll_at: Option<Timestamp>, now: Timestamp) -> SourceCondition {
        let Some(configured) = self.configured else {
            return SourceCondition::Removed;
        };
        let is_late =
            |at: Option<Timestamp>| at.is_some_and(|at| now.duration_since(at) > PATIENCE);
        let is_polled = configured.schedule.is_some();
        let state = self.state.as_ref();
        let polled_at = state.and_then(|state| state.polled_at);
        let nothing_yet = if is_polled {
            polled_at.is_none()
        } else {
            // The daemon records at its start that the webhook exists.
            let is_heard = |state: &SourceState| state.polled_at.or(state.succeeded_at).is_some();
            !state.is_some_and(is_heard) && self.work.is_none()
        };
        let failed =
            |state: &SourceState| state.error.is_some() && state.succeeded_at < state.polled_at;
        let work = self.work.as_ref();
        let waits = work.and_then(|work| work.oldest_waiting_at);
        let is_kept = work.is_some_and(|work| work.waits_for.is_some());
        if nothing_yet {
            SourceCondition::Waiting
        } else if state.is_some_and(failed) || self.last_death().is_some() {
            SourceCondition::Failing
        } else if is_kept {
            SourceCondition::Behind
        } else if self.last_failure(now).is_some() {
            SourceCondition::Failing
        } else if is_late(waits) || is_late(next_poll_at) {
            SourceCondition::Behind
        } else {
            SourceCondition::Ok
        }
    }
}

#[cfg(test)]
mod tests;
