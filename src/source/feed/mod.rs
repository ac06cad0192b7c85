//! GitHub's events API, and compatible ones.
//!
//! Source: <https://docs.github.com/en/rest/activity/events>. The feed shows the 300 newest events on three pages, 30
//! seconds to 6 hours late and out of order. An unchanged page is free (`ETag`, 304). `X-Poll-Interval` is the minimum
//! interval between two polls, in seconds.

mod aside;
mod cursor;
mod envelope;
mod event;
mod gather;
mod payload;
mod reading;
mod repair;
mod scalar;
mod scope;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use reqwest::Url;
use tokio::time::Instant;

use super::kept::Kept;
use super::state::{Frame, after, note_success};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::github::{Api, INTERVAL, Tokens};
use crate::store::SourceState;

use aside::Time;
use cursor::Cursor;
pub(super) use event::Event;
pub(super) use gather::{EventCounts, Taking};
use reading::{PAGES, Reading};
use repair::LATE;
pub use scope::Scope;

use crate::github::Credential;

/// Time without a successful poll after which a watched scope is compared with the activity of its repositories.
const LONG: SignedDuration = SignedDuration::from_mins(30);

/// Configuration of a source of the kind `github_events`.
#[derive(Debug, Clone)]
pub struct GitHubOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// Scope of the events to read.
    pub scope: Scope,
    /// Base URL of the REST API, such as `https://api.github.com`.
    pub api_url: Url,
    /// Host that serves the contents, with its port unless it is the default one. Part of the identity of a work item.
    pub host: String,
    /// Access tokens, each with its own rate limit. If empty, requests are sent without a token.
    pub credentials: Vec<Credential>,
}

/// A source that polls GitHub's events API.
#[derive(Debug)]
pub struct GitHubEvents {
    options: GitHubOptions,
    frame: Frame,
    api: Api,
    /// URL that is polled; part of the cursor.
    address: String,
    /// `true` once this process has polled successfully.
    has_polled: AtomicBool,
}

impl GitHubEvents {
    /// Creates a source that is ready to be polled.
    ///
    /// # Errors
    /// Returns [`PollError::Api`] if `api_url` cannot be a base.
    pub fn new(options: GitHubOptions, parts: SourceParts) -> Result<Self, PollError> {
        let tokens = Tokens::new(options.credentials.clone());
        let base = options.api_url.clone();
        let api = Api::new(parts.client.clone(), base, Arc::clone(&parts.clock), tokens)?;
        let path = [&options.scope.path()[..], &["events"]].concat();
        Ok(Self {
            address: api.url(&path, &[]).into(),
            api,
            frame: Frame::new(options.name.clone(), "github_events", parts),
            options,
            has_polled: AtomicBool::new(false),
        })
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = Box::pin(self.try_poll()).await;
        let pace = self.api.tokens.pace(self.frame.now());
        let quota = |state: &mut SourceState| self.note_quota_of_failure(state);
        self.frame.ended(polled, pace, quota).await
    }

    async fn try_poll(&self) -> Result<PollOutcome, PollError> {
        let mut state = self.frame.state().await?;
        let mut cursor = Kept::<Cursor>::load(&state.cursor, &self.address);
        let mut reading = self.read(&cursor).await?;
        let mut last = reading.last.take();
        let mut outcome = self.commit(&mut state, &mut cursor, reading).await?;
        self.has_polled.store(true, Ordering::Relaxed);
        let interval = outcome.next_after;
        let due = Instant::now() + interval;
        if cursor.repair.is_some() {
            // Its requests take as long as the server likes.
            last = None;
            match self.repair(&mut state, &mut cursor).await {
                Ok(found) => outcome.items += found,
                Err(error) => {
                    let (source, error) = (&self.frame.name, self.frame.words(&error));
                    tracing::warn!(%source, %error, "reading the activity of repositories failed, will retry");
                }
            }
            outcome.next_after = outcome.next_after.max(self.quota_wait());
        }
        if !cursor.aside.is_empty() {
            // By a schedule, the next poll may be far away.
            let until = (!self.frame.parts.is_scheduled).then_some(due);
            let time = Time::until(until, interval);
            let read = self.read_aside(&mut state, &mut cursor, last, time);
            match Box::pin(read).await {
                Ok(gap) => outcome.gap |= gap,
                Err(error) => {
                    let (source, error) = (&self.frame.name, self.frame.words(&error));
                    tracing::warn!(%source, %error, "reading events that name many keys failed, will retry");
                }
            }
            let left = due.saturating_duration_since(Instant::now());
            outcome.next_after = left.max(self.quota_wait());
        }
        Ok(outcome)
    }

