//! Sources: their state, and their dead-lettered work items.

mod views;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

pub use views::{DeadLetterView, SourceView};

use super::path_text;
use super::views::List;
use crate::server::AppState;
use crate::server::access::{Caller, DefaultCaller, Permission};
use crate::server::error::{ApiError, ApiResult, ErrorCode, Refusals, Refuses};
use crate::server::fields::{Fields, JsonBody};
use crate::server::query::{Paging, Query};
use crate::source::{SourceStatus, source_statuses};
use crate::store::Page;

/// List all current and former sources with their state, by name.
#[utoipa::path(
    get, path = "/api/v1/sources", operation_id = "list_sources", tag = "Operators",
    params(Paging),
    responses(
        (status = 200, description = "The sources", body = List<SourceView>),
        Refusals<DefaultCaller, Query>,
    ),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadSources)?;
    caller.require_default_project()?;
    let Paging { limit, cursor } = query.paging()?;
    let limit = limit as usize;
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
    params(("name" = String, Path, description = "The source's name"), Paging),
    responses(
        (status = 200, description = "The work items", body = List<DeadLetterView>),
        Refusals<DefaultCaller, SourceName, Query>,
    ),
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
#[serde(deny_unknown_fields)]
pub struct RequeueDeadLetters {
    /// Identifier of a single item; all of the source's if absent.
    #[schema(nullable = false)]
    id: Option<Uuid>,
}

impl JsonBody for RequeueDeadLetters {
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
        let id = fields.text("id", 64)?;
        let id = id.map(|id| Uuid::try_parse(&id)).transpose();
        let id =
            id.map_err(|_| ApiError::schema("id", "has to be the identifier of a work item"))?;
        Ok(Self { id })
    }
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
    responses(
        (status = 200, description = "The items wait again", body = Requeued),
        Refusals<DefaultCaller, SourceName, RequeueDeadLetters>,
    ),
)]
pub async fn requeue(
    State(state): State<AppState>,
    caller: Caller,
    SourceName(name): SourceName,
    request: Request,
) -> ApiResult<Json<Requeued>> {
    caller.require(Permission::RequeueWork)?;
    caller.require_default_project()?;
    let RequeueDeadLetters { id } = state.body(request).await?;
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

/// Name in the path. One that cannot be read is a source that does not exist.
pub struct SourceName(String);

impl Refuses for SourceName {
    const CODES: &'static [ErrorCode] = &[ErrorCode::NotFound];
}

impl FromRequestParts<AppState> for SourceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let name = path_text(parts, state).await;
        name.map(Self).ok_or_else(|| ApiError::not_found("Source"))
    }
}
