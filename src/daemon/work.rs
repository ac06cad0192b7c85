//! Setup of the worker for what sources and webhooks find.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::outgoing::guard;
use super::parts::{Parts, Shared};
use crate::clock::ticks;
use crate::fetch::{FetchLimits, GitFetcher};
use crate::scan::Engine;
use crate::schedule::Schedule;
use crate::source::SourceParts;
use crate::store::{Shedding, Store, StoreError, Urgency};
use crate::work::{KNOWN_BLOBS, Origin, Worker, WorkerOptions, WorkerParts};

/// Interval between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_hours(1);

/// Maximum number of finished work items that are remembered, however recent they are: strangers can push as fast as
/// they like, and each item has some kilobytes of names.
const FINISHED_MAX: u32 = 200_000;

/// Interval at which their number is checked.
const FINISHED: Duration = Duration::from_mins(1);

/// Interval at which it is checked that nothing was stored that is not found.
const PEPPERS: Duration = Duration::from_mins(1);

/// Interval at which the database's write-ahead log is checked.
const WAL: Duration = Duration::from_secs(5);

/// Retention period of deliveries. GitHub repeats them for 3 days.
const DELIVERIES: Duration = Duration::from_hours(24 * 7);

/// Maximum number of requests with an `Idempotency-Key` that are remembered. Each made a key, so that their number is
/// the caller's own doing.
const REQUESTS_MAX: u32 = 1_000_000;

/// State shared by those that find work and those that do it.
#[derive(Debug)]
pub(super) struct Work {
    /// Engine that finds candidates.
    pub(super) engine: Arc<Engine>,
    /// Notifies workers of new items.
    pub(super) wake: Arc<Notify>,
    /// Fetches contents, within one budget for all.
    pub(super) fetcher: GitFetcher,
}

impl Work {
    /// Creates the state for another configuration. Places, memory and what is known of hosts stay the same, and the
    /// limits of scanning, too. So does the engine, which is large, while the same is searched for: work of many
    /// generations may be in flight.
    pub(super) fn renewed(&self, parts: &Parts<'_>, is_same_search: bool) -> Self {
        let fetcher = self.fetcher.with_client(parts.clients.git.clone());
        let engine = if is_same_search {
            Arc::clone(&self.engine)
        } else {
            Arc::new(Engine::new(&parts.formats, parts.config.scan.encodings))
        };
        Self {
            fetcher: fetcher.guarded_by(guard(parts.config)),
            engine,
            wake: Arc::clone(&self.wake),
        }
    }

    pub(super) fn new(parts: &Parts<'_>) -> Self {
        let scan = &parts.config.scan;
        let limits = FetchLimits {
            max_fetch_bytes: scan.max_fetch_bytes,
            max_blob_bytes: scan.max_blob_bytes,
            ..FetchLimits::default()
        };
        Self {
            fetcher: GitFetcher::new(parts.clients.git.clone(), limits)
                .guarded_by(guard(parts.config)),
            engine: Arc::new(Engine::new(&parts.formats, scan.encodings)),
            wake: Arc::new(Notify::new()),
        }
    }

    /// Returns the dependencies of a source that is polled by this schedule.
    pub(super) fn source_parts(&self, parts: &Parts<'_>, schedule: &Schedule) -> SourceParts {
        SourceParts {
            client: parts.clients.api.clone(),
            store: parts.responder.store().with_urgency(Urgency::Work),
            responder: parts.responder.clone(),
            engine: Arc::clone(&self.engine),
            clock: Arc::clone(&parts.clock),
            wake: Arc::clone(&self.wake),
            is_scheduled: schedule.is_cron(),
        }
    }

