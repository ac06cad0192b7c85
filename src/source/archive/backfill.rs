//! Reading a past period hour by hour, resumably.

use std::time::Duration;

use serde::Serialize;

use super::GhArchive;
use super::cursor::{Reader, Runs, Track};
use super::hour::Period;
use super::stream::{HourEnd, Sitting, Verdict};
use crate::backoff::Backoff;
use crate::github::GitHubError;
use crate::source::PollError;

/// Maximum number of attempts per hour within one call.
const TRIES: u32 = 5;

/// Maximum delay between two attempts.
const MAX_WAIT: Duration = Duration::from_mins(2);

/// Progress of a backfill. Counts cover the whole period, including what earlier calls read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The hour that is being read, such as `2015-01-01-5`.
    pub hour: String,
    /// Number of hours that are done.
    pub hours_done: u64,
    /// Number of hours of the period.
    pub hours: u64,
    /// Number of hours that are done and that the archive does not have.
    pub missing: u64,
    /// Number of events that were read.
    pub events: u64,
    /// Number of new work items.
    pub items: u64,
    /// Number of compressed bytes received, including those of failed attempts.
    pub bytes: u64,
}

/// Outcome of a backfill. Counts cover the whole period, including what earlier calls read of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackfillOutcome {
    /// Number of hours that are done.
    pub hours: u64,
    /// Number of events that were read.
    pub events: u64,
    /// Number of new work items.
    pub items: u64,
    /// Number of events that could not be read.
    pub malformed: u64,
    /// Hours that the archive does not have, such as `2015-01-01-5`.
    pub missing: Vec<String>,
    /// Hours that could not be read to their end. The events read from them are kept.
    pub incomplete: Vec<String>,
    /// `true` if the period had been read by an earlier call, so that this one read nothing.
    pub was_finished: bool,
    /// Hour at which the backfill stopped because the archive does not have it yet, if any. The same call continues
    /// there later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

impl GhArchive {
    /// Reads every hour of a period into work items of the lowest priority, and calls `progress` after each commit.
    ///
    /// An hour that is done is not read again: the same period continues where an earlier call stopped, however that
    /// ended, and nothing is read if it was finished, unless `force` is set.
    ///
    /// # Errors
    /// Returns a [`PollError`] if the database fails, or if the server cannot be reached, refuses, or throttles for
    /// more than two minutes. All earlier hours are done then.
    pub async fn backfill(
        &self,
        period: Period,
        force: bool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<BackfillOutcome, PollError> {
        let reader = Reader::Backfill(period);
        let cursor = self.cursor().await?;
        let track = cursor.track(reader).filter(|_| !force).cloned();
        let track = track.unwrap_or_else(|| Track::new(period.from));
        let was_finished = track.next >= period.to;
        let mut each = |track: &Track| progress(progress_of(period, track));
        let mut sitting = Sitting::new(self, reader, track, &mut each);
        let mut waits_for = None;
        while sitting.track.next < period.to {
            let hour = sitting.track.next;
            let verdict = match self.read_patiently(&mut sitting).await? {
                HourEnd::Whole => Verdict::Whole,
                HourEnd::Missing if self.is_recent(hour) => {
                    waits_for = Some(hour.to_string());
                    break;
                }
                HourEnd::Missing => Verdict::Missing,
                HourEnd::Broken(_) => Verdict::Incomplete,
            };
            sitting.finish(verdict).await?;
        }
        let track = sitting.track;
        Ok(BackfillOutcome {
            hours: track.next.since(period.from),
            events: track.events,
            items: track.items,
            malformed: track.malformed,
            missing: texts(&track.missing),
            incomplete: texts(&track.incomplete),
            was_finished,
            waits_for,
        })
    }

    /// Reads the next hour, retrying up to [`TRIES`] attempts.
    async fn read_patiently(&self, sitting: &mut Sitting<'_>) -> Result<HourEnd, PollError> {
        let mut tries = 0;
        loop {
            let error = match sitting.read().await? {
                HourEnd::Broken(error) => error,
                ended => return Ok(ended),
            };
            let wait = Backoff::new(self.retry_wait, Duration::MAX).after(tries);
            tries += 1;
            let wait = match &error {
                PollError::Api(GitHubError::RateLimited { retry_after, .. }) => {
                    retry_after.unwrap_or(wait)
                }
                _ => wait,
            };
            if tries >= TRIES && error.concerns_an_hour() {
                return Ok(HourEnd::Broken(error));
            }
            if tries >= TRIES || wait > MAX_WAIT || error.is_refusal() {
                return Err(error);
            }
            let (source, words) = (&self.frame.name, self.frame.words(&error));
            let seconds = wait.as_secs();
            tracing::warn!(%source, error = %words, next_in_seconds = seconds, "reading an archived hour failed, will retry");
            tokio::time::sleep(wait).await;
        }
    }
}

fn progress_of(period: Period, track: &Track) -> Progress {
    Progress {
        hour: track.next.to_string(),
        hours_done: track.next.since(period.from),
        hours: period.hours(),
        missing: track.missing.count(),
        events: track.events,
        items: track.items,
        bytes: track.bytes,
    }
}

fn texts(runs: &Runs) -> Vec<String> {
    runs.hours().map(|hour| hour.to_string()).collect()
}
