//! GitHub-shaped API on the loopback interface: the public events feed with its `ETag`, pages and
//! `X-Poll-Interval`, and the public keys with which partner reports are verified.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::git_server::Pushed;

/// Maximum number of events per page, and number of pages that the feed goes back, as documented by GitHub:
/// <https://docs.github.com/en/rest/activity/events>.
const PER_PAGE_MAX: usize = 100;
const PAGES: usize = 3;

/// Running API. It stops when dropped.
#[derive(Debug)]
pub struct Feed {
    url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    /// Events, oldest first. They are served newest first.
    events: Mutex<Vec<Value>>,
    public_keys: Value,
    poll_interval_seconds: u64,
}

impl Feed {
    /// Listens on a free port of 127.0.0.1. Pollers are told to wait `poll_interval_seconds`, and `public_keys` is
    /// the body of `/meta/public_keys/secret_scanning`.
    ///
    /// # Errors
    /// Returns an error if no port can be opened.
    pub async fn start(
        tracker: &TaskTracker,
        poll_interval_seconds: u64,
        public_keys: Value,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            events: Mutex::default(),
            public_keys,
            poll_interval_seconds,
        });
        let router = Router::new()
            .route("/events", get(events))
            .route("/meta/public_keys/secret_scanning", get(public_keys_list))
            .with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tracker.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
            if let Err(error) = served.await {
                tracing::error!(%error, "the events feed ended");
            }
        });
        Ok(Self { url, shared, stop })
    }

    /// Returns the address of the API, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a `PushEvent` in the shape used by GitHub since October 2025.
    pub fn push(&self, repository_id: u64, repository: &str, pushed: &Pushed, at: Timestamp) {
        self.add(json!({
            "type": "PushEvent",
            "actor": { "id": 1, "login": repository.split('/').next() },
            "repo": { "id": repository_id, "name": repository },
            "payload": {
                "repository_id": repository_id,
                "ref": pushed.reference,
                "head": pushed.after.to_string(),
                "before": pushed.before.to_string(),
            },
            "public": true,
            "created_at": at,
        }));
    }

    /// Adds an event of any shape, and sets its `id`, which increases with each event.
    pub fn add(&self, mut event: Value) {
        let mut events = self
            .shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        event["id"] = Value::String((40_000_000_000_u64 + events.len() as u64).to_string());
        events.push(event);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Deserialize)]
struct Page {
    page: Option<usize>,
    per_page: Option<usize>,
}

async fn events(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let per_page = asked.per_page.unwrap_or(15).clamp(1, PER_PAGE_MAX);
    let page = asked.page.unwrap_or(1).max(1);
    let (tag, body) = {
        let events = shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        let newest_first: Vec<Value> = events
            .iter()
            .rev()
            .take(PER_PAGE_MAX * PAGES)
            .skip((page - 1) * per_page)
            .take(per_page)
            .cloned()
            .collect();
        (
            format!("\"{}-{page}-{per_page}\"", events.len()),
            Value::Array(newest_first),
        )
    };
    let interval = HeaderValue::from(shared.poll_interval_seconds);
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(body).into_response()
    };
    answer.headers_mut().insert("x-poll-interval", interval);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

async fn public_keys_list(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    axum::Json(shared.public_keys.clone())
}
