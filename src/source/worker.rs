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
mod pauses;
mod place;
mod remember;
mod scarce;
mod shares;
mod sight;
mod slow;
mod stop;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Installation;
use crate::clock::SharedClock;
use crate::fetch::{GitFetcher, ObjectId};
use crate::respond::Responder;
use crate::scan::Engine;
use crate::store::{Lane, Shedding, Store, StoreError, WorkItem};
use clean::{CleanBlobs, GENERATION};
use demands::Demands;
use ends::{End, Tried};
use pauses::Pauses;
pub use remember::KNOWN_BLOBS;
use sight::Sight;
use slow::Slow;

/// The most items that end in one transaction.
const MAX_GROUP: usize = 64;

/// How often it is looked for what to shed, and for items whose worker died.
const KEEPING: Duration = Duration::from_secs(1);

/// How often it is looked for items that are to wait for too long because a clock was wrong.
const TIMES: Duration = Duration::from_mins(1);

/// How long to wait for the database between two attempts to commit while winding down.
const RECOVER: Duration = Duration::from_millis(100);

/// Where the contents of a host's repositories come from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The host, as work items name it.
    pub host: String,
    /// The base of clone addresses: `{clone_url}/{owner}/{name}.git`.
    pub clone_url: Url,
    /// An access token for them.
    pub token: Option<SecretString>,
    /// An app's installation, whose tokens are used when there is no other.
    pub app: Option<Arc<Installation>>,
}

