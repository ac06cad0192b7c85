//! GitHub's events API, and what has its shape.
//!
//! Source: <https://docs.github.com/en/rest/activity/events>. The feed shows the 300 newest events in three
//! pages, 30 seconds to 6 hours late and not in order; an unchanged first page costs nothing (`ETag`, 304);
//! `X-Poll-Interval` says how often one may ask.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::Url;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::api::{Api, INTERVAL, PAGES, Quota};
use super::cursor::Cursor;
use super::event::{self, Event, Meaning};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::forge::{Gathered, Gatherer};
use crate::respond::{Answer, announce, redact};
use crate::store::{Priority, Reason, SourceState, Tx};

/// The wait after a first failure; it doubles with each further one.
const BACK_OFF: Duration = Duration::from_secs(15);

/// The longest wait after a failure, unless the server asks for more.
const MAX_BACK_OFF: Duration = Duration::from_mins(15);

/// Which events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All public ones.
    Public,
    /// Those of one organisation's public repositories.
    Organization(String),
    /// Those done by one user.
    User(String),
    /// Those of one repository.
    Repository {
        /// Its owner.
        owner: String,
        /// Its own name.
        name: String,
    },
}

impl Scope {
    fn segments(&self) -> Vec<&str> {
        match self {
            Self::Public => vec!["events"],
            Self::Organization(name) => vec!["orgs", name, "events"],
            Self::User(name) => vec!["users", name, "events"],
            Self::Repository { owner, name } => vec!["repos", owner, name, "events"],
        }
    }

    fn priority(&self) -> Priority {
        match self {
            Self::Public => Priority::Firehose,
            _ => Priority::Watched,
        }
    }
}

/// A source of the kind `github_events`.
#[derive(Debug, Clone)]
pub struct GitHubOptions {
    /// Its name in the configuration.
    pub name: String,
    /// Which events it reads.
    pub scope: Scope,
    /// The base of the REST API, such as `https://api.github.com`.
    pub api_url: Url,
    /// The host that serves the contents, with its port unless it is the usual one: part of what makes a
    /// work item unique.
    pub host: String,
    /// An access token; sent with every request.
    pub token: Option<SecretString>,
}

/// Polls GitHub's events API.
#[derive(Debug)]
pub struct GitHubEvents {
    options: GitHubOptions,
    parts: SourceParts,
    api: Api,
    failures: AtomicU32,
}

/// What was read in one poll.
struct Reading {
    /// New events, newest first as the feed shows them.
    events: Vec<Event>,
    /// The ids of all events, newest first.
    ids: Vec<String>,
    overlaps: bool,
    etag: Option<String>,
    interval: Duration,
    quota: Quota,
    /// What kept the later pages from being read.
    incomplete: Option<PollError>,
}

impl GitHubEvents {
    /// A source that is ready to be polled.
    ///
    /// # Errors
    /// [`PollError::Address`] when `api_url` cannot carry a path.
    pub fn new(options: GitHubOptions, parts: SourceParts) -> Result<Self, PollError> {
        let mut address = options.api_url.clone();
        address
            .path_segments_mut()
            .map_err(|()| PollError::Address("it cannot carry a path"))?
            .pop_if_empty()
            .extend(options.scope.segments());
        Ok(Self {
            api: Api::new(parts.client.clone(), address, options.token.clone()),
            options,
            parts,
            failures: AtomicU32::new(0),
        })
    }

