//! Whether the process lives, and whether it can work.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::ApiResult;
use crate::server::{AppState, Finisher};

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

/// Whether requests can be served: the database answers, has the schema this program needs, and takes
/// changes.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "Health",
    responses((status = 200, body = Health), (status = 503, description = "Not ready, and why")),
)]
pub async fn readyz(State(state): State<AppState>, finisher: Finisher) -> ApiResult<Json<Health>> {
    let store = state.store().clone();
    // Strangers who ask and go away at once do not interrupt the answer for the others.
    finisher
        .finish(async move { store.check_working().await })
        .await??;
    Ok(Json(Health { status: "ok" }))
}
