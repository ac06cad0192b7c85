//! Sources: their state, and their dead-lettered work items.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::{List, rfc3339, rfc3339_option};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult};
use crate::server::query::Query;
use crate::source::{SourceStatus, source_statuses};
use crate::store::{DeadItem, Page, WorkKind};

/// State of a source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    name: String,
    /// `webhook`, or a kind of the configuration such as `github_events`.
    kind: String,
    /// `ok`, `waiting` (not polled yet), `failing` (the last poll failed, or the last item was dead-lettered), `behind`
    /// (an item has waited for more than five minutes, or waits for a host in backoff, or a poll is overdue) or
    /// `removed` (not in the configuration).
    state: &'static str,
    /// Time of the last poll, successful or not.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_poll_at: Option<Timestamp>,
    /// Time of the last successful poll.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_success_at: Option<Timestamp>,
    /// Time of the next poll.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    next_poll_at: Option<Timestamp>,
    /// Time of the newest event seen.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    newest_event_at: Option<Timestamp>,
    /// Time of the last scan of an item.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_scan_at: Option<Timestamp>,
    /// Time from the event to the end of its scan, in seconds, for the most recently scanned items.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    /// Time at which the oldest item that no worker has started yet was added.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    oldest_waiting_at: Option<Timestamp>,
    counts: SourceCounts,
    /// Rate limit of the server, as last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimitView>,
    /// Problem with the last poll, the last deliveries or the last items, and the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Description of what could not be seen lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<String>,
}

/// Totals since a source was first used, and the current backlog.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceCounts {
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
    /// Items that were dead-lettered after their last attempt.
    dead_letters: u64,
}

/// Rate limit of a server.
#[derive(Debug, Serialize, ToSchema)]
pub struct RateLimitView {
    /// Requests per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// Remaining requests in the period.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    /// Time at which the period ends.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
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
            state: status.condition.as_str(),
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
    kind: &'static str,
    host: String,
    repository: String,
    /// Branch or tag; absent if the item covers all of the repository's.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<String>,
    /// Commit before the push; all zeros for a new branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// Commit after the push.
    after: String,
    tries: u32,
    /// Error of the last attempt.
    error: String,
    /// Time of the push.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String)]
    event_at: Timestamp,
    /// Time at which the item was dead-lettered.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String)]
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
            kind: match range.kind {
                WorkKind::Range => "range",
                WorkKind::References => "references",
            },
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

/// List all current and former sources with their state, by name.
#[utoipa::path(
    get, path = "/api/v1/sources", operation_id = "list_sources", tag = "Operators",
    params(
        ("limit" = Option<u32>, Query, description = "At most 200, which is also the default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = List<SourceView>), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadSources)?;
    caller.require_default_project()?;
    let limit = query.limit()? as usize;
    let cursor = query.text("cursor")?;
    query.finish()?;
    let store = state.lists();
    let sources = async {
        let all = source_statuses(&store, state.sources(), state.now()).await?;
        // Paged by name, so that a source that is added or removed in the meantime does not shift the others.
        let is_left =
            |status: &SourceStatus| cursor.as_ref().is_none_or(|cursor| status.name > *cursor);
        let mut items: Vec<_> = all.into_iter().filter(is_left).take(limit + 1).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
        let page = Page { items, next_cursor };
        Ok(List::of(page, SourceView::of))
    };
    state.listed(&caller, sources).await
}

/// List a source's dead-lettered work items, newest first.
#[utoipa::path(
    get, path = "/api/v1/sources/{name}/dead-letters", operation_id = "list_dead_letters", tag = "Operators",
    params(
        ("name" = String, Path, description = "The source's name"),
        ("limit" = Option<u32>, Query, description = "At most 200, which is also the default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = List<DeadLetterView>), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn dead_letters(
    State(state): State<AppState>,
    caller: Caller,
    SourceName(name): SourceName,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadSources)?;
    caller.require_default_project()?;
    let page = query.page()?;
    query.finish()?;
    require_source(&state, &name).await?;
    let store = state.lists();
    let dead = async {
        let dead = store.dead_items(Some(&name), &page).await?;
        Ok(List::of(dead, DeadLetterView::of))
    };
    state.listed(&caller, dead).await
}

/// Request to requeue work items.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub struct RequeueDeadLetters {
    /// Identifier of a single item; all of the source's if absent.
    id: Option<Uuid>,
}

/// Number of requeued work items.
#[derive(Debug, Serialize, ToSchema)]
pub struct Requeued {
    requeued: u64,
}

/// Requeue dead-lettered work items, with all their attempts.
#[utoipa::path(
    post, path = "/api/v1/sources/{name}/dead-letters/requeue", operation_id = "requeue_dead_letters", tag = "Operators",
    params(("name" = String, Path, description = "The source's name")),
    request_body = RequeueDeadLetters,
    responses((status = 200, body = Requeued), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn requeue(
    State(state): State<AppState>,
    caller: Caller,
    SourceName(name): SourceName,
    request: Request,
) -> ApiResult<Json<Requeued>> {
    caller.require(Permission::RequeueWork)?;
    caller.require_default_project()?;
    let mut fields = state.fields(request).await?;
    let id = fields.text("id", 64)?;
    fields.finish()?;
    let id = id.map(|id| Uuid::try_parse(&id)).transpose();
    let id = id.map_err(|_| ApiError::schema("id", "has to be the identifier of a work item"))?;
    require_source(&state, &name).await?;
    let requeued = match id {
        None => state.store().revive_all(&name).await?,
        Some(id) if state.store().revive_of(&name, id).await? => 1,
        Some(_) => return Err(ApiError::not_found("Dead letter")),
    };
    if requeued > 0 {
        let actor = caller.actor();
        tracing::info!(
            source = name,
            items = requeued,
            actor,
            "work items were put back into the queue"
        );
    }
    Ok(Json(Requeued { requeued }))
}

/// Checks that a source of this name exists, in the configuration or in the database.
///
/// # Errors
/// Returns 404 if it does not.
async fn require_source(state: &AppState, name: &str) -> ApiResult<()> {
    let is_configured = state.sources().iter().any(|source| source.name == name);
    if is_configured || state.store().knows_source(name).await? {
        return Ok(());
    }
    Err(ApiError::not_found("Source"))
}

/// Name in the path. One that cannot be decoded is a source that does not exist.
pub struct SourceName(String);

impl FromRequestParts<AppState> for SourceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|_| ApiError::not_found("Source"))?;
        Ok(Self(name))
    }
}
