//! Which items a worker takes next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::shares::Shares;
use super::{Run, Worker, WorkerParts};
use crate::store::{Claimable, Lane, NewWorkItem, Priority, Queue, StoreError, WorkItem};

/// The most hosts that are found at a time.
const QUEUES_MAX: u32 = 256;

/// The most hosts of one priority whose items are looked at in one round, and of how many there may be some.
const LOOKED_AT_MAX: usize = 64;
const FRONTS_MAX: usize = 8;

/// The most items of one host that are looked at in one round, of repositories that have not all their places yet.
const FRONT_MAX: u32 = 64;

/// The hosts that had the lane for large items last, oldest first.
const SERVED_MAX: usize = 16;

/// How often it is looked for items of the other lanes, while nothing says that there are any.
const OTHER_LANES: Duration = Duration::from_millis(500);

/// Where the last round ended, so that the next one begins elsewhere.
#[derive(Debug, Default)]
pub(super) struct Round {
    number: usize,
    /// The host of each lane that was found last, when there were more.
    after: HashMap<Lane, String>,
    /// The hosts that had a lane of one place, the last one at the end. All strangers are one.
    served: VecDeque<String>,
    /// When it was last looked for items of the other lanes, unless there may be some.
    looked: Option<Instant>,
}

impl Round {
    /// An item went to another lane.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    fn note_served(&mut self, host: &str) {
        self.served.retain(|served| served != host);
        self.served.push_back(host.to_owned());
        if self.served.len() > SERVED_MAX {
            self.served.pop_front();
        }
    }
}

impl Run<'_> {
    /// Claims items, some of them ahead of a place; says whether there is no room for more.
    pub(super) async fn claim(&mut self) -> Result<bool, StoreError> {
        self.start_ready();
        let worker = self.worker;
        let held = self.under_way.values().chain(&self.ready);
        let mut shares = worker.take_all(Shares::ahead(worker.options.concurrent), held);
        // Claiming costs a transaction, so it is not done for few places among many, unless for what is urgent.
        let few = shares.free_for_all() < worker.options.concurrent / 2;
        let least = if few && !self.tasks.is_empty() {
            Priority::Webhook
        } else {
            Priority::Backfill
        };
        let mut chosen = Vec::new();
        if shares.free() > 0 {
            chosen = worker.choose(&mut shares, &mut self.round, least).await?;
        }
        let is_due = self
            .round
            .looked
            .is_none_or(|at| at.elapsed() >= OTHER_LANES);
        if is_due || self.tasks.is_empty() {
            self.round.looked = Some(Instant::now());
            chosen.extend(self.choose_of_other_lanes().await?);
        }
        let WorkerParts { store, .. } = &worker.shared.parts;
        let taking = store.take(&chosen, &worker.id, worker.options.lease);
        for item in self.meanwhile(taking).await? {
            if item.lane == Lane::Ordinary {
                self.ready.push_back(item);
            } else {
                self.start(item);
            }
        }
        self.ready
            .make_contiguous()
            .sort_by_key(|item| item.range.priority);
        self.start_ready();
        Ok(shares.free() == 0)
    }

    /// Starts the claimed items for which there are places now, most urgent first.
    pub(super) fn start_ready(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let worker = self.worker;
        let shares = Shares::new(worker.options.concurrent);
        let mut shares = worker.take_all(shares, self.under_way.values());
        for item in std::mem::take(&mut self.ready) {
            let NewWorkItem {
                host,
                repository_id,
                priority,
                ..
            } = &item.range;
            if worker.has_place(&shares, host, *priority)
                && shares.has_place_for(host, repository_id)
            {
                shares.take_for(&item.range, worker.knows(host));
                self.start(item);
            } else {
                self.ready.push_back(item);
            }
        }
    }

    fn start(&mut self, item: WorkItem) {
        let origin = self.worker.origins.get(&item.range.host).cloned();
        let task = Arc::clone(&self.worker.shared).work_on(origin, item.clone());
        let handle = self.tasks.spawn(task);
        self.under_way.insert(handle.id(), item);
    }

    async fn choose_of_other_lanes(&mut self) -> Result<Vec<Uuid>, StoreError> {
        let mut chosen = Vec::new();
        for lane in [Lane::Large, Lane::Alone] {
            if !self.under_way.values().any(|item| item.lane == lane) {
                chosen.extend(self.worker.choose_one(lane, &mut self.round).await?);
            }
        }
        Ok(chosen)
    }
}

impl Worker {
    fn knows(&self, host: &str) -> bool {
        self.origins.contains_key(host)
    }

