//! Answers before the API is available: health, and the reason for the wait.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;

use super::super::api::health;
use super::super::error::ApiError;
use super::super::headers::guard;

/// Value of `Retry-After` before the API is available.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const WAITING: &str = "The server is starting and waits for its database. Try again later.";
const FULL: &str =
    "The server is starting and waits for room: its database's disk is full. Try again later.";
const MIGRATING: &str = "The database is migrating to the schema of this version. Try again later.";

/// Message that explains why there is no API yet.
type Reason = Arc<Mutex<&'static str>>;

/// Router in front of the API: passes requests to the API once it is available, and answers that it is not until then.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    api: RwLock<Option<Router>>,
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
            api: RwLock::default(),
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
    /// Makes every answer say that the database is being migrated, instead of that the server waits for it.
    pub fn migrating(&self) {
        self.tell(MIGRATING);
    }

    /// Makes every answer say that the database's disk is full.
    pub fn lacks_room(&self) {
        self.tell(FULL);
    }

    fn tell(&self, reason: &'static str) {
        *self.0.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Opens the API to requests, including those on connections that already exist. It replaces the one that there
    /// was: requests that have begun go on in that.
    pub fn open(&self, api: Router) {
        let mut current = self.0.api.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(api);
    }

    pub(in crate::server) fn router(&self) -> Router {
        let current = self.0.api.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().unwrap_or(&self.0.before).clone()
    }
}

async fn not_yet(State(reason): State<Reason>) -> ApiError {
    let message = *reason.lock().unwrap_or_else(PoisonError::into_inner);
    ApiError::unavailable(message, RETRY_AFTER)
}

async fn guarded(mut response: Response) -> Response {
    guard(response.headers_mut());
    response
}
