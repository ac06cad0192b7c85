//! State of a running worker: items in flight, and its rounds of committing and claiming.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ends::{End, Tried};
use super::round::Round;
use super::sight::Sight;
use super::{BEATS, KEEPING, Worker, WorkerParts};
use crate::store::{Lane, StoreError, WorkItem};

/// Maximum number of tries that are committed in one transaction.
const MAX_GROUP: usize = 64;

/// Maximum number of work items that are added in one transaction, beyond those of its first try. Others wait for the
/// database while it lasts.
const MAX_ADDED: usize = 1_000;

/// Maximum number of sightings in one transaction, beyond those of its first try. The same holds for these.
const MAX_SIGHTINGS: usize = 256;

/// Divisor of the duration of a lease for an item that is claimed ahead of a free place: it was not begun, so nothing
/// is lost when another worker takes it.
pub(super) const AHEAD: u32 = 2;

/// Interval between two checks for items that wait for too long because a clock was wrong.
const TIMES: Duration = Duration::from_secs(3);

/// State of a running worker.
pub(super) struct Run<'w> {
    pub(super) worker: &'w Worker,
    pub(super) tasks: JoinSet<Tried>,
    /// Items in flight, by task.
    pub(super) in_flight: HashMap<tokio::task::Id, WorkItem>,
    /// Items that are claimed and wait for a place.
    pub(super) ready: VecDeque<WorkItem>,
    /// Items of the ordinary lane that were begun, until the database knows.
    pub(super) begun: Vec<Uuid>,
    /// State of the last round of claiming.
    pub(super) round: Round,
    /// Finished tries that are not committed yet.
    pub(super) ended: VecDeque<Tried>,
    /// Maximum number of tries in the next transaction.
    pub(super) group: usize,
    /// Number of tries that were committed.
    pub(super) committed: usize,
    /// Time until which the database is not used, after a failed operation.
    pub(super) rest_until: Option<Instant>,
    /// View of the database, which decides whether an expired lease proves that another worker is dead.
    pub(super) sight: Sight,
    /// Time of the last check for items that wait for too long because of a clock.
    pub(super) times_seen: Option<Instant>,
    /// Canceled when another worker of this process takes over: only what has begun is finished.
    replaced: CancellationToken,
}

impl<'w> Run<'w> {
    pub(super) fn new(worker: &'w Worker, replaced: CancellationToken) -> Self {
        Self {
            worker,
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            ready: VecDeque::new(),
            begun: Vec::new(),
            round: Round::default(),
            ended: VecDeque::new(),
            group: MAX_GROUP,
            committed: 0,
            rest_until: None,
            sight: Sight::new(worker.options.lease, Instant::now()),
            times_seen: None,
            replaced,
        }
    }

