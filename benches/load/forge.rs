//! In-memory forge with GitHub's events API and git protocol v2.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use gix_hash::ObjectId;
use jiff::Timestamp;
use rescind::keyformat::KeyValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Number of events shown by the feed.
const SHOWN: usize = 300;

/// Push, with the pack that git would send.
pub(crate) struct Push {
    pub(crate) repository: usize,
    pub(crate) before: ObjectId,
    pub(crate) after: ObjectId,
    pub(crate) pack: Vec<u8>,
    pub(crate) leak: Option<KeyValue>,
    pub(crate) at: OnceLock<Timestamp>,
}

impl Push {
    /// Records the current time as that of the push.
    #[expect(clippy::disallowed_methods, reason = "the load happens in real time")]
    pub(crate) fn happens(&self) {
        self.at.get_or_init(Timestamp::now);
    }
}

#[derive(Default)]
struct Shared {
    pushes: OnceLock<Arc<Vec<Push>>>,
    by_commit: OnceLock<HashMap<String, usize>>,
    fetched: OnceLock<Vec<AtomicUsize>>,
    /// Indices of the pushes in the feed, newest first.
    feed: Mutex<VecDeque<usize>>,
}

/// Running forge.
pub(crate) struct Forge {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Forge {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/events", get(events))
            .route("/{owner}/{name}/git-upload-pack", post(upload_pack))
            .with_state(Arc::clone(&shared));
        let tasks = TaskTracker::new();
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        tasks.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the pushes that can be fetched from now on.
    pub(crate) fn offer(&self, pushes: &Arc<Vec<Push>>) {
        let ids = pushes.iter().map(|push| push.after.to_string());
        self.shared.by_commit.get_or_init(|| ids.zip(0..).collect());
        self.shared
            .fetched
            .get_or_init(|| pushes.iter().map(|_| AtomicUsize::new(0)).collect());
        self.shared.pushes.get_or_init(|| Arc::clone(pushes));
    }

    /// Adds a push to the feed.
    pub(crate) fn publish(&self, number: usize) {
        let mut feed = self
            .shared
            .feed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        feed.push_front(number);
        feed.truncate(SHOWN);
    }

    /// Returns the number of pushes that were fetched more than once.
    pub(crate) fn fetched_twice(&self) -> usize {
        let fetched = self.shared.fetched.get().into_iter().flatten();
        fetched
            .filter(|count| count.load(Ordering::Relaxed) > 1)
            .count()
    }
}

async fn events(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let number = |name: &str, default| {
        query
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (page, size): (usize, usize) = (number("page", 1), number("per_page", 30));
    let shown: Vec<usize> = {
        let feed = shared.feed.lock().unwrap_or_else(PoisonError::into_inner);
        feed.iter()
            .copied()
            .skip((page - 1) * size)
            .take(size)
            .collect()
    };
    let etag = format!("\"{page}-{:?}\"", shown.first());
    let mut answer = HeaderMap::new();
    answer.insert("x-poll-interval", HeaderValue::from_static("1"));
    if let Ok(etag) = HeaderValue::try_from(&etag) {
        answer.insert(header::ETAG, etag);
    }
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, answer).into_response();
    }
    let pushes = shared.pushes.get();
    let events = shown
        .iter()
        .filter_map(|number| Some(event(*number, pushes?.get(*number)?)));
    let events: Vec<Value> = events.collect();
    (answer, axum::Json(events)).into_response()
}

fn event(number: usize, push: &Push) -> Value {
    let Push {
        repository,
        before,
        after,
        at,
        ..
    } = push;
    json!({
        "id": (50_000_000_000 + number).to_string(), "type": "PushEvent",
        "actor": {"id": 1, "login": "octocat"}, "public": true,
        "repo": {"id": 1000 + repository, "name": format!("acme/shop{repository}")},
        "payload": {"repository_id": 1000 + repository, "push_id": number, "ref": "refs/heads/main",
            "head": after.to_string(), "before": before.to_string()},
        "created_at": at.get().map(ToString::to_string),
    })
}

async fn upload_pack(State(shared): State<Arc<Shared>>, request: Bytes) -> Response {
    let text = String::from_utf8_lossy(&request);
    let want = text.split("want ").nth(1).and_then(|rest| rest.get(..40));
    let number = want.and_then(|want| shared.by_commit.get()?.get(want).copied());
    let push = number.and_then(|number| shared.pushes.get()?.get(number).zip(Some(number)));
    let Some((push, number)) = push else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(count) = shared.fetched.get().and_then(|fetched| fetched.get(number)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let mut body = Vec::with_capacity(push.pack.len() + 1024);
    line(&mut body, b"acknowledgments\n");
    line(&mut body, format!("ACK {}\n", push.before).as_bytes());
    line(&mut body, b"ready\n");
    body.extend_from_slice(b"0001");
    line(&mut body, b"packfile\n");
    for piece in push.pack.chunks(8192) {
        line(&mut body, &[&[1], piece].concat());
    }
    body.extend_from_slice(b"0000");
    (
        [(header::CONTENT_TYPE, "application/x-git-upload-pack-result")],
        body,
    )
        .into_response()
}

fn line(body: &mut Vec<u8>, data: &[u8]) {
    body.extend_from_slice(format!("{:04x}", data.len() + 4).as_bytes());
    body.extend_from_slice(data);
}