impl Origin {
    /// The host of a clone address, with its port unless it is the scheme's own.
    pub fn host_of(clone_url: &Url) -> String {
        let host = clone_url.host_str().unwrap_or_default();
        match clone_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

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

/// The state of a running worker.
struct Run<'w> {
    worker: &'w Worker,
    tasks: JoinSet<Tried>,
    /// The items under way, by their task.
    under_way: HashMap<tokio::task::Id, WorkItem>,
    /// Items that are claimed and wait for a place, most urgent first.
    ready: VecDeque<WorkItem>,
    /// Where the look for something to do begins.
    round: claim::Round,
    /// Tries that ended and are not committed yet.
    ended: VecDeque<Tried>,
    /// How many of them go into the next transaction.
    group: usize,
    /// How many were committed.
    committed: usize,
    /// No database before this moment: the last operation failed.
    rest_until: Option<Instant>,
    /// Whether the others can be told to be dead.
    sight: Sight,
    /// When it was last looked for what waits for too long because of a clock.
    times_seen: Option<Instant>,
}

impl Worker {
    /// A worker for the hosts of `origins`.
    pub fn new(
        parts: WorkerParts,
        origins: impl IntoIterator<Item = Origin>,
        mut options: WorkerOptions,
    ) -> Self {
        let origins = origins.into_iter();
        let ruleset = parts.engine.ruleset().to_owned();
        let places = parts.fetcher.limits().concurrent.max(1);
        options.concurrent = options.concurrent.clamp(1, places);
        Self {
            ruleset,
            shared: Arc::new(Shared {
                parts,
                clean: CleanBlobs::default(),
                pauses: Pauses::default(),
                slow: Slow::default(),
                demands: Demands::default(),
            }),
            origins: origins
                .map(|origin| (origin.host.clone(), origin))
                .collect(),
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

impl<'w> Run<'w> {
    fn new(worker: &'w Worker) -> Self {
        Self {
            worker,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            ready: VecDeque::new(),
            round: claim::Round::default(),
            ended: VecDeque::new(),
            group: MAX_GROUP,
            committed: 0,
            rest_until: None,
            sight: Sight::new(worker.options.lease, Instant::now()),
            times_seen: None,
        }
    }

    /// Commits what ended and claims new items; says whether all places are taken now.
    async fn turn_over(&mut self) -> bool {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        if self.sight.is_lost() {
            // Before anything else: others may wonder whether this worker is dead.
            self.stay_alive().await;
        }
        let turned = match self.commit().await {
            Ok(()) => self.claim().await,
            Err(error) => Err(error),
        };
        match turned {
            Ok(is_full) => {
                self.sight.answered(Instant::now());
                is_full
            }
            Err(error) => {
                self.rest(&error);
                false
            }
        }
    }

    /// Waits for a try to end, and takes along the others that have ended meanwhile.
    async fn next_end(&mut self) {
        let mut next = self.tasks.join_next_with_id().await;
        while let Some(joined) = next {
            match joined {
                Ok((id, tried)) => {
                    self.under_way.remove(&id);
                    if tried.item.lane != Lane::Ordinary {
                        self.round.look_again();
                    }
                    self.ended.push_back(tried);
                }
                // It panicked, which was logged where it happened.
                Err(error) => {
                    let item = self.under_way.remove(&error.id());
                    self.ended.extend(item.map(Tried::panicked));
                }
            }
            next = self.tasks.try_join_next_with_id();
        }
        self.start_ready();
    }

    /// Waits for the database. Places that become free meanwhile are taken.
    async fn meanwhile<T>(&mut self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = self.next_end(), if !self.tasks.is_empty() => {}
            }
        }
    }

    /// Commits everything that ended.
    async fn commit(&mut self) -> Result<(), StoreError> {
        while !self.ended.is_empty() {
            self.commit_group().await?;
        }
        Ok(())
    }

    /// One transaction: what was found by several items, and their ends. On an error nothing of it has
    /// happened, and all of it is still to be done.
    ///
    /// When the database refuses a group for what is in it, the items are committed one by one, and the one
    /// that it refuses again counts as failed: it must not hold up the others for ever.
    async fn commit_group(&mut self) -> Result<(), StoreError> {
        let count = self.ended.len().min(self.group);
        let mut group: Vec<Tried> = self.ended.drain(..count).collect();
        let worker = self.worker;
        let committed = match self.meanwhile(worker.commit_group(&group)).await {
            Ok(()) => {
                if group
                    .iter()
                    .any(|tried| matches!(tried.end, End::Moved { .. }))
                {
                    self.round.look_again();
                }
                self.committed += count;
                self.group = MAX_GROUP.min(self.group * 2);
                return Ok(());
            }
            Err(error) if error.is_temporary() => Err(error),
            Err(error) => match group.as_mut_slice() {
                // It could not even be given back.
                [
                    Tried {
                        end: End::Failed(_),
                        ..
                    },
                ] => Err(error),
                [single] => {
                    single.fail(self.worker.shared.words(&error));
                    Ok(())
                }
                _ => {
                    self.group = 1;
                    Ok(())
                }
            },
        };
        for tried in group.into_iter().rev() {
            self.ended.push_front(tried);
        }
        committed
    }

    fn rest(&mut self, error: &StoreError) {
        tracing::error!(%error, "the worker waits for the database");
        self.sight.failed();
        self.rest_until = Some(Instant::now() + self.worker.options.idle);
    }

    /// Keeps the leases of all items that are held.
    async fn stay_alive(&mut self) {
        let held = self.under_way.values().map(|item| item.id);
        let ended = self.ended.iter().map(|tried| tried.item.id);
        let ready = self.ready.iter().map(|item| item.id);
        let ids: Vec<Uuid> = held.chain(ended).chain(ready).collect();
        if ids.is_empty() {
            return;
        }
        let worker = self.worker;
        let store = &worker.shared.parts.store;
        // An item that is somebody else's by now is noticed when it ends.
        match store
            .heartbeat(&ids, &worker.id, worker.options.lease)
            .await
        {
            Ok(_) => self.sight.answered(Instant::now()),
            Err(error) => self.rest(&error),
        }
    }

    /// Sheds what cannot be read in time, and sees to what dead workers left.
    async fn keep_order(&mut self) {
        let worker = self.worker;
        let WorkerParts { store, clock, .. } = &worker.shared.parts;
        match store.shed(&worker.options.shedding, clock.now()).await {
            Ok(0) => {}
            Ok(items) => tracing::warn!(items, "more is pushed than can be read: items were shed"),
            Err(error) => self.rest(&error),
        }
        let seen = self.times_seen;
        if seen.is_none_or(|seen| seen.elapsed() >= TIMES) {
            self.times_seen = Some(Instant::now());
            if let Err(error) = store.mend_times(worker.options.lease).await {
                self.rest(&error);
            }
        }
        if !self.sight.tells_deaths(Instant::now()) {
            return;
        }
        match store.reclaim(&worker.id, worker.options.lease / 8).await {
            Ok(Some(_)) => {}
            Ok(None) => self.sight.doubt(Instant::now()),
            Err(error) => {
                self.sight.doubt(Instant::now());
                self.rest(&error);
            }
        }
    }
}
