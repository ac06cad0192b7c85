//! Selection of the items that a worker claims next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::pauses::Condition;
use super::round::Round;
use super::run::AHEAD;
use super::scarce::{Contender, LaneTurn, Scarce};
use super::shares::Shares;
use super::{Run, Worker, WorkerParts};
use crate::fetch::{FetchLane, Ledger, Payer, Waiting};
use crate::store::{Claimable, Lane, NewWorkItem, Priority, Queue, StoreError, WorkItem};

/// Maximum number of queues that one query returns.
const QUEUES_MAX: u32 = 256;

/// Maximum number of hosts per priority whose queues are read in one round.
const LOOKED_AT_MAX: usize = 64;
/// Number of non-empty queues after which the round stops reading more.
pub(super) const FRONTS_MAX: usize = 8;

/// Maximum number of places of a host of which several repositories fail and none responds.
const SILENT_PLACES: usize = 2;

/// The lanes other than the ordinary one, and their numbers of places.
const OTHER_LANES: [(Lane, usize); 3] = [(Lane::Medium, 2), (Lane::Large, 1), (Lane::Alone, 4)];

/// Interval at which an item that had to leave takes precedence over those that did not. It may have to leave again
/// after one turn.
const DUE_EVERY: Duration = Duration::from_secs(30);

/// Interval between two looks for items in the other lanes, while nothing suggests that there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Claims items, some of them ahead of a free place. Returns whether there is no room for more.
    pub(super) async fn claim(&mut self) -> Result<bool, StoreError> {
        self.start_ready();
        let worker = self.worker;
        let held = self.in_flight.values().chain(&self.ready);
        let mut shares = worker.take_all(Shares::ahead(worker.options.concurrent), held);
        // Claiming costs a transaction, so a few free places among many are not worth one, unless for urgent items.
        let few = shares.free_for_all() < worker.options.concurrent / 2;
        let least = if few && !self.tasks.is_empty() {
            Priority::Webhook
        } else {
            Priority::Backfill
        };
        let mut chosen = Vec::new();
        if !self.tasks.is_empty() {
            chosen.extend(worker.lend(&mut shares, &mut self.round).await?);
        }
        if shares.free() > 0 {
            chosen.extend(worker.choose(&mut shares, &mut self.round, least).await?);
        }
        let is_due = self
            .round
            .looked
            .is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if is_due || self.tasks.is_empty() {
            self.round.looked = Some(Instant::now());
            chosen.extend(self.choose_of_other_lanes().await?);
        }
        let WorkerParts { store, .. } = &worker.shared.parts;
        if !chosen.is_empty() {
            // Another process may have stored keys that this one would not find, and can read these items.
            self.meanwhile(store.check_peppers()).await?;
        }
        let holding = worker.options.lease;
        let taking = store.take_ahead(&chosen, &worker.id, holding, holding / AHEAD);
        for item in self.meanwhile(taking).await? {
            if item.lane == Lane::Ordinary {
                self.ready.push_back(item);
            } else {
                self.start(item);
            }
        }
        self.start_ready();
        let ready = self.ready.iter();
        let ready: Vec<Uuid> = ready.map(|item| item.id).collect();
        self.round.probes.retain(|id| ready.contains(id));
        self.round.lent.retain(|id| ready.contains(id));
        self.note_begun().await?;
        Ok(shares.free() == 0)
    }

    /// Starts the claimed items for which there are free places, and informs the holders of places about the rest. A
    /// worker that is replaced starts nothing more.
    pub(super) fn start_ready(&mut self) {
        let worker = self.worker;
        if self.is_replaced() {
            return;
        }
        let shares = Shares::new(worker.options.concurrent);
        let mut shares = worker.take_all(shares, self.in_flight.values());
        let may_begin = |shares: &Shares, item: &NewWorkItem| {
            worker.has_place(shares, &item.host, item.priority)
                && shares.has_place_for(&item.host, &item.remote())
                && worker.has_place_for_owner(shares, &item.host, &item.owner())
        };
        loop {
            let mut ready = self.ready.iter();
            let lent = ready.position(|item| {
                self.round.lent.contains(&item.id) && may_begin(&shares, &item.range)
            });
            let next = || shares.next(self.ready.iter().map(|item| &item.range), may_begin);
            let Some(item) = lent.or_else(next).and_then(|at| self.ready.remove(at)) else {
                break;
            };
            shares.take_for(&item.range, worker.knows(&item.range.host));
            self.start(item);
        }
        worker.tell_who_waits(&shares, &self.ready);
    }

    fn start(&mut self, item: WorkItem) {
        if item.lane == Lane::Ordinary {
            self.begun.push(item.id);
        }
        let origin = self.worker.origins.get(&item.range.host).cloned();
        let is_probe = self.round.probes.remove(&item.id);
        let task = Arc::clone(&self.worker.shared).work_on(origin, item.clone(), is_probe);
        let handle = self.tasks.spawn(task);
        self.in_flight.insert(handle.id(), item);
    }

    async fn choose_of_other_lanes(&mut self) -> Result<Vec<Uuid>, StoreError> {
        let mut chosen = Vec::new();
        for (lane, places) in OTHER_LANES {
            let held = self.in_flight.values().filter(|item| item.lane == lane);
            let held: Vec<&WorkItem> = held.collect();
            let lane = Scarce::new(lane, places, &held);
            chosen.extend(self.worker.choose_in(lane, &mut self.round).await?);
        }
        Ok(chosen)
    }
}

