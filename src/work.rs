//! The worker: claims work items, fetches and scans their contents, and commits the findings together with the
//! completion of the item.
//!
//! Several items are in flight at a time. While one transaction commits, others finish, and the next transaction
//! commits all of them together, so that the database's cost per item falls as the load rises.

mod claim;
mod clean_blobs;
mod commit;
mod demands;
mod ends;
mod findings;
mod front;
mod lasting;
mod lent;
mod lineage;
mod listed;
mod listing;
mod origin;
mod pauses;
mod place;
mod plan;
mod remember;
mod round;
mod run;
mod scarce;
mod shares;
mod sight;
mod slow;
mod stop;
mod task;
mod throttles;
mod together;
mod troubles;
mod usual;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{SharedClock, ticks};
use crate::fetch::{GitFetcher, ObjectId};
use crate::respond::Responder;
use crate::scan::Engine;
use crate::store::{Shedding, Store, StoreError};
use clean_blobs::{CleanBlobs, GENERATION};
use demands::Demands;
use lasting::Lasting;
pub use origin::Origin;
use pauses::Pauses;
pub use remember::KNOWN_BLOBS;
use run::Run;
use slow::Slow;
use together::Together;
use usual::Usual;

/// Maximum interval of housekeeping: shedding load, and reclaiming the items of dead workers.
const KEEPING: Duration = Duration::from_secs(1);

/// Number of heartbeats for the duration of a lease.
const BEATS: u32 = 7;

/// Delay between two attempts to commit while shutting down.
const RECOVER: Duration = Duration::from_millis(100);

/// Dependencies of a [`Worker`].
#[derive(Debug)]
pub struct WorkerParts {
    /// Store for work items.
    pub store: Store,
    /// Responder for the keys that are found.
    pub responder: Responder,
    /// Engine that finds candidates.
    pub engine: Arc<Engine>,
    /// Fetcher for the contents of repositories.
    pub fetcher: GitFetcher,
    /// Clock.
    pub clock: SharedClock,
    /// Notified of new work items, so that they are claimed without waiting for [`WorkerOptions::idle`].
    pub wake: Arc<Notify>,
}

/// Configuration of a [`Worker`].
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Maximum number of ordinary items in flight, limited by the places of the fetcher. In addition, there are two
    /// places for larger or slower items, one for items that exceed even those, and four for items that were in flight
    /// when a worker died.
    pub concurrent: usize,
    /// Duration of a lease: an item may be reclaimed from a worker that has sent no heartbeat for this long. It is
    /// short because what was in flight when a daemon was killed waits for its end. Heartbeats are frequent in return:
    /// one that is late by 6 s, which is as long as a statement waits for a lock, still comes in time.
    pub lease: Duration,
    /// Interval between two looks for work when none is announced.
    pub idle: Duration,
    /// Time that items in flight may take to finish after the worker was told to stop.
    pub patience: Duration,
    /// Thresholds beyond which items of the firehose are shed.
    pub shedding: Shedding,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrent: 16,
            lease: Duration::from_secs(7),
            idle: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            shedding: Shedding {
                max_waiting: 10_000,
                max_wait: Duration::from_mins(10),
            },
        }
    }
}

/// Turns work items into responses.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    origins: HashMap<String, Origin>,
    options: WorkerOptions,
    id: String,
    /// Identifier of what blobs are scanned for: the version of the key formats, and the encodings.
    ruleset: String,
}

/// State shared by all items in flight.
#[derive(Debug)]
struct Shared {
    parts: WorkerParts,
    clean: CleanBlobs,
    pauses: Pauses,
    lasting: Lasting,
    slow: Slow,
    usual: Usual,
    demands: Demands,
    together: Together,
}

