//! Keys of users.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;

use super::bodies::{CheckKey, CreateUserKey, PatchKey, RotateKey};
use super::{Changed, Checked, KeyId, Rotated, User};
use crate::server::AppState;
use crate::server::access::Caller;
use crate::server::api::views::{FirstValue, KeyView, LastFour, List};
use crate::server::error::{ApiResult, Refusals};
use crate::server::idempotency::IdempotencyKey;
use crate::server::query::{Paging, Query};

/// Create a key of a user. Only this response contains the whole value, and only once.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys", operation_id = "create_user_api_key", tag = "Keys",
    params(
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[ -~]+$", description = "Name of the request, \
            of visible ASCII. Within 24 hours one of the same name and access token creates nothing more: the answer \
            has the last four characters of the value then, and the header `Idempotency-Replayed`"),
    ),
    request_body = CreateUserKey,
    responses(
        (
            status = 200, description = "The new key, with its value", body = KeyView<FirstValue>,
            headers(("idempotency-replayed" = bool, description = "`true` if the request was done before"))
        ),
        Refusals<Caller, CreateUserKey, IdempotencyKey>,
    ),
)]
pub(in crate::server) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Response> {
    super::create::<User>(&state, caller, request).await
}

/// List the keys of one user, newest first.
#[utoipa::path(
    get, path = "/api/v1/user-api-keys", operation_id = "list_user_api_keys", tag = "Keys",
    params(("user_id" = String, Query, description = "The user"), Paging),
    responses(
        (status = 200, description = "The keys", body = List<KeyView<LastFour>>),
        Refusals<Caller, Query>,
    ),
)]
pub(in crate::server) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    query: Query,
) -> ApiResult<Response> {
    super::list::<User>(&state, caller, query).await
}

/// Show a key of a user.
#[utoipa::path(
    get, path = "/api/v1/user-api-keys/{id}", operation_id = "get_user_api_key", tag = "Keys",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    responses(
        (status = 200, description = "The key", body = KeyView<LastFour>),
        Refusals<Caller, KeyId>,
    ),
)]
pub(in crate::server) async fn show(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId,
) -> ApiResult<Json<KeyView<LastFour>>> {
    super::show::<User>(&state, caller, id).await
}

/// Change the description or expiry of a user's key, or revoke it.
#[utoipa::path(
    patch, path = "/api/v1/user-api-keys/{id}", operation_id = "update_user_api_key", tag = "Keys",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    request_body = PatchKey,
    responses(
        (status = 200, description = "The key as it is now", body = KeyView<LastFour>),
        Refusals<Caller, PatchKey, Changed>,
    ),
)]
pub(in crate::server) async fn update(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId,
    request: Request,
) -> ApiResult<Json<KeyView<LastFour>>> {
    super::update::<User>(&state, caller, id, request).await
}

/// Check a key of a user: return its owner, and whether it is valid.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys/check", operation_id = "check_user_api_key", tag = "Keys",
    request_body = CheckKey,
    params(("x-forwarded-for" = Option<String>, Header, description = "The address of the client that \
        presented the key; kept when a key is used after it leaked")),
    responses(
        (status = 200, description = "The key, which is valid", body = KeyView<LastFour>),
        Refusals<Caller, CheckKey, Checked>,
    ),
)]
pub(in crate::server) async fn check(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<KeyView<LastFour>>> {
    super::check::<User>(&state, caller, request).await
}

/// Replace a key of a user: create a new one for the same owner, and set an expiry for the old one.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys/{id}/rotate", operation_id = "rotate_user_api_key", tag = "Keys",
    params(
        ("id" = Uuid, Path, description = "The key's identifier"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[ -~]+$", description = "Name of the request, \
            of visible ASCII. Within 24 hours one of the same name and access token creates nothing more: the answer \
            has the last four characters of the value then, and the header `Idempotency-Replayed`"),
    ),
    request_body = RotateKey,
    responses(
        (
            status = 200, description = "The new key, with its value", body = KeyView<FirstValue>,
            headers(("idempotency-replayed" = bool, description = "`true` if the request was done before"))
        ),
        Refusals<Caller, RotateKey, Rotated>,
    ),
)]
pub(in crate::server) async fn rotate(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId,
    request: Request,
) -> ApiResult<Response> {
    super::rotate::<User>(&state, caller, id, request).await
}
