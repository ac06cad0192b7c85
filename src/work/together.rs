//! New branches of one repository, read in one request: a repository that is read for the first time may have thousands,
//! most of which bring next to nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::ends::{End, Tried};
use super::shares::is_urgent;
use super::task::{Reading, bounds};
use crate::fetch::{FetchError, ObjectId, RangeRequest};
use crate::forge::{NO_COMMIT, object_id};
use crate::store::{Beside, WorkItem};

/// Maximum number of branches that are read together with another one.
const MOST: u32 = 500;

/// Divisor of that number each time that they turn out to be too much or too slow, or one of them not to be there.
const FEWER: usize = 4;

/// Time for which the branches of a repository are read singly after some that were read together had to give way: what
/// is small among them must not wait for what is not.
const SINGLY: Duration = Duration::from_mins(1);

/// Maximum number of branches of a repository of which it is remembered that they are to be read singly.
const ALONE_MAX: usize = 1_000;

/// Maximum number of repositories of which it is remembered how many branches are read together.
const KNOWN_MAX: usize = 256;

/// Maximum time for which a branch waits for those that are read together, to be the next with which others are. A branch
/// that is urgent does not wait.
const TURN: Duration = Duration::from_secs(10);

/// Repositories of which branches are read together, by host and remote. Whoever has one locked reads them: another item
/// of the repository would read the same.
#[derive(Debug, Default)]
pub(super) struct Together(std::sync::Mutex<Turns>);

type Turns = HashMap<(String, String), Arc<Mutex<Turn>>>;

/// State of a repository of which branches are read together.
#[derive(Debug)]
struct Turn {
    /// Number of branches that are read together with another one.
    most: u32,
    /// Items that were read so last. Until that is committed they still wait.
    read: Vec<Uuid>,
    /// Items that had to give way when they were read with others, or whose branches are gone, the last ones last.
    alone: VecDeque<Uuid>,
    /// Time until which all are read singly.
    singly_until: Option<Instant>,
    /// Time until which the server is not asked what it has: it named what it does not have.
    unasked_until: Option<Instant>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            most: MOST,
            read: Vec::new(),
            alone: VecDeque::new(),
            singly_until: None,
            unasked_until: None,
        }
    }
}

impl Turn {
    fn is_alone(&self, id: Uuid) -> bool {
        is_ahead(self.singly_until) || self.alone.contains(&id)
    }

    /// Notes that an item was read with as many others, which is too much for a request.
    fn was_too_much(&mut self, count: usize) {
        self.most = most(count / FEWER);
    }

    /// Notes that an item had to give way when it was read with as many others.
    fn gave_way(&mut self, id: Uuid, count: usize) {
        self.was_too_much(count);
        self.singly_until = Some(Instant::now() + SINGLY);
        self.leave_alone(id);
    }

    fn leave_alone(&mut self, id: Uuid) {
        if self.alone.len() >= ALONE_MAX {
            self.alone.pop_front();
        }
        self.alone.push_back(id);
    }

    /// Leaves those out of which the server no longer names the commit. Returns whether there are any.
    fn leave_out_gone(&mut self, beside: &mut Vec<Beside>, named: &HashSet<ObjectId>) -> bool {
        let before = beside.len();
        beside.retain(|other| {
            let is_named = object_id(&other.after).is_ok_and(|id| named.contains(&id));
            if !is_named {
                self.leave_alone(other.id);
            }
            is_named
        });
        beside.len() < before
    }

    /// Notes that an item was read with these others.
    fn was_read(&mut self, beside: &[Beside]) {
        self.most = most(beside.len() * 2).max(self.most);
        self.read = beside.iter().map(|other| other.id).collect();
    }
}

/// Outcome of reading an item with others.
enum TriedTogether {
    /// This is its outcome, and that of the others.
    Read(Box<Tried>),
    /// They are too much for one request.
    TooMuch,
    /// The server does not have one of them.
    Gone,
    /// It had to give way.
    GaveWay(String),
}

impl Together {
    /// Waits for the turn of an item.
    async fn turn(&self, item: &WorkItem) -> Option<OwnedMutexGuard<Turn>> {
        let turn = self.of(item);
        if is_urgent(item.range.priority) {
            return turn.try_lock_owned().ok();
        }
        tokio::time::timeout(TURN, turn.lock_owned()).await.ok()
    }