    /// Commits finished tries and claims new items. Returns whether all places are taken.
    ///
    /// A worker that is replaced claims nothing more, and gives back what it has not begun: the next one hands out the
    /// places, and knows who waits for them.
    pub(super) async fn turn_over(&mut self) -> bool {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        if self.sight.is_lost() {
            // Before anything else: other workers may take this one for dead.
            self.stay_alive().await;
        }
        let turned = match self.commit().await {
            Ok(()) if self.is_replaced() => self.give_back_ready().await.map(|()| true),
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

    /// Returns whether another worker of this process takes over.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.is_cancelled()
    }

    /// Gives back the items that were claimed and are not begun. Those that were may be unknown to the database as such.
    async fn give_back_ready(&mut self) -> Result<(), StoreError> {
        self.worker.tell_that_all_wait();
        self.note_begun().await?;
        if self.ready.is_empty() {
            return Ok(());
        }
        let (worker, ready) = (self.worker, self.ready.iter());
        let ids: Vec<Uuid> = ready.map(|item| item.id).collect();
        let WorkerParts { store, wake, .. } = &worker.shared.parts;
        self.meanwhile(store.release_unbegun(&ids, &worker.id))
            .await?;
        self.ready.clear();
        wake.notify_one();
        Ok(())
    }

    /// Returns whether no item is held.
    pub(super) fn holds_nothing(&self) -> bool {
        self.tasks.is_empty() && self.ended.is_empty() && self.ready.is_empty()
    }

    /// Returns whether finished tries can be committed now.
    pub(super) fn has_more_to_commit(&self) -> bool {
        let rests = self.rest_until.is_some_and(|until| until > Instant::now());
        !self.ended.is_empty() && !rests
    }

    /// Waits for a try to finish, and collects all others that have finished by then.
    pub(super) async fn next_end(&mut self) {
        let mut next = self.tasks.join_next_with_id().await;
        while let Some(joined) = next {
            match joined {
                Ok((id, tried)) => {
                    self.in_flight.remove(&id);
                    if tried.item.lane != Lane::Ordinary {
                        self.round.look_again();
                    }
                    self.ended.push_back(tried);
                }
                // The task panicked, which was logged where it happened.
                Err(error) => {
                    let item = self.in_flight.remove(&error.id());
                    self.ended.extend(item.map(Tried::panicked));
                }
            }
            next = self.tasks.try_join_next_with_id();
        }
        self.start_ready();
    }

    /// Waits for the database. Meanwhile, places that become free are filled.
    pub(super) async fn meanwhile<T>(&mut self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = self.next_end(), if !self.tasks.is_empty() => {}
            }
        }
    }

    /// Commits all finished tries.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        while !self.ended.is_empty() {
            self.commit_group().await?;
        }
        Ok(())
    }

    /// Commits the findings and outcomes of several tries in one transaction. If it fails, nothing has happened, and
    /// all of them are still pending.
    ///
    /// If the database rejects a group for its contents, the tries are committed one by one, and one that is rejected
    /// again counts as failed: it must not hold up the others forever.
    pub(super) async fn commit_group(&mut self) -> Result<(), StoreError> {
        let count = self.next_group();
        let mut group: Vec<Tried> = self.ended.drain(..count).collect();
        let worker = self.worker;
        let committed = match self.meanwhile(worker.commit_group(&group)).await {
            Ok(()) => {
                if group
                    .iter()
                    .any(|tried| matches!(tried.end, End::Moved { .. }))
                {
                    self.round.look_again();
                    if self.is_replaced() {
                        worker.shared.parts.wake.notify_one();
                    }
                }
                self.committed += count;
                self.group = MAX_GROUP.min(self.group * 2);
                return Ok(());
            }
            Err(error) if error.is_temporary() => Err(error),
            Err(error) => match group.as_mut_slice() {
                // Not even the failure could be recorded.
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

    /// Returns the number of tries that are committed next.
    fn next_group(&self) -> usize {
        let (mut added, mut sightings) = (0, 0);
        let fits = self.ended.iter().take(self.group).take_while(|tried| {
            added += tried.adds();
            sightings += tried.sightings.len();
            added <= MAX_ADDED && sightings <= MAX_SIGHTINGS
        });
        fits.count().max(1).min(self.ended.len())
    }

    pub(super) fn rest(&mut self, error: &StoreError) {
        tracing::error!(%error, "the database failed the worker, will retry");
        self.sight.failed();
        self.rest_until = Some(Instant::now() + self.worker.options.idle);
    }

    /// Records which of the items that were claimed ahead are begun.
    pub(super) async fn note_begun(&mut self) -> Result<(), StoreError> {
        if self.begun.is_empty() {
            return Ok(());
        }
        let (worker, count) = (self.worker, self.begun.len());
        let ids = self.begun.clone();
        let store = &worker.shared.parts.store;
        let noting = store.begin_items(&ids, &worker.id, worker.options.lease);
        self.meanwhile(noting).await?;
        // Others may have been begun meanwhile.
        self.begun.drain(..count);
        Ok(())
    }

    /// Renews the leases of all items that are held.
    pub(super) async fn stay_alive(&mut self) {
        let held = self.in_flight.values().map(|item| item.id);
        let ended = self.ended.iter().map(|tried| tried.item.id);
        let ready = self.ready.iter().map(|item| item.id);
        let lease = self.worker.options.lease;
        let begun: Vec<Uuid> = held.chain(ended).collect();
        let ready: Vec<Uuid> = ready.collect();
        for (ids, lease) in [(begun, lease), (ready, lease / AHEAD)] {
            if ids.is_empty() {
                continue;
            }
            let worker = self.worker;
            let store = &worker.shared.parts.store;
            // An item that was lost to another worker is noticed when its try is committed.
            match store.heartbeat(&ids, &worker.id, lease).await {
                Ok(_) => self.sight.answered(Instant::now()),
                Err(error) => return self.rest(&error),
            }
        }
    }

    /// Runs housekeeping: sheds what cannot be read in time, and reclaims the items of dead workers.
    pub(super) async fn keep_order(&mut self) {
        let worker = self.worker;
        let WorkerParts { store, clock, .. } = &worker.shared.parts;
        match store.shed(&worker.options.shedding, clock.now()).await {
            Ok(0) => {}
            Ok(items) => tracing::warn!(items, "overload: work items were shed"),
            Err(error) => self.rest(&error),
        }
        if let Err(error) = store.give_back_unbegun(&worker.id).await {
            self.rest(&error);
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
        match store
            .reclaim(&worker.id, worker.options.lease / BEATS)
            .await
        {
            Ok(Some(0)) => {}
            // They wait in another lane now.
            Ok(Some(_)) => self.round.look_again(),
            Ok(None) => self.sight.doubt(Instant::now()),
            Err(error) => {
                self.sight.doubt(Instant::now());
                self.rest(&error);
            }
        }
    }

    /// Returns the time until the next housekeeping. It is due earlier than usual if the lease of another worker ends:
    /// one that is alive renews it long before.
    pub(super) async fn until_keeping(&mut self) -> Duration {
        let worker = self.worker;
        let usual = worker.options.idle.min(KEEPING);
        match worker.shared.parts.store.first_lease_ends(&worker.id).await {
            Ok(Some(ends)) => self.sight.next_look(Instant::now(), ends, usual),
            Ok(None) => usual,
            Err(error) => {
                self.rest(&error);
                usual
            }
        }
    }
}
