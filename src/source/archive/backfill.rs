//! Reading a period of the past, hour by hour, going on where it stopped.

use std::time::Duration;

use super::GhArchive;
use super::cursor::{Reader, Runs, Track};
use super::hour::Period;
use super::stream::{HourEnd, Sitting, Verdict};
use crate::source::PollError;

/// How often an hour is tried within one call.
const TRIES: u32 = 5;

/// The longest that a call waits before it tries again.
const MAX_WAIT: Duration = Duration::from_mins(2);

/// How far a backfill has come. Counts are of the whole period, also of what earlier calls read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The hour that is being read, such as `2015-01-01-5`.
    pub hour: String,
    /// Hours that are done.
    pub hours_done: u64,
    /// Hours of the period.
    pub hours: u64,
    /// Events that were read.
    pub events: u64,
    /// Work items that were new.
    pub items: u64,
    /// Compressed bytes that the server sent, those of tries in vain among them.
    pub bytes: u64,
}

/// How a backfill ended. Counts are of the whole period, also of what earlier calls read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillOutcome {
    /// Hours that are done.
    pub hours: u64,
    /// Events that were read.
    pub events: u64,
    /// Work items that were new.
    pub items: u64,
    /// Events that could not be read.
    pub malformed: u64,
    /// Hours that the archive does not have, such as `2015-01-01-5`.
    pub missing: Vec<String>,
    /// Hours that could not be read to their end. What was read of them is kept.
    pub incomplete: Vec<String>,
    /// The period had been read by an earlier call; this one read nothing.
    pub was_finished: bool,
    /// The hour, if any, at which it stopped since the archive does not have it yet: the same call goes on
    /// there later.
    pub waits_for: Option<String>,
}

impl GhArchive {
    /// Reads every hour of a period into work items of the lowest priority; tells `progress` after each
    /// commit. An hour that is done is not read again: the same period goes on where an earlier call
    /// stopped, however that ended, and reads nothing when it was finished, unless with `force`.
    ///
    /// # Errors
    /// Those of the database; a server that cannot be reached, refuses, or asks to wait for more than two
    /// minutes. All hours before are done then.
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

    /// Reads the next hour, some more times if need be.
    async fn read_patiently(&self, sitting: &mut Sitting<'_>) -> Result<HourEnd, PollError> {
        let mut tries = 0;
        loop {
            let error = match sitting.read().await? {
                HourEnd::Broken(error) => error,
                ended => return Ok(ended),
            };
            let wait = self.retry_wait.saturating_mul(1 << tries);
            tries += 1;
            let wait = match &error {
                PollError::RateLimited { retry_after, .. } => retry_after.unwrap_or(wait),
                _ => wait,
            };
            if tries >= TRIES && error.concerns_an_hour() {
                return Ok(HourEnd::Broken(error));
            }
            if tries >= TRIES || wait > MAX_WAIT || error.is_refusal() {
                return Err(error);
            }
            let (source, words) = (&self.keeper.name, self.keeper.words(&error));
            let seconds = wait.as_secs();
            tracing::warn!(%source, error = %words, next_in_seconds = seconds, "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}

fn progress_of(period: Period, track: &Track) -> Progress {
    Progress {
        hour: track.next.to_string(),
        hours_done: track.next.since(period.from),
        hours: period.hours(),
        events: track.events,
        items: track.items,
        bytes: track.bytes,
    }
}

fn texts(runs: &Runs) -> Vec<String> {
    runs.hours().map(|hour| hour.to_string()).collect()
}
