//! Authorization: the table of roles and their permissions, and the access token of every request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde_json::json;
use uuid::Uuid;

use super::AppState;
use super::connections::pulse::Pulse;
use super::error::{ApiError, ApiResult, ErrorCode, Refuses};
use crate::fair::Claim;
use crate::keyformat::Sha256Digest;
use crate::store::DEFAULT_PROJECT;
use crate::store::Role;

/// Maximum length of an access token that is looked up, in bytes.
const MAX_TOKEN: usize = 1024;

/// Permission that a role may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Create, change and rotate keys.
    WriteKeys,
    /// Revoke a key by its identifier.
    RevokeKeys,
    /// See keys (never their values).
    ReadKeys,
    /// Check whether a key is valid.
    CheckKeys,
    /// Import digests of keys that were issued elsewhere.
    ImportKeys,
    /// See incidents.
    ReadIncidents,
    /// See, verify and export the revocation log.
    ReadLog,
    /// See the loaded key formats.
    ReadFormats,
    /// See the state of the sources and their dead-lettered work items.
    ReadSources,
    /// Requeue dead-lettered work items.
    RequeueWork,
    /// See how many keys, incidents, revocations, work items and sources there are.
    ReadStats,
}

impl Permission {
    /// All permissions, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::WriteKeys,
        Self::RevokeKeys,
        Self::ReadKeys,
        Self::CheckKeys,
        Self::ImportKeys,
        Self::ReadIncidents,
        Self::ReadLog,
        Self::ReadFormats,
        Self::ReadSources,
        Self::RequeueWork,
        Self::ReadStats,
    ];

    /// Returns the roles that have this permission. `docs/api.md` shows the same table.
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::WriteKeys | Self::CheckKeys | Self::ImportKeys => &[Role::Admin, Role::Issuer],
            Self::RevokeKeys => &[Role::Admin, Role::Issuer, Role::Operator],
            Self::ReadKeys => &[Role::Admin, Role::Issuer, Role::Operator, Role::Viewer],
            Self::ReadIncidents | Self::ReadLog | Self::ReadSources | Self::ReadStats => {
                &[Role::Admin, Role::Operator, Role::Viewer]
            }
            Self::RequeueWork => &[Role::Admin, Role::Operator],
            Self::ReadFormats => &[
                Role::Admin,
                Role::Issuer,
                Role::Operator,
                Role::Viewer,
                Role::Reporter,
            ],
        }
    }
}

/// Sender of a request: a valid access token of some project.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Identifier of the access token.
    pub token_id: Uuid,
    /// Project whose keys and incidents the caller sees; those of others do not exist for it.
    pub project: String,
    /// Role of the access token.
    pub role: Role,
}

impl Caller {
    /// Returns the claim of the caller's project and access token to what many ask for.
    pub(super) fn claim(&self) -> Claim {
        Claim::new(&self.project, &self.token_id.to_string(), "")
    }

    /// Checks that the caller's role has this permission.
    ///
    /// # Errors
    /// Returns 403 (`INSUFFICIENT_ROLE`) if it does not.
    pub fn require(&self, permission: Permission) -> ApiResult<()> {
        let roles = permission.roles();
        if roles.contains(&self.role) {
            return Ok(());
        }
        let allowed: Vec<_> = roles.iter().map(|role| role.name()).collect();
        let message = format!(
            "An access token of the role `{}` may not do this; it takes one of: {}.",
            self.role.name(),
            allowed.join(", ")
        );
        let details = json!({ "role": self.role.name(), "allowed_roles": allowed });
        Err(ApiError::new(ErrorCode::InsufficientRole, message).with_details(details))
    }

    /// Checks that the caller belongs to [`DEFAULT_PROJECT`], which may see what all projects share.
    ///
    /// # Errors
    /// Returns 403 (`WRONG_PROJECT`) if it does not.
    pub fn require_default_project(&self) -> ApiResult<()> {
        if self.project == DEFAULT_PROJECT {
            return Ok(());
        }
        let message = "This is shared by all projects (the revocation log is one chain over all of them); it \
             takes an access token of the project `default`.";
        Err(ApiError::new(ErrorCode::WrongProject, message))
    }

    /// Returns the name of the caller in the revocation log.
    pub fn actor(&self) -> String {
        format!("token:{}", self.token_id)
    }
}

impl Refuses for Caller {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::AccessTokenRequired,
        ErrorCode::AccessTokenInvalid,
        ErrorCode::InsufficientRole,
    ];
}

/// [`Caller`] of an endpoint that calls [`Caller::require_default_project`], in its description.
pub(super) struct DefaultCaller;

impl Refuses for DefaultCaller {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::AccessTokenRequired,
        ErrorCode::AccessTokenInvalid,
        ErrorCode::InsufficientRole,
        ErrorCode::WrongProject,
    ];
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let text = presented(&parts.headers).ok_or_else(|| {
            ApiError::new(
                ErrorCode::AccessTokenRequired,
                "This needs an access token in the header `authorization: Bearer …`, \
                 `x-stack-secret-server-key` or `x-hexclave-secret-server-key`.",
            )
        })?;
        let token = state.lookup().token(Sha256Digest::of(text)).await?;
        token
            .filter(|token| token.is_valid(state.now()))
            .inspect(|_| {
                if let Some(pulse) = parts.extensions.get::<Arc<Pulse>>() {
                    pulse.prove();
                }
            })
            .map(|token| Self {
                token_id: token.id,
                project: token.project,
                role: token.role,
            })
            .ok_or_else(|| {
                ApiError::new(
                    ErrorCode::AccessTokenInvalid,
                    "This access token is unknown, expired or revoked.",
                )
            })
    }
}

/// Returns the access token as sent, from the first of the three headers that is present.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme
            .eq_ignore_ascii_case(b"Bearer ")
            .then(|| token.trim_ascii())
    });
    let other = |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii());
    bearer
        .or_else(|| other("x-stack-secret-server-key"))
        .or_else(|| other("x-hexclave-secret-server-key"))
        .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
}
