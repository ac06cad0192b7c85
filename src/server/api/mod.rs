//! Handlers, in one file per family of endpoints.

pub mod formats;
pub mod health;
pub mod import;
pub mod incidents;
pub mod intake;
pub mod keys;
pub mod revocations;
pub mod sources;
mod uses;
pub mod views;
pub mod webhooks;

use axum::extract::{FromRequestParts as _, Path};
use axum::http::request::Parts;
use uuid::Uuid;

use super::AppState;

/// Returns the UUID in the path, or `None` if it is not one.
async fn path_id(parts: &mut Parts, state: &AppState) -> Option<Uuid> {
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .ok()?;
    Uuid::try_parse(&text).ok()
}
