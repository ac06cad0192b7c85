//! Work that outlives the request that asked for it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::task::TaskTracker;

use crate::server::error::{ApiError, ApiResult};

/// Runs work to its end even if the client goes away. Dropping a request also drops the work of its handler; for a
/// revocation, an impatient sender could prevent it that way.
#[derive(Debug, Clone)]
pub struct Finisher(pub(super) TaskTracker);

impl Finisher {
    /// Runs `work` to its end, whatever becomes of the request. The server waits for it when it stops.
    ///
    /// # Errors
    /// Returns [`ApiError::internal`] if the work panicked.
    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> ApiResult<T> {
        self.0.spawn(work).await.map_err(|_| ApiError::internal())
    }
}

impl<S: Sync> FromRequestParts<S> for Finisher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let finisher = parts.extensions.get().cloned();
        finisher.ok_or_else(ApiError::internal)
    }
}
