//! Handlers, in one file per family of endpoints.

pub mod formats;
pub mod health;
pub mod import;
pub mod incidents;
pub mod intake;
pub mod keys;
pub mod revocations;
pub mod sources;
pub mod stats;
mod uses;
pub mod views;
pub mod webhooks;

use std::time::Duration;

use axum::extract::{FromRequestParts as _, Path};
use axum::http::request::Parts;
use uuid::Uuid;

use super::AppState;
use super::error::ApiError;

/// Time that a sender is kept waiting for the database. Each step there has a time limit of its own, but their sum is
/// more than the 10 s after which senders give up, and take an answer for none.
const STORE_TIME: Duration = Duration::from_millis(8_500);

/// Returns the error for what the database has not taken within [`STORE_TIME`]. It may still do so.
fn still_waiting() -> ApiError {
    let message = "The database takes too long. Send the request again: what it says counts once.";
    ApiError::unavailable(message, Duration::from_secs(5))
}

/// Returns the parameter in the path, or `None` if nothing can have it for a name: it cannot be decoded, or has control
/// characters, of which PostgreSQL takes no NUL. Every handler takes its parameter from here.
async fn path_text(parts: &mut Parts, state: &AppState) -> Option<String> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    let Path(text) = path.ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Returns the UUID in the path, or `None` if it is not one.
async fn path_id(parts: &mut Parts, state: &AppState) -> Option<Uuid> {
    Uuid::try_parse(&path_text(parts, state).await?).ok()
}
