//! Archives of GitHub's public events, one file per hour: GH Archive, and what has its shape.
//!
//! Source: <https://www.gharchive.org/>. Each hour since 2011-02-12 is a gzip of JSON events, one per line,
//! at `{base_url}/{YYYY-MM-DD-H}.json.gz`, there a few minutes after the hour is over. Some hours are
//! missing for good.

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
use super::keeper::{Keeper, after};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};

pub use backfill::{BackfillOutcome, Progress};
pub use hour::{Period, PeriodError};

/// How long after its end an hour is asked for.
const SETTLED: SignedDuration = SignedDuration::from_mins(5);

/// How long an hour that is missing, or broken, may still come, or be mended.
const RECENT: SignedDuration = SignedDuration::from_hours(6);

/// The wait for an hour that is not there yet.
const NOT_YET: Duration = Duration::from_mins(10);

/// The wait when there are more hours than one poll reads.
const MORE: Duration = Duration::from_secs(1);

/// The most hours of one poll: a week, for a schedule that polls once a week.
const MAX_HOURS: usize = 7 * 24;

/// How often an hour is tried before it is passed over.
const TRIES: u32 = 5;

/// A source of the kind `gharchive`.
#[derive(Debug, Clone)]
pub struct GhArchiveOptions {
    /// Its name in the configuration.
    pub name: String,
    /// Where the files of hours are.
    pub base_url: Url,
    /// The host that serves the contents, with its port unless it is the usual one: part of what makes a
    /// work item unique.
    pub host: String,
    /// How long a backfill waits before it tries an hour again; it doubles with each further try.
    pub retry_wait: Duration,
}

impl GhArchiveOptions {
    /// An archive of github.com, whose backfills try again after two seconds.
    pub fn new(name: String, base_url: Url) -> Self {
        Self {
            name,
            base_url,
            host: "github.com".to_owned(),
            retry_wait: Duration::from_secs(2),
        }
    }
}

/// Reads an archive: the hours as they come, and periods of the past.
#[derive(Debug)]
pub struct GhArchive {
    keeper: Keeper,
    base_url: Url,
    host: String,
    retry_wait: Duration,
}

impl GhArchive {
    /// A source that is ready to be polled.
    ///
    /// # Errors
    /// [`PollError::Address`] when `base_url` cannot carry a path.
    pub fn new(options: GhArchiveOptions, parts: SourceParts) -> Result<Self, PollError> {
        if options.base_url.cannot_be_a_base() {
            return Err(PollError::Address("it cannot carry a path"));
        }
        Ok(Self {
            keeper: Keeper::new(options.name, "gharchive", parts),
            base_url: options.base_url,
            host: options.host,
            retry_wait: options.retry_wait,
        })
    }

    /// What is read.
    fn address(&self) -> &str {
        self.base_url.as_str()
    }

    async fn cursor(&self) -> Result<Cursor, PollError> {
        let state = self.keeper.state().await?;
        Ok(Cursor::load(&state.cursor, self.address()))
    }

    /// Whether an hour may still come, or be mended.
    fn is_recent(&self, hour: Hour) -> bool {
        self.keeper.now().duration_since(hour.end()) < RECENT
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        match self.follow().await {
            Ok(outcome) => {
                self.keeper.succeeded();
                Ok(outcome)
            }
            Err(error) => Err(self.keeper.failed(error).await),
        }
    }

    /// Reads the hours that came since the last poll; at the first poll the newest one.
    async fn follow(&self) -> Result<PollOutcome, PollError> {
        let cursor = self.cursor().await?;
        let newest = Hour::of(self.keeper.now()).plus(-1);
        let mut known = cursor.track(Reader::Schedule).cloned();
        if let Some(track) = known.as_mut().filter(|track| track.next > newest.plus(2)) {
            tracing::warn!(
                source = self.keeper.name, hour = %track.next,
                "the archive was read up to an hour that is yet to come: this machine's clock was ahead, or is behind \
                 now; hours before the last six may have been passed over, `sources backfill` reads them"
            );
            track.next = newest.plus(-6);
            (track.counted, track.tries) = (0, 0);
        }
        let is_first = known.is_none();
        let before = known.unwrap_or_else(|| Track::new(newest));
        let mut each = |_: &Track| {};
        let mut sitting = Sitting::new(self, Reader::Schedule, before.clone(), &mut each);
        if is_first {
            // However long the first try takes to succeed, this is where it begins.
            sitting.begin().await?;
        }
        let mut gap = false;
        let mut next_after = self.keeper.interval(MORE);
        for _ in 0..MAX_HOURS {
            if let Some(wait) = self.until_settled(sitting.track.next) {
                next_after = wait;
                break;
            }
            let Some(verdict) = self.read_next(&mut sitting).await? else {
                next_after = self.keeper.interval(NOT_YET);
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
        };
        let source = &self.keeper.name;
        if outcome.items > 0 {
            tracing::info!(%source, items = outcome.items, malformed = outcome.malformed, "new work items");
        }
        Ok(outcome)
    }

    /// Reads the next hour. Nothing if it is not there yet.
    async fn read_next(&self, sitting: &mut Sitting<'_>) -> Result<Option<Verdict>, PollError> {
        let is_recent = self.is_recent(sitting.track.next);
        let error = match sitting.read().await? {
            HourEnd::Whole => return Ok(Some(Verdict::Whole)),
            HourEnd::Missing => return Ok((!is_recent).then_some(Verdict::Missing)),
            HourEnd::Broken(error) => error,
        };
        // A server that is down for a while says nothing about any hour.
        if error.concerns_an_hour() {
            sitting.note_try().await?;
        }
        if sitting.track.tries >= TRIES && !is_recent {
            return Ok(Some(Verdict::Incomplete));
        }
        Err(error)
    }

    /// How long to wait until an hour is worth asking for.
    fn until_settled(&self, hour: Hour) -> Option<Duration> {
        let due = hour.end().checked_add(SETTLED).ok()?;
        let wait = due.duration_since(self.keeper.now());
        // Not longer than to the next hour, should the clock be behind and be set.
        let wait = Duration::try_from(wait).ok()?.min(Duration::from_hours(1));
        Some(wait).filter(|wait| !wait.is_zero())
    }

    async fn note_success(&self, track: &Track, next_after: Duration) -> Result<(), PollError> {
        let now = self.keeper.now();
        let mut state = self.keeper.state().await?;
        let mut cursor = Cursor::load(&state.cursor, self.address());
        cursor.note(Reader::Schedule, track.clone());
        state.cursor = cursor.to_json();
        state.polls += 1;
        state.polled_at = Some(now);
        state.succeeded_at = Some(now);
        state.next_poll_at = after(now, next_after);
        state.error = None;
        let nothing = crate::forge::Gathered::default();
        self.keeper.commit(&mut state, &nothing).await?;
        Ok(())
    }
}

impl PollError {
    /// Whether it tells of one hour, not only of the server as a whole or the way to it.
    fn concerns_an_hour(&self) -> bool {
        matches!(self, Self::Hour { error, .. } if error.concerns_the_hour())
    }

    /// Whether trying again soon is of no use.
    fn is_refusal(&self) -> bool {
        use super::HourError::Refused;
        matches!(
            self,
            Self::Hour {
                error: Refused { .. },
                ..
            } | Self::Address(_)
        )
    }
}

impl Source for GhArchive {
    fn name(&self) -> &str {
        &self.keeper.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Duration, PollError>> {
        self.keeper.due_in().boxed()
    }

    fn archive(&self) -> Option<&GhArchive> {
        Some(self)
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
