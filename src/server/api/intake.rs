//! Reports from outside: from partners, from GitLab instances, and from strangers who hold a key.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{STORE_TIME, still_waiting};
use crate::intake::{
    self, Answered, Feedback, MAX_REPORT, PartnerError, PartnerName, ReportError, RevocationApi,
    Row, SelfReport,
};
use crate::keyformat::KeyValue;
use crate::respond::Known;
use crate::server::body::{Hold, Whole, refuse_too_large};
use crate::server::client::Client;
use crate::server::client::turns::NoTurn;
use crate::server::error::{ApiError, ApiResult, ErrorCode, RawBody, Refusals, Refuses};
use crate::server::fields::{Fields, JsonBody};
use crate::server::{AppState, Finisher};

/// Receive a secret-scanning report from GitHub.
#[utoipa::path(
    post, path = "/webhooks/github/secret-scanning", operation_id = "github_secret_scanning", tag = "Intake",
    params(
        ("Github-Public-Key-Identifier" = String, Header, description = "Which key signed"),
        ("Github-Public-Key-Signature" = String, Header, description = "Base64 of DER: ECDSA P-256, SHA-256 over the raw body"),
    ),
    security(()),
    request_body(content = Vec<Row>, description = "At most 25 MiB and 100,000 rows; a malformed row affects no other"),
    responses(
        (status = 200, description = "The answers to the rows, in order", body = Vec<Feedback>),
        Refusals<RawBody, SignedReport>,
    ),
)]
pub async fn github(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Response> {
    report(state, finisher, request, PartnerName::GitHub).await
}

/// Receive a secret-detection report from GitLab's partner program.
#[utoipa::path(
    post, path = "/webhooks/gitlab/secret-detection", operation_id = "gitlab_secret_detection", tag = "Intake",
    params(
        ("Gitlab-Public-Key-Identifier" = String, Header, description = "Which key signed"),
        ("Gitlab-Public-Key-Signature" = String, Header, description = "Base64 of DER: ECDSA P-256, SHA-256 over the raw body"),
    ),
    security(()),
    request_body(content = Vec<Row>, description = "At most 25 MiB and 100,000 rows; a malformed row affects no other"),
    responses(
        (status = 200, description = "The answers to the rows, in order", body = Vec<Feedback>),
        Refusals<RawBody, SignedReport>,
    ),
)]
pub async fn gitlab(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Response> {
    report(state, finisher, request, PartnerName::GitLab).await
}

/// Receive a secret-scanning report from deps.dev.
#[utoipa::path(
    post, path = "/webhooks/depsdev/secret-scanning", operation_id = "depsdev_secret_scanning", tag = "Intake",
    params(
        ("Gosst-Public-Key-Identifier" = String, Header, description = "Which key signed"),
        ("Gosst-Public-Key-Signature" = String, Header, description = "Base64 of DER: ECDSA P-256, SHA-256 over the raw body"),
    ),
    security(()),
    request_body(content = Vec<Row>, description = "At most 25 MiB and 100,000 rows; a malformed row affects no other"),
    responses(
        (status = 200, description = "The answers to the rows, in order", body = Vec<Feedback>),
        Refusals<RawBody, SignedReport>,
    ),
)]
pub async fn depsdev(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Response> {
    report(state, finisher, request, PartnerName::DepsDev).await
}

async fn report(
    state: AppState,
    finisher: Finisher,
    request: Request,
    partner: PartnerName,
) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let mut partners = state.0.intake.partners.iter();
    let at = partners.position(|known| known.name() == partner);
    let at = at.ok_or_else(|| ApiError::not_found("Route"))?;
    // Before the body is read: a report that cannot be genuine is refused without it.
    refuse_too_large(&parts.headers, MAX_REPORT)?;
    let proof = state.0.intake.partners[at].proof(&parts.headers)?;
    // The content type is up to the partner: the signature covers the bytes.
    let body = state.read(&parts, body, MAX_REPORT).await?;
    finisher
        .finish(async move {
            let Whole { bytes, mut hold } = body;
            let sender = &state.0.intake.partners[at];
            let key = hold.until(sender.key(&proof)).await?;
            let report = hold.proved(sender.verify(proof, key, bytes)).await?;
            state.work(&mut hold, report.cost()).await?;
            let answered = sender.receive(report).await?;
            tell(partner, &answered);
            feedback(answered.feedback, hold)
        })
        .await?
}

/// Returns the feedback, which may be larger than the report was.
fn feedback(rows: Vec<Feedback>, hold: Hold) -> ApiResult<Response> {
    let json = serde_json::to_vec(&rows).map_err(|_| ApiError::internal())?;
    drop(rows);
    let content_type = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(([content_type], hold.answer(json)?).into_response())
}

