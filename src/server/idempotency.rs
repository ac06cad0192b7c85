//! Header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), by which a caller has a request done once,
//! however often it is sent.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::access::Caller;
use super::error::{ApiError, ApiResult, ErrorCode, Refuses};
use crate::issuer::RequestName;

/// Maximum length of the header, in bytes.
const MAX_LENGTH: usize = 255;

/// Header of the request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Header of the response to a request that was done before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Refusals of the header, in the description.
pub(super) struct IdempotencyKey;

impl IdempotencyKey {
    /// Returns the name of a request, if it has one. The draft has it in quotation marks, and many send it without:
    /// either way it is the same.
    ///
    /// # Errors
    /// Returns 400 for one that is empty, too long, or has other characters than visible ones of ASCII.
    pub(super) fn of(request: &Request, caller: &Caller) -> ApiResult<Option<RequestName>> {
        let Some(value) = request.headers().get(KEY) else {
            return Ok(None);
        };
        let value = value.as_bytes().trim_ascii();
        let quoted = value.strip_prefix(b"\"");
        let text = quoted
            .and_then(|rest| rest.strip_suffix(b"\""))
            .unwrap_or(value);
        let is_visible = text.iter().all(|byte| (0x20..0x7f).contains(byte));
        if text.is_empty() || text.len() > MAX_LENGTH || !is_visible {
            let problem = "has to have 1 to 255 visible characters of ASCII";
            return Err(ApiError::schema("Idempotency-Key", problem));
        }
        Ok(Some(RequestName::new(caller.token_id, text)))
    }
}

impl Refuses for IdempotencyKey {
    const CODES: &'static [ErrorCode] = &[ErrorCode::SchemaError, ErrorCode::IdempotencyKeyReused];
}

/// Marks a response as that to a request which was done before.
pub(super) fn replayed(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(REPLAYED, replayed);
    response
}
