//! What is polled, and the worker that turns what it found into responses.
//!
//! A [`Source`] reads a feed and turns what is new in it into work items, committed together with its
//! cursor. A [`Worker`] takes work items, fetches their contents, scans them and hands what it found to the
//! responder, committed together with the end of the item.

mod apart;
mod archive;
mod git;
mod github;
mod keeper;
mod poll;
mod redelivery;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Client;
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::respond::Responder;
use crate::scan::Engine;
use crate::store::Store;

pub use archive::{BackfillOutcome, GhArchive, GhArchiveOptions, Period, PeriodError, Progress};
pub use git::{GitRemote, GitRemoteOptions};
pub use github::{
    AppAuth, AppKeyError, Credential, GitHubEvents, GitHubOptions, Installation, InstallationId,
    Scope,
};
pub use poll::{HourError, PollError, PollFailure, PollOutcome};
pub use redelivery::{Hook, Redelivery, RedeliveryOptions};
pub use worker::{KNOWN_BLOBS, Origin, Worker, WorkerOptions, WorkerParts};

/// A feed that is polled.
pub trait Source: Send + Sync {
    /// Its name in the configuration, in the log and in incidents.
    fn name(&self) -> &str;

    /// How long to wait before the next poll, from what the last one left in the database: a restart does
    /// not poll sooner than the server allows.
    fn due_in(&self) -> BoxFuture<'_, Result<Duration, PollError>>;

    /// Polls once: reads what is new and commits it together with the cursor. A failure leaves the cursor
    /// where it is, is noted in the source's state, and says when to try again.
    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>>;

    /// The archive that it is, if it is one: periods of the past can be read from it.
    fn archive(&self) -> Option<&GhArchive> {
        None
    }
}

/// What a source works with.
#[derive(Debug, Clone)]
pub struct SourceParts {
    /// The HTTP client; see [`crate::fetch::http_client`].
    pub client: Client,
    /// Where work items and cursors are kept.
    pub store: Store,
    /// Responds to keys that stand in a text or a name.
    pub responder: Responder,
    /// Finds keys that stand in a text or a name.
    pub engine: Arc<Engine>,
    /// The time.
    pub clock: SharedClock,
    /// Told when there are new work items.
    pub wake: Arc<Notify>,
    /// Whether a schedule says when it is polled, so that it has no interval of its own.
    pub is_scheduled: bool,
}