fn tell(partner: PartnerName, answered: &Answered) {
    tracing::info!(
        partner = partner.name(),
        rows = answered.feedback.len(),
        malformed = answered.malformed,
        revoked = answered.revoked,
        "leaks were reported"
    );
}

/// Types of tokens that GitLab may ask to revoke.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevocableTypes {
    /// Identifier of each secret key format, plain and as GitLab names findings of a rule with that identifier.
    types: Vec<String>,
}

/// List the types of tokens that a GitLab instance may report (token revocation API).
#[utoipa::path(
    get, path = "/v1/revocable_token_types", operation_id = "revocable_token_types", tag = "Intake",
    security(("gitlab_revocation" = [])),
    responses(
        (status = 200, description = "The types", body = RevocableTypes),
        Refusals<Admission>,
    ),
)]
pub async fn revocable_types(
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<Json<RevocableTypes>> {
    let api = admitted(&state, request.headers())?;
    let types = api.types();
    Ok(Json(RevocableTypes { types }))
}

/// Revoke the tokens that GitLab's secret detection found (token revocation API).
#[utoipa::path(
    post, path = "/v1/revoke_tokens", operation_id = "revoke_tokens", tag = "Intake",
    security(("gitlab_revocation" = [])),
    request_body(
        content = Vec<Row>, description = "At most 25 MiB and 100,000 rows; a malformed row affects no other",
        example = json!([{"type": "gitleaks_rule_id_rescind_secret", "token": "…", "location": "https://example.com/a"}]),
    ),
    responses(
        (status = 204, description = "What is a key or access token of ours is revoked"),
        Refusals<Admission, RawBody, Rows>,
    ),
)]
pub async fn revoke_tokens(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<StatusCode> {
    admitted(&state, request.headers())?;
    let (parts, body) = request.into_parts();
    let body = state.read_proved(&parts, body, MAX_REPORT).await?;
    let answered = finisher
        .finish(async move {
            let Whole { bytes, mut hold } = body;
            let api = state.0.intake.revocation.as_ref();
            let api = api.ok_or_else(|| ApiError::not_found("Route"))?;
            let report = hold.proved(api.look_at(bytes)).await?;
            state.work(&mut hold, report.cost()).await?;
            let answered = api.revoke(report).await?;
            drop(hold);
            Ok::<_, ApiError>(answered)
        })
        .await??;
    tell(PartnerName::GitLab, &answered);
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the token revocation API if the caller presents its token and is within the limit.
///
/// # Errors
/// Returns 401 for a wrong token, 404 if the API is not configured, and 429 above the limit.
fn admitted<'s>(state: &'s AppState, headers: &HeaderMap) -> ApiResult<&'s RevocationApi> {
    let api = state.0.intake.revocation.as_ref();
    let api = api.ok_or_else(|| ApiError::not_found("Route"))?;
    let authorization = headers.get(header::AUTHORIZATION);
    let Some(credential) = api.admits(authorization.map(HeaderValue::as_bytes)) else {
        return Err(ApiError::new(
            ErrorCode::AuthorizationInvalid,
            "The header `authorization` has to be the token that was agreed on, as it is or behind `Bearer`.",
        ));
    };
    let limit = &state.0.rooms.revocations;
    limit
        .check(&credential)
        .map_err(ApiError::too_many_of_one_token)?;
    Ok(api)
}

/// Admission to the token revocation API, in the description.
struct Admission;

impl Refuses for Admission {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::AuthorizationInvalid,
        ErrorCode::RateLimited,
        ErrorCode::NotFound,
    ];
}

/// Rows of a report, in the description.
struct Rows;

impl Refuses for Rows {
    const CODES: &'static [ErrorCode] = &[ErrorCode::SchemaError];
}

/// Signed report of a configured partner, in the description.
struct SignedReport;

impl Refuses for SignedReport {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::SchemaError,
        ErrorCode::SignatureInvalid,
        ErrorCode::NotFound,
    ];
}

impl From<PartnerError> for ApiError {
    fn from(error: PartnerError) -> Self {
        let message = format!("{error}.");
        match error {
            PartnerError::MissingHeader(_)
            | PartnerError::UnknownKey
            | PartnerError::Signature(_) => Self::new(ErrorCode::SignatureInvalid, message),
            PartnerError::KeysUnavailable { retry_after } => {
                Self::unavailable(message, retry_after).of_many()
            }
            PartnerError::NoRows { .. } | PartnerError::Report(ReportError::NotAnArray) => {
                Self::schema_without_field(message)
            }
            PartnerError::Report(ReportError::TooManyRows) => {
                Self::new(ErrorCode::PayloadTooLarge, message)
            }
            PartnerError::Store(error) => Self::from(error).of_report(),
            PartnerError::Died => Self::internal(),
        }
    }
}

