//! Views of sources and their dead-lettered work items, which the command line prints, too.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::server::api::views::{rfc3339, rfc3339_option};
use crate::source::{SourceCondition, SourceStatus};
use crate::store::{DeadItem, WorkKind};

/// State of a source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    name: String,
    /// `webhook`, or a kind of the configuration such as `github_events`.
    kind: String,
    /// `ok`, `waiting` (not polled yet), `failing` (the last poll failed, or the last item was dead-lettered), `behind`
    /// (an item has waited for more than five minutes, or waits for a host in backoff, or a poll is overdue) or
    /// `removed` (not in the configuration).
    state: SourceCondition,
    /// Time of the last poll, successful or not.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    last_poll_at: Option<Timestamp>,
    /// Time of the last successful poll.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    last_success_at: Option<Timestamp>,
    /// Time of the next poll.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    next_poll_at: Option<Timestamp>,
    /// Time of the newest event seen.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    newest_event_at: Option<Timestamp>,
    /// Time of the last scan of an item.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    last_scan_at: Option<Timestamp>,
    /// Time from the event to the end of its scan, in seconds, for the most recently scanned items.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    lag_seconds: Option<f64>,
    /// Time at which the oldest item that no worker has started yet was added.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    oldest_waiting_at: Option<Timestamp>,
    counts: SourceCounts,
    /// Rate limit of the server, as last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rate_limit: Option<RateLimitView>,
    /// Problem with the last poll, the last deliveries or the last items, and the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_error: Option<String>,
    /// Last example of what was left unread: of an item that was gone, truncated or refused, or a malformed event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_unread: Option<UnreadView>,
    /// Last try that failed of an item that waits: why it could not be read so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_retry: Option<RetryView>,
    /// Description of what could not be seen lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unseen: Option<String>,
}

/// Totals since a source was first used, and the current backlog.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceCounts {
    polls: u64,
    /// Events seen, not counting repeated ones.
    events: u64,
    /// Work items created from them.
    items: u64,
    /// Events whose texts were scanned.
    texts: u64,
    /// Events of a type that this version does not know.
    unknown_types: u64,
    /// Events that could not be parsed.
    malformed: u64,
    /// Number of times that two polls did not overlap.
    gaps: u64,
    /// Pushes that the feed had missed and a repair found.
    repaired: u64,
    /// Items that were scanned completely.
    scanned: u64,
    /// Blobs in them that were scanned.
    blobs: u64,
    /// Blobs in them that had been scanned before.
    known_blobs: u64,
    /// Items of which a part was left out because of a limit.
    truncated: u64,
    /// Items whose repository or commit was gone.
    gone: u64,
    /// Items that were shed because there were more than could be read.
    shed: u64,
    /// Items that were refused because too many from their repository or host were already waiting.
    refused: u64,
    /// Items that wait or are in flight.
    waiting: u64,
    /// Those of them that were tried and could not be read so far: a try failed, or the server said that there is nothing
    /// to read. They are tried again.
    retrying: u64,
    /// Items that were dead-lettered after their last attempt.
    dead_letters: u64,
}

/// Something that was left unread.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UnreadView {
    /// Name of the item or event, and the reason.
    what: String,
    /// Time at which it was left unread.
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
}

/// Try of an item that failed, and that is repeated.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetryView {
    /// Name of the item, and the reason.
    what: String,
    /// Time at which it failed; absent while the item is being tried again.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    at: Option<Timestamp>,
}

/// Rate limit of a server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RateLimitView {
    /// Requests per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<u64>,
    /// Remaining requests in the period.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remaining: Option<u64>,
    /// Time at which the period ends.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    reset_at: Option<Timestamp>,
}

impl SourceView {
    /// Converts a source's status to its JSON view, which the command line prints, too.
    pub fn of(status: SourceStatus) -> Self {
        let counts = SourceCounts::of(&status);
        let SourceStatus { polled, work, .. } = status;
        let rate_limit = RateLimitView {
            limit: polled.rate_limit,
            remaining: polled.rate_remaining,
            reset_at: polled.rate_resets_at,
        };
        let is_known = polled.rate_limit.is_some() || polled.rate_remaining.is_some();
        Self {
            name: status.name,
            kind: status.kind,
            state: status.condition,
            last_poll_at: polled.polled_at,
            last_success_at: polled.succeeded_at,
            next_poll_at: status.next_poll_at,
            newest_event_at: polled.newest_event_at,
            last_scan_at: work.scanned_at,
            lag_seconds: work
                .lag
                .map(|lag| (lag.as_secs_f64() * 1000.0).round() / 1000.0),
            oldest_waiting_at: work.oldest_waiting_at,
            counts,
            rate_limit: is_known.then_some(rate_limit),
            last_error: polled.error,
            last_unread: work.last_unread.map(|(what, at)| UnreadView { what, at }),
            last_retry: work.last_retry.map(|last| RetryView {
                what: last.what,
                at: last.at,
            }),
            unseen: polled.unseen,
        }
    }
}

impl SourceCounts {
    fn of(status: &SourceStatus) -> Self {
        let SourceStatus { polled, work, .. } = status;
        Self {
            polls: polled.polls,
            events: polled.events,
            items: polled.items,
            texts: polled.texts,
            unknown_types: polled.unknown,
            malformed: polled.malformed,
            gaps: polled.gaps,
            repaired: polled.repaired,
            scanned: work.done.scanned,
            blobs: work.done.blobs,
            known_blobs: work.done.known_blobs,
            truncated: work.done.truncated,
            gone: work.done.gone,
            shed: work.shed,
            refused: work.refused,
            waiting: work.waiting,
            retrying: work.retrying,
            dead_letters: work.dead,
        }
    }
}

/// Work item that was dead-lettered after its last attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterView {
    id: Uuid,
    source: String,
    /// `range`, or `references` for an item that lists branches and tags.
    kind: WorkKind,
    host: String,
    repository: String,
    /// Branch or tag; absent if the item covers all of the repository's.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ref_name: Option<String>,
    /// Commit before the push; all zeros for a new branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    before: Option<String>,
    /// Commit after the push.
    after: String,
    tries: u32,
    /// Error of the last attempt.
    error: String,
    /// Time of the push.
    #[serde(serialize_with = "rfc3339")]
    event_at: Timestamp,
    /// Time at which the item was dead-lettered.
    #[serde(serialize_with = "rfc3339")]
    died_at: Timestamp,
}

impl DeadLetterView {
    /// Converts an item to its JSON view, which the command line prints, too.
    pub fn of(dead: DeadItem) -> Self {
        let range = dead.item.range;
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: dead.item.id,
            source: range.source,
            kind: range.kind,
            host: range.host,
            repository: range.repository,
            ref_name: text(range.ref_name),
            before: text(range.before),
            after: range.after,
            tries: dead.item.tries,
            error: dead.error,
            event_at: range.event_at,
            died_at: dead.died_at,
        }
    }
}
