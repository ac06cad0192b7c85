//! Interpretation of responses of GitHub's REST API, apart from their contents.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::error::GitHubError;
use crate::fetch::{self, Body, wait_of};

/// Maximum size of the body of a refusal, in bytes.
const MAX_REFUSAL: usize = 64 << 10;

/// Maximum period of GitHub's rate limit, whatever the offset between the server's clock and the local one.
const PERIOD: Duration = Duration::from_hours(1);

/// State of GitHub's rate limit, as reported by a response.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) limit: Option<u64>,
    pub(crate) remaining: Option<u64>,
    pub(crate) resets_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Explanation {
    message: String,
}

impl Quota {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let number = |name| text(headers, name)?.trim().parse::<i64>().ok();
        let count = |name| u64::try_from(number(name)?).ok();
        Self {
            limit: count("x-ratelimit-limit"),
            remaining: count("x-ratelimit-remaining"),
            resets_at: number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok()),
        }
    }

    /// Returns the delay between two requests with which those that are left last until there are more.
    pub(crate) fn pace(&self, now: Timestamp) -> Duration {
        let (Some(remaining), Some(resets_at)) = (self.remaining, self.resets_at) else {
            return Duration::ZERO;
        };
        let left: Duration = resets_at.duration_since(now).try_into().unwrap_or_default();
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        left.min(PERIOD) / remaining.max(1)
    }

    /// Returns the delay until `requests` requests may be sent, or `None` if they may be sent now or the state is
    /// unknown.
    pub(crate) fn wait(&self, requests: u64, now: Timestamp) -> Option<Duration> {
        if self.remaining? >= requests {
            return None;
        }
        let wait: Duration = self.resets_at?.duration_since(now).try_into().ok()?;
        Some(wait.min(PERIOD)).filter(|wait| !wait.is_zero())
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// Returns [`GitHubError::Connection`] if the connection fails, and [`GitHubError::TooLong`] if the body is longer.
pub(crate) async fn read_body(response: &mut Response, limit: usize) -> Result<Body, GitHubError> {
    let body = fetch::read_body(response, limit).await;
    body.map_err(GitHubError::Connection)?
        .ok_or(GitHubError::TooLong)
}

/// Returns the error for a response that is neither 2xx nor 304.
///
/// The secondary rate limit may be reported as a 403 without any header that distinguishes it from other refusals;
/// only the message does. Source:
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>.
pub(crate) async fn refusal(response: &mut Response, now: Timestamp) -> GitHubError {
    let status = response.status();
    let headers = response.headers();
    let told = wait_of(headers).or_else(|| Quota::of(headers).wait(1, now));
    let limited = GitHubError::RateLimited {
        status: status.as_u16(),
        retry_after: told,
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS => limited,
        StatusCode::FORBIDDEN if told.is_some() => limited,
        StatusCode::FORBIDDEN if speaks_of_a_limit(response).await => limited,
        _ if status.is_client_error() => GitHubError::Refused {
            status: status.as_u16(),
        },
        _ => GitHubError::Server {
            status: status.as_u16(),
        },
    }
}

async fn speaks_of_a_limit(response: &mut Response) -> bool {
    let Ok(body) = read_body(response, MAX_REFUSAL).await else {
        return false;
    };
    let Ok(explanation) = serde_json::from_slice::<Explanation>(&body) else {
        return false;
    };
    let message = explanation.message.to_ascii_lowercase();
    message.contains("rate limit") || message.contains("abuse")
}

/// Returns the text of a header, or `None` if it is absent or not visible ASCII.
pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
