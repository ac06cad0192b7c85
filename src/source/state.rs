//! Handling of source state that is shared by all sources: loading it, committing it together with the findings, and
//! recording failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::{PollError, PollFailure, PollOutcome, SourceParts};
use crate::backoff::Backoff;
use crate::forge::{Gathered, Gatherer, ToldItem, actor_of, redact_message};
use crate::respond::{CleanSightings, Report, Reported};
use crate::store::{Reason, SourceState, StoreError, retried};

/// Number of candidates at which they are looked up before more are gathered.
const MANY_CANDIDATES: usize = 1_024;

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

    /// Commits work items, the keys found in texts and names, and the state in one transaction. Adds the counts to
    /// `state` and returns the number of new work items.
    pub(super) async fn commit(
        &self,
        state: &mut SourceState,
        gathered: &Gathered,
    ) -> Result<u64, PollError> {
        let sightings = gathered.candidates.ours(&self.parts.store).await?;
        state.texts += gathered.texts;
        state.malformed += gathered.malformed;
        let committed = retried(|| self.commit_once(state, gathered, &sightings)).await;
        let (added, reported) = committed.inspect_err(|_| {
            state.texts -= gathered.texts;
            state.malformed -= gathered.malformed;
        })?;
        state.items += added;
        reported.announce();
        if added > 0 {
            self.parts.wake.notify_one();
        }
        Ok(added)
    }

    /// Looks up the gathered candidates once there are many, to make room for more.
    pub(super) async fn sift(&self, gathered: &mut Gathered) -> Result<(), PollError> {
        let candidates = &mut gathered.candidates;
        if candidates.len() >= MANY_CANDIDATES || candidates.is_full() {
            let responder = &self.parts.responder;
            responder.sift(candidates, &self.actor()).await?;
        }
        Ok(())
    }

    async fn commit_once(
        &self,
        state: &SourceState,
        gathered: &Gathered,
        sightings: &CleanSightings,
    ) -> Result<(u64, Reported), StoreError> {
        let mut tx = self.parts.store.begin().await?;
        let items: Vec<_> = gathered.items.iter().map(ToldItem::to_item).collect();
        let added = tx.add_work_items(&items, self.now()).await?;
        drop(items);
        tx.save_source_with(state, added).await?;
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
        PollError::RateLimited {
            retry_after: Some(told),
            ..
        } => BACKOFF.after(failures).max(*told),
        PollError::RateLimited { .. } | PollError::Refused { .. } => SLOWER.after(failures),
        _ => BACKOFF.after(failures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let waits = |error: &PollError| -> Vec<u64> {
            let tries = [0, 1, 2, 3, 4, 5, 6, 40];
            tries.map(|n| wait_after(error, n).as_secs()).to_vec()
        };
        let trouble = PollError::TooMuch("more than 8 MiB");
        assert_eq!(waits(&trouble), [15, 30, 60, 120, 240, 480, 900, 900]);
        let limited = |seconds: Option<u64>| PollError::RateLimited {
            status: 403,
            retry_after: seconds.map(Duration::from_secs),
        };
        let untold = [60, 120, 240, 480, 900, 900, 900, 900];
        assert_eq!(waits(&limited(None)), untold);
        assert_eq!(wait_after(&limited(Some(7000)), 3).as_secs(), 7000);
    }
}
