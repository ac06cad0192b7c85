//! The accept loop: connections with limits, and a shutdown that lets requests under way finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::error::{ApiError, ApiResult};

/// The most connections at once. Further ones wait in the operating system's queue.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of a request, which also ends idle connections.
const HEADER_TIME: Duration = Duration::from_secs(15);

/// The most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Pause after the operating system refused a connection, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Finishes work whose client may be gone. Dropping a request also drops what its handler was doing;
/// for a revocation that would mean that a sender with little patience prevents it.
#[derive(Debug, Clone)]
pub struct Finisher(TaskTracker);

impl Finisher {
    /// Runs `work` to its end, whatever becomes of the request. The server waits for it when it stops.
    ///
    /// # Errors
    /// [`ApiError::internal`] when the work panicked.
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

/// Serves `router` (HTTP/1.1) on `listener` until `shutdown` is cancelled, then waits for the requests
/// that are under way. Give the wait its own deadline: a client may be slow to read an export.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let finisher = Finisher(connections.clone());
                let connection =
                    connection(stream, peer, router.clone(), finisher, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    finisher: Finisher,
    shutdown: CancellationToken,
) {
    // Answers are small and complete: waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let finisher = finisher.clone();
        async move {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(finisher);
            let answer: Result<Response, Infallible> = router.call(request).await;
            answer
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that go away or speak something else than HTTP: not worth more than a trace. The error
        // names what failed, not what was sent.
        tracing::trace!(%peer, %error, "connection ended early");
    }
}
