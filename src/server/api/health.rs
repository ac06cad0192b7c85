//! Whether the process lives, and whether it can work.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::AppState;
use crate::server::error::ApiResult;

/// An affirmative answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`; anything else is an error.
    status: &'static str,
}

/// Whether the process is up. Looks at nothing else, so that a database that is down restarts nothing.
#[utoipa::path(
    get, path = "/healthz", operation_id = "health", tag = "Health",
    responses((status = 200, body = Health)),
)]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests can be served: the database answers and has the schema this program needs.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "Health",
    responses((status = 200, body = Health), (status = 503, description = "Not ready, and why")),
)]
pub async fn readyz(State(state): State<AppState>) -> ApiResult<Json<Health>> {
    state.store().check_ready().await?;
    Ok(Json(Health { status: "ok" }))
}
