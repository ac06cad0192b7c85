//! State of each source.

pub(super) mod deliveries;
pub(super) mod work;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::db::order::Locks;
use super::db::sql::{Row, args, statements};
use super::{Read, Store, StoreError, Tx};

/// State of a source. Counts are totals since it was first polled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceState {
    /// Name in the configuration.
    pub name: String,
    /// Kind in the configuration.
    pub kind: String,
    /// Position up to which it has been read, as JSON in the source's own format. Never contains contents.
    pub cursor: String,
    /// Time of the last poll, successful or not. For a webhook, time of the last delivery from an authenticated sender.
    pub polled_at: Option<Timestamp>,
    /// Time of the last successful poll. For a webhook, time of the last delivery of which nothing was lost.
    pub succeeded_at: Option<Timestamp>,
    /// Time from which the next poll may be made. If the last one met an outage, this is the time of that poll: the
    /// server may be back any time.
    pub next_poll_at: Option<Timestamp>,
    /// Time of the newest event seen. Its age is the lag of the source.
    pub newest_event_at: Option<Timestamp>,
    /// Error of the last poll.
    pub error: Option<String>,
    /// Number of polls.
    pub polls: u64,
    /// Number of events seen, without repeated ones.
    pub events: u64,
    /// Number of work items created from them.
    pub items: u64,
    /// Number of times that two polls did not overlap, so that events in between may have been missed.
    pub gaps: u64,
    /// Number of events that could not be read.
    pub malformed: u64,
    /// Number of events whose texts were scanned.
    pub texts: u64,
    /// Number of events of a type that this version does not know.
    pub unknown: u64,
    /// Number of pushes that the feed had missed and a repair found.
    pub repaired: u64,
    /// Recent blind spots of the source, in words for an operator.
    pub unseen: Option<String>,
    /// Request limit of its server, per period.
    pub rate_limit: Option<u64>,
    /// Number of requests remaining in the period.
    pub rate_remaining: Option<u64>,
    /// End of the period.
    pub rate_resets_at: Option<Timestamp>,
}

/// Maximum time between two polls. A server can request a day at most.
const POLL_WAIT_MAX: Duration = Duration::from_hours(24);

impl SourceState {
    /// Returns the time until the next poll. If the clock was ahead when the state was saved and has been corrected
    /// since, the wait is no longer than it was meant to be.
    pub fn due_in(&self, now: Timestamp) -> Duration {
        let meant_from = self.polled_at.map_or(now, |polled| polled.max(now));
        let wait = self.next_poll_at.map(|at| at.duration_since(meant_from));
        let wait = wait.and_then(|wait| Duration::try_from(wait).ok());
        wait.unwrap_or_default().min(POLL_WAIT_MAX)
    }

    /// Returns whether the last poll failed and need not be waited for: it is to be made again at once, whatever the
    /// schedule of the source.
    pub fn is_due_again(&self) -> bool {
        let has_failed = self.error.is_some() && self.succeeded_at < self.polled_at;
        has_failed && self.next_poll_at <= self.polled_at
    }

    /// Returns whether the last poll is more than a minute in the future, which means that a clock is or was wrong.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        const DIFFERENCE: SignedDuration = SignedDuration::from_mins(1);
        self.polled_at
            .is_some_and(|at| at.duration_since(now) > DIFFERENCE)
    }
}

macro_rules! source_columns {
    () => {
        source_columns!("cursor")
    };
    ($cursor:literal) => {
        concat!(
            "name, kind, ",
            $cursor,
            ", polled_at, succeeded_at, next_poll_at, newest_event_at, error, polls, \
             events, items, gaps, malformed, texts, unknown, repaired, unseen, rate_limit, \
             rate_remaining, rate_resets_at"
        )
    };
}

statements! {
    LOAD = concat!("SELECT ", source_columns!(), " FROM sources WHERE name = $1");
    /// Each position may have megabytes.
    LIST = concat!("SELECT ", source_columns!("'' AS cursor"), " FROM sources ORDER BY name");
    SAVE = concat!(
        "INSERT INTO sources (", source_columns!(), ") VALUES {rows:20}
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, cursor = excluded.cursor,
            polled_at = excluded.polled_at, succeeded_at = excluded.succeeded_at,
            next_poll_at = excluded.next_poll_at, newest_event_at = excluded.newest_event_at,
            error = excluded.error, polls = excluded.polls, events = excluded.events,
            items = excluded.items, gaps = excluded.gaps, malformed = excluded.malformed,
            texts = excluded.texts, unknown = excluded.unknown, repaired = excluded.repaired,
            unseen = excluded.unseen, rate_limit = excluded.rate_limit, rate_remaining = excluded.rate_remaining,
            rate_resets_at = excluded.rate_resets_at"
    );
    COUNT_ITEMS = "INSERT INTO sources (name, kind, cursor, polls, events, items, gaps, malformed)
        VALUES ($1, $2, '', 0, 0, $3, 0, 0)
        ON CONFLICT (name) DO UPDATE SET items = sources.items + excluded.items";
}

