//! Sources that are polled.
//!
//! A [`Source`] reads a feed and turns new entries into work items, which are committed together with its cursor. The
//! [worker](crate::work) takes them from there.

mod archive;
mod feed;
mod git;
mod kept;
mod outcome;
mod page;
mod redelivery;
mod state;
mod status;
mod unusable;

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
pub use feed::{GitHubEvents, GitHubOptions, Scope};
pub use git::{GitRemote, GitRemoteOptions, TOO_MANY_REFERENCES, repository_at};
pub use outcome::{HourError, PollError, PollFailure, PollOutcome};
pub use redelivery::{Hook, Redelivery, RedeliveryOptions};
pub use status::{ConfiguredSource, SourceCondition, SourceStatus, source_statuses, statuses_of};
pub use unusable::Unusable;

/// A feed that is polled.
pub trait Source: Send + Sync {
    /// Returns the name of the source, as it appears in the configuration, the log, and incidents.
    fn name(&self) -> &str;

    /// Returns the delay before the next poll is due. It is read from the state in the database, so that a restart
    /// does not poll sooner than the server allows. Returns `None` if the last poll met an outage: the next one is due
    /// at once, whatever the schedule.
    ///
    /// # Errors
    /// Returns [`PollError::Store`] if the database fails.
    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>>;

    /// Polls once: reads new entries and commits them together with the cursor.
    ///
    /// # Errors
    /// Returns a [`PollFailure`] with the cause and the delay before the next attempt. The failure is recorded in the
    /// source's state, and the cursor stays at its last committed position.
    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>>;

    /// Returns the source as an archive, from which past periods can be read, or `None` if it is not an archive.
    fn archive(&self) -> Option<&GhArchive> {
        None
    }
}

/// Dependencies of a [`Source`].
#[derive(Debug, Clone)]
pub struct SourceParts {
    /// HTTP client; see [`crate::fetch::http_client`].
    pub client: Client,
    /// Store for work items and cursors.
    pub store: Store,
    /// Responder for keys found in texts and names.
    pub responder: Responder,
    /// Engine that finds keys in texts and names.
    pub engine: Arc<Engine>,
    /// Clock.
    pub clock: SharedClock,
    /// Notified when there are new work items.
    pub wake: Arc<Notify>,
    /// `true` if a schedule decides when the source is polled, so that it has no interval of its own.
    pub is_scheduled: bool,
}
