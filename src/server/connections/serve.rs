//! Accept loop: limits on connections, and a shutdown that lets requests in flight finish.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::super::error::ApiError;
use super::entrance::Entrance;
use super::finisher::Finisher;
use super::guarded::Guarded;
use super::head::{MAX_HEAD, MAX_HEADERS, detach};
use super::places::{ConnectionPlace, Connections, Places};

/// Maximum time for a client to send the head of a request. Also closes idle connections.
const HEADER_TIME: Duration = Duration::from_secs(15);

/// Maximum lifetime of a connection that found no ordinary place.
const MOMENT: Duration = Duration::from_secs(3);

/// Maximum time that a request waits for a place before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// Value of `Retry-After` for a client that found no place.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Time that a request in flight has for its answer once its connection has to make room, and the maximum number of
/// such requests.
const FAREWELL: Duration = Duration::from_secs(3);
const FAREWELLS: usize = 64;

/// Time that clients have after the server was told to stop: to read their answers, and to send the rest of a body.
/// Container runtimes kill after 10 seconds, of which 3 are the database's.
const LEAVING: Duration = Duration::from_secs(5);

/// Time that a client has for an answer that begins later than that, at least.
const LATE_ANSWER: Duration = Duration::from_millis(500);

/// Maximum number of connections that wait at a time for their clients to stop sending.
const LINGERERS: usize = 128;

/// Pause after the operating system refused a connection, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval at which the log repeats a warning about connections.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Serves `entrance`, such as a router, over HTTP/1.1 on `listener` until `shutdown` is canceled, then waits for the
/// requests that are in flight. The caller should bound that wait: clients are waited for `LEAVING` only, but a
/// request may take the server itself longer.
pub async fn serve(
    listener: TcpListener,
    entrance: impl Into<Entrance>,
    connections: Connections,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let places = Places::new(connections.clone());
    let serving = Serving {
        entrance: entrance.into(),
        places: Arc::clone(&places),
        finisher: Finisher(tasks.clone()),
        lingerers: Arc::new(Semaphore::new(LINGERERS.min(connections.most))),
        farewells: Arc::new(Semaphore::new(FAREWELLS.min(connections.momentary))),
        shutdown: shutdown.clone(),
    };
    let (mut told_of_places, mut told_of_refusals) = (None, None);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = places.admit(peer.ip());
                if place.is_momentary() && is_due(&mut told_of_places) {
                    tracing::warn!(
                        peer = %peer.ip(),
                        "all connections, or all of this address, are in use; a reverse proxy belongs into server.trusted_proxies"
                    );
                }
                tasks.spawn(serving.clone().connection(stream, peer, place));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::trace!(%error, "a connection ended before it began");
            }
            Err(error) => {
                if is_due(&mut told_of_refusals) {
                    tracing::warn!(%error, "connections cannot be accepted; idle ones are closed");
                }
                places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Returns whether a warning is due again, and if so records that it was given.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

/// Returns whether an error of accept(2) is about the connection rather than about the server.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// State shared by all connections.
#[derive(Clone)]
struct Serving {
    entrance: Entrance,
    places: Arc<Places>,
    finisher: Finisher,
    lingerers: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Serving {
    async fn connection(self, stream: TcpStream, peer: SocketAddr, place: ConnectionPlace) {
        let io = Guarded::new(
            stream,
            Arc::clone(&place.pulse),
            Arc::clone(&self.lingerers),
        );
        let is_momentary = place.is_momentary();
        let place = Arc::new(place);
        let (serving, of_requests) = (self.clone(), Arc::clone(&place));
        let service = service_fn(move |request: Request<Incoming>| {
            let place = Arc::clone(&of_requests);
            let turn = place.pulse.work();
            let request = serving.routed(request, peer, &place);
            let router = serving.entrance.router();
            async move {
                let _turn = turn;
                answer(router, request, &place).await
            }
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(if is_momentary { MOMENT } else { HEADER_TIME })
                .keep_alive(!is_momentary)
                // A client may end its direction once its request is sent, and whoever hangs up then has sent it all
                // the same: a request that came whole is worked on to its end. An end amid a head or a body, or between
                // requests, closes the connection at once.
                .half_close(true)
                .max_headers(MAX_HEADERS)
                // Applies to trailers as well.
                .max_header_size(MAX_HEAD)
                // Limit of the buffer in each direction.
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(io), service)
        );
        let mut ended = tokio::select! {
            // First, so that a request that has already arrived is seen before its connection has to go.
            biased;
            ended = connection.as_mut() => Some(ended),
            () = is_over(&place) => None,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => Some(ended),
                    () = place.close.cancelled() => None,
                    () = is_left_to_its_client(&place) => None,
                }
            }
        };
        // A request is only granted time if it is the server's turn, not the client's.
        if ended.is_none()
            && !place.pulse.is_waiting()
            && let Ok(_farewell) = self.farewells.try_acquire()
        {
            connection.as_mut().graceful_shutdown();
            ended = tokio::time::timeout(FAREWELL, connection).await.ok();
        }
        if let Some(Err(error)) = ended {
            // Clients that go away, are slow or do not speak HTTP are not worth more than a trace. The error names what
            // failed, not what was sent.
            tracing::trace!(%peer, %error, "connection ended early");
        }
    }

    /// Attaches to the request what handlers need to know about its connection.
    fn routed(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        place: &ConnectionPlace,
    ) -> Request {
        let client = self.places.proxies().client(peer.ip(), request.headers());
        let (mut head, body) = request.into_parts();
        detach(&mut head.uri);
        head.extensions.insert(client);
        head.extensions.insert(Arc::clone(&place.pulse));
        head.extensions.insert(self.finisher.clone());
        Request::from_parts(head, axum::body::Body::new(body))
    }
}

/// Waits until a connection has to make room, or until its moment is over without an ordinary place.
async fn is_over(place: &ConnectionPlace) {
    let moment = async {
        if place.is_momentary() {
            tokio::time::sleep(MOMENT).await;
        }
        if !place.is_momentary() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = moment => {}
        () = place.close.cancelled() => {}
    }
}

/// Waits until a connection of a server that stops is only waiting for its client, who has had the time for it.
async fn is_left_to_its_client(place: &ConnectionPlace) {
    tokio::time::sleep(LEAVING).await;
    let mut was_waiting = false;
    while !was_waiting || !place.pulse.is_waiting() {
        was_waiting = place.pulse.is_waiting();
        tokio::time::sleep(LATE_ANSWER).await;
    }
}

async fn answer(
    mut router: axum::Router,
    request: Request,
    place: &ConnectionPlace,
) -> Result<Response, Infallible> {
    let is_admitted = !place.is_momentary()
        || says_how_it_is(request.uri().path())
        || place.promoted(PATIENCE).await;
    let mut answer = if is_admitted {
        router.call(request).await?
    } else {
        no_place().into_response()
    };
    if place.should_end() {
        // A client that is told in advance does not send its next request into a closed connection.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(answer)
}

/// Returns whether a path is answered even on a connection that found no place.
fn says_how_it_is(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn no_place() -> ApiError {
    let message =
        "All connections of this server, or of this address, are in use. Try again later.";
    ApiError::unavailable(message, RETRY_AFTER)
}
