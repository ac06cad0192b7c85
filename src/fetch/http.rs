//! Sends HTTP requests and interprets their responses.

mod client;

use std::error::Error;
use std::io::ErrorKind;
use std::iter::successors;
use std::ops::Deref;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::time::Instant;

use super::error::CUT;
use super::{FetchError, Refused, threads};
pub(crate) use client::direct_client;
use client::proxy_of;
pub use client::{HttpClientError, guarded_client, http_client, verbatim_client};

/// Maximum number of redirects that are followed for one request.
const MAX_REDIRECTS: usize = 3;

/// Maximum time to wait that is accepted from a server.
const MAX_WAIT: Duration = Duration::from_hours(24);

/// Maximum length of the description of a network error, in bytes.
const MAX_DESCRIPTION: usize = 300;

/// Sends the request that `request` builds for a URL, and again for each redirect that stays on the same
/// server. Waits up to `patience` for the headers of the last response. A connection that the server closes without a
/// response, as it may close an idle one at any moment, is replaced once (RFC 9112 section 9.3.1): every request that is
/// sent may be repeated.
///
/// Connections are served by threads of their own, apart from those of the caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a request is sent, with a deadline and redirects to the same server only"
)]
pub(crate) async fn send(
    url: &Url,
    patience: Duration,
    request: impl Fn(Url) -> RequestBuilder,
) -> Result<Response, FetchError> {
    let mut at = url.clone();
    let deadline = Instant::now() + patience;
    let mut may_replace = true;
    for _ in 0..=MAX_REDIRECTS {
        let response = loop {
            let request = request(at.clone());
            // Built there as well, since the task of a connection runs where its first request does.
            let sent = threads::run(async move { request.send().await });
            let sent = tokio::time::timeout_at(deadline, sent)
                .await
                .map_err(|_| FetchError::Stalled {
                    seconds: patience.as_secs(),
                })?
                .map_err(FetchError::Network)?;
            match sent {
                Ok(response) => break response,
                Err(error) if may_replace && was_closed(&error) => may_replace = false,
                Err(error) => return Err(unsent(error, &at, at == *url)),
            }
        };
        if !is_moved(response.status()) {
            return Ok(response);
        }
        at = target(&at, response.headers())?;
    }
    Err(FetchError::Protocol("it redirects too often"))
}

/// Returns the next bytes of a response, or `None` at its end. Waits up to `patience`. May be canceled and called
/// again.
pub(crate) async fn read_chunk(
    response: &mut Response,
    patience: Duration,
) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
    // A few bytes that are compressed become thousands of chunks, none of which has to be waited for.
    tokio::task::yield_now().await;
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| FetchError::Network(describe(&error.without_url()))),
        Err(_) => Err(FetchError::Stalled {
            seconds: patience.as_secs(),
        }),
    }
}

/// Returns whether the server closed the connection without a response.
fn was_closed(error: &reqwest::Error) -> bool {
    let mut causes = successors(error.source(), |&cause| cause.source());
    causes.any(|cause| {
        let closed = cause.downcast_ref::<hyper::Error>();
        let lost = cause.downcast_ref::<std::io::Error>();
        closed.is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
            || lost.is_some_and(|error| {
                matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                )
            })
    }) && !error.is_connect()
}

/// Returns the error for a request without a response. Neither a failed connection nor a closed one is blamed on the
/// requested resource, unless a redirect of that resource led there.
fn unsent(error: reqwest::Error, url: &Url, is_first: bool) -> FetchError {
    let is_connect = error.is_connect();
    let mut causes = successors(error.source(), |&cause| cause.source());
    let is_refused = causes.any(<dyn Error>::is::<Refused>);
    let mut description = describe(&error.without_url());
    if let Some(proxy) = proxy_of(url) {
        description = format!("{description}, through the proxy {proxy}");
    }
    match (is_first, is_connect) {
        (true, true) if is_refused => FetchError::NotAdmitted(description),
        (true, true) => FetchError::Unreachable(description),
        (true, false) => FetchError::Unanswered(description),
        (false, _) => FetchError::Network(description),
    }
}

fn is_moved(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 307 | 308)
}

fn target(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or(FetchError::Protocol("it redirects to no valid address"))?;
    // From port 80 to 443, or to TLS on the same port: anything else is another server.
    let upgraded = from.scheme() == "http" && to.scheme() == "https" && from.port() == to.port();
    let same_server = from.host() == to.host()
        && (upgraded || from.origin() == to.origin())
        && to.username().is_empty()
        && to.password().is_none();
    if same_server {
        Ok(to)
    } else {
        Err(FetchError::Protocol("it redirects to another server"))
    }
}

/// Returns whether a response has the contents that were asked for: status 200, or the same from a proxy that changed
/// something on the way (203, RFC 9110 section 15.3.4).
pub(crate) fn has_contents(status: u16) -> bool {
    matches!(status, 200 | 203)
}

/// Converts the HTTP status of a response without the contents that were asked for to the corresponding error.
pub(super) fn check_status(response: &Response) -> Result<(), FetchError> {
    let status = response.status().as_u16();
    let wait = wait_of(response.headers());
    match status {
        _ if has_contents(status) => Ok(()),
        404 | 410 | 451 => Err(FetchError::Gone { status }),
        429 => Err(FetchError::RateLimited {
            status,
            retry_after: wait,
        }),
        403 if wait.is_some() => Err(FetchError::RateLimited {
            status,
            retry_after: wait,
        }),
        401 | 403 => Err(FetchError::Unauthorized { status }),
        _ => Err(FetchError::Server { status }),
    }
}

