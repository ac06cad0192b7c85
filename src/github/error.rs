//! Errors of GitHub's REST API.

use std::time::Duration;

use thiserror::Error;

use crate::fetch::FetchError;

/// Error returned when GitHub's REST API, or a compatible one, does not do what it is asked for.
#[derive(Debug, Error)]
pub enum GitHubError {
    /// The connection failed, stalled, or was redirected elsewhere.
    #[error("cannot ask the server: {0}")]
    Connection(FetchError),
    /// The server refused the request: 401, 403, 404, or another 4xx status.
    #[error("the server answers HTTP {status}: {}", remedy(*.status))]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// The server throttled the request.
    #[error("the server asks to slow down (HTTP {status})")]
    RateLimited {
        /// HTTP status.
        status: u16,
        /// Delay the server asked for, if any.
        retry_after: Option<Duration>,
    },
    /// The server failed: a 5xx status, or another unexpected one.
    #[error("the server answers HTTP {status}")]
    Server {
        /// HTTP status.
        status: u16,
    },
    /// The answer exceeds the limit on its size.
    #[error("the server's answer is too long: check the source's api_url")]
    TooLong,
    /// The API's URL or the token cannot be used.
    #[error("the source's URL cannot be used: {0}")]
    Address(&'static str),
    /// The App cannot be used.
    #[error("the source's GitHub App cannot be used: {0}")]
    App(&'static str),
}

impl GitHubError {
    /// Returns whether the server cannot be reached, or fails, at the moment.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_outage(),
            Self::Server { status } => *status >= 500,
            _ => false,
        }
    }
}

/// Returns the remedy for a refusal, by HTTP status.
fn remedy(status: u16) -> &'static str {
    match status {
        401 => "the access token is wrong or has expired; renew it",
        403 => {
            "the access token, or the app, may not read this; check its permissions and the source's scope"
        }
        404 => {
            "there is no such organization, user or repository, or the token may not see it; check the source's scope and api_url"
        }
        410 => "it is gone for good; remove the source",
        422 => "the request was not understood; check the source's api_url",
        451 => "it may not be shown for legal reasons; remove the source",
        _ => "check the source's scope, api_url and token",
    }
}
