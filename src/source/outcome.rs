//! Outcomes of a poll, and its errors. Each source chooses the delay to the next poll for itself (`next_after`), with
//! the backoff of `state.rs` after a failure.

use std::time::Duration;

use thiserror::Error;

use crate::fetch::FetchError;
use crate::github::GitHubError;
use crate::store::StoreError;

/// Outcome of a successful poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollOutcome {
    /// Minimum delay before the next poll.
    pub next_after: Duration,
    /// Number of events that had not been seen before.
    pub events: u64,
    /// Number of work items created from those events.
    pub items: u64,
    /// Number of events that could not be read.
    pub malformed: u64,
    /// `true` if events may have been missed, for example because nothing that was read overlaps with the previous
    /// poll.
    pub gap: bool,
    /// `true` if the next poll goes on with what this one left, whatever the schedule.
    pub more: bool,
}

/// Failure of a poll.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct PollFailure {
    /// Cause of the failure.
    pub error: PollError,
    /// Delay before the next attempt.
    pub next_after: Duration,
}

/// An hour of an archive could not be read.
#[derive(Debug, Error)]
pub enum HourError {
    /// The server could not be reached, or redirected elsewhere.
    #[error("the server cannot be asked: {0}")]
    Unreachable(FetchError),
    /// The server refused the request: 401, 403, or another 4xx status.
    #[error("the server answers HTTP {status}: check the source's base_url")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// The server failed: a 5xx status, or another unexpected one.
    #[error("the server answers HTTP {status}")]
    Server {
        /// HTTP status.
        status: u16,
    },
    /// The connection broke in the middle of the transfer, or was too slow.
    #[error("the connection did not last: {0}")]
    Cut(FetchError),
    /// The file is truncated, or is not a gzip file of events.
    #[error("{0}")]
    Damaged(&'static str),
}

impl HourError {
    /// Returns whether the error is specific to the hour, rather than to the server as a whole or the connection to
    /// it.
    pub(super) fn concerns_the_hour(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Refused { .. })
    }

    /// Returns whether the server cannot be reached, or fails, at the moment.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(error) | Self::Cut(error) => error.is_outage(),
            Self::Server { status } => *status >= 500,
            Self::Refused { .. } | Self::Damaged(_) => false,
        }
    }
}

/// Cause of a [`PollFailure`].
#[derive(Debug, Error)]
pub enum PollError {
    /// The connection failed, stalled, or was redirected elsewhere.
    #[error("cannot read the events: {0}")]
    Connection(FetchError),
    /// The references of a repository could not be listed.
    #[error("cannot list the branches and tags: {0}")]
    Remote(FetchError),
    /// The server refused, throttled or failed the request, or the source's URL or GitHub App cannot be used.
    #[error(transparent)]
    Api(GitHubError),
    /// The response is not a list of events, or was cut off.
    #[error("the server sent no list of events ({0}): check the source's api_url")]
    NotAList(&'static str),
    /// The response exceeds the limits on its size.
    #[error("the server sent more than is read ({0}): check the source's URL")]
    TooMuch(&'static str),
    /// The deliveries of none of the webhooks could be listed.
    #[error("cannot look for failed deliveries: {why}")]
    Redelivery {
        /// The webhooks, each with the reason.
        why: String,
        /// `true` if the server could not be reached, or failed, for one of them.
        is_outage: bool,
    },
    /// The configuration keeps the source from being polled.
    #[error("{0}")]
    Unusable(String),
    /// An hour of an archive could not be read, or not to its end.
    #[error("the archive's hour {hour}: {error}")]
    Hour {
        /// The hour in the archive's notation, such as `2015-01-01-5`.
        hour: String,
        /// Cause of the failure.
        error: HourError,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PollError {
    /// Returns whether the server, or the database, cannot be reached or fails at the moment. It may be back any time,
    /// and said nothing about when to come again.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Connection(error) | Self::Remote(error) => error.is_outage(),
            Self::Api(error) => error.is_outage(),
            Self::Hour { error, .. } => error.is_outage(),
            Self::Redelivery { is_outage, .. } => *is_outage,
            // A page that tells of maintenance, or one that was cut off.
            Self::NotAList(_) | Self::Store(_) => true,
            _ => false,
        }
    }

    /// Returns whether the server refused the request, without saying when to come again: it is for the operator to mend.
    pub(super) fn is_for_the_operator(&self) -> bool {
        matches!(
            self,
            Self::Api(GitHubError::Refused { .. })
                | Self::Unusable(_)
                | Self::Redelivery {
                    is_outage: false,
                    ..
                }
                | Self::Remote(FetchError::Unauthorized { .. } | FetchError::Gone { .. })
                | Self::Hour {
                    error: HourError::Refused { .. },
                    ..
                }
        )
    }

    /// Returns whether the server itself asked to be left alone. If so, the backoff applies even to a scheduled
    /// source.
    pub(super) fn asks_for_peace(&self) -> bool {
        matches!(
            self,
            Self::Api(GitHubError::RateLimited { .. } | GitHubError::Refused { .. })
                | Self::Redelivery { .. }
                | Self::Remote(FetchError::Unauthorized { .. })
                | Self::Hour {
                    error: HourError::Refused { .. },
                    ..
                }
        )
    }
}

impl From<GitHubError> for PollError {
    fn from(error: GitHubError) -> Self {
        match error {
            // In the words of polls.
            GitHubError::Connection(error) => Self::Connection(error),
            GitHubError::TooLong => Self::TooMuch("more than 8 MiB"),
            error => Self::Api(error),
        }
    }
}
