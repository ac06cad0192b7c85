//! Endpoint for the loaded key formats.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::views::List;
use crate::keyformat::{FormatSet, KeyFormat, Visibility};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult, Refusals};
use crate::server::query::{Paging, Query};
use crate::store::Page;

/// Key format.
#[derive(Debug, Serialize, ToSchema)]
pub struct FormatView {
    id: String,
    description: String,
    /// `secret` formats are scanned for, `public` ones are not.
    visibility: Visibility,
    /// Literal at the start of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prefix: Option<String>,
    /// Literal inside the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    anchor: Option<String>,
    min_length: usize,
    max_length: usize,
    /// `true` if keys carry a checksum.
    checksum: bool,
    /// `true` if new keys can be minted in this format.
    can_mint: bool,
    /// `true` if the format is one of former times: hunted and checked, and no longer minted.
    retired: bool,
}

/// List the loaded key formats.
#[utoipa::path(
    get, path = "/api/v1/formats", operation_id = "list_formats", tag = "Operators",
    params(Paging),
    responses((status = 200, description = "The formats", body = List<FormatView>), Refusals<Caller, Query>),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadFormats)?;
    let paging = query.paging()?;
    query.finish()?;
    let formats = async { page(state.formats(), &paging) };
    state.listed(&caller, formats).await
}

fn page(formats: &FormatSet, paging: &Paging) -> ApiResult<List<FormatView>> {
    let limit = paging.limit as usize;
    let mut left = formats.iter();
    if let Some(cursor) = &paging.cursor
        && !left.any(|format| format.id() == cursor)
    {
        return Err(ApiError::schema(
            "cursor",
            "is not one that this list gave out",
        ));
    }
    let mut items: Vec<_> = left.take(limit + 1).map(view).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.clone());
    let page = Page { items, next_cursor };
    Ok(List::of(page, |format| format))
}

fn view(format: &KeyFormat) -> FormatView {
    let literal = format.literal().to_owned();
    let (prefix, anchor) = if format.literal_is_prefix() {
        (Some(literal), None)
    } else {
        (None, Some(literal))
    };
    FormatView {
        id: format.id().to_owned(),
        description: format.description().to_owned(),
        visibility: format.visibility(),
        prefix,
        anchor,
        min_length: format.min_len(),
        max_length: format.max_len(),
        checksum: format.checksum().is_some(),
        can_mint: format.can_mint(),
        retired: format.is_retired(),
    }
}