/// Returns the time for which a server asks to wait, by `Retry-After` or by the headers of GitHub's quota.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| rate_limit_wait(headers))
}

/// Returns the time to wait according to `Retry-After`: seconds, or a date that is compared with the
/// server's own `Date` (RFC 9110 section 10.2.3), at most a day.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(headers, parse_date(value)?)?,
    };
    Some(wait.min(MAX_WAIT))
}

/// Returns the time until GitHub's quota is replenished if `x-ratelimit-remaining` is 0:
/// `x-ratelimit-reset` (epoch seconds) compared with the server's own `Date`, at most a day.
fn rate_limit_wait(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if number("x-ratelimit-remaining")? > 0 {
        return None;
    }
    let reset = Timestamp::from_second(number("x-ratelimit-reset")?).ok()?;
    Some(until(headers, reset)?.min(MAX_WAIT))
}

/// Returns the time from the response, by the server's clock, to `at`. Zero if `at` is in the past.
fn until(headers: &HeaderMap, at: Timestamp) -> Option<Duration> {
    let sent = parse_date(headers.get(DATE)?.to_str().ok()?)?;
    let wait = at.duration_since(sent);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// Formats an error with its causes on one line, truncated to a length that can be stored.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    if text.len() > MAX_DESCRIPTION {
        text.truncate(text.floor_char_boundary(MAX_DESCRIPTION));
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn others_have_a_turn_before_each_piece_of_a_response() {
        let mut response = Response::from(hyper::Response::new("a piece"));
        let mut read = std::pin::pin!(read_chunk(&mut response, Duration::from_mins(1)));
        assert!(futures_util::poll!(read.as_mut()).is_pending());
        let piece = read.await.unwrap();
        assert_eq!(piece.as_deref(), Some(b"a piece".as_slice()));
    }

    /// A server may close an idle connection while a request is on its way.
    #[tokio::test]
    async fn a_connection_that_is_closed_without_a_response_is_replaced_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let server = tokio_util::task::TaskTracker::new().spawn(async move {
            let mut requests = 0;
            // The second of four connections answers; the others are closed after the request.
            for connection in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                requests += usize::from(stream.read(&mut head).await.unwrap() > 0);
                if connection == 1 {
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
                if connection == 3 {
                    break;
                }
            }
            requests
        });
        let client = http_client().unwrap();
        let patience = Duration::from_secs(10);
        let ask = || send(&url, patience, |url| client.get(url));
        assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
        assert!(matches!(ask().await, Err(FetchError::Unanswered(_))));
        assert_eq!(server.await.unwrap(), 4);
    }

    #[test]
    fn waits_as_told() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let cases: [(HeaderMap, Option<u64>); 6] = [
            (headers(&[("retry-after", "17")]), Some(17)),
            (
                headers(&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"), date]),
                Some(60),
            ),
            (
                headers(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), date]),
                Some(0),
            ),
            (headers(&[("retry-after", "99999999999")]), Some(86_400)),
            (headers(&[("retry-after", "soon")]), None),
            (headers(&[]), None),
        ];
        for (headers, seconds) in cases {
            assert_eq!(
                retry_after(&headers),
                seconds.map(Duration::from_secs),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn waits_for_the_quota_only_when_it_is_used_up() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let reset = ("x-ratelimit-reset", "784111807");
        let used_up = headers(&[("x-ratelimit-remaining", "0"), reset, date]);
        assert_eq!(rate_limit_wait(&used_up), Some(Duration::from_secs(30)));
        let some_left = headers(&[("x-ratelimit-remaining", "1"), reset, date]);
        assert_eq!(rate_limit_wait(&some_left), None);
    }

    #[test]
    fn follows_redirects_on_the_same_server_only() {
        let from = Url::parse("http://git.example/old.git/git-upload-pack").unwrap();
        let to = |location: &'static str| target(&from, &headers(&[("location", location)]));
        assert_eq!(
            to("/new.git").unwrap().as_str(),
            "http://git.example/new.git"
        );
        assert_eq!(
            to("https://git.example/x").unwrap().as_str(),
            "https://git.example/x"
        );
        for elsewhere in [
            "http://other.example/x",
            "https://git.example:8443/x",
            "https://git.example:80/x",
            "https://:secret@git.example/x",
            "http://git.example:81/x",
            "http://user@git.example/x",
            "http:///",
            "ftp://git.example/x",
        ] {
            assert!(to(elsewhere).is_err(), "{elsewhere}");
        }
        let odd = Url::parse("http://git.example:3000/x").unwrap();
        let to = |location: &'static str| target(&odd, &headers(&[("location", location)]));
        assert!(to("https://git.example:3000/x").is_ok());
        assert!(to("https://git.example/x").is_err());
        assert!(to("https://git.example:3001/x").is_err());
        let secure = Url::parse("https://git.example/x").unwrap();
        assert!(target(&secure, &headers(&[("location", "http://git.example/x")])).is_err());
    }
}
