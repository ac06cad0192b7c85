//! Middleware around every request: identifier, time limit, protection against panics, and one log line. The line has
//! the route but neither path nor query, since these may contain a key.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::AppState;
use super::client::Client;
use super::connections::head::shrink;
use super::error::{ApiError, OfMany};
use super::headers::guard;
use crate::intake::Partner;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Generator of request identifiers: a random part per process and a running number.
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

    /// Returns the next identifier. Identifiers proposed by clients are not adopted: they would be logged.
    fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:08x}-{number:x}", self.process))
            .unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Runs the middleware around every route.
pub(super) async fn surround(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let partners = state.0.intake.partners.iter();
    let configured = partners.flat_map(Partner::headers);
    shrink(request.headers_mut(), configured);
    let started = Instant::now();
    let id = state.0.rooms.request_ids.next();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = Client::of(request.extensions());

    let share = state
        .0
        .rooms
        .heads
        .share(&request, || state.is_known(&request));
    let answer = async move {
        match share {
            Ok(_share) => next.run(request).await,
            Err(refused) => ([(header::CONNECTION, "close")], refused).into_response(),
        }
    };
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let mut response = match tokio::time::timeout(state.0.rooms.limits.request_time, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => ApiError::internal().into_response(),
        Err(_elapsed) => timed_out(state.0.rooms.limits.request_time).into_response(),
    };

    let status = response.status();
    let is_of_many = response.extensions().get::<OfMany>().is_some();
    log(
        &method,
        route.as_ref(),
        client,
        (status, is_of_many),
        &id,
        started.elapsed(),
    );
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    guard(headers);
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
    client: Option<Client>,
    (status, is_of_many): (StatusCode, bool),
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
    if status >= 500 && !is_of_many {
        tracing::error!(method, route, client, status, id, micros, "request failed");
    } else if status >= 400 {
        tracing::info!(method, route, client, status, id, micros, "request refused");
    } else {
        tracing::debug!(method, route, client, status, id, micros, "request");
    }
}
