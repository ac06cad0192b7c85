//! Sources: how they are, and the work items of theirs that were put aside.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::{List, rfc3339, rfc3339_option};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult};
use crate::server::query::Query;
use crate::server::status::{SourceStatus, source_statuses};
use crate::store::{DeadItem, Page, WorkKind};

/// A source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    name: String,
    /// `webhook`, or a kind of the configuration such as `github_events`.
    kind: String,
    /// `ok`, `waiting` (not polled yet), `failing` (the last poll failed), `behind` (something waits for
    /// more than five minutes, or for a host that is left alone, or a poll is overdue) or `removed` (not in the configuration).
    state: &'static str,
    /// When it was last polled, successfully or not.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_poll_at: Option<Timestamp>,
    /// When it was last polled successfully.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_success_at: Option<Timestamp>,
    /// When it is polled next.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    next_poll_at: Option<Timestamp>,
    /// The time of the newest event seen.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    newest_event_at: Option<Timestamp>,
    /// When an item was last scanned.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    last_scan_at: Option<Timestamp>,
    /// From the event to the end of its scan, for the items scanned last.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    /// When the oldest item was added that no worker has looked at yet.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    oldest_waiting_at: Option<Timestamp>,
    counts: SourceCounts,
    /// The quota of its server, as last told.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimitView>,
    /// What went wrong at the last poll, with the last deliveries, or with what was to be read, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// What it could not see lately, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<String>,
}

/// Totals since a source was first used, and what is left.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceCounts {
    polls: u64,
    /// Events seen, repeated ones not counted.
    events: u64,
    /// Work items that they became.
    items: u64,
    /// Events whose texts were scanned.
    texts: u64,
    /// Events of a type that this version does not know.
    unknown_types: u64,
    /// Events that could not be read.
    malformed: u64,
    /// Times that two polls did not overlap.
    gaps: u64,
    /// Pushes that the feed had missed and a repair found.
    repaired: u64,
    /// Items that were scanned to their end.
    scanned: u64,
    /// Blobs in them that were scanned.
    blobs: u64,
    /// Blobs in them that had been scanned before.
    known_blobs: u64,
    /// Items of which something was left out because of a limit.
    truncated: u64,
    /// Items whose repository or commit was gone.
    gone: u64,
    /// Items that were not read because there was more than could be.
    shed: u64,
    /// Items that were not added because too many of their repository or their host waited already.
    refused: u64,
    /// Items that wait or are being read now.
    waiting: u64,
    /// Items that were put aside after the last of their tries.
    dead_letters: u64,
}

/// How often a server may be asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct RateLimitView {
    /// Requests per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// How many of them are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    /// When the period ends.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    reset_at: Option<Timestamp>,
}

impl SourceView {
    /// A source's status in our JSON; the command line prints the same.
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

/// A work item that was put aside after the last of its tries.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterView {
    id: Uuid,
    source: String,
    /// `range`, or `references` when the branches and tags were to be listed.
    kind: &'static str,
    host: String,
    repository: String,
    /// The branch or tag; absent when all of the repository's are meant.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<String>,
    /// The commit before the push; all zeros for a new branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// The commit after the push.
    after: String,
    tries: u32,
    /// Why the last try failed.
    error: String,
    /// When it was pushed.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String)]
    event_at: Timestamp,
    /// When it was put aside.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String)]
    died_at: Timestamp,
}

impl DeadLetterView {
    /// An item in our JSON; the command line prints the same.
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

/// List the sources that are configured or were, with how they are, by name.
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
) -> ApiResult<Json<List<SourceView>>> {
    caller.require(Permission::ReadSources)?;
    caller.require_default_project()?;
    let limit = query.limit()? as usize;
    let cursor = query.text("cursor")?;
    query.finish()?;
    let all = source_statuses(state.store(), state.sources(), state.now()).await?;
    // By name, so that a source which is added or goes meanwhile moves no other.
    let is_left =
        |status: &SourceStatus| cursor.as_ref().is_none_or(|cursor| status.name > *cursor);
    let mut items: Vec<_> = all.into_iter().filter(is_left).take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    let page = Page { items, next_cursor };
    Ok(Json(List::of(page, SourceView::of)))
}

/// List a source's work items that were put aside after the last of their tries, newest first.
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
) -> ApiResult<Json<List<DeadLetterView>>> {
    caller.require(Permission::ReadSources)?;
    caller.require_default_project()?;
    let page = query.page()?;
    query.finish()?;
    require_source(&state, &name).await?;
    let dead = state.store().dead_items(Some(&name), &page).await?;
    Ok(Json(List::of(dead, DeadLetterView::of)))
}

/// Which work items are put back into the queue.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub struct RequeueDeadLetters {
    /// This one only; all of the source's when absent.
    id: Option<Uuid>,
}

/// How many work items were put back into the queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct Requeued {
    requeued: u64,
}

/// Put work items that were put aside back into the queue, with all their tries.
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

/// 404 unless there is a source of this name, in the configuration or in the database.
async fn require_source(state: &AppState, name: &str) -> ApiResult<()> {
    let all = source_statuses(state.store(), state.sources(), state.now()).await?;
    if all.iter().any(|status| status.name == name) {
        return Ok(());
    }
    Err(ApiError::not_found("Source"))
}

/// The name in the path; what cannot be read is a source that does not exist.
pub struct SourceName(String);

impl FromRequestParts<AppState> for SourceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|_| ApiError::not_found("Source"))?;
        Ok(Self(name))
    }
}