    /// The shares with the places that these items have.
    fn take_all<'i>(
        &self,
        mut shares: Shares,
        items: impl Iterator<Item = &'i WorkItem>,
    ) -> Shares {
        for item in items.filter(|item| item.lane == Lane::Ordinary) {
            shares.take_for(&item.range, self.knows(&item.range.host));
        }
        shares
    }

    /// Chooses items for the free places, none less urgent than `least`: the most urgent ones; among equals
    /// of the host that has the fewest places.
    async fn choose(
        &self,
        shares: &mut Shares,
        round: &mut Round,
        least: Priority,
    ) -> Result<Vec<Uuid>, StoreError> {
        let queues = self.queues(Lane::Ordinary, least, round).await?;
        let mut chosen = Vec::new();
        for queues in queues.chunk_by(|a, b| a.priority == b.priority) {
            if shares.free() == 0 {
                break;
            }
            chosen.extend(self.choose_among(queues, shares).await?);
        }
        Ok(chosen)
    }

    /// What there is to take in a lane of hosts that are not left alone, most urgent first; each time another
    /// host is the first one.
    async fn queues(
        &self,
        lane: Lane,
        least: Priority,
        round: &mut Round,
    ) -> Result<Vec<Queue>, StoreError> {
        let after = round.after.entry(lane).or_default();
        let store = &self.shared.parts.store;
        let mut found = store.queues(lane, least, after, QUEUES_MAX).await?;
        let more = u32::try_from(found.len()).unwrap_or(u32::MAX) >= QUEUES_MAX;
        if more || !after.is_empty() {
            // So many hosts are strangers' for the most part. They must not hide those that are configured.
            found.retain(|queue| !self.knows(&queue.host));
            let furthest = found.iter().map(|queue| &queue.host).max();
            *after = furthest.filter(|_| more).cloned().unwrap_or_default();
            let urgencies = Priority::ALL.into_iter().filter(|of| *of <= least);
            found.extend(urgencies.flat_map(|priority| {
                let hosts = self.origins.keys().cloned();
                hosts.map(move |host| Queue {
                    lane,
                    priority,
                    host,
                })
            }));
        }
        found.retain(|queue| self.shared.pauses.left_of_host(&queue.host).is_none());
        round.number = round.number.wrapping_add(1);
        let first = round.number % found.len().max(1);
        found.rotate_left(first);
        found.sort_by_key(|queue| queue.priority);
        Ok(found)
    }

    /// Chooses items of queues of one priority.
    async fn choose_among(
        &self,
        queues: &[Queue],
        shares: &mut Shares,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut fronts: Vec<(&Queue, VecDeque<Claimable>)> = Vec::new();
        let mut by_places: Vec<&Queue> = queues
            .iter()
            .filter(|queue| self.has_place(shares, &queue.host, queue.priority))
            .collect();
        by_places.sort_by_key(|queue| (!self.knows(&queue.host), shares.of_host(&queue.host)));
        for queue in by_places.into_iter().take(LOOKED_AT_MAX) {
            let front = self.front(queue, shares.full_of(&queue.host)).await?;
            if !front.is_empty() {
                fronts.push((queue, front.into()));
            }
            if fronts.len() >= FRONTS_MAX {
                break;
            }
        }
        let mut chosen = Vec::new();
        while shares.free() > 0 {
            fronts.retain(|(queue, front)| {
                !front.is_empty() && self.has_place(shares, &queue.host, queue.priority)
            });
            let fewest = fronts
                .iter_mut()
                .min_by_key(|(queue, _)| shares.of_host(&queue.host));
            let Some((queue, front)) = fewest else {
                break;
            };
            let Some(next) = front.pop_front() else {
                continue;
            };
            let (host, repository) = (&queue.host, &next.repository_id);
            let is_paused = self.shared.pauses.left(host, repository).is_some();
            if !is_paused && shares.has_place_for(host, repository) {
                shares.take(host, repository, self.knows(host), queue.priority);
                chosen.push(next.id);
            }
        }
        Ok(chosen)
    }

    /// The first items of a queue, but for repositories that are left alone, and for those that are `full`.
    async fn front(
        &self,
        queue: &Queue,
        mut full: Vec<String>,
    ) -> Result<Vec<Claimable>, StoreError> {
        full.extend(self.shared.pauses.paused_of(&queue.host));
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        self.shared.parts.store.front(queue, FRONT_MAX, &full).await
    }

    fn has_place(&self, shares: &Shares, host: &str, priority: Priority) -> bool {
        // Of a host in trouble one item is enough to see whether it answers again.
        if self.shared.pauses.is_in_trouble(host) && shares.of_host(host) > 0 {
            return false;
        }
        shares.has_place(host, self.knows(host), priority)
    }

    /// Chooses the next item of a lane that has but one place: of the host that had it the longest ago among
    /// those with something of equal urgency.
    async fn choose_one(&self, lane: Lane, round: &mut Round) -> Result<Option<Uuid>, StoreError> {
        let mut queues = self.queues(lane, Priority::Backfill, round).await?;
        queues.sort_by_key(|queue| {
            let name = self.served_as(&queue.host);
            // None, before all others: not served lately.
            let served = round.served.iter().position(|served| served == name);
            (queue.priority, served)
        });
        for queue in queues.iter().take(LOOKED_AT_MAX) {
            let front = self.front(queue, Vec::new()).await?;
            let mut ready = front.into_iter();
            let pauses = &self.shared.pauses;
            if let Some(next) =
                ready.find(|item| pauses.left(&queue.host, &item.repository_id).is_none())
            {
                round.note_served(self.served_as(&queue.host));
                return Ok(Some(next.id));
            }
        }
        Ok(None)
    }

    /// The name under which a host has its turn: strangers have one together.
    fn served_as<'h>(&self, host: &'h str) -> &'h str {
        if self.knows(host) { host } else { "" }
    }
}
