//! Keys in Stack Auth's wire format: the same handlers for keys of users and of teams.

use std::marker::PhantomData;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use utoipa::ToSchema;
use uuid::Uuid;

use super::path_id;
use super::views::{KeyView, List};
use crate::issuer::IssueRequest;
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult};
use crate::server::fields::Fields;
use crate::server::query::Query;
use crate::store::{Key, KeyFilter, KeyPatch, Owner, OwnerType, WhyInvalid};

/// Maximum length of a description, in characters.
pub const MAX_DESCRIPTION: usize = 1000;

/// Maximum length of the identifier of a user or team, in characters.
pub const MAX_OWNER_ID: usize = 255;

/// Maximum number of addresses to notify per key.
pub const MAX_EMAILS: usize = 20;

/// Maximum length of an e-mail address (RFC 5321, section 4.5.3.1.3: a path of 256 with its angle brackets).
const MAX_EMAIL: usize = 254;

/// Maximum overlap of a rotation, in seconds: a year.
const MAX_OVERLAP: u64 = 365 * 24 * 3600;

/// Kind of owner that an endpoint is for.
pub trait Kind: Send + Sync + 'static {
    /// Type of the owner: user or team.
    const TYPE: OwnerType;
    /// Name of the field that identifies the owner.
    const ID: &'static str;
}

/// Owner of keys under `/user-api-keys`.
#[derive(Debug)]
pub struct User;

/// Owner of keys under `/team-api-keys`.
#[derive(Debug)]
pub struct Team;

impl Kind for User {
    const TYPE: OwnerType = OwnerType::User;
    const ID: &'static str = "user_id";
}

impl Kind for Team {
    const TYPE: OwnerType = OwnerType::Team;
    const ID: &'static str = "team_id";
}

/// Request to create a key.
#[derive(ToSchema)]
pub struct CreateKey {
    /// Owner of the key. 1 to 255 characters.
    #[schema(max_length = 255)]
    pub user_id: String,
    /// Purpose of the key. 1 to 1000 characters.
    #[schema(max_length = 1000)]
    pub description: String,
    /// Expiry in milliseconds since 1970, or null for a key that never expires. Required.
    #[schema(required = true)]
    pub expires_at_millis: Option<i64>,
    /// `true` for keys in client-side code, which are never scanned for and never revoked by a report.
    #[schema(default = false)]
    pub is_public: Option<bool>,
    /// Action to take when the key leaks. This version supports `revoke`.
    pub policy: Option<String>,
    /// Addresses that are notified of a leak, at most 20.
    #[schema(max_items = 20)]
    pub notify_emails: Option<Vec<String>>,
}

/// Request to change a key. Absent fields stay unchanged.
#[derive(ToSchema)]
pub struct PatchKey {
    /// New description. 1 to 1000 characters.
    pub description: Option<String>,
    /// New expiry in milliseconds since 1970, or null for never.
    pub expires_at_millis: Option<i64>,
    /// Only `true`: revocation is permanent. Revoking a key again keeps the first time.
    pub revoked: Option<bool>,
}

/// Request to check a key.
#[derive(ToSchema)]
pub struct CheckKey {
    /// The whole value.
    pub api_key: String,
}

/// Request to rotate a key.
#[derive(ToSchema)]
pub struct RotateKey {
    /// Time that the old key stays valid beside the new one, in seconds; at most a year.
    pub overlap_seconds: u64,
}

