//! Webhooks of forges. A delivery is answered with 202 once everything that results from it is in the database.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::intake::Success;
use super::{STORE_TIME, still_waiting};
use crate::forge::Forge;
use crate::intake::webhook::{MAX_DELIVERY, Webhook, WebhookError};
use crate::server::body::{Whole, refuse_too_large};
use crate::server::error::{ApiError, ApiResult, ErrorCode, RawBody, Refusals, Refuses};
use crate::server::{AppState, Finisher};

/// Response to an accepted delivery.
type Accepted = (StatusCode, Json<Success>);

/// Receive a delivery from GitHub.
#[utoipa::path(
    post, path = "/webhooks/github", operation_id = "github_webhook", tag = "Intake", security(()),
    params(
        ("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC-SHA-256 of the raw body"),
        ("X-GitHub-Event" = String, Header, description = "Any event"),
        ("X-GitHub-Delivery" = Option<String>, Header, description = "A repeated one has no second effect"),
    ),
    request_body(
        description = "The payload, or a form with it in `payload`; at most 25 MiB",
        content((Object = "application/json"), (String = "application/x-www-form-urlencoded")),
    ),
    responses(
        (status = 202, description = "Accepted, and everything it amounts to is stored", body = Success),
        Refusals<RawBody, Delivery>,
    ),
)]
pub async fn github(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Accepted> {
    receive(state, finisher, request, Forge::GitHub).await
}

/// Receive a delivery from GitLab: of a project, a group, or the whole instance.
#[utoipa::path(
    post, path = "/webhooks/gitlab", operation_id = "gitlab_webhook", tag = "Intake", security(()),
    params(
        ("X-Gitlab-Token" = Option<String>, Header, description = "The secret token, unless the delivery is signed"),
        ("webhook-signature" = Option<String>, Header, description = "Standard Webhooks, with `webhook-id` and `webhook-timestamp`"),
        ("X-Gitlab-Event" = String, Header, description = "Any hook"),
    ),
    request_body(content = Object, description = "The payload, at most 25 MiB"),
    responses(
        (status = 202, description = "Accepted, and everything it amounts to is stored", body = Success),
        Refusals<RawBody, Delivery>,
    ),
)]
pub async fn gitlab(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Accepted> {
    receive(state, finisher, request, Forge::GitLab).await
}

/// Receive a delivery from Gitea, Forgejo or Gogs.
#[utoipa::path(
    post, path = "/webhooks/gitea", operation_id = "gitea_webhook", tag = "Intake", security(()),
    params(
        ("X-Gitea-Signature" = Option<String>, Header, description = "HMAC-SHA-256 of the raw body; likewise `X-Forgejo-Signature`, `X-Gogs-Signature`, `X-Hub-Signature-256`"),
        ("X-Gitea-Event" = Option<String>, Header, description = "Any event; likewise `X-Forgejo-Event`, `X-Gogs-Event`"),
    ),
    request_body(
        description = "The payload, or a form with it in `payload`; at most 25 MiB",
        content((Object = "application/json"), (String = "application/x-www-form-urlencoded")),
    ),
    responses(
        (status = 202, description = "Accepted, and everything it amounts to is stored", body = Success),
        Refusals<RawBody, Delivery>,
    ),
)]
pub async fn gitea(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Accepted> {
    receive(state, finisher, request, Forge::Gitea).await
}

/// Receive a delivery from Bitbucket Cloud or Data Center.
#[utoipa::path(
    post, path = "/webhooks/bitbucket", operation_id = "bitbucket_webhook", tag = "Intake", security(()),
    params(
        ("X-Hub-Signature" = String, Header, description = "`sha256=` and the HMAC-SHA-256 of the raw body"),
        ("X-Event-Key" = String, Header, description = "Any event"),
    ),
    request_body(content = Object, description = "The payload, at most 25 MiB"),
    responses(
        (status = 202, description = "Accepted, and everything it amounts to is stored", body = Success),
        Refusals<RawBody, Delivery>,
    ),
)]
pub async fn bitbucket(
    State(state): State<AppState>,
    finisher: Finisher,
    request: Request,
) -> ApiResult<Accepted> {
    receive(state, finisher, request, Forge::Bitbucket).await
}

/// Delivery of a configured forge, in the description.
struct Delivery;

impl Refuses for Delivery {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::SchemaError,
        ErrorCode::SignatureInvalid,
        ErrorCode::NotFound,
    ];
}

async fn receive(
    state: AppState,
    finisher: Finisher,
    request: Request,
    forge: Forge,
) -> ApiResult<Accepted> {
    let webhooks = &state.0.intake.webhooks;
    let webhook = webhooks.iter().find(|webhook| webhook.forge() == forge);
    let webhook: Arc<Webhook> = Arc::clone(webhook.ok_or_else(|| ApiError::not_found("Route"))?);
    let (parts, body) = request.into_parts();
    let tell = |error: &ApiError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => webhook.refused_as_too_large(),
        StatusCode::SERVICE_UNAVAILABLE => webhook.refused_for_lack_of_room(),
        _ => {}
    };
    // Before the body is read: a delivery that cannot be genuine is refused without it.
    refuse_too_large(&parts.headers, MAX_DELIVERY).inspect_err(tell)?;
    webhook.expects(&parts.headers)?;
    let body = state.read(&parts, body, MAX_DELIVERY).await;
    let body = body.inspect_err(tell)?;
    let (read, was_read) = oneshot::channel();
    // A delivery counts even if the forge hangs up, or is no longer kept waiting.
    let received = finisher.finish(async move {
        let Whole { bytes, mut hold } = body;
        let verified = webhook.verify(parts.headers, bytes);
        let delivery = hold.proved(verified).await?;
        let room = state.work(&mut hold, delivery.cost()).await;
        room.inspect_err(|_| webhook.refused_for_lack_of_room())?;
        let has_read = || {
            let _ = read.send(());
        };
        webhook.receive(delivery, has_read).await?;
        drop(hold);
        Ok::<_, ApiError>(())
    });
    let too_late = async {
        // Where it failed before, `received` has ended.
        let _ = was_read.await;
        tokio::time::sleep(STORE_TIME).await;
    };
    tokio::select! {
        biased;
        received = received => received??,
        () = too_late => return Err(still_waiting()),
    }
    Ok((StatusCode::ACCEPTED, Json(Success::new())))
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        let message = format!("{error}.");
        let message = message[..1].to_uppercase() + &message[1..];
        match error {
            WebhookError::Unverified(_) => Self::new(ErrorCode::SignatureInvalid, message),
            WebhookError::NoEvent(_) | WebhookError::Foreign { .. } => {
                Self::schema_without_field(message)
            }
            WebhookError::Body(_) => Self::body_parsing(message),
            WebhookError::Busy { retry_after } | WebhookError::Full { retry_after } => {
                Self::unavailable(message, retry_after)
            }
            WebhookError::Store(error) => error.into(),
            WebhookError::Died => Self::internal(),
        }
    }
}
