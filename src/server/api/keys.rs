//! Keys in Stack Auth's wire format. The endpoints for keys of users and of teams differ in their paths and in the
//! field that identifies the owner: each path needs a handler of its own, since its description is an attribute of
//! that, but what they do stands here once.

mod bodies;
pub(in crate::server) mod team;
pub(in crate::server) mod user;

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::path_id;
use super::views::{KeyView, LastFour, List};
use crate::issuer::{Once, RotateRequest};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult, ErrorCode, Refuses};
use crate::server::idempotency::{IdempotencyKey, replayed};
use crate::server::query::Query;
use crate::store::{Key, KeyFilter, KeyPatch, Owner, OwnerType, WhyInvalid};
use bodies::{CheckKey, CreateBody, PatchKey, RotateKey};

/// Kind of owner that an endpoint is for.
trait Kind {
    /// Type of the owner: user or team.
    const TYPE: OwnerType;
    /// Name of the query parameter that identifies the owner.
    const ID: &'static str;
    /// Body of a request to create a key.
    type Create: CreateBody;
}

/// Owner of keys under `/user-api-keys`.
struct User;

/// Owner of keys under `/team-api-keys`.
struct Team;

impl Kind for User {
    const TYPE: OwnerType = OwnerType::User;
    const ID: &'static str = "user_id";
    type Create = bodies::CreateUserKey;
}

impl Kind for Team {
    const TYPE: OwnerType = OwnerType::Team;
    const ID: &'static str = "team_id";
    type Create = bodies::CreateTeamKey;
}

async fn create<K: Kind>(
    state: &AppState,
    caller: Caller,
    request: Request,
) -> ApiResult<Response> {
    caller.require(Permission::WriteKeys)?;
    let name = IdempotencyKey::of(&request, &caller)?;
    let new: K::Create = state.body(request).await?;
    let _turn = state.turn_to_write(&caller).await?;
    let new = new.into_request(caller.project);
    let named = name.map(|name| name.of_issue(&new));
    Ok(match state.issuer().issue_named(new, named).await? {
        Once::Done((key, value)) => Json(KeyView::first(key, value)).into_response(),
        Once::Before(key) => replayed(Json(KeyView::again(*key))),
    })
}

async fn list<K: Kind>(state: &AppState, caller: Caller, mut query: Query) -> ApiResult<Response> {
    caller.require(Permission::ReadKeys)?;
    let id = query
        .text(K::ID)?
        .ok_or_else(|| ApiError::schema(K::ID, "is required as a query parameter"))?;
    let page = query.page()?;
    query.finish()?;
    let filter = KeyFilter {
        project: Some(caller.project.clone()),
        owner: Some(Owner { kind: K::TYPE, id }),
        ..KeyFilter::default()
    };
    let store = state.lists();
    let keys = async {
        let keys = store.list_keys(&filter, &page).await?;
        Ok(List::of(keys, KeyView::short))
    };
    state.listed(&caller, keys).await
}

async fn show<K: Kind>(
    state: &AppState,
    caller: Caller,
    id: KeyId,
) -> ApiResult<Json<KeyView<LastFour>>> {
    caller.require(Permission::ReadKeys)?;
    let key = own_key::<K>(state, &caller, id).await?;
    Ok(Json(KeyView::short(key)))
}

async fn update<K: Kind>(
    state: &AppState,
    caller: Caller,
    id: KeyId,
    request: Request,
) -> ApiResult<Json<KeyView<LastFour>>> {
    caller.require(Permission::RevokeKeys)?;
    let body: PatchKey = state.body(request).await?;
    let patch = KeyPatch {
        description: body.description,
        expires_at: body.expires_at_millis,
    };
    if patch.changes() {
        caller.require(Permission::WriteKeys)?;
    }
    let _turn = state.turn_to_write(&caller).await?;
    let key = own_key::<K>(state, &caller, id).await?;
    let actor = body.revoked.then(|| caller.actor());
    let issuer = state.issuer();
    let changed = issuer.change(key.id, patch, actor.as_deref()).await?;
    Ok(Json(KeyView::short(changed)))
}