/// Create a key. Only this response contains the whole value.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys", operation_id = "create_user_api_key", tag = "Keys",
    request_body = CreateKey,
    responses((status = 200, body = KeyView), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn create<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<KeyView>> {
    caller.require(Permission::WriteKeys)?;
    let mut fields = state.fields(request).await?;
    let id = fields.required_text(K::ID, MAX_OWNER_ID)?;
    let description = fields.required_text("description", MAX_DESCRIPTION)?;
    let expires_at = fields.millis("expires_at_millis")?.ok_or_else(|| {
        ApiError::schema(
            "expires_at_millis",
            "is required; send null for a key that never ends",
        )
    })?;
    let is_public = fields.flag("is_public")?.unwrap_or(false);
    let policy = policy(&mut fields)?;
    let notify_emails = emails(&mut fields)?;
    fields.finish()?;
    let new = IssueRequest {
        project: caller.project.clone(),
        owner: Owner { kind: K::TYPE, id },
        description,
        expires_at,
        is_public,
        policy,
        notify_emails,
    };
    let (key, value) = state.issuer().issue(new).await?;
    Ok(Json(KeyView::first(key, value)))
}

fn policy(fields: &mut Fields<'_>) -> ApiResult<Option<String>> {
    let policy = fields.text("policy", 64)?;
    match policy.as_deref() {
        None | Some("revoke") => Ok(policy),
        Some(_) => Err(ApiError::schema(
            "policy",
            "can only be `revoke` in this version; leave it out for the configured policy",
        )),
    }
}

fn emails(fields: &mut Fields<'_>) -> ApiResult<Vec<String>> {
    let emails = fields.texts("notify_emails", MAX_EMAILS, MAX_EMAIL)?;
    if emails.iter().all(|email| is_email(email)) {
        Ok(emails)
    } else {
        Err(ApiError::schema(
            "notify_emails",
            "has an entry that is no e-mail address",
        ))
    }
}

/// Returns whether a text has the form of an address that mail can be sent to: one `@`, a dot-separated domain, and
/// none of the characters that could smuggle in a header or a second recipient.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let harmless = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[]\\,;:\"@".contains(c);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    !local.is_empty()
        && local.len() <= 64
        && local.chars().all(harmless)
        && domain.split('.').all(label)
}

/// List the keys of one owner, newest first.
#[utoipa::path(
    get, path = "/api/v1/user-api-keys", operation_id = "list_user_api_keys", tag = "Keys",
    params(
        ("user_id" = String, Query, description = "The owner"),
        ("limit" = Option<u32>, Query, description = "At most 200, which is also the default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = List<KeyView>), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn list<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
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

/// Show a key.
#[utoipa::path(
    get, path = "/api/v1/user-api-keys/{id}", operation_id = "get_user_api_key", tag = "Keys",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    responses((status = 200, body = KeyView), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn show<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId<K>,
) -> ApiResult<Json<KeyView>> {
    caller.require(Permission::ReadKeys)?;
    let key = own_key(&state, &caller, id).await?;
    Ok(Json(KeyView::short(key)))
}

/// Change a key's description or expiry, or revoke it.
#[utoipa::path(
    patch, path = "/api/v1/user-api-keys/{id}", operation_id = "update_user_api_key", tag = "Keys",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    request_body = PatchKey,
    responses((status = 200, body = KeyView), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn update<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId<K>,
    request: Request,
) -> ApiResult<Json<KeyView>> {
    caller.require(Permission::RevokeKeys)?;
    let mut fields = state.fields(request).await?;
    let patch = KeyPatch {
        description: fields.text("description", MAX_DESCRIPTION)?,
        expires_at: fields.millis("expires_at_millis")?,
    };
    let revoke = match fields.flag("revoked")? {
        Some(false) => {
            let problem = "can only be true: a revoked key never becomes valid again";
            return Err(ApiError::schema("revoked", problem));
        }
        revoked => revoked.is_some(),
    };
    fields.finish()?;
    if patch.changes() {
        caller.require(Permission::WriteKeys)?;
    }
    let key = own_key(&state, &caller, id).await?;
    let actor = revoke.then(|| caller.actor());
    let issuer = state.issuer();
    let changed = issuer.change(key.id, patch, actor.as_deref()).await?;
    Ok(Json(KeyView::short(changed)))
}

/// Check a key: return its owner, and whether it is valid.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys/check", operation_id = "check_user_api_key", tag = "Keys",
    request_body = CheckKey,
    params(("x-forwarded-for" = Option<String>, Header, description = "The address of the client that \
        presented the key; kept when a key is used after it leaked")),
    responses(
        (status = 200, body = KeyView),
        (status = 400, description = "`WRONG_API_KEY_TYPE`"),
        (status = 401, description = "`API_KEY_REVOKED`, `API_KEY_EXPIRED`"),
        (status = 404, description = "`API_KEY_NOT_FOUND`"),
    ),
)]
pub async fn check<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<KeyView>> {
    caller.require(Permission::CheckKeys)?;
    let client = super::uses::forwarded_client(&request);
    let mut fields = state.fields(request).await?;
    let value = fields.key("api_key")?;
    fields.finish()?;
    let key = state
        .lookup()
        .key(&caller.project, value.sha256())
        .await?
        .ok_or_else(ApiError::api_key_not_found)?;
    let now = state.now();
    if key.exposed_at.is_some() {
        super::uses::record(&state, &key, now, client).await;
    }
    if key.owner.kind != K::TYPE {
        return Err(ApiError::wrong_api_key_type(
            K::TYPE.as_str(),
            key.owner.kind.as_str(),
        ));
    }
    match key.why_invalid(now) {
        None => Ok(Json(KeyView::short(key))),
        Some(WhyInvalid::ManuallyRevoked) => Err(ApiError::api_key_revoked()),
        Some(WhyInvalid::Expired) => Err(ApiError::api_key_expired()),
    }
}