fn source(row: &Row<'_>) -> Result<SourceState, StoreError> {
    Ok(SourceState {
        name: row.get("name")?,
        kind: row.get("kind")?,
        cursor: row.get("cursor")?,
        polled_at: row.optional_time("polled_at")?,
        succeeded_at: row.optional_time("succeeded_at")?,
        next_poll_at: row.optional_time("next_poll_at")?,
        newest_event_at: row.optional_time("newest_event_at")?,
        error: row.get("error")?,
        polls: row.count("polls")?,
        events: row.count("events")?,
        items: row.count("items")?,
        gaps: row.count("gaps")?,
        malformed: row.count("malformed")?,
        texts: row.count("texts")?,
        unknown: row.count("unknown")?,
        repaired: row.count("repaired")?,
        unseen: row.get("unseen")?,
        rate_limit: row.optional_count("rate_limit")?,
        rate_remaining: row.optional_count("rate_remaining")?,
        rate_resets_at: row.optional_time("rate_resets_at")?,
    })
}

impl Store {
    /// Returns the state of a source, or `None` before its first poll.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn load_source(&self, name: &str) -> Result<Option<SourceState>, StoreError> {
        let mut read = self;
        read.fetch_first(LOAD, args![name], source).await
    }

    /// Returns the states of all sources that were ever polled, without their cursors, sorted by name.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn list_sources(&self) -> Result<Vec<SourceState>, StoreError> {
        let mut read = self;
        read.fetch(LIST, args![], source).await
    }
}

impl Tx {
    /// Saves the state of a source. Call this in the transaction that adds the work items found by the poll, so that
    /// none is lost and none is searched for twice.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn save_source(&mut self, state: &SourceState) -> Result<(), StoreError> {
        self.save_source_with(state, 0).await
    }

    /// Saves the state of a source as [`Tx::save_source`] does, with `items` more work items than it says.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn save_source_with(
        &mut self,
        state: &SourceState,
        items: u64,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        let args = args![
            &state.name,
            &state.kind,
            &state.cursor,
            state.polled_at,
            state.succeeded_at,
            state.next_poll_at,
            state.newest_event_at,
            state.error.clone(),
            state.polls,
            state.events,
            state.items + items,
            state.gaps,
            state.malformed,
            state.texts,
            state.unknown,
            state.repaired,
            state.unseen.clone(),
            state.rate_limit,
            state.rate_remaining,
            state.rate_resets_at,
        ];
        self.execute(SAVE.of(1), args).await.map(drop)
    }

    /// Counts work items that a poll of a source adds before it is over: whether it gets to its end is not known yet.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn count_items_of_source(
        &mut self,
        name: &str,
        kind: &str,
        items: u64,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        let args = args![name, kind, items];
        self.execute(COUNT_ITEMS, args).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: i64 = 30 * 86_400;

    #[test]
    fn a_clock_that_was_ahead_makes_no_wait_longer() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let after = |seconds| now + SignedDuration::from_secs(seconds);
        let state = |polled: i64, next: i64| SourceState {
            polled_at: Some(after(polled)),
            next_poll_at: Some(after(next)),
            ..SourceState::default()
        };
        let due = |polled, next| state(polled, next).due_in(now).as_secs();
        assert_eq!(due(-60, 240), 240);
        assert_eq!(due(-900, -600), 0);
        assert_eq!(due(MONTH, MONTH + 300), 300);
        assert_eq!(due(-60, MONTH), 86_400, "a state that is damaged");
        assert_eq!(SourceState::default().due_in(now), Duration::ZERO);
        assert!(state(MONTH, 0).is_ahead(now) && !state(-MONTH, 0).is_ahead(now));
        assert!(!state(5, 0).is_ahead(now), "clocks differ");
    }
}
