//! Archives of GitHub's public events, one file per hour: GH Archive, and compatible ones.
//!
//! Source: <https://www.gharchive.org/>. Each hour since 2011-02-12 is a gzip file of JSON events, one per line, at
//! `{base_url}/{YYYY-MM-DD-H}.json.gz`, available a few minutes after the hour is over. Some hours are missing for
//! good.

mod backfill;
mod collect;
mod cursor;
mod hour;
mod split;
mod stream;

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use reqwest::Url;

use self::cursor::{Cursor, Reader, Track};
use self::hour::Hour;
use self::stream::{HourEnd, Sitting, Verdict};
use super::kept::Kept;
use super::state::{Frame, note_success};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::github::GitHubError;

pub use backfill::{BackfillOutcome, Progress};
pub use hour::{Period, PeriodError};

/// Time after the end of an hour before it is requested.
const SETTLED: SignedDuration = SignedDuration::from_mins(5);

/// Time after the end of an hour within which a missing or broken file may still appear or be repaired.
const RECENT: SignedDuration = SignedDuration::from_hours(6);

/// Delay before the next poll when the next hour is not available yet.
const NOT_YET: Duration = Duration::from_mins(10);

/// Delay before the next poll when there are more hours than one poll reads.
const MORE: Duration = Duration::from_secs(1);

/// Maximum number of hours per poll: a week, for a schedule that polls once a week.
const MAX_HOURS: usize = 7 * 24;

/// Maximum number of attempts to read an hour before it is skipped.
const TRIES: u32 = 5;

/// Minimum time between two attempts that count when the server fails: it is asked more often than that, and hours
/// must not be skipped because it was away for a few minutes.
const TRY_EVERY: SignedDuration = SignedDuration::from_mins(15);

/// Configuration of a source of the kind `gharchive`.
#[derive(Debug, Clone)]
pub struct GhArchiveOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// Base URL of the files.
    pub base_url: Url,
    /// Host that serves the contents, with its port unless it is the default one. Part of the identity of a work item.
    pub host: String,
    /// Backoff of a backfill before it tries an hour again; doubles with each further attempt.
    pub retry_wait: Duration,
}

impl GhArchiveOptions {
    /// Creates the configuration of an archive of github.com, with a backoff of two seconds.
    pub fn new(name: String, base_url: Url) -> Self {
        Self {
            name,
            base_url,
            host: "github.com".to_owned(),
            retry_wait: Duration::from_secs(2),
        }
    }
}

/// A source that reads an archive: new hours as they appear, and past periods on request.
#[derive(Debug)]
pub struct GhArchive {
    frame: Frame,
    base_url: Url,
    host: String,
    retry_wait: Duration,
}

impl GhArchive {
    /// Creates a source that is ready to be polled.
    ///
    /// # Errors
    /// Returns [`PollError::Api`] if `base_url` cannot be a base.
    pub fn new(options: GhArchiveOptions, parts: SourceParts) -> Result<Self, PollError> {
        if options.base_url.cannot_be_a_base() {
            return Err(PollError::Api(GitHubError::Address(
                "it cannot carry a path",
            )));
        }
        Ok(Self {
            frame: Frame::new(options.name, "gharchive", parts),
            base_url: options.base_url,
            host: options.host,
            retry_wait: options.retry_wait,
        })
    }

    /// Returns the URL that is read; part of the cursor.
    fn address(&self) -> &str {
        self.base_url.as_str()
    }

    async fn cursor(&self) -> Result<Kept<Cursor>, PollError> {
        let state = self.frame.state().await?;
        Ok(Kept::<Cursor>::load(&state.cursor, self.address()))
    }

    /// Returns whether the file of an hour may still appear or be repaired.
    fn is_recent(&self, hour: Hour) -> bool {
        self.frame.now().duration_since(hour.end()) < RECENT
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = self.follow().await;
        self.frame.ended(polled, Duration::ZERO, |_| {}).await
    }