    /// Commits what is left of the events that were read, the cursor, and the state in one transaction.
    async fn commit(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        reading: Reading,
    ) -> Result<PollOutcome, PollError> {
        let now = self.frame.now();
        // Behind an event that was read before there is only what the feed shows late.
        let is_complete = reading.incomplete.is_none() || reading.overlaps;
        let gap = is_complete && !reading.overlaps && !cursor.is_new() && !reading.ids.is_empty();
        let told = reading.interval;
        let interval = told.unwrap_or_else(|| self.frame.interval(INTERVAL));
        let next_after = interval.max(self.quota_wait());
        let Reading {
            counts,
            mut gathered,
            ..
        } = reading;
        gathered.malformed += counts.malformed;
        gathered.wrong = counts.wrong.or(gathered.wrong);
        let malformed = gathered.malformed;

        if reading.is_whole && reading.incomplete.is_none() {
            cursor.read_all(now);
        }
        self.note_gap(state, cursor, gap, reading.times.map(|(oldest, _)| oldest));
        let lost = cursor.put_aside(reading.aside);
        if lost > 0 {
            self.note_lost(state, lost);
        }
        if is_complete {
            cursor.remember(reading.ids);
            for (token, page, etag) in reading.tags {
                cursor.tag(token, page, etag);
            }
        } else {
            cursor.remember_ahead(reading.ids);
        }
        state.cursor = cursor.to_json();
        note_success(state, now, next_after);
        let newest = reading.times.map(|(_, newest)| newest);
        // Gaps are repaired from there on. Any event may name a time that is yet to come.
        let newest = state.newest_event_at.max(newest);
        state.newest_event_at = newest.map(|at| at.min(now));
        let incomplete = reading.incomplete.map(|error| self.frame.words(&error));
        state.error = incomplete.or_else(|| self.api.tokens.complaint(now));
        state.events += counts.events;
        state.unknown += counts.unknown;
        self.note_quota(state);
        state.items += reading.added;
        let added = reading.added + self.frame.commit(state, gathered).await?;

        self.tell(state, added, gap, counts.wrong);
        Ok(PollOutcome {
            next_after,
            events: counts.events,
            items: added,
            malformed,
            gap: gap || lost > 0,
            more: false,
        })
    }

    /// Records what was missed, and requests a repair where one is possible.
    fn note_gap(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        gap: bool,
        oldest: Option<jiff::Timestamp>,
    ) {
        let known = state.newest_event_at;
        if gap {
            state.gaps += 1;
            let time = |at: Option<jiff::Timestamp>| {
                at.map_or("an unknown time".to_owned(), |at| at.to_string())
            };
            let (from, to, gaps) = (time(known), time(oldest), state.gaps);
            let hint = match self.options.scope {
                Scope::Public => "the public feed is a sample",
                _ => "pushes are looked for again, texts of issues and comments cannot be",
            };
            state.unseen = Some(format!(
                "between {from} and {to} events may have been missed ({hint}); {gaps} gaps so far"
            ));
        }
        let was_away = state
            .succeeded_at
            .is_none_or(|at| self.frame.now().duration_since(at) >= LONG);
        let is_due = gap || was_away || !self.has_polled.load(Ordering::Relaxed);
        if is_due
            && self.options.scope != Scope::Public
            && !cursor.is_new()
            && let Some(since) = known.and_then(|at| at.checked_sub(LATE).ok())
        {
            cursor.want_repair(since);
        }
    }

    /// Saves the cursor and the state after a repair.
    async fn save(&self, state: &mut SourceState, cursor: &Kept<Cursor>) -> Result<(), PollError> {
        let due = after(self.frame.now(), self.quota_wait());
        state.next_poll_at = state.next_poll_at.max(due);
        state.cursor = cursor.to_json();
        self.note_quota(state);
        let nothing = self.frame.gatherer().gathered;
        self.frame.commit(state, nothing).await.map(drop)
    }

    /// Returns the delay until another poll can use all its pages within the rate limit.
    fn quota_wait(&self) -> Duration {
        self.api.tokens.wait(u64::from(PAGES), self.frame.now())
    }

    fn note_quota(&self, state: &mut SourceState) {
        let quota = self.api.tokens.quota(self.frame.now());
        state.rate_limit = quota.limit;
        state.rate_remaining = quota.remaining;
        state.rate_resets_at = quota.resets_at;
    }

    /// Like `note_quota`, but keeps what was known before the start if this process was told nothing yet.
    fn note_quota_of_failure(&self, state: &mut SourceState) {
        let known = state.rate_limit;
        if self.api.tokens.quota(self.frame.now()).remaining.is_some() {
            self.note_quota(state);
            state.rate_limit = state.rate_limit.or(known);
        }
    }

    fn tell(&self, state: &SourceState, added: u64, gap: bool, wrong: Option<&'static str>) {
        let source = &self.frame.name;
        if gap {
            tracing::warn!(%source, gaps = state.gaps, "events between two polls may have been missed");
        }
        if let Some(error) = &state.error {
            tracing::warn!(%source, %error, "the poll was incomplete");
        }
        if let Some(wrong) = wrong {
            tracing::warn!(%source, malformed = state.malformed, wrong, "an event cannot be read");
        }
        if added > 0 {
            tracing::info!(%source, items = added, "new work items");
        }
    }
}

impl Source for GitHubEvents {
    fn name(&self) -> &str {
        &self.frame.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
        self.frame.due_in().boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