async fn check<K: Kind>(
    state: &AppState,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<KeyView<LastFour>>> {
    caller.require(Permission::CheckKeys)?;
    let client = super::uses::forwarded_client(&request);
    let CheckKey { api_key } = state.body(request).await?;
    let key = state
        .lookup()
        .key(&caller.project, api_key.sha256())
        .await?
        .ok_or_else(ApiError::api_key_not_found)?;
    let now = state.now();
    if key.exposed_at.is_some() {
        super::uses::record(state, &key, now, client).await;
    }
    if key.owner.kind != K::TYPE {
        return Err(ApiError::wrong_api_key_type(
            K::TYPE.name(),
            key.owner.kind.name(),
        ));
    }
    match key.why_invalid(now) {
        None => Ok(Json(KeyView::short(key))),
        Some(WhyInvalid::ManuallyRevoked) => Err(ApiError::api_key_revoked()),
        Some(WhyInvalid::Expired) => Err(ApiError::api_key_expired()),
    }
}

/// Result of a check, in the description.
struct Checked;

impl Refuses for Checked {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::ApiKeyNotFound,
        ErrorCode::WrongApiKeyType,
        ErrorCode::ApiKeyRevoked,
        ErrorCode::ApiKeyExpired,
    ];
}

async fn rotate<K: Kind>(
    state: &AppState,
    caller: Caller,
    id: KeyId,
    request: Request,
) -> ApiResult<Response> {
    caller.require(Permission::WriteKeys)?;
    let name = IdempotencyKey::of(&request, &caller)?;
    let RotateKey { overlap_seconds } = state.body(request).await?;
    let _turn = state.turn_to_write(&caller).await?;
    let key = own_key::<K>(state, &caller, id).await?;
    let actor = caller.actor();
    let named = name.map(|name| name.of_rotation(key.id, overlap_seconds));
    let rotation = RotateRequest {
        id: key.id,
        overlap: overlap_seconds,
        actor: &actor,
    };
    let rotated = state.issuer().rotate_named(rotation, named);
    Ok(match rotated.await? {
        Once::Done(rotation) => Json(KeyView::first(rotation.new, rotation.value)).into_response(),
        Once::Before(key) => replayed(Json(KeyView::again(*key))),
    })
}

/// Result of a rotation, in the description.
struct Rotated;

impl Refuses for Rotated {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::ApiKeyNotFound,
        ErrorCode::ApiKeyRevoked,
        ErrorCode::ApiKeyExpired,
        ErrorCode::Conflict,
        ErrorCode::IdempotencyKeyReused,
    ];
}

/// Result of a change, in the description.
struct Changed;

impl Refuses for Changed {
    const CODES: &'static [ErrorCode] = &[ErrorCode::ApiKeyNotFound, ErrorCode::Conflict];
}

/// Identifier in the path. Anything that is not a UUID is a key that does not exist, and is not repeated in the
/// response: it may be a key's value.
pub(in crate::server) struct KeyId(Uuid);

impl Refuses for KeyId {
    const CODES: &'static [ErrorCode] = &[ErrorCode::ApiKeyNotFound];
}

impl FromRequestParts<AppState> for KeyId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        path_id(parts, state)
            .await
            .map(Self)
            .ok_or_else(ApiError::api_key_not_found)
    }
}

/// Returns the key with this identifier, if it is of the endpoint's kind and in the caller's project.
async fn own_key<K: Kind>(state: &AppState, caller: &Caller, id: KeyId) -> ApiResult<Key> {
    state
        .store()
        .key(id.0)
        .await?
        .filter(|key| key.project == caller.project && key.owner.kind == K::TYPE)
        .ok_or_else(ApiError::api_key_not_found)
}