    /// Reads the hours since the last poll, or the newest one on the first poll.
    async fn follow(&self) -> Result<PollOutcome, PollError> {
        let cursor = self.cursor().await?;
        let newest = Hour::of(self.frame.now()).plus(-1);
        let mut known = cursor.track(Reader::Schedule).cloned();
        if let Some(track) = known.as_mut().filter(|track| track.next > newest.plus(2)) {
            tracing::warn!(
                source = self.frame.name, hour = %track.next,
                "the archive was read up to an hour that is yet to come: this machine's clock was ahead, or is behind \
                 now; hours before the last six may have been passed over, `sources backfill` reads them"
            );
            track.begin_at(newest.plus(-6));
        }
        let is_first = known.is_none();
        let before = known.unwrap_or_else(|| Track::new(newest));
        let mut each = |_: &Track| {};
        let mut sitting = Sitting::new(self, Reader::Schedule, before.clone(), &mut each);
        if is_first {
            // Recorded before the first attempt: however long that takes to succeed, this is where reading starts.
            sitting.begin().await?;
        }
        let mut gap = false;
        let mut next_after = self.frame.interval(MORE);
        for _ in 0..MAX_HOURS {
            if let Some(wait) = self.until_settled(sitting.track.next) {
                next_after = wait;
                break;
            }
            let Some(verdict) = self.read_next(&mut sitting).await? else {
                next_after = self.frame.interval(NOT_YET);
                break;
            };
            sitting.finish(verdict).await?;
            gap |= verdict != Verdict::Whole;
        }
        let track = sitting.track;
        self.note_success(&track, next_after).await?;
        let outcome = PollOutcome {
            next_after,
            events: track.events - before.events,
            items: track.items - before.items,
            malformed: track.malformed - before.malformed,
            gap,
            more: false,
        };
        let source = &self.frame.name;
        if outcome.items > 0 {
            tracing::info!(%source, items = outcome.items, malformed = outcome.malformed, "new work items");
        }
        Ok(outcome)
    }

    /// Reads the next hour. Returns `None` if it is not available yet.
    async fn read_next(&self, sitting: &mut Sitting<'_>) -> Result<Option<Verdict>, PollError> {
        let is_recent = self.is_recent(sitting.track.next);
        let error = match sitting.read().await? {
            HourEnd::Whole => return Ok(Some(Verdict::Whole)),
            HourEnd::Missing => return Ok((!is_recent).then_some(Verdict::Missing)),
            HourEnd::Broken(error) => error,
        };
        let tried_at = sitting.track.tried_at.filter(|_| error.is_outage());
        let counts =
            tried_at.is_none_or(|at| self.frame.now().duration_since(at).abs() >= TRY_EVERY);
        // A server that is down for a while says nothing about any hour.
        if error.concerns_an_hour() && counts {
            sitting.note_try().await?;
        }
        if sitting.track.tries >= TRIES && !is_recent {
            return Ok(Some(Verdict::Incomplete));
        }
        Err(error)
    }

    /// Returns the delay until an hour is worth requesting, or `None` if it is now.
    fn until_settled(&self, hour: Hour) -> Option<Duration> {
        let due = hour.end().checked_add(SETTLED).ok()?;
        let wait = due.duration_since(self.frame.now());
        // At most an hour, in case the clock is behind and gets corrected.
        let wait = Duration::try_from(wait).ok()?.min(Duration::from_hours(1));
        Some(wait).filter(|wait| !wait.is_zero())
    }

    async fn note_success(&self, track: &Track, next_after: Duration) -> Result<(), PollError> {
        let now = self.frame.now();
        let mut state = self.frame.state().await?;
        let mut cursor = Kept::<Cursor>::load(&state.cursor, self.address());
        cursor.note(Reader::Schedule, track.clone());
        state.cursor = cursor.to_json();
        note_success(&mut state, now, next_after);
        let nothing = crate::forge::Gathered::default();
        self.frame.commit(&mut state, nothing).await?;
        Ok(())
    }
}

impl PollError {
    /// Returns whether the error is specific to one hour, rather than to the server as a whole or the connection to
    /// it.
    fn concerns_an_hour(&self) -> bool {
        matches!(self, Self::Hour { error, .. } if error.concerns_the_hour())
    }

    /// Returns whether trying again soon is pointless.
    fn is_refusal(&self) -> bool {
        use super::HourError::Refused;
        matches!(
            self,
            Self::Hour {
                error: Refused { .. },
                ..
            } | Self::Api(GitHubError::Address(_))
        )
    }
}

impl Source for GhArchive {
    fn name(&self) -> &str {
        &self.frame.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
        self.frame.due_in().boxed()
    }

    fn archive(&self) -> Option<&GhArchive> {
        Some(self)
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
