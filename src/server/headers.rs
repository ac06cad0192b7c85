//! Headers that every answer has.

use axum::http::{HeaderMap, HeaderValue, header};

/// Adds the headers that every answer has: browsers neither guess its type nor, unless it says otherwise, keep it.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}
