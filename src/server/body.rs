//! Reading request bodies: bounded, declared as JSON, field by field.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use super::error::{ApiError, ApiResult};

/// The most a JSON request of the API may have, in bytes.
pub(super) const MAX_JSON: usize = 64 << 10;

/// How much of a body that is too large is still read and thrown away, in bytes. Clients that are cut
/// off while sending see a broken connection instead of the answer.
const DRAIN: usize = 64 << 20;

/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Reads a body of at most `limit` bytes. More is 413, also when it arrives in chunks of unknown total; a
/// client that takes longer than `patience` gets 408.
pub(super) async fn read_bounded(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
) -> ApiResult<Bytes> {
    let reading = read_up_to(headers, body, limit);
    tokio::time::timeout(patience, reading)
        .await
        .map_err(|_| ApiError::body_timeout())?
}

async fn read_up_to(headers: &HeaderMap, body: Body, limit: usize) -> ApiResult<Bytes> {
    let declared = content_length(headers);
    let mut chunks = body.into_data_stream();
    let mut whole: Vec<u8> = Vec::new();
    let mut first = Bytes::new();
    if declared.is_some_and(|length| length > limit as u64) {
        drain(&mut chunks).await;
        return Err(ApiError::body_too_large(limit));
    }
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|_| ApiError::body_parsing("The body ended early or could not be read."))?;
        let so_far = whole.len().max(first.len());
        if so_far + chunk.len() > limit {
            drain(&mut chunks).await;
            return Err(ApiError::body_too_large(limit));
        }
        if so_far == 0 {
            // Most bodies come in one piece, which then needs no copy.
            first = chunk;
        } else {
            if whole.is_empty() {
                whole.reserve(
                    declared
                        .and_then(|n| usize::try_from(n).ok())
                        .unwrap_or(so_far * 2),
                );
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.into()
    })
}

/// Reads on without keeping anything, within [`DRAIN`] and [`DRAIN_TIME`].
async fn drain(chunks: &mut axum::body::BodyDataStream) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > DRAIN {
                break;
            }
        }
    };
    // When the time is over the connection is closed, which is all the sender is owed.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Refuses a body that is not declared as `application/json` (or `…+json`), whatever its parameters.
pub(super) fn require_json(headers: &HeaderMap) -> ApiResult<()> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || essence
            .rsplit_once('+')
            .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"));
    if json {
        Ok(())
    } else {
        Err(ApiError::media_type("application/json"))
    }
}

/// Parses a JSON object. Neither the syntax error nor anything else repeats what was sent.
pub(super) fn parse_object(body: &[u8]) -> ApiResult<Map<String, Value>> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::body_parsing(if body.is_empty() {
            "The body is empty. Send a JSON object.".to_owned()
        } else {
            format!(
                "The body is not valid JSON: line {}, column {}.",
                error.line(),
                error.column()
            )
        })
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::schema_without_field(
            "The body has to be a JSON object.",
        )),
    }
}
