//! Middleware around every request: identifier, time limit, protection against panics, and one log line. The line has
//! the route, and of a request that was refused the path without its keys and the code of the error. The query, where
//! whoever may not read the log can put anything, is left out.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::AppState;
use super::client::Client;
use super::connections::head::shrink;
use super::error::{ApiError, KNOWN_ERROR, OfMany};
use super::headers::guard;
use crate::intake::Partner;
use crate::respond::shorten;
use crate::scan::Redactor;

/// Maximum length of a path in the log, in bytes.
const PATH_MAX: usize = 256;

/// Length of the beginning of a path that is searched for keys, in bytes: refusals are many when somebody floods.
const LOOKED_AT: usize = 1 << 10;

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
    let uri = request.uri().clone();

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

    let line = Line {
        method: &method,
        route: route.as_ref(),
        client,
        id: &id,
        took: started.elapsed(),
    };
    line.log(&response, || shown_path(&uri, state.redactor()));
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

/// Facts about a request, for the log.
struct Line<'a> {
    method: &'a Method,
    route: Option<&'a MatchedPath>,
    client: Option<Client>,
    id: &'a HeaderValue,
    took: Duration,
}

impl Line<'_> {
    fn log(self, response: &Response, path: impl FnOnce() -> String) {
        let route = self.route.map_or("(no route)", MatchedPath::as_str);
        // Extension methods are text of the client's choice.
        let method = if self.method.as_str().len() <= 7 {
            self.method.as_str()
        } else {
            "(other)"
        };
        let id = self.id.to_str().unwrap_or_default();
        let status = response.status().as_u16();
        let client = self.client.map(tracing::field::display);
        let micros = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        let is_of_many = response.extensions().get::<OfMany>().is_some();
        // Our own word, which errors alone have.
        let code = response.headers().get(KNOWN_ERROR);
        let code = code.and_then(|code| code.to_str().ok());
        if status >= 500 && !is_of_many {
            let path = path();
            tracing::error!(
                method,
                route,
                path,
                client,
                status,
                code,
                id,
                micros,
                "request failed"
            );
        } else if status >= 400 {
            let path = path();
            tracing::info!(
                method,
                route,
                path,
                client,
                status,
                code,
                id,
                micros,
                "request refused"
            );
        } else {
            tracing::debug!(method, route, client, status, id, micros, "request");
        }
    }
}

/// Returns the beginning of a path, without keys, however they are written.
fn shown_path(uri: &Uri, redactor: &Redactor) -> String {
    let path = uri.path();
    let looked_at = &path[..path.floor_char_boundary(LOOKED_AT)];
    shorten(redactor, looked_at, PATH_MAX, looked_at.len() < path.len())
}
