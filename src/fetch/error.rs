//! What can go wrong between a push and its texts, told apart by what the caller should do about it.

use std::time::Duration;

use thiserror::Error;

/// Why a range could not be fetched. No message holds contents of a repository.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The repository is not there (404, 410) or may not be shown (451). Trying again is of no use.
    #[error("the repository is gone or not public any more (HTTP {status})")]
    Gone {
        /// The HTTP status.
        status: u16,
    },
    /// The server no longer has the pushed commit: the branch was deleted or pushed over, and cleaned up.
    #[error("the server no longer has the pushed commit")]
    CommitGone,
    /// The server wants credentials (401) or refuses those it got (403). Without a token GitHub answers
    /// like this for every repository that is not public.
    #[error(
        "the server refuses access (HTTP {status}); check the source's token if it should be allowed"
    )]
    Unauthorized {
        /// The HTTP status.
        status: u16,
    },
    /// Asked too often (429, or 403 with rate-limit headers).
    #[error("the server asks to slow down (HTTP {status})")]
    RateLimited {
        /// The HTTP status.
        status: u16,
        /// How long the server said to wait, if it said.
        retry_after: Option<Duration>,
    },
    /// Any other HTTP status that is not 200.
    #[error("the server answered HTTP {status}")]
    Server {
        /// The HTTP status.
        status: u16,
    },
    /// No connection to the server could be made.
    #[error("the connection failed: {0}")]
    Unreachable(String),
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Network(String),
    /// Nothing came for too long.
    #[error("the server sent nothing for {seconds} s")]
    Stalled {
        /// How long was waited.
        seconds: u64,
    },
    /// Bytes kept coming, but too slowly, or not to their end in time.
    #[error("the server sends too slowly: the fetch was given up after {seconds} s")]
    TooSlow {
        /// How long was waited.
        seconds: u64,
    },
    /// The server, or reading what it sent, takes longer than others can be kept waiting for the place: the push is to
    /// be fetched in a lane for slower ones.
    #[error(
        "others wait, and it takes longer than its place allows: the push goes on among slower ones after {seconds} s"
    )]
    Outpaced {
        /// How long was waited.
        seconds: u64,
    },
    /// The push is larger than its place allows, and no larger one is free.
    #[error("the push is larger than its place allows, and waits for its turn among larger ones")]
    Busy,
    /// The same of the largest place.
    #[error("the push is larger than its place allows, and waits for its turn among the largest")]
    LargeBusy,
    /// The answer is not git protocol v2.
    #[error("the server does not speak git protocol v2 as expected: {0}")]
    Protocol(&'static str),
    /// The server reported an error of its own.
    #[error("the git server reports: {0}")]
    Refused(String),
    /// The pack is damaged.
    #[error("the pack is damaged: {0}")]
    Corrupt(&'static str),
    /// The work item names something that cannot be asked for.
    #[error("the pushed range cannot be asked for: {0}")]
    BadRequest(&'static str),
}
