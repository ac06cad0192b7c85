//! What every refused or failed request is answered with: one JSON shape, never the input.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::respond::RespondError;
use crate::store::{StoreError, WhyInvalid};

/// The header that repeats the code. Stack Auth's SDK looks for it first.
const KNOWN_ERROR: HeaderName = HeaderName::from_static("x-stack-known-error");

/// The same under the name that the SDK uses since its product is called Hexclave.
const KNOWN_ERROR_HEXCLAVE: HeaderName = HeaderName::from_static("x-hexclave-known-error");

/// An answer that is no success: status, code, a sentence for people, and details for programs.
///
/// Codes and sentences that Stack Auth has too are the same as there, so that its SDK raises the errors
/// its users know. No part of an error may repeat what the caller sent: it could be a key.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Option<Value>,
    retry_after: Option<Duration>,
    is_of_many: bool,
}

/// Marks the response to a request of which the log tells together with others.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfMany;

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error without details.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: None,
            retry_after: None,
            is_of_many: false,
        }
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same error with details for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The same error with a `Retry-After` header, in whole seconds and at least one.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error of a request of which the log tells together with others: by itself it is no fault.
    #[must_use]
    pub(super) fn of_many(mut self) -> Self {
        self.is_of_many = true;
        self
    }

    /// 400: something in the body or the query is not as it has to be. `field` is one of our own names.
    pub fn schema(field: &str, problem: &str) -> Self {
        Self::schema_without_field(format!("`{field}` {problem}."))
            .add_detail("field", json!(field))
    }

    /// 400: the body or the query as a whole is not as it has to be.
    pub fn schema_without_field(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let details = json!({ "message": message });
        Self::new(StatusCode::BAD_REQUEST, "SCHEMA_ERROR", message).with_details(details)
    }

    /// 400: the body could not be read or is no JSON.
    pub fn body_parsing(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let details = json!({ "message": message });
        Self::new(StatusCode::BAD_REQUEST, "BODY_PARSING_ERROR", message).with_details(details)
    }

    /// 408: the client began a body and did not go on.
    pub fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            "The body took too long to arrive. Nothing was changed; send the request again.",
        )
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        let message =
            format!("The body is larger than {limit} bytes, the most this endpoint takes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
            .with_details(json!({ "limit_bytes": limit }))
    }

    /// 415: the body is not declared as what this endpoint reads.
    pub fn media_type(expected: &str) -> Self {
        let message = format!("Send the body with the header `content-type: {expected}`.");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        )
        .with_details(json!({ "expected": expected }))
    }

    /// 404: no such key in the caller's project.
    pub fn api_key_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "API_KEY_NOT_FOUND",
            "API key not found.",
        )
    }

    /// 401: the key's time is over.
    pub fn api_key_expired() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "API_KEY_EXPIRED",
            "API key has expired.",
        )
    }

    /// 401: the key was revoked.
    pub fn api_key_revoked() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "API_KEY_REVOKED",
            "API key has been revoked.",
        )
    }

    /// 400: a team's key where a user's belongs, or the other way round.
    pub fn wrong_api_key_type(expected: &str, actual: &str) -> Self {
        let message = format!(
            "This endpoint is for {expected} API keys, but a {actual} API key was provided."
        );
        Self::new(StatusCode::BAD_REQUEST, "WRONG_API_KEY_TYPE", message)
            .with_details(json!({ "expected_type": expected, "actual_type": actual }))
    }

    /// 400: nobody can revoke a public key by reporting it.
    pub fn public_api_key_cannot_be_revoked() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PUBLIC_API_KEY_CANNOT_BE_REVOKED",
            "Public API keys cannot be revoked by the secretscanner endpoint.",
        )
    }

    /// 404: no such thing, or none that the caller may see.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("{what} not found."),
        )
    }

    /// 429: too many requests from one client.
    pub fn rate_limited(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RATE_LIMITED",
            "Too many requests from this address. Wait as long as the header `retry-after` says.",
        )
        .with_retry_after(wait)
    }

    /// 429: too many requests with one token.
    pub fn too_many_of_one_token(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RATE_LIMITED",
            "Too many requests with this token. Wait as long as the header `retry-after` says.",
        )
        .with_retry_after(wait)
    }

    /// 503: something this needs is down; the sender should try again.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "SERVICE_UNAVAILABLE",
            message,
        )
        .with_retry_after(wait)
    }

    /// 500: a fault of the program. What happened is in its log, under the request's identifier.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            "Internal error. The server's log has the cause under this response's `x-request-id`.",
        )
    }

    fn add_detail(mut self, name: &str, value: Value) -> Self {
        if let Some(Value::Object(details)) = &mut self.details {
            details.insert(name.to_owned(), value);
        }
        self
    }
}

impl From<RespondError> for ApiError {
    fn from(error: RespondError) -> Self {
        match error {
            RespondError::Store(error) => error.into(),
            RespondError::NotFound => Self::api_key_not_found(),
            RespondError::Invalid(WhyInvalid::ManuallyRevoked) => Self::api_key_revoked(),
            RespondError::Invalid(WhyInvalid::Expired) => Self::api_key_expired(),
            RespondError::Replaced(by) => {
                let message = "This key was rotated before; rotate the one that replaced it.";
                Self::new(StatusCode::CONFLICT, "CONFLICT", message)
                    .with_details(json!({ "replaced_by": by }))
            }
            error @ (RespondError::NoFormat(_) | RespondError::Mint(_)) => {
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
    /// The cause goes to the log; what it says of paths and servers is nobody else's business.
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Cursor => Self::schema("cursor", "is not one that this list gave out"),
            StoreError::Exists(what) => Self::new(
                StatusCode::CONFLICT,
                "CONFLICT",
                format!("{what} exists already."),
            ),
            StoreError::Refused(why) => {
                Self::new(StatusCode::CONFLICT, "CONFLICT", format!("Refused: {why}."))
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

/// What may be told to everybody about a database that cannot be used.
fn unavailable_because(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotMigrated { .. } => {
            "The database lacks migrations; run `rescind migrate`. Nothing was changed."
        }
        StoreError::Full { .. } => {
            "The database's disk is full. Nothing was changed; try again later."
        }
        StoreError::ReadOnly { .. } => {
            "The database is read-only. Nothing was changed; try again later."
        }
        StoreError::Disk { .. } => {
            "The database's disk does not work. Nothing was changed; try again later."
        }
        StoreError::Gone { .. } => {
            "The database's file was removed or replaced. Nothing was changed; try again later."
        }
        StoreError::Crowded { .. } => {
            "The database has no connection left. Nothing was changed; try again later."
        }
        _ => "The database does not answer. Nothing was changed; try again later.",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "error": self.message });
        if let (Some(body), Some(details)) = (body.as_object_mut(), self.details) {
            body.insert("details".to_owned(), details);
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.is_of_many {
            response.extensions_mut().insert(OfMany);
        }
        let headers = response.headers_mut();
        headers.insert(KNOWN_ERROR, HeaderValue::from_static(self.code));
        headers.insert(KNOWN_ERROR_HEXCLAVE, HeaderValue::from_static(self.code));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED && self.code.starts_with("ACCESS_TOKEN") {
            // RFC 9110, 11.6.1: a 401 for lack of authentication names the scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
