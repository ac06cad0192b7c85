//! What surrounds every request: its identifier, a time limit, a net under panics, and one log line that
//! knows the route but neither path nor query, which may have a key in them.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::AppState;
use super::client::Client;
use super::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes the identifiers of requests: a random part per process and a running number.
#[derive(Debug)]
pub(super) struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self {
            process: rand::random(),
            next: AtomicU64::new(1),
        }
    }

    /// Identifiers that clients propose are not taken over: they would be logged.
    fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:08x}-{number:x}", self.process))
            .unwrap_or(HeaderValue::from_static("-"))
    }
}

/// How many log lines about refused and failed requests a second has. Strangers decide how many there could be.
const LINES_PER_SECOND: u32 = 50;

/// Bounds the log lines that clients cause.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Lines {
    /// Whether one more is written. Those left out of a second are counted in one line of a later one.
    fn allow(&self) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = second
            .began
            .is_none_or(|began| began.elapsed() >= Duration::from_secs(1));
        if is_over {
            let left_out = std::mem::take(&mut *second).left_out;
            second.began = Some(Instant::now());
            if left_out > 0 {
                tracing::warn!(
                    requests = left_out,
                    "more requests were refused than are logged"
                );
            }
        }
        let allowed = second.lines < LINES_PER_SECOND;
        if allowed {
            second.lines += 1;
        } else {
            second.left_out += 1;
        }
        allowed
    }
}

/// The one middleware around all routes.
pub(super) async fn surround(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = state.0.request_ids.next();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = Client::of(request.extensions()).map(|client| client.address);

    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(state.0.limits.request_time, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => ApiError::internal().into_response(),
        Err(_elapsed) => timed_out(state.0.limits.request_time).into_response(),
    };

    let status = response.status();
    if status.as_u16() < 400 || state.0.lines.allow() {
        log(
            &method,
            route.as_ref(),
            client,
            status,
            &id,
            started.elapsed(),
        );
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn timed_out(limit: Duration) -> ApiError {
    let message = format!(
        "The request took longer than {limit:?}. Whether it took effect is uncertain; try again."
    );
    ApiError::unavailable(message, Duration::from_secs(1))
}

fn log(
    method: &axum::http::Method,
    route: Option<&MatchedPath>,
    client: Option<IpAddr>,
    status: StatusCode,
    id: &HeaderValue,
    took: Duration,
) {
    let route = route.map_or("(no route)", MatchedPath::as_str);
    // Extension methods are text of the client's choice.
    let method = if method.as_str().len() <= 7 {
        method.as_str()
    } else {
        "(other)"
    };
    let id = id.to_str().unwrap_or_default();
    let status = status.as_u16();
    let client = client.map(tracing::field::display);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if status >= 500 {
        tracing::error!(method, route, client, status, id, micros, "request failed");
    } else if status >= 400 {
        tracing::info!(method, route, client, status, id, micros, "request refused");
    } else {
        tracing::debug!(method, route, client, status, id, micros, "request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_no_flood_of_lines() {
        let lines = Lines::default();
        let before = (0..1_000).filter(|_| lines.allow()).count();
        assert_eq!(before, LINES_PER_SECOND as usize);
        assert_eq!(lines.0.lock().unwrap().left_out, 950);
        lines.0.lock().unwrap().began = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(lines.allow());
        assert_eq!(lines.0.lock().unwrap().left_out, 0);
    }
}
