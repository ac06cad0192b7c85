//! Error responses for refused and failed requests: one JSON shape, which never repeats the input.

mod code;
mod refusals;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use code::ErrorCode;
pub(super) use refusals::{RawBody, Refusals, Refuses};

use crate::issuer::IssueError;
use crate::store::{StoreError, WhyInvalid};

/// Header that repeats the error code. Stack Auth's SDK checks it first.
pub(super) const KNOWN_ERROR: HeaderName = HeaderName::from_static("x-stack-known-error");

/// Same header under the name that the SDK has used since its product was renamed to Hexclave.
const KNOWN_ERROR_HEXCLAVE: HeaderName = HeaderName::from_static("x-hexclave-known-error");

/// Error response: code, a sentence for people, and details for programs.
///
/// Codes and sentences that Stack Auth has too are identical, so that its SDK raises the errors that its users know. No
/// part of an error may repeat what the caller sent: it could be a key.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    details: Option<Value>,
    retry_after: Option<Duration>,
    is_of_many: bool,
}

/// Body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// Code of the error, which the header `x-stack-known-error` repeats.
    code: ErrorCode,
    /// Details for programs. Their fields depend on the code; of most there are none.
    #[schema(value_type = Object)]
    details: Value,
    /// Sentence for people.
    #[schema(value_type = String)]
    error: Cow<'static, str>,
}

/// Marker for responses that the log reports in a summary rather than one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfMany;

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Creates an error without details.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
            retry_after: None,
            is_of_many: false,
        }
    }

    /// Returns the HTTP status of the response.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Adds details for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds a `Retry-After` header, in whole seconds and at least one.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Marks the error as one that the log reports in a summary: on its own it is not a fault.
    #[must_use]
    pub(super) fn of_many(mut self) -> Self {
        self.is_of_many = true;
        self
    }

    /// Creates a 400 error: a field of the body, or a query parameter, is invalid. `field` is a name of the API.
    pub fn schema(field: &str, problem: &str) -> Self {
        Self::schema_without_field(format!("`{field}` {problem}."))
            .add_detail("field", json!(field))
    }

    /// Creates a 400 error: the body or the query as a whole is invalid.
    pub fn schema_without_field(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let details = json!({ "message": message });
        Self::new(ErrorCode::SchemaError, message).with_details(details)
    }

    /// Creates a 400 error: the body could not be read or is not valid JSON.
    pub fn body_parsing(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let details = json!({ "message": message });
        Self::new(ErrorCode::BodyParsingError, message).with_details(details)
    }

    /// Creates a 408 error: the body took too long to arrive.
    pub fn body_timeout() -> Self {
        Self::new(
            ErrorCode::RequestTimeout,
            "The body took too long to arrive. Nothing was changed; send the request again.",
        )
    }

    /// Creates a 413 error: the body is larger than `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        let message =
            format!("The body is larger than {limit} bytes, the most this endpoint takes.");
        Self::new(ErrorCode::PayloadTooLarge, message).with_details(json!({ "limit_bytes": limit }))
    }

    /// Creates a 415 error: the body is not declared with the content type that the endpoint reads.
    pub fn media_type(expected: &str) -> Self {
        let message = format!("Send the body with the header `content-type: {expected}`.");
        Self::new(ErrorCode::UnsupportedMediaType, message)
            .with_details(json!({ "expected": expected }))
    }

    /// Creates a 404 error: there is no such key in the caller's project.
    pub fn api_key_not_found() -> Self {
        Self::new(ErrorCode::ApiKeyNotFound, "API key not found.")
    }

    /// Creates a 401 error: the key has expired.
    pub fn api_key_expired() -> Self {
        Self::new(ErrorCode::ApiKeyExpired, "API key has expired.")
    }

    /// Creates a 401 error: the key was revoked.
    pub fn api_key_revoked() -> Self {
        Self::new(ErrorCode::ApiKeyRevoked, "API key has been revoked.")
    }

    /// Creates a 400 error: the key belongs to a team where a user's is expected, or the other way round.
    pub fn wrong_api_key_type(expected: &str, actual: &str) -> Self {
        let message = format!(
            "This endpoint is for {expected} API keys, but a {actual} API key was provided."
        );
        Self::new(ErrorCode::WrongApiKeyType, message)
            .with_details(json!({ "expected_type": expected, "actual_type": actual }))
    }

    /// Creates a 400 error: public keys cannot be revoked by reporting them.
    pub fn public_api_key_cannot_be_revoked() -> Self {
        Self::new(
            ErrorCode::PublicApiKeyCannotBeRevoked,
            "Public API keys cannot be revoked by the secretscanner endpoint.",
        )
    }

    /// Creates a 404 error: the object does not exist, or the caller may not see it.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} not found."))
    }

    /// Creates a 429 error: too many requests from one client.
    pub fn rate_limited(wait: Duration) -> Self {
        Self::new(
            ErrorCode::RateLimited,
            "Too many requests from this address. Wait as long as the header `retry-after` says.",
        )
        .with_retry_after(wait)
    }

    /// Creates a 429 error: too many requests with one token.
    pub fn too_many_of_one_token(wait: Duration) -> Self {
        Self::new(
            ErrorCode::RateLimited,
            "Too many requests with this token. Wait as long as the header `retry-after` says.",
        )
        .with_retry_after(wait)
    }

    /// Creates a 503 error: a dependency is unavailable, and the request should be repeated after `wait`.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self::new(ErrorCode::ServiceUnavailable, message).with_retry_after(wait)
    }

    /// Creates a 500 error: a fault of the program. The cause is in its log, under the request's identifier.
    pub fn internal() -> Self {
        Self::new(
            ErrorCode::InternalError,
            "Internal error. The server's log has the cause under this response's `x-request-id`.",
        )
    }

    /// Adds to a 503 error that the report which led to it can be sent again, although it may have had effects already:
    /// keys are revoked as they are found.
    pub(super) fn of_report(mut self) -> Self {
        if self.code == ErrorCode::ServiceUnavailable {
            let again = "It is safe to send the report again; what was revoked stays revoked.";
            self.message = format!("{} {again}", self.message).into();
        }
        self
    }

    fn add_detail(mut self, name: &str, value: Value) -> Self {
        if let Some(Value::Object(details)) = &mut self.details {
            details.insert(name.to_owned(), value);
        }
        self
    }
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            IssueError::NotFound => Self::api_key_not_found(),
            IssueError::Invalid(WhyInvalid::ManuallyRevoked) => Self::api_key_revoked(),
            IssueError::Invalid(WhyInvalid::Expired) => Self::api_key_expired(),
            IssueError::Replaced(by) => {
                let message = "This key was rotated before; rotate the one that replaced it.";
                Self::new(ErrorCode::Conflict, message).with_details(json!({ "replaced_by": by }))
            }
            IssueError::Renamed => Self::new(
                ErrorCode::IdempotencyKeyReused,
                "This `Idempotency-Key` was sent with another request within the last 24 hours. Nothing was changed; \
                 take a new one for each request.",
            ),
            error @ (IssueError::Ending | IssueError::Leaked) => {
                Self::new(ErrorCode::Conflict, format!("Refused: {error}."))
            }
            error @ (IssueError::NoFormat(_) | IssueError::Mint(_)) => {
                tracing::error!(%error, "no key can be issued");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<Arc<StoreError>> for ApiError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::from(error.as_ref())
    }
}

