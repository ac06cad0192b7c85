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

/// Condition of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceCondition {
    /// Everything works.
    Ok,
    /// The source has not been polled yet, or has not delivered anything yet.
    Waiting,
    /// The last poll failed, a part of the last delivery was lost, or the last item was dead-lettered.
    Failing,
    /// An item has waited for too long, or waits for a host in backoff, or the poll is overdue.
    Behind,
    /// The source is no longer in the configuration.
    Removed,
}

impl SourceCondition {
    /// Returns the name of the condition, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Behind => "behind",
            Self::Removed => "removed",
        }
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
        let mut polled = self.state.unwrap_or_default();
        polled.error = polled.error.or(death);
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
        } else if is_kept || is_late(waits) || is_late(next_poll_at) {
            SourceCondition::Behind
        } else {
            SourceCondition::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::CronSchedule;
    use crate::store::HostWait;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn configured(schedule: Option<Schedule>) -> ConfiguredSource {
        ConfiguredSource {
            name: "feed".to_owned(),
            kind: "github_events".to_owned(),
            schedule,
        }
    }

    fn state(polled: &str, succeeded: Option<&str>, error: Option<&str>) -> SourceState {
        SourceState {
            name: "feed".to_owned(),
            kind: "github_events".to_owned(),
            polled_at: Some(at(polled)),
            succeeded_at: succeeded.map(at),
            next_poll_at: Some(
                at(polled)
                    .checked_add(SignedDuration::from_mins(1))
                    .unwrap(),
            ),
            error: error.map(str::to_owned),
            ..SourceState::default()
        }
    }

    fn waiting_since(time: &str) -> SourceWork {
        SourceWork {
            source: "feed".to_owned(),
            waiting: 1,
            oldest_waiting_at: Some(at(time)),
            ..SourceWork::default()
        }
    }

    #[test]
    fn one_word_for_every_case() {
        use SourceCondition::{Behind, Failing, Ok, Removed, Waiting};
        let poll = || vec![configured(Some(Schedule::Poll))];
        let cron = CronSchedule::parse("0 * * * *").unwrap();
        let hourly = vec![configured(Some(Schedule::Cron(cron)))];
        let hook = vec![configured(None)];
        let fine = state("12:00:00", Some("12:00:00"), None);
        let partly = state("12:00:00", Some("12:00:00"), Some("page 2"));
        let failed = state("12:00:00", Some("11:00:00"), Some("HTTP 500"));
        let delivered = SourceState {
            polled_at: None,
            next_poll_at: None,
            ..fine.clone()
        };
        let unheard = SourceState {
            name: "feed".to_owned(),
            ..SourceState::default()
        };
        let dropped = SourceState {
            next_poll_at: None,
            ..failed.clone()
        };
        let all_dead = SourceWork {
            source: "feed".to_owned(),
            dead: 2,
            last_death: Some("HTTP 500".to_owned()),
            ..SourceWork::default()
        };
        let never_well = state("12:00:00", None, Some("HTTP 500"));
        let cases = [
            (Waiting, poll(), None, None, "12:00:30"),
            (Ok, poll(), Some(fine.clone()), None, "12:00:30"),
            (Ok, poll(), Some(partly), None, "12:00:30"),
            (Failing, poll(), Some(failed.clone()), None, "12:00:30"),
            (Failing, poll(), Some(never_well), None, "12:00:30"),
            (Behind, poll(), Some(fine.clone()), None, "12:06:01"),
            (Ok, hourly.clone(), Some(fine.clone()), None, "12:59:00"),
            (Behind, hourly, Some(fine.clone()), None, "13:05:01"),
            (
                Ok,
                poll(),
                Some(fine.clone()),
                Some(waiting_since("11:56:00")),
                "12:00:30",
            ),
            (
                Behind,
                poll(),
                Some(fine.clone()),
                Some(waiting_since("11:55:00")),
                "12:00:30",
            ),
            (Removed, Vec::new(), Some(failed), None, "12:00:30"),
            (Failing, hook.clone(), Some(dropped), None, "12:00:30"),
            (
                Failing,
                hook.clone(),
                Some(delivered.clone()),
                Some(all_dead),
                "12:00:30",
            ),
            (Waiting, hook.clone(), None, None, "12:00:30"),
            (Waiting, hook.clone(), Some(unheard), None, "12:00:30"),
            (Ok, hook.clone(), Some(delivered), None, "12:30:00"),
            (
                Ok,
                hook.clone(),
                None,
                Some(waiting_since("12:00:00")),
                "12:00:30",
            ),
            (
                Behind,
                hook,
                None,
                Some(waiting_since("11:00:00")),
                "12:00:30",
            ),
        ];
        for (number, (expected, configured, state, work, now)) in cases.into_iter().enumerate() {
            let states = state.into_iter().collect();
            let work = work.into_iter().collect();
            let all = statuses_of(&configured, states, work, at(now));
            assert_eq!(all.len(), 1, "case {number}");
            assert_eq!(all[0].condition, expected, "case {number}");
        }
    }

    #[test]
    fn what_was_put_aside_last_is_told_with_the_remedy() {
        let work = SourceWork {
            source: "feed".to_owned(),
            dead: 2,
            last_death: Some("HTTP 500".to_owned()),
            ..SourceWork::default()
        };
        let all = statuses_of(&[configured(None)], Vec::new(), vec![work], at("12:00:00"));
        let error = all[0].polled.error.as_ref().unwrap();
        for part in ["2 items", "HTTP 500", "rescind sources requeue --all feed"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_host_that_is_left_alone_is_told_with_the_reason_and_the_next_try() {
        let wait = HostWait {
            host: "git.example".to_owned(),
            why: "the connection failed: refused".to_owned(),
            until: Some(at("12:00:03")),
        };
        let mut work = waiting_since("12:00:00");
        work.waits_for = Some(wait);
        let hook = [configured(None)];
        let all = statuses_of(&hook, Vec::new(), vec![work.clone()], at("12:00:01"));
        assert_eq!(all[0].condition, SourceCondition::Behind);
        let told =
            "waits for git.example: the connection failed: refused, next try 2026-11-22T12:00:03Z";
        assert_eq!(all[0].polled.error.as_deref(), Some(told));
        let failed = state("12:00:00", Some("11:00:00"), Some("HTTP 500"));
        let poll = [configured(Some(Schedule::Poll))];
        let all = statuses_of(&poll, vec![failed], vec![work], at("12:00:01"));
        assert_eq!(all[0].condition, SourceCondition::Failing);
        let error = all[0].polled.error.as_deref();
        assert_eq!(error, Some(format!("HTTP 500; {told}").as_str()));
    }

    #[test]
    fn the_schedule_says_when_the_next_poll_is() {
        let cron = CronSchedule::parse("0 * * * *").unwrap();
        let hourly = [configured(Some(Schedule::Cron(cron)))];
        let next =
            |states| statuses_of(&hourly, states, Vec::new(), at("12:30:00"))[0].next_poll_at;
        assert_eq!(next(Vec::new()), Some(at("13:00:00")));
        let polled = state("12:00:00", Some("12:00:00"), None);
        assert_eq!(next(vec![polled]), Some(at("13:00:00")));
        let removed = statuses_of(
            &[],
            vec![state("12:00:00", None, None)],
            Vec::new(),
            at("12:00:01"),
        );
        assert_eq!(removed[0].next_poll_at, None);
    }
}