    async fn state(&self) -> Result<SourceState, PollError> {
        let state = self.parts.store.load_source(&self.options.name).await?;
        Ok(state.unwrap_or_else(|| SourceState {
            name: self.options.name.clone(),
            kind: "github_events".to_owned(),
            ..SourceState::default()
        }))
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = match self.state().await {
            Ok(state) => self.read_and_commit(state).await,
            Err(error) => Err(error),
        };
        match polled {
            Ok(outcome) => {
                self.failures.store(0, Ordering::Relaxed);
                Ok(outcome)
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn read_and_commit(&self, state: SourceState) -> Result<PollOutcome, PollError> {
        let cursor = Cursor::load(&state.cursor, self.api.address());
        let reading = self.read(&cursor).await?;
        self.commit(state, cursor, reading).await
    }

    /// Reads pages until one holds something that was seen before.
    async fn read(&self, cursor: &Cursor) -> Result<Reading, PollError> {
        let seen = cursor.seen();
        let mut reading = Reading {
            events: Vec::new(),
            ids: Vec::new(),
            overlaps: false,
            etag: None,
            interval: INTERVAL,
            quota: Quota::default(),
            incomplete: None,
        };
        for number in 1..=PAGES {
            match self.read_page(number, cursor, &seen, &mut reading).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if number == 1 => return Err(error),
                Err(error) => {
                    reading.incomplete = Some(error);
                    break;
                }
            }
        }
        Ok(reading)
    }

    /// Reads one page into `reading`; says whether the next one is worth asking for.
    async fn read_page(
        &self,
        number: u32,
        cursor: &Cursor,
        seen: &HashSet<String>,
        reading: &mut Reading,
    ) -> Result<bool, PollError> {
        let etag = cursor.etag.as_deref().filter(|_| number == 1);
        let answer = self.api.page(number, etag).await?;
        reading.quota = answer.quota;
        if number == 1 {
            reading.interval = answer.interval;
            reading.etag.clone_from(&answer.etag);
        }
        let Some(body) = &answer.body else {
            reading.overlaps = true;
            reading.etag.clone_from(&cursor.etag);
            return Ok(false);
        };
        let events: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| PollError::NotAList(kind_of(&error)))?;
        let count = events.len();
        let before = reading.ids.len();
        for event in events
            .into_iter()
            .map(|raw| event::read(raw, &self.options.host))
        {
            match &event.id {
                Some(id) if seen.contains(id) => reading.overlaps = true,
                // Events that came between two requests move others to the next page.
                Some(id) if reading.ids[..before].contains(id) => {}
                Some(id) => {
                    reading.ids.push(id.clone());
                    reading.events.push(event);
                }
                None => reading.events.push(event),
            }
        }
        Ok(!reading.overlaps && answer.has_next(count))
    }

    /// Commits new work items, what names gave away, the cursor and the state, all or nothing.
    async fn commit(
        &self,
        mut state: SourceState,
        mut cursor: Cursor,
        reading: Reading,
    ) -> Result<PollOutcome, PollError> {
        let SourceParts { store, clock, .. } = &self.parts;
        let now = clock.now();
        let gap = !reading.overlaps && !cursor.is_new() && !reading.ids.is_empty();
        let wait = reading.quota.wait(now).unwrap_or_default();
        let next_after = reading.interval.max(wait);
        let events = reading.events.len() as u64;
        let newest = reading.events.iter().filter_map(|event| event.at).max();
        let gathered = self.gather(&reading.events, now);

        cursor.remember(reading.ids);
        // After an incomplete reading the first page is wanted again, changed or not.
        cursor.etag = reading.etag.filter(|_| reading.incomplete.is_none());
        state.cursor = cursor.to_json();
        state.polled_at = Some(now);
        state.succeeded_at = Some(now);
        state.next_poll_at = after(now, next_after);
        state.newest_event_at = state.newest_event_at.max(newest);
        state.error = reading.incomplete.as_ref().map(|error| self.words(error));
        state.polls += 1;
        state.events += events;
        state.gaps += u64::from(gap);
        state.malformed += gathered.malformed;
        reading.quota.note(&mut state);

        let mut tx = store.begin().await?;
        let added = tx.add_work_items(&gathered.items, now).await?;
        state.items += added;
        let answers = self.respond_to_names(&mut tx, &gathered).await?;
        tx.save_source(&state).await?;
        tx.commit().await?;
        announce(&answers, &self.actor());
        self.tell(added, gap, &gathered, &state);
        Ok(PollOutcome {
            next_after,
            events,
            items: added,
            malformed: gathered.malformed,
            gap,
        })
    }

    fn gather(&self, events: &[Event], now: Timestamp) -> Gathered {
        let SourceParts {
            responder, engine, ..
        } = &self.parts;
        let source = &self.options.name;
        let mut gatherer = Gatherer::new(source, responder.formats(), engine, now);
        for event in events {
            match &event.meaning {
                Meaning::Push(push) => {
                    let at = event.at.unwrap_or(now);
                    gatherer.push(push, self.options.scope.priority(), at);
                }
                Meaning::Other => {}
                Meaning::Malformed(wrong) => {
                    gatherer.gathered.malformed += 1;
                    tracing::warn!(%source, event = event.id, wrong, "an event cannot be read");
                }
            }
        }
        gatherer.gathered
    }

    async fn respond_to_names(
        &self,
        tx: &mut Tx,
        gathered: &Gathered,
    ) -> Result<Vec<Answer>, PollError> {
        if gathered.sightings.is_empty() {
            return Ok(Vec::new());
        }
        let responder = &self.parts.responder;
        let actor = self.actor();
        let sightings = &gathered.sightings;
        Ok(responder
            .report_in(tx, sightings, Reason::Leaked, &actor)
            .await?)
    }

    fn actor(&self) -> String {
        format!("source:{}", self.options.name)
    }

    fn tell(&self, added: u64, gap: bool, gathered: &Gathered, state: &SourceState) {
        let source = &self.options.name;
        if gap {
            tracing::warn!(%source, gaps = state.gaps, "events between two polls may have been missed");
        }
        if let Some(error) = &state.error {
            tracing::warn!(%source, %error, "not all pages could be read");
        }
        if added > 0 {
            tracing::info!(%source, items = added, malformed = gathered.malformed, "new work items");
            self.parts.wake.notify_one();
        }
    }

    /// Notes a failure in the source's state, and works out when to try again.
    async fn failed(&self, error: PollError) -> PollFailure {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let back_off = BACK_OFF
            .saturating_mul(1 << failures.min(16))
            .min(MAX_BACK_OFF);
        let told = match error {
            PollError::RateLimited { retry_after, .. } => retry_after.unwrap_or(INTERVAL),
            PollError::Refused { .. } => INTERVAL,
            _ => Duration::ZERO,
        };
        let next_after = back_off.max(told);
        let source = &self.options.name;
        let words = self.words(&error);
        let seconds = next_after.as_secs();
        tracing::warn!(%source, error = %words, next_in_seconds = seconds, "the poll failed");
        if let Err(error) = self.note_failure(words, next_after).await {
            tracing::warn!(%source, %error, "the failure could not be noted");
        }
        PollFailure { error, next_after }
    }

    async fn note_failure(&self, words: String, next_after: Duration) -> Result<(), PollError> {
        let now = self.parts.clock.now();
        let mut state = self.state().await?;
        state.polls += 1;
        state.polled_at = Some(now);
        state.next_poll_at = after(now, next_after);
        state.error = Some(words);
        let mut tx = self.parts.store.begin().await?;
        tx.save_source(&state).await?;
        tx.commit().await?;
        Ok(())
    }

    /// An error's text, without keys that a server may have put there.
    fn words(&self, error: &PollError) -> String {
        redact(self.parts.responder.formats(), &error.to_string()).into_owned()
    }
}

impl Source for GitHubEvents {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Duration, PollError>> {
        async move {
            let next = self.state().await?.next_poll_at;
            let wait = next.map(|at| at.duration_since(self.parts.clock.now()));
            Ok(wait
                .and_then(|wait| wait.try_into().ok())
                .unwrap_or_default())
        }
        .boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}

fn after(now: Timestamp, wait: Duration) -> Option<Timestamp> {
    now.checked_add(wait).ok()
}

fn kind_of(error: &serde_json::Error) -> &'static str {
    if error.is_data() {
        "it is JSON, but no array"
    } else {
        "it is no JSON"
    }
}