impl From<&StoreError> for ApiError {
    /// Logs the cause instead of returning it: callers must not learn about paths and servers.
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Cursor => Self::schema("cursor", "is not one that this list gave out"),
            StoreError::Exists(what) => {
                Self::new(ErrorCode::Conflict, format!("{what} exists already."))
            }
            StoreError::PutOff { .. } => {
                let message = "Too many messages with many keys wait to be stored. Send the message again later.";
                Self::unavailable(message, Duration::from_secs(5)).of_many()
            }
            error if error.is_temporary() => {
                tracing::error!(%error, "the database is not available");
                Self::unavailable(unavailable_because(error), Duration::from_secs(2))
            }
            error => {
                tracing::error!(%error, "the database failed");
                Self::internal()
            }
        }
    }
}

/// Returns the public message for a database that cannot be used. It does not say that nothing was changed: a request may
/// take several transactions, and what becomes of one whose connection breaks is not always known.
fn unavailable_because(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotMigrated { .. } => "The database lacks migrations; run `rescind migrate`.",
        StoreError::Full { .. } => "The database's disk is full. Try again later.",
        StoreError::TooLarge { .. } => {
            "The database's files are as large as they may be. Try again later."
        }
        StoreError::ReadOnly { .. } => "The database is read-only. Try again later.",
        StoreError::Forbidden { .. } => {
            "The database forbids Rescind what it needs: its log and `rescind doctor` name what to grant. Try again later."
        }
        StoreError::Pooled { .. } => {
            "The database is reached through a pooler that shares its sessions: it has to give each client one of its own. Try again later."
        }
        StoreError::Disk { .. } => "The database's disk does not work. Try again later.",
        StoreError::Gone { .. } => "The database's file was removed or replaced. Try again later.",
        StoreError::Damaged { .. } => {
            "The database is damaged: restore a backup (docs/operations.md)."
        }
        StoreError::Emptied { .. } => {
            "The database lacks tables that it had, or constraints and indexes of theirs: restore a backup (docs/operations.md), or begin anew with `rescind migrate`."
        }
        StoreError::UnknownPepper { .. } => {
            "The database has keys under a pepper that is not configured here: the log and `rescind doctor` say which. They are not found until it is added to keys.peppers."
        }
        StoreError::Crowded { .. } => "The database has no connection left. Try again later.",
        _ => "The database does not answer. Try again later.",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            code: self.code,
            details: self.details.unwrap_or_else(|| json!({})),
            error: self.message,
        };
        let mut response = (self.code.status(), Json(body)).into_response();
        if self.is_of_many {
            response.extensions_mut().insert(OfMany);
        }
        let headers = response.headers_mut();
        let name = HeaderValue::from_static(self.code.name());
        headers.insert(KNOWN_ERROR, name.clone());
        headers.insert(KNOWN_ERROR_HEXCLAVE, name);
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if matches!(
            self.code,
            ErrorCode::AccessTokenRequired | ErrorCode::AccessTokenInvalid
        ) {
            // RFC 9110, section 11.6.1: a 401 for lack of authentication names the scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