impl Worker {
    pub(super) fn knows(&self, host: &str) -> bool {
        self.origins.contains_key(host)
    }

    /// Returns `shares` with the places of these items taken.
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

    /// Chooses items for the free places, none less urgent than `least`: the most urgent first, and among equals those
    /// of the host that holds the fewest places.
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
            chosen.extend(self.choose_among(queues, shares, round).await?);
        }
        Ok(chosen)
    }

    /// Returns the queues of a lane, without those of paused hosts, most urgent first. Starts at another host each
    /// time.
    pub(super) async fn queues(
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
            // Most of so many hosts are not configured. They must not hide those that are.
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
        let pauses = &self.shared.pauses;
        let is_open = |host: &str| match lane {
            Lane::Ordinary => pauses.is_open(host),
            _ => pauses.left_of_host(host).is_none(),
        };
        found.retain(|queue| is_open(&queue.host));
        round.number = round.number.wrapping_add(1);
        let first = round.number % found.len().max(1);
        found.rotate_left(first);
        found.sort_by_key(|queue| queue.priority);
        Ok(found)
    }

    /// Chooses items from queues of the same priority.
    async fn choose_among(
        &self,
        queues: &[Queue],
        shares: &mut Shares,
        round: &mut Round,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut fronts: Vec<(&Queue, VecDeque<Claimable>)> = Vec::new();
        let mut by_places: Vec<&Queue> = queues
            .iter()
            .filter(|queue| self.has_place(shares, &queue.host, queue.priority))
            .collect();
        by_places.sort_by_key(|queue| (!self.knows(&queue.host), shares.of_host(&queue.host)));
        for queue in by_places.into_iter().take(LOOKED_AT_MAX) {
            let full = shares.full_of(&queue.host);
            let front = self.front(queue, full, &round.turns).await?;
            if front.is_empty() {
                // A host that is left alone costs next to nothing, however many of its items wait.
                self.shared.pauses.probed(&queue.host, false);
            } else {
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
            let (host, remote) = (&queue.host, &next.remote);
            if shares.has_place_for(host, remote)
                && self.has_place_for_owner(shares, host, &next.owner)
            {
                let whose = (&*next.owner, &**remote);
                shares.take(host, whose, self.knows(host), queue.priority);
                chosen.push(next.id);
                if self.note_chosen(host, &next, round) {
                    front.clear();
                }
            }
        }
        Ok(chosen)
    }

    /// Notes whose turn it was, and what is claimed to see whether its host is well again. Returns whether that is all
    /// for now.
    pub(super) fn note_chosen(&self, host: &str, next: &Claimable, round: &mut Round) -> bool {
        if let Some(owner) = self.turn_of(Lane::Ordinary, host, &next.owner) {
            round.turns.taken(Lane::Ordinary, host, owner);
        }
        let pauses = &self.shared.pauses;
        if pauses.condition(host) != Condition::Well {
            round.probes.insert(next.id);
        }
        pauses.probed(host, true)
    }

    fn has_place(&self, shares: &Shares, host: &str, priority: Priority) -> bool {
        // One item is enough to probe an unreachable host, and few are enough for one that accepts connections but
        // never responds.
        let most = match self.shared.pauses.condition(host) {
            Condition::Unreachable => 1,
            Condition::Silent => SILENT_PLACES,
            Condition::Well => usize::MAX,
        };
        shares.of_host(host) < most && shares.has_place(host, self.knows(host), priority)
    }

    /// Returns whether an owner may have another place: few, while many of his repositories keep others waiting.
    pub(super) fn has_place_for_owner(&self, shares: &Shares, host: &str, owner: &str) -> bool {
        shares.has_place_for_slow(host, owner) || !self.shared.slow.is_slow_owner(host, owner)
    }

    /// Chooses items for the free places of a scarce lane, and informs the holders of the other places whether anyone
    /// is waiting.
    async fn choose_in(
        &self,
        mut lane: Scarce<'_>,
        round: &mut Round,
    ) -> Result<Vec<Uuid>, StoreError> {
        let candidates = self.candidates(&lane, round).await?;
        let mut chosen = Vec::new();
        let mut waiting = Waiting::Nobody;
        while let Some(next) = lane.next(&candidates, LaneTurn::after(round.given), |host| {
            round.served(lane.lane, self.served_as(host))
        }) {
            if !lane.has_place_for(next) {
                // Apart from others each must have its turn soon: only what is silent makes room at once.
                if lane.lane == Lane::Alone || lane.is_wanted_by(next) {
                    waiting = Waiting::Somebody;
                }
                break;
            }
            lane.take(next);
            if next.is_due {
                round.due = Some(Instant::now());
            }
            round.note_served(lane.lane, self.served_as(&next.host));
            if let Some(owner) = self.turn_of(lane.lane, &next.host, &next.owner) {
                round.turns.taken(lane.lane, &next.host, owner);
            }
            chosen.push(next.id);
        }
        if lane.lane == Lane::Alone {
            self.shared.demands.of(lane.lane, true).set(waiting);
        } else {
            let hurrying = lane.hurrying(&candidates, |host| self.knows(host));
            let hurrying = hurrying.filter(|_| waiting > Waiting::Nobody);
            let payers = hurrying.map(|next| next.payer.clone());
            self.ledger(lane.lane).tell(payers);
        }
        Ok(chosen)
    }

    /// Returns the ledger of a scarce lane.
    fn ledger(&self, lane: Lane) -> &Ledger {
        let fetcher = &self.shared.parts.fetcher;
        fetcher.ledger(match lane {
            Lane::Medium => FetchLane::Medium,
            Lane::Ordinary | Lane::Large | Lane::Alone => FetchLane::Large,
        })
    }

    /// Returns the candidates for a lane: the first items of some of its hosts.
    async fn candidates(
        &self,
        lane: &Scarce<'_>,
        round: &mut Round,
    ) -> Result<Vec<Contender>, StoreError> {
        let (ledger, now) = (self.ledger(lane.lane), std::time::Instant::now());
        let mut queues = self.queues(lane.lane, Priority::Backfill, round).await?;
        queues.sort_by_cached_key(|queue| {
            let group = self.served_as(&queue.host);
            let used = ledger.used(&Payer::new(group, &queue.host, "", ""), now);
            let served = round.served(lane.lane, group);
            let turn = LaneTurn::after(round.given);
            let priority = turn.is_by_priority.then_some(queue.priority);
            (priority, lane.of_host(&queue.host), used, served)
        });
        let mut candidates = Vec::new();
        let mut fronts = 0;
        for queue in queues.iter().take(LOOKED_AT_MAX) {
            let mut front = self.front(queue, Vec::new(), &round.turns).await?;
            front.retain(|item| !lane.has_repository(&queue.host, &item.remote));
            fronts += usize::from(!front.is_empty());
            candidates.extend(front.into_iter().map(|item| {
                let group = self.served_as(&queue.host);
                let payer = Payer::new(group, &queue.host, &item.owner, &item.remote);
                Contender {
                    id: item.id,
                    priority: queue.priority,
                    host: queue.host.clone(),
                    remote: item.remote,
                    owner: item.owner,
                    deaths: item.deaths,
                    outpaced: self.shared.slow.outpaced(item.id),
                    used: ledger.used(&payer, now),
                    is_sized: self.shared.slow.is_sized(item.id),
                    payer,
                    is_due: false,
                }
            }));
            if fronts >= FRONTS_MAX {
                break;
            }
        }
        if round.due.is_none_or(|at| at.elapsed() >= DUE_EVERY) {
            let since = |next: &Contender| self.shared.slow.due_since(next.id);
            let due = candidates.iter_mut().filter(|next| since(next).is_some());
            if let Some(due) = due.min_by_key(|next| since(next)) {
                due.is_due = true;
            }
        }
        Ok(candidates)
    }

    /// Returns the name under which a host takes turns. All hosts that are not configured share one.
    fn served_as<'h>(&self, host: &'h str) -> &'h str {
        if self.knows(host) { host } else { "" }
    }
}