    /// Creates a worker for contents from these servers.
    pub(super) fn worker(&self, parts: &Parts<'_>, origins: HashMap<String, Origin>) -> Worker {
        let worker_parts = WorkerParts {
            store: parts.responder.store().with_urgency(Urgency::Work),
            responder: parts.responder.at_most(Urgency::Work),
            engine: Arc::clone(&self.engine),
            fetcher: self.fetcher.clone(),
            clock: Arc::clone(&parts.clock),
            wake: Arc::clone(&self.wake),
        };
        let work = &parts.config.work;
        let options = WorkerOptions {
            shedding: Shedding {
                max_waiting: work.max_waiting,
                max_wait: work.max_wait,
            },
            ..WorkerOptions::default()
        };
        Worker::new(worker_parts, origins.into_values(), options)
    }

    /// Starts the worker. It runs even without sources: webhooks find work, and an earlier configuration may have left
    /// some.
    pub(super) fn start(&self, parts: &Parts<'_>, origins: HashMap<String, Origin>) {
        let worker = self.worker(parts, origins);
        let (replaced, stop) = (parts.replaced.clone(), parts.shared.lifecycle.stop_token());
        parts.spawn("worker", async move {
            let ended = stop.child_token();
            let working = async {
                worker.run_until_replaced(&replaced, &stop).await;
                ended.cancel();
            };
            tokio::join!(working, worker.keep_clean_blobs(&ended));
        });
    }
}

/// Starts housekeeping.
pub(super) fn start_housekeeping(shared: &Shared, remember: Duration) {
    let store = shared.store.clone();
    let stop = shared.lifecycle.stop_token();
    shared.lifecycle.spawn("housekeeping", async move {
        tokio::select! {
            () = keep_house(&store, remember) => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Deletes old completed work every hour, and the oldest whenever there is too much of it, keeps the database's files
/// small, and tells of keys that another process stored under a pepper that this one lacks.
async fn keep_house(store: &Store, remember: Duration) {
    let mut hourly = ticks(HOUSEKEEPING);
    let mut often = ticks(WAL);
    let forgetting = async {
        loop {
            hourly.tick().await;
            if let Err(error) = forget(store, remember).await {
                tracing::warn!(%error, "housekeeping failed, will retry");
            }
        }
    };
    let mut minutely = ticks(FINISHED);
    let bounding = async {
        loop {
            minutely.tick().await;
            match store.forget_done_beyond(FINISHED_MAX).await {
                Ok(0) => {}
                Ok(items) => {
                    tracing::info!(
                        items,
                        "too many finished work items: the oldest were forgotten"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "forgetting the oldest finished work items failed, will retry");
                }
            }
        }
    };
    let cutting = async {
        loop {
            often.tick().await;
            if let Err(error) = store.cut_wal().await {
                tracing::warn!(%error, "cutting the write-ahead log failed, will retry");
            }
        }
    };
    let mut checked = ticks(PEPPERS);
    let checking = async {
        loop {
            checked.tick().await;
            // Any other error is told by whoever needs the database for more.
            if let Err(error @ StoreError::UnknownPepper { .. }) = store.check_peppers().await {
                tracing::error!(%error, "nothing is read, and whoever reports a key that is not found is told 503");
            }
        }
    };
    tokio::join!(forgetting, bounding, cutting, checking);
}

async fn forget(store: &Store, age: Duration) -> Result<(), StoreError> {
    let items = store.forget_done(age).await?;
    let blobs = store.forget_scanned_blobs(KNOWN_BLOBS).await?;
    let deliveries = store.forget_deliveries(DELIVERIES).await?;
    let (requests, early) = store.forget_requests(REQUESTS_MAX).await?;
    if items + blobs + deliveries + requests > 0 {
        tracing::info!(
            items,
            blobs,
            deliveries,
            requests,
            "housekeeping: old work items, blobs, deliveries and idempotent requests were forgotten"
        );
    }
    if early > 0 {
        tracing::warn!(
            requests = early,
            "more keys than are remembered were made with an Idempotency-Key within 24 hours: the oldest requests were \
             forgotten, and make another key if they are sent again"
        );
    }
    Ok(())
}