    fn of(&self, item: &WorkItem) -> Arc<Mutex<Turn>> {
        let name = (item.range.host.clone(), item.range.remote());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX && !known.contains_key(&name) {
            known.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(known.entry(name).or_default())
    }
}

fn is_ahead(time: Option<Instant>) -> bool {
    time.is_some_and(|time| Instant::now() < time)
}

/// Returns the number of branches for the next time, given how many were read, or turned out to be too many.
fn most(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(MOST).clamp(1, MOST)
}

impl Shared {
    /// Reads a new branch together with others of its repository that wait. If that has to give way, it gives its place
    /// back. Returns `None` if it is to be read alone: there are no others, or they are too much for one request, or the
    /// server does not have one of them, in which case the next one is tried with fewer.
    pub(super) async fn read_together(
        self: &Arc<Self>,
        reading: &Reading,
        item: &WorkItem,
    ) -> Option<Tried> {
        let is_alone = !item.part.haves.is_empty() || item.part.is_dropped || item.deaths > 0;
        let is_new = item.range.before == NO_COMMIT && !reading.request.is_sampled;
        // A branch whose name is not known to the letter may be the default one.
        let is_named = !reading.request.reference.is_empty();
        if is_alone || !is_new || !is_named || item.tries > 1 {
            return None;
        }
        let mut turn = self.together.turn(item).await?;
        if turn.is_alone(item.id) {
            return None;
        }
        let known = u32::try_from(turn.read.len() + turn.alone.len()).unwrap_or(MOST);
        let store = &self.parts.store;
        let found = store.waiting_beside(item, turn.most + known).await;
        let mut beside = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for branches that are read together failed: one is read alone");
            Vec::new()
        });
        beside.retain(|other| {
            let is_known = turn.read.contains(&other.id) || turn.alone.contains(&other.id);
            object_id(&other.after).is_ok() && !is_known
        });
        beside.truncate(turn.most as usize);
        if beside.is_empty() {
            return None;
        }
        let mut tried = self.try_together(reading, item, &beside).await;
        if matches!(tried, Ok(TriedTogether::Gone))
            && let Some(named) = self.named(reading, item, &turn, &beside).await
        {
            let are_gone = turn.leave_out_gone(&mut beside, &named);
            let is_there = named.contains(&reading.request.after);
            if !is_there || beside.is_empty() {
                return None;
            }
            if are_gone {
                tried = self.try_together(reading, item, &beside).await;
            } else {
                turn.unasked_until = Some(Instant::now() + SINGLY);
            }
        }
        match tried {
            Ok(TriedTogether::Read(tried)) => {
                turn.was_read(&beside);
                Some(*tried)
            }
            // Not fewer at once: each try may take as long as one that is alone.
            Ok(TriedTogether::TooMuch | TriedTogether::Gone) => {
                turn.was_too_much(beside.len());
                None
            }
            Ok(TriedTogether::GaveWay(why)) => {
                turn.gave_way(item.id, beside.len());
                let wait = Duration::ZERO;
                Some(Tried::ended(item.clone(), End::Later { wait, why }))
            }
            Err(ended) => Some(*ended),
        }
    }

    /// Returns those of the commits that the server names now: branches may have been deleted since they were listed. Returns
    /// `None` if it does not tell all that it has, or named what it does not have.
    async fn named(
        &self,
        reading: &Reading,
        item: &WorkItem,
        turn: &Turn,
        beside: &[Beside],
    ) -> Option<HashSet<ObjectId>> {
        if is_ahead(turn.unasked_until) {
            return None;
        }
        let request = &reading.request;
        let (fetcher, place) = (&self.parts.fetcher, self.place(item, reading.is_known));
        let listing = fetcher.references_from(&request.clone_url, request.token.as_ref(), place);
        // A long list is dropped with the only place for one.
        let (references, _long) = listing.await.ok()?;
        if references.cut {
            return None;
        }
        let others = beside
            .iter()
            .filter_map(|other| object_id(&other.after).ok());
        let wanted: HashSet<_> = others.chain([request.after]).collect();
        let named = references.list.iter().map(|(_, id)| *id);
        Some(named.filter(|id| wanted.contains(id)).collect())
    }

    /// Reads a branch and those beside it. Returns the outcome if that fails.
    async fn try_together(
        self: &Arc<Self>,
        reading: &Reading,
        item: &WorkItem,
        beside: &[Beside],
    ) -> Result<TriedTogether, Box<Tried>> {
        let others = beside
            .iter()
            .filter_map(|other| object_id(&other.after).ok());
        let others: Vec<_> = others.collect();
        // Of a name by another hash function it is told by itself that it names nothing.
        let is_other = |id: &ObjectId| id.kind() != reading.request.after.kind();
        if others.iter().any(is_other) {
            return Ok(TriedTogether::TooMuch);
        }
        let request = RangeRequest {
            others,
            ..reading.request.clone()
        };
        let limits = bounds(item, self.parts.fetcher.limits());
        let fetched = match self.fetch(&request, reading, item, limits).await {
            Ok(fetched) => fetched,
            Err(error @ FetchError::Outpaced { .. }) => {
                return Ok(TriedTogether::GaveWay(self.words(&error)));
            }
            Err(
                FetchError::Busy
                | FetchError::SizedBusy
                | FetchError::LargeBusy
                | FetchError::Refused(_),
            ) => return Ok(TriedTogether::TooMuch),
            Err(FetchError::CommitGone) => return Ok(TriedTogether::Gone),
            Err(error) => {
                let ended = self.end_of(item.clone(), reading.has_token, &error);
                return Err(Box::new(ended));
            }
        };
        let has_others = fetched.has_others();
        let scanned = self.scanned(fetched, reading, item).await?;
        if !has_others {
            let tried = self.after_scan(item.clone(), scanned);
            return Ok(TriedTogether::Read(Box::new(tried)));
        }
        if !scanned.is_whole() {
            let gave_way = match &scanned.visited {
                Err(error @ FetchError::Outpaced { .. }) => Some(self.words(error)),
                _ => None,
            };
            // What it showed leaked, whatever is read of it next.
            if let Err(error) = self.report(item, scanned.found.sightings).await {
                let why = self.words(&error);
                return Err(Box::new(Tried::failed(item.clone(), why)));
            }
            return Ok(gave_way.map_or(TriedTogether::TooMuch, TriedTogether::GaveWay));
        }
        let mut tried = self.after_scan(item.clone(), scanned);
        if let End::Done(done) = &mut tried.end {
            done.beside = beside.iter().map(|other| other.id).collect::<Vec<Uuid>>();
        }
        Ok(TriedTogether::Read(Box::new(tried)))
    }
}
