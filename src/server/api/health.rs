//! Health checks: liveness and readiness of the process.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::{ApiResult, Refusals};
use crate::server::{AppState, Finisher};

/// Response of a successful health check.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`; anything else is an error.
    status: &'static str,
}

/// Check that the process is up. Nothing else is checked, so that an unavailable database restarts nothing.
#[utoipa::path(
    get, path = "/healthz", operation_id = "health", tag = "Health",
    security(()),
    responses((status = 200, description = "The process is up", body = Health), Refusals),
)]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check that requests can be served: the database answers, has the schema that this version needs, and accepts writes.
///
/// It is not ready either while there are keys that it would not find, since their pepper is not configured.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "Health",
    security(()),
    responses((status = 200, description = "Requests can be served", body = Health), Refusals),
)]
pub async fn readyz(State(state): State<AppState>, finisher: Finisher) -> ApiResult<Json<Health>> {
    let store = state.store().clone();
    // A stranger that hangs up at once must not interrupt the check for the others.
    finisher
        .finish(async move { store.check_working().await })
        .await??;
    Ok(Json(Health { status: "ok" }))
}
