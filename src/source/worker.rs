//! The worker: takes work items, fetches and scans them, and commits what it found with the item's end.
//!
//! Several items are under way at a time. While one transaction commits, others finish; the next one takes
//! all of them along, so that the database's cost per item falls as the load rises.

mod claim;
mod clean;
mod commit;
mod demands;
mod ends;
mod findings;
mod lineage;
mod origin;
mod pauses;
mod place;
mod remember;
mod run;
mod scarce;
mod shares;
mod sight;
mod slow;
mod stop;
mod task;
mod troubles;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::fetch::{GitFetcher, ObjectId};
use crate::respond::Responder;
use crate::scan::Engine;
use crate::store::{Shedding, Store, StoreError};
use clean::{CleanBlobs, GENERATION};
use demands::Demands;
pub use origin::Origin;
use pauses::Pauses;
pub use remember::KNOWN_BLOBS;
use run::Run;
use slow::Slow;

/// How often it is looked for what to shed, and for items whose worker died.
const KEEPING: Duration = Duration::from_secs(1);

/// How long to wait for the database between two attempts to commit while winding down.
const RECOVER: Duration = Duration::from_millis(100);

/// What a worker works with.
#[derive(Debug)]
pub struct WorkerParts {
    /// Where work items are kept.
    pub store: Store,
    /// Responds to what is found.
    pub responder: Responder,
    /// Finds candidates.
    pub engine: Arc<Engine>,
    /// Fetches contents.
    pub fetcher: GitFetcher,
    /// The time.
    pub clock: SharedClock,
    /// Tells of new work items, so that they need not be waited for.
    pub wake: Arc<Notify>,
}

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Items under way at a time, at most as many as the fetcher has places; beside them two that are larger or
    /// slower, one that is so even beside those, and four that were under way when a worker died.
    pub concurrent: usize,
    /// How long an item belongs to a worker that does not say that it is alive.
    pub lease: Duration,
    /// How often to look for work when none is announced.
    pub idle: Duration,
    /// How long items under way may take to end after the worker was told to stop.
    pub patience: Duration,
    /// When there is more of the firehose than can be read.
    pub shedding: Shedding,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrent: 16,
            lease: Duration::from_secs(8),
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
    /// What blobs are scanned for: the formats' version, and the encodings.
    ruleset: String,
}

/// What all items under way share.
#[derive(Debug)]
struct Shared {
    parts: WorkerParts,
    clean: CleanBlobs,
    pauses: Pauses,
    slow: Slow,
    demands: Demands,
}

impl Worker {
    /// A worker for the hosts of `origins`.
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
                slow: Slow::default(),
                demands: Demands::default(),
            }),
            origins,
            options,
            id: Uuid::now_v7().to_string(),
        }
    }

    /// Works until `stop` is cancelled. Then no new item is taken, those under way may end within the
    /// configured patience, and the others are given back.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut run = Run::new(self);
        let mut heartbeat = self.heartbeat();
        let mut keeping = tokio::time::interval(self.options.idle.min(KEEPING));
        keeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.remember_clean_blobs().await;
        while !stop.is_cancelled() {
            let full = run.turn_over().await;
            tokio::select! {
                () = stop.cancelled() => break,
                _ = heartbeat.tick() => run.stay_alive().await,
                _ = keeping.tick() => run.keep_order().await,
                () = run.next_end(), if !run.tasks.is_empty() => {}
                () = self.wait_for_work(), if !full => {}
            }
        }
        run.wind_down(heartbeat).await;
    }

    /// Works until nothing is ready to be taken and nothing is under way; says how many items ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        let mut run = Run::new(self);
        self.remember_clean_blobs().await;
        let mut heartbeat = self.heartbeat();
        loop {
            self.shared
                .parts
                .store
                .reclaim(&self.id, Duration::MAX)
                .await?;
            run.claim().await?;
            if run.tasks.is_empty() {
                self.write_clean_blobs().await;
                return Ok(run.committed);
            }
            tokio::select! {
                _ = heartbeat.tick() => run.stay_alive().await,
                () = run.next_end() => {}
            }
            run.commit().await?;
        }
    }

    /// Reads which blobs were scanned before this process began. Without them some are scanned again.
    async fn remember_clean_blobs(&self) {
        let store = &self.shared.parts.store;
        let limit = u32::try_from(GENERATION).unwrap_or(u32::MAX);
        match store.scanned_blobs(&self.ruleset, limit).await {
            Ok(ids) => {
                for id in ids.iter().filter_map(|id| ObjectId::try_from(&**id).ok()) {
                    self.shared.clean.add(id);
                }
            }
            Err(error) => tracing::warn!(%error, "it is not known which blobs were scanned before"),
        }
    }

    fn heartbeat(&self) -> Interval {
        let mut interval = tokio::time::interval(self.options.lease / 4);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    async fn wait_for_work(&self) {
        let idle = tokio::time::sleep(self.options.idle);
        tokio::select! {
            () = self.shared.parts.wake.notified() => {}
            () = idle => {}
        }
    }
}
