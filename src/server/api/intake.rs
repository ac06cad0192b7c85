//! Reports from outside: GitHub's, and of strangers who hold a key.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::intake::{
    self, Feedback, KEY_IDENTIFIER_HEADER, MAX_REPORT, PartnerError, ReportError, SIGNATURE_HEADER,
    SelfReport,
};
use crate::server::body::read_bounded;
use crate::server::error::{ApiError, ApiResult};
use crate::server::limit::client_of;
use crate::server::{AppState, Finisher};

/// Receive a secret-scanning report of GitHub.
#[utoipa::path(
    post, path = "/webhooks/github/secret-scanning", operation_id = "github_secret_scanning", tag = "Intake",
    params(
        ("Github-Public-Key-Identifier" = String, Header, description = "Which key signed"),
        ("Github-Public-Key-Signature" = String, Header, description = "Base64 of DER: ECDSA P-256, SHA-256 over the raw body"),
    ),
    request_body(content = String, description = "An array of `{token, type, url, source}`, at most 25 MiB", content_type = "application/json"),
    responses(
        (status = 200, body = Vec<Feedback>, description = "One row per row, in order"),
        (status = 400, description = "No JSON array"),
        (status = 401, description = "Missing or wrong signature, or an unknown key"),
        (status = 413, description = "Too large"),
        (status = 503, description = "Send it again: GitHub's keys or the database cannot be had"),
    ),
)]
pub async fn github(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Json<Vec<Feedback>>> {
    let (parts, body) = request.into_parts();
    // The content type is GitHub's business: the signature says what the bytes are.
    let body = read_bounded(&parts.headers, body, MAX_REPORT).await?;
    let answered = finisher
        .finish(async move {
            let Some(partner) = &state.0.github else {
                return Err(ApiError::not_found("Route"));
            };
            let header = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
            let (identifier, signature) = (header(KEY_IDENTIFIER_HEADER), header(SIGNATURE_HEADER));
            Ok(partner.receive(identifier, signature, body).await?)
        })
        .await??;
    tracing::info!(
        rows = answered.feedback.len(),
        malformed = answered.malformed,
        revoked = answered.revoked,
        "GitHub reported leaks"
    );
    Ok(Json(answered.feedback))
}

impl From<PartnerError> for ApiError {
    fn from(error: PartnerError) -> Self {
        let message = format!("{error}.");
        match error {
            PartnerError::MissingHeader(_)
            | PartnerError::UnknownKey
            | PartnerError::Signature(_) => {
                Self::new(StatusCode::UNAUTHORIZED, "SIGNATURE_INVALID", message)
            }
            PartnerError::KeysUnavailable { retry_after } => {
                Self::unavailable(message, retry_after)
            }
            PartnerError::Report(ReportError::NotAnArray) => Self::schema_without_field(message),
            PartnerError::Report(ReportError::TooManyRows) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
            }
            PartnerError::Store(error) => error.into(),
            PartnerError::Died => Self::internal(),
        }
    }
}

/// What a stranger sends.
#[derive(ToSchema)]
pub struct SelfReportBody {
    /// The whole key: possession is the proof.
    pub api_key: String,
    /// Where it was found: an http(s) URL of at most 2048 bytes.
    pub url: Option<String>,
}

/// An affirmative answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success {
    success: bool,
}

/// Revoke a key by presenting it. Needs no access token; limited per client address.
#[utoipa::path(
    post, path = "/api/v1/integrations/credential-scanning/revoke", operation_id = "self_report", tag = "Intake",
    security(()),
    request_body = SelfReportBody,
    responses(
        (status = 200, body = Success, description = "Revoked, now or before"),
        (status = 400, description = "`PUBLIC_API_KEY_CANNOT_BE_REVOKED`, `SCHEMA_ERROR`"),
        (status = 401, description = "`API_KEY_EXPIRED`"),
        (status = 404, description = "`API_KEY_NOT_FOUND`"),
        (status = 429, description = "`RATE_LIMITED`"),
    ),
)]
pub async fn self_report(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Json<Success>> {
    state
        .0
        .self_reports
        .check(&client_of(peer.ip()))
        .map_err(ApiError::rate_limited)?;
    let mut fields = state.fields(request).await?;
    let value = fields.key("api_key")?;
    let url = fields.uncleaned_text("url")?;
    fields.finish()?;
    let report = finisher
        .finish(async move { intake::self_report(state.responder(), value, url.as_deref()).await });
    match report.await?? {
        SelfReport::Revoked => Ok(Json(Success { success: true })),
        SelfReport::Unknown => Err(ApiError::api_key_not_found()),
        SelfReport::Public => Err(ApiError::public_api_key_cannot_be_revoked()),
        SelfReport::Expired => Err(ApiError::api_key_expired()),
        SelfReport::BadUrl => Err(ApiError::schema(
            "url",
            "has to be an http or https URL of at most 2048 bytes",
        )),
    }
}
