//! What is answered before the API is there: that the program lives, and what it waits for.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;

use super::api::health;
use super::error::ApiError;

/// When to come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const WAITING: &str = "The server is starting and waits for its database. Try again later.";
const FULL: &str =
    "The server is starting and waits for room: its database's disk is full. Try again later.";
const MIGRATING: &str = "The database is migrating to the schema of this version. Try again later.";

/// Why there is no API yet.
type Reason = Arc<Mutex<&'static str>>;

/// Where every request goes: to the API once there is one, and before that to an answer which says that there is
/// none yet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    api: OnceLock<Router>,
    before: Router,
    reason: Reason,
}

impl Default for Entrance {
    fn default() -> Self {
        let reason = Arc::new(Mutex::new(WAITING));
        let before = Router::new()
            .route("/healthz", get(health::healthz))
            .fallback(not_yet)
            .layer(map_response(guarded))
            .with_state(Arc::clone(&reason));
        Self(Arc::new(Inner {
            api: OnceLock::new(),
            before,
            reason,
        }))
    }
}

impl From<Router> for Entrance {
    fn from(api: Router) -> Self {
        let entrance = Self::default();
        entrance.open(api);
        entrance
    }
}

impl Entrance {
    /// Has everybody told that the database is being migrated, rather than that it is waited for.
    pub fn migrating(&self) {
        self.tell(MIGRATING);
    }

    /// Has everybody told that the database's disk is full.
    pub fn lacks_room(&self) {
        self.tell(FULL);
    }

    fn tell(&self, reason: &'static str) {
        *self.0.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Lets requests in, those on connections that are there already too.
    pub fn open(&self, api: Router) {
        // There is one API only.
        let _ = self.0.api.set(api);
    }

    pub(super) fn router(&self) -> Router {
        self.0.api.get().unwrap_or(&self.0.before).clone()
    }
}

async fn not_yet(State(reason): State<Reason>) -> ApiError {
    let message = *reason.lock().unwrap_or_else(PoisonError::into_inner);
    ApiError::unavailable(message, RETRY_AFTER)
}

/// As every other answer.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    response
}