/// Body of a self-report.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfReportBody {
    /// The whole key: possession is the proof.
    #[schema(value_type = String, min_length = 1, example = "the whole key")]
    api_key: KeyValue,
    /// Place where the key was found: an HTTP or HTTPS URL of at most 2048 bytes. Anything else is left out.
    #[schema(example = "https://example.com/a")]
    url: Option<String>,
}

impl JsonBody for SelfReportBody {
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
        Ok(Self {
            api_key: fields.key("api_key")?,
            url: fields.lenient_text("url"),
        })
    }
}

/// Answer to a self-report, in the description.
struct SelfReported;

impl Refuses for SelfReported {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::PublicApiKeyCannotBeRevoked,
        ErrorCode::ApiKeyExpired,
        ErrorCode::ApiKeyNotFound,
        ErrorCode::RateLimited,
    ];
}

/// Successful response.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success {
    success: bool,
}

impl Success {
    pub(super) fn new() -> Self {
        Self { success: true }
    }
}

/// Revoke a key by presenting it. Needs no access token; keys that nobody holds are limited per client address.
#[utoipa::path(
    post, path = "/api/v1/integrations/credential-scanning/revoke", operation_id = "self_report", tag = "Intake",
    security(()),
    request_body = SelfReportBody,
    responses(
        (status = 200, description = "Revoked, now or before", body = Success),
        Refusals<SelfReportBody, SelfReported>,
    ),
)]
pub async fn self_report(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Json<Success>> {
    let client = Client::of(request.extensions()).map(Client::counted_by);
    let body: SelfReportBody = state.strangers_body(request).await?;
    let (value, url) = (body.api_key, body.url);
    // The holder of a key, even of a public one, may report it any number of times and hang up each time. The cost to
    // the database must not keep partners waiting.
    let too_many = || {
        let message = "Too many keys are being reported at once. Nothing was changed; send the report again later.";
        ApiError::unavailable(message, SELF_REPORT_PATIENCE).of_many()
    };
    let until = Instant::now() + STORE_TIME;
    // Nor may waiting reports hold all connections or keep others waiting.
    let address = client.unwrap_or(IpAddr::from([0; 4]));
    let turns = &state.0.rooms.self_report_turns;
    let place = turns.turn(address, SELF_REPORT_PATIENCE).await;
    let place = place.map_err(|NoTurn| too_many())?;
    let report = finisher.finish(async move {
        let _place = place;
        // Anybody can make up keys that are not ours: all that they cost is a part of a lookup.
        let (value, known) = presented(&state, value).await?;
        if !known.contains(&value.sha256()) {
            if state.formats().identify(value.expose()).is_some() {
                let limit = &state.0.rooms.self_reports;
                limit.check(&client).map_err(ApiError::rate_limited)?;
            }
            return Ok(SelfReport::Unknown);
        }
        let reported = intake::self_report(state.responder(), &known, value, url.as_deref());
        Ok::<_, ApiError>(reported.await?)
    });
    let report = tokio::time::timeout_at(until, report).await;
    match report.map_err(|_| still_waiting())??? {
        SelfReport::Revoked => Ok(Json(Success { success: true })),
        SelfReport::Unknown => Err(ApiError::api_key_not_found()),
        SelfReport::Public => Err(ApiError::public_api_key_cannot_be_revoked()),
        SelfReport::Expired => Err(ApiError::api_key_expired()),
    }
}

/// Looks a presented key up: as it was sent and, if that is nobody's, without what surrounds it, such as a line break.
///
/// # Errors
/// Returns 503 if the database is down.
async fn presented(state: &AppState, value: KeyValue) -> ApiResult<(KeyValue, Known)> {
    let known = Known::of_one(state.lookup(), value.sha256()).await?;
    if known.contains(&value.sha256()) {
        return Ok((value, known));
    }
    match intake::key_within(state.responder().redactor().engine(), value.expose()) {
        Some(key) => {
            let known = Known::of_one(state.lookup(), key.sha256()).await?;
            Ok((key, known))
        }
        None => Ok((value, known)),
    }
}

/// Maximum time that a self-report waits for others.
const SELF_REPORT_PATIENCE: Duration = Duration::from_secs(5);
