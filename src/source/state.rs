//! Handling of source state that is shared by all sources: loading it, committing it together with the findings, and
//! recording failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::{PollError, PollFailure, PollOutcome, SourceParts};
use crate::backoff::Backoff;
use crate::forge::{Gathered, Gatherer, MessagePlace, ToldItem, actor_of, redact_message};
use crate::github::GitHubError;
use crate::respond::{Candidates, CleanSightings, LITTLE, Report, Reported};
use crate::store::{Reason, SourceState, StoreError, retried};

/// Number of candidates at which they are looked up and committed before more are gathered.
const MANY_CANDIDATES: usize = 1_024;

/// Size of the work items, in bytes, at which they are committed before more are gathered.
const MANY_BYTES: usize = 64 << 10;

/// Maximum backoff, unless the server asks for more.
const BACKOFF_MAX: Duration = Duration::from_mins(15);

/// Backoff after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(15), BACKOFF_MAX);

/// Backoff in an outage: 15 to 30 seconds. It does not grow: whatever leaks when the server is back is found that soon.
/// It is random, so that not all who wait for a server come at once.
const OUTAGE: Backoff = Backoff::steady(Duration::from_millis(22_500)).with_jitter(1.0 / 3.0);

/// Backoff when the server throttles without a `Retry-After`, or refuses the request. GitHub requires at least one
/// minute, increasing with each further failure:
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.
const SLOWER: Backoff = Backoff::new(Duration::from_mins(1), BACKOFF_MAX);

/// State of one source, and its dependencies.
#[derive(Debug)]
pub(super) struct Frame {
    /// Name of the source in the configuration.
    pub(super) name: String,
    /// Kind of the source in the configuration.
    kind: &'static str,
    pub(super) parts: SourceParts,
    /// Number of consecutive failures that were no outages.
    failures: AtomicU32,
}

impl Frame {
    pub(super) fn new(name: String, kind: &'static str, parts: SourceParts) -> Self {
        Self {
            name,
            kind,
            parts,
            failures: AtomicU32::new(0),
        }
    }

    /// Returns the delay before the next poll when the server asked for none: `own`, or zero if a schedule decides
    /// instead.
    pub(super) fn interval(&self, own: Duration) -> Duration {
        if self.parts.is_scheduled {
            return Duration::ZERO;
        }
        own
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Loads the state of the source, or the initial state if it was never polled.
    pub(super) async fn state(&self) -> Result<SourceState, PollError> {
        self.state_of(&self.name).await
    }

    /// Loads the state that is stored under `name`, or the initial state if there is none.
    pub(super) async fn state_of(&self, name: &str) -> Result<SourceState, PollError> {
        let state = self.parts.store.load_source(name).await?;
        Ok(state.unwrap_or_else(|| SourceState {
            name: name.to_owned(),
            kind: self.kind.to_owned(),
            ..SourceState::default()
        }))
    }

    /// Returns the delay before the next poll is due, as recorded by the last one, or `None` if that met an outage.
    pub(super) async fn due_in(&self) -> Result<Option<Duration>, PollError> {
        let (state, now) = (self.state().await?, self.now());
        if state.is_ahead(now) {
            let polled_at = state.polled_at.unwrap_or_default();
            tracing::warn!(
                source = self.name, %polled_at,
                "the source was polled at a time that is yet to come: this machine's clock was ahead, or is behind now"
            );
        }
        Ok((!state.is_due_again()).then(|| state.due_in(now)))
    }

    /// Creates a gatherer that collects work items and findings on behalf of this source.
    pub(super) fn gatherer(&self) -> Gatherer<'_> {
        let redactor = self.parts.responder.redactor();
        Gatherer::new(&self.name, redactor, &self.parts.engine, self.now())
    }