impl Worker {
    /// Creates a worker that knows the hosts of `origins`.
    pub fn new(
        parts: WorkerParts,
        origins: impl IntoIterator<Item = Origin>,
        mut options: WorkerOptions,
    ) -> Self {
        let origins = origins.into_iter();
        let origins = origins.map(|origin| (origin.host.clone(), origin));
        let origins: HashMap<String, Origin> = origins.collect();
        let ruleset = parts.engine.ruleset().to_owned();
        let places = parts.fetcher.limits().concurrent.max(1);
        options.concurrent = options.concurrent.clamp(1, places);
        Self {
            ruleset,
            shared: Arc::new(Shared {
                parts,
                clean: CleanBlobs::default(),
                pauses: Pauses::new(origins.keys().cloned().collect()),
                lasting: Lasting::default(),
                slow: Slow::default(),
                usual: Usual::default(),
                demands: Demands::default(),
                together: Together::default(),
            }),
            origins,
            options,
            id: Uuid::now_v7().to_string(),
        }
    }

    /// Runs until `stop` is canceled. After that, no new item is claimed, items in flight may finish within
    /// [`WorkerOptions::patience`], and the others are released.
    pub async fn run(&self, stop: &CancellationToken) {
        self.run_until_replaced(&CancellationToken::new(), stop)
            .await;
    }

    /// Runs like [`run`](Self::run), or until another worker of this process takes over: once `replaced` is canceled, no
    /// new item is claimed, those that are not begun are given back, and the others are finished, however long that takes.
    pub async fn run_until_replaced(&self, replaced: &CancellationToken, stop: &CancellationToken) {
        let mut run = Run::new(self, replaced.clone());
        let mut heartbeat = self.heartbeat();
        let mut keeping = tokio::time::interval(KEEPING);
        self.remember_clean_blobs().await;
        while !stop.is_cancelled() {
            let is_replaced = run.is_replaced();
            let full = run.turn_over().await;
            if is_replaced && run.holds_nothing() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = replaced.cancelled(), if !is_replaced => {}
                _ = heartbeat.tick() => run.stay_alive().await,
                _ = keeping.tick() => {
                    run.keep_order().await;
                    keeping.reset_after(run.until_keeping().await);
                }
                () = run.next_end(), if !run.tasks.is_empty() => {}
                () = self.wait_for_work(), if !full && !is_replaced => {}
                // Finished while the database was told what had been begun.
                () = std::future::ready(()), if run.has_more_to_commit() => {}
            }
        }
        run.wind_down(heartbeat).await;
    }

    /// Runs until no item is ready and none is in flight. Returns the number of tries that were committed.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database fails.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        let mut run = Run::new(self, CancellationToken::new());
        self.remember_clean_blobs().await;
        let mut heartbeat = self.heartbeat();
        loop {
            self.shared
                .parts
                .store
                .reclaim(&self.id, Duration::MAX)
                .await?;
            run.claim().await?;
            if run.tasks.is_empty() && run.ended.is_empty() {
                self.write_clean_blobs().await;
                return Ok(run.committed);
            }
            tokio::select! {
                _ = heartbeat.tick() => run.stay_alive().await,
                () = run.next_end(), if !run.tasks.is_empty() => {}
                () = std::future::ready(()), if !run.ended.is_empty() => {}
            }
            run.commit().await?;
        }
    }

    /// Loads the ids of blobs that were scanned before this process started. Failure is not fatal: the blobs are
    /// scanned again.
    async fn remember_clean_blobs(&self) {
        let store = &self.shared.parts.store;
        let limit = u32::try_from(GENERATION).unwrap_or(u32::MAX);
        match store.scanned_blobs(&self.ruleset, limit).await {
            Ok(ids) => {
                for id in ids.iter().filter_map(|id| ObjectId::try_from(&**id).ok()) {
                    self.shared.clean.add(id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "loading the clean blobs failed, they are scanned again");
            }
        }
    }

    fn heartbeat(&self) -> Interval {
        ticks(self.options.lease / BEATS)
    }

    async fn wait_for_work(&self) {
        let idle = tokio::time::sleep(self.options.idle);
        tokio::select! {
            () = self.shared.parts.wake.notified() => {}
            () = idle => {}
        }
    }
}