/// Replace a key: create a new one for the same owner, and set an expiry for the old one.
#[utoipa::path(
    post, path = "/api/v1/user-api-keys/{id}/rotate", operation_id = "rotate_user_api_key", tag = "Keys",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    request_body = RotateKey,
    responses((status = 200, body = KeyView), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn rotate<K: Kind>(
    State(state): State<AppState>,
    caller: Caller,
    id: KeyId<K>,
    request: Request,
) -> ApiResult<Json<KeyView>> {
    caller.require(Permission::WriteKeys)?;
    let mut fields = state.fields(request).await?;
    let overlap = fields.count("overlap_seconds")?.ok_or_else(|| {
        ApiError::schema("overlap_seconds", "is required; 0 ends the old key at once")
    })?;
    fields.finish()?;
    if overlap > MAX_OVERLAP {
        let problem = format!("may be at most {MAX_OVERLAP}, which is a year");
        return Err(ApiError::schema("overlap_seconds", &problem));
    }
    let key = own_key(&state, &caller, id).await?;
    let overlap = Duration::from_secs(overlap);
    let rotation = state
        .issuer()
        .rotate(key.id, overlap, &caller.actor())
        .await?;
    Ok(Json(KeyView::first(rotation.new, rotation.value)))
}

/// Identifier in the path. Anything that is not a UUID is a key that does not exist, and is not repeated in the
/// response: it may be a key's value.
pub struct KeyId<K> {
    id: Uuid,
    kind: PhantomData<K>,
}

impl<K: Kind> FromRequestParts<AppState> for KeyId<K> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let id = path_id(parts, state)
            .await
            .ok_or_else(ApiError::api_key_not_found)?;
        Ok(Self {
            id,
            kind: PhantomData,
        })
    }
}

/// Returns the key with this identifier, if it is of the endpoint's kind and in the caller's project.
async fn own_key<K: Kind>(state: &AppState, caller: &Caller, id: KeyId<K>) -> ApiResult<Key> {
    state
        .store()
        .key(id.id)
        .await?
        .filter(|key| key.project == caller.project && key.owner.kind == K::TYPE)
        .ok_or_else(ApiError::api_key_not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_text() {
        for good in [
            "a@example.com",
            "a.b+c@sub.example.co",
            "ö@exämple.com",
            "root@localhost",
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "a",
            "@",
            "a@",
            "@b.c",
            "a@b@c.d",
            "a b@c.d",
            "<a@b.c>",
            "a@b.c,d@e.f",
            "a@b..c",
            "a@-b.c",
            "a@b.c\nbcc:x@y.z",
            "a@[127.0.0.1]",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
