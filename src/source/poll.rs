//! How a poll ended.

use std::time::Duration;

use thiserror::Error;

use crate::fetch::FetchError;
use crate::store::StoreError;

/// A poll that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollOutcome {
    /// When to poll next at the earliest, from now.
    pub next_after: Duration,
    /// Events that were not seen before.
    pub events: u64,
    /// Work items that they became.
    pub items: u64,
    /// Events that could not be read.
    pub malformed: u64,
    /// Nothing of what was read was seen before, though there was a poll before: something may have been
    /// missed in between.
    pub gap: bool,
}

/// A poll that failed.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct PollFailure {
    /// Why.
    pub error: PollError,
    /// When to try again, from now.
    pub next_after: Duration,
}

/// Why an hour of an archive cannot be read.
#[derive(Debug, Error)]
pub enum HourError {
    /// The server cannot be reached, or redirects elsewhere.
    #[error("the server cannot be asked: {0}")]
    Unreachable(FetchError),
    /// The server refuses: 401, 403 and their like.
    #[error("the server answers HTTP {status}: check the source's base_url")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The server has trouble of its own.
    #[error("the server answers HTTP {status}")]
    Server {
        /// The HTTP status.
        status: u16,
    },
    /// The connection was cut in the middle.
    #[error("the connection did not last: {0}")]
    Cut(FetchError),
    /// The file is cut off, or is none.
    #[error("{0}")]
    Damaged(&'static str),
}

impl HourError {
    /// Whether this says something about the hour, not only about the server as a whole or the way to it.
    pub(super) fn concerns_the_hour(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Refused { .. })
    }
}

/// Why a poll failed.
#[derive(Debug, Error)]
pub enum PollError {
    /// The connection failed, stalled, or was redirected elsewhere.
    #[error("cannot read the events: {0}")]
    Connection(FetchError),
    /// A repository's references cannot be listed.
    #[error("cannot list the branches and tags: {0}")]
    Remote(FetchError),
    /// The server refuses: 401, 403, 404 and their like.
    #[error("the server answers HTTP {status}: {}", remedy(*.status))]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// Asked too often.
    #[error("the server asks to slow down (HTTP {status})")]
    RateLimited {
        /// The HTTP status.
        status: u16,
        /// How long it said to wait, if it said.
        retry_after: Option<Duration>,
    },
    /// The server has trouble of its own.
    #[error("the server answers HTTP {status}")]
    Server {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not a list of events.
    #[error("the server sent no list of events ({0}): check the source's api_url")]
    NotAList(&'static str),
    /// No hook's deliveries could be listed.
    #[error("cannot look for failed deliveries: {0}")]
    Redelivery(String),
    /// The source's address is not one.
    #[error("the source's URL cannot be used: {0}")]
    Address(&'static str),
    /// A GitHub App cannot be used.
    #[error("the source's GitHub App cannot be used: {0}")]
    App(&'static str),
    /// An hour of an archive cannot be read, or not to its end.
    #[error("the archive's hour {hour}: {error}")]
    Hour {
        /// The hour as the archive writes it, such as `2015-01-01-5`.
        hour: String,
        /// Why.
        error: HourError,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PollError {
    /// Returns whether the server said so itself: it is left alone then, whatever a schedule says.
    pub(super) fn asks_for_peace(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Refused { .. }
                | Self::Redelivery(_)
                | Self::Remote(FetchError::Unauthorized { .. })
                | Self::Hour {
                    error: HourError::Refused { .. },
                    ..
                }
        )
    }
}

/// What to do about a refusal.
fn remedy(status: u16) -> &'static str {
    match status {
        401 => "the access token is wrong or has expired; renew it",
        403 => {
            "the access token, or the app, may not read this; check its permissions and the source's scope"
        }
        404 => {
            "there is no such organisation, user or repository, or the token may not see it; check the source's scope and api_url"
        }
        410 => "it is gone for good; remove the source",
        422 => "the request was not understood; check the source's api_url",
        451 => "it may not be shown for legal reasons; remove the source",
        _ => "check the source's scope, api_url and token",
    }
}