    /// Creates a gatherer that is full at about `room` candidates.
    pub(super) fn gatherer_with(&self, room: usize) -> Gatherer<'_> {
        let mut gatherer = self.gatherer();
        gatherer.gathered = Gathered::with_room(self.now(), room);
        gatherer
    }

    /// Commits work items, the keys found in texts and names, and the state in one transaction, or in several if there
    /// are many keys: the state comes with the last one. Adds the counts to `state` and returns the number of new work
    /// items.
    pub(super) async fn commit(
        &self,
        state: &mut SourceState,
        mut gathered: Gathered,
    ) -> Result<u64, PollError> {
        let sightings = gathered.candidates.take_ours(&self.parts.store).await?;
        let mut pieces = sightings.in_pieces(LITTLE);
        let last = pieces.pop().unwrap_or_default();
        let early = self.write_pieces(&mut gathered.items, pieces).await?;
        state.items += early;
        let before = (state.items, state.texts, state.malformed);
        state.texts += gathered.texts;
        state.malformed += gathered.malformed;
        let wrong = gathered.wrong;
        match self
            .write(&gathered.items, &last, Some((state, wrong)))
            .await
        {
            Ok(added) => {
                state.items += added;
                Ok(early + added)
            }
            Err(error) => {
                (state.items, state.texts, state.malformed) = before;
                Err(error)
            }
        }
    }

    /// Commits work items, and the keys found in texts and names, before the state. Returns the number of new work
    /// items, which are counted in the database: the caller adds them to the state that it commits later.
    pub(super) async fn commit_early(&self, gathered: &mut Gathered) -> Result<u64, PollError> {
        let sightings = gathered.candidates.take_ours(&self.parts.store).await?;
        if sightings.is_empty() && gathered.items.is_empty() {
            return Ok(0);
        }
        let pieces = sightings.in_pieces(LITTLE);
        self.write_pieces(&mut gathered.items, pieces).await
    }

    /// Commits sightings, and all work items with the first piece of them.
    async fn write_pieces(
        &self,
        items: &mut Vec<ToldItem>,
        pieces: Vec<CleanSightings>,
    ) -> Result<u64, PollError> {
        let mut added = 0;
        for piece in pieces {
            added += self.write(items, &piece, None).await?;
            items.clear();
        }
        Ok(added)
    }

    async fn write(
        &self,
        items: &[ToldItem],
        sightings: &CleanSightings,
        state: Option<(&SourceState, Option<&'static str>)>,
    ) -> Result<u64, PollError> {
        let (added, reported) = retried(|| self.write_once(items, sightings, state)).await?;
        reported.announce();
        if added > 0 {
            self.parts.wake.notify_one();
        }
        Ok(added)
    }

    /// Looks up candidates and drops all but the first of each key that leaked, at most so many.
    pub(super) async fn retain_first(
        &self,
        candidates: &mut Candidates<MessagePlace>,
        most: usize,
    ) -> Result<(), PollError> {
        Ok(candidates.retain_first(&self.parts.store, most).await?)
    }

    /// Looks up candidates and drops those that are nobody's. Returns the number of those that are left.
    pub(super) async fn retain_ours(
        &self,
        candidates: &mut Candidates<MessagePlace>,
    ) -> Result<usize, PollError> {
        Ok(candidates.retain_ours(&self.parts.store).await?)
    }

    /// Returns whether so much was gathered that it should be committed before there is more: there may be many sources,
    /// whose pages come slowly.
    pub(super) fn has_many(gathered: &Gathered) -> bool {
        let candidates = &gathered.candidates;
        let is_many = candidates.len() >= MANY_CANDIDATES || candidates.is_full();
        is_many || gathered.item_bytes() >= MANY_BYTES
    }

    /// Reports the keys of a message that names many of them, when it is its turn.
    pub(super) async fn report_many(
        &self,
        candidates: &Candidates<MessagePlace>,
    ) -> Result<(), PollError> {
        let (responder, actor) = (&self.parts.responder, self.actor());
        Ok(responder.report_candidates(candidates, &actor).await?)
    }

    async fn write_once(
        &self,
        items: &[ToldItem],
        sightings: &CleanSightings,
        state: Option<(&SourceState, Option<&'static str>)>,
    ) -> Result<(u64, Reported), StoreError> {
        let mut tx = self.parts.store.begin().await?;
        let items: Vec<_> = items.iter().map(ToldItem::to_item).collect();
        let added = tx.add_work_items(&items, self.now()).await?;
        drop(items);
        match state {
            Some((state, wrong)) => {
                tx.save_source_with(state, added).await?;
                if let Some(wrong) = wrong {
                    tx.note_unread(&state.name, wrong).await?;
                }
            }
            // The poll may fail, and whoever polls next finds nothing new.
            None if added > 0 => {
                tx.count_items_of_source(&self.name, self.kind, added)
                    .await?;
            }
            None => {}
        }
        let report = Report {
            sightings,
            reason: Reason::Leaked,
            actor: &self.actor(),
        };
        let reported = self.parts.responder.report_in(&mut tx, &[report]).await?;
        tx.commit().await?;
        Ok((added, reported))
    }

    fn actor(&self) -> String {
        actor_of(&self.name)
    }

    /// Returns the outcome of a poll. A failure is recorded in the source's state, with `change`, and has the delay
    /// before the next attempt. In an outage that is at least `pace`, which a rate limit of the server allows.
    pub(super) async fn ended(
        &self,
        polled: Result<PollOutcome, PollError>,
        pace: Duration,
        change: impl FnOnce(&mut SourceState) + Send,
    ) -> Result<PollOutcome, PollFailure> {
        match polled {
            Ok(outcome) => {
                self.failures.store(0, Ordering::Relaxed);
                Ok(outcome)
            }
            Err(error) => Err(self.failed(error, pace, change).await),
        }
    }

    async fn failed(
        &self,
        error: PollError,
        pace: Duration,
        change: impl FnOnce(&mut SourceState) + Send,
    ) -> PollFailure {
        let (next_after, due_after) = if error.is_outage() {
            // Whoever starts anew need not wait.
            (OUTAGE.after(0).max(pace), Duration::ZERO)
        } else {
            let failures = self.failures.fetch_add(1, Ordering::Relaxed);
            let mut wait = wait_after(&error, failures);
            if !error.asks_for_peace() {
                wait = self.interval(wait);
            }
            // A refusal may have been mended before the restart. How long a server asked to be left alone holds.
            let due_after = if error.is_for_the_operator() {
                Duration::ZERO
            } else {
                wait
            };
            (wait, due_after)
        };
        let source = &self.name;
        let words = self.words(&error);
        let seconds = next_after.as_secs();
        tracing::warn!(%source, error = %words, next_in_seconds = seconds, "the poll failed");
        if let Err(error) = self.note_failure(words, due_after, change).await {
            tracing::warn!(%source, %error, "saving the failure of the poll failed");
        }
        PollFailure { error, next_after }
    }

    async fn note_failure(
        &self,
        words: String,
        due_after: Duration,
        change: impl FnOnce(&mut SourceState) + Send,
    ) -> Result<(), PollError> {
        let now = self.now();
        let mut state = self.state().await?;
        note_poll(&mut state, now, due_after);
        state.error = Some(words);
        change(&mut state);
        let noted = retried(|| async {
            let mut tx = self.parts.store.begin().await?;
            tx.save_source(&state).await?;
            tx.commit().await
        });
        Ok(noted.await?)
    }

    /// Returns a text that is safe for the state and the log, with any keys the server may have put there redacted.
    pub(super) fn words(&self, text: &impl ToString) -> String {
        redact_message(self.parts.responder.redactor(), &text.to_string())
    }
}

/// Records in `state` that the source was polled successfully at `now`. The caller commits it, with what else it
/// changes.
pub(super) fn note_success(state: &mut SourceState, now: Timestamp, next_after: Duration) {
    note_poll(state, now, next_after);
    state.succeeded_at = Some(now);
    state.error = None;
}

fn note_poll(state: &mut SourceState, now: Timestamp, next_after: Duration) {
    state.polls += 1;
    state.polled_at = Some(now);
    state.next_poll_at = after(now, next_after);
}

/// Returns the time `wait` after `now`, or `None` if it is out of range.
pub(super) fn after(now: Timestamp, wait: Duration) -> Option<Timestamp> {
    now.checked_add(wait).ok()
}

/// Returns the delay before the next attempt after a failure that is no outage, given the number of consecutive ones
/// before it.
fn wait_after(error: &PollError, failures: u32) -> Duration {
    match error {
        PollError::Api(GitHubError::RateLimited {
            retry_after: Some(told),
            ..
        }) => BACKOFF.after(failures).max(*told),
        PollError::Api(GitHubError::RateLimited { .. } | GitHubError::Refused { .. }) => {
            SLOWER.after(failures)
        }
        _ => BACKOFF.after(failures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::RepositoryName;
    use crate::forge::{Announcement, Remote};
    use crate::keyformat::FormatSet;
    use crate::scan::{Encodings, Engine, Redactor};
    use crate::store::Priority;

    /// Dozens of sources may wait for their next pages.
    #[test]
    fn items_with_long_names_are_many_soon() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        let redactor = Redactor::new(&formats);
        for (groups, count) in [(1, 50), (20, 20)] {
            let mut gatherer = Gatherer::new("feed", &redactor, &engine, Timestamp::UNIX_EPOCH);
            let name = format!("acme{}", format!("/{}", "n".repeat(90)).repeat(groups));
            let announced = Announcement {
                remote: Remote {
                    host: "forge.example".to_owned(),
                    repository_id: "1".to_owned(),
                    repository: RepositoryName::parse(&name).unwrap(),
                    clone_url: None,
                },
                reference: None,
                id: "1".to_owned(),
            };
            let mut announce = |count| {
                for _ in 0..count {
                    gatherer.announce(&announced, Priority::Webhook, Timestamp::UNIX_EPOCH);
                }
                Frame::has_many(&gatherer.gathered)
            };
            assert!(!announce(count), "{count} of {name}");
            assert!(announce(8 * count), "{count} of {name}");
        }
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let waits = |error: &PollError| -> Vec<u64> {
            let tries = [0, 1, 2, 3, 4, 5, 6, 40];
            tries.map(|n| wait_after(error, n).as_secs()).to_vec()
        };
        let trouble = PollError::TooMuch("more than 8 MiB");
        assert_eq!(waits(&trouble), [15, 30, 60, 120, 240, 480, 900, 900]);
        let limited = |seconds: Option<u64>| {
            PollError::Api(GitHubError::RateLimited {
                status: 403,
                retry_after: seconds.map(Duration::from_secs),
            })
        };
        let untold = [60, 120, 240, 480, 900, 900, 900, 900];
        assert_eq!(waits(&limited(None)), untold);
        assert_eq!(wait_after(&limited(Some(7000)), 3).as_secs(), 7000);
    }
}
