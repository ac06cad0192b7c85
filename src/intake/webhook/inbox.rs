//! Inbox of deliveries, which commits many of them in one transaction.
//!
//! A delivery is answered only once its contents are in the database. While one transaction commits,
//! further deliveries arrive; the next transaction takes all of them. Of more than fit, owners of repositories get as
//! much each, and of an owner the repositories. A delivery with many sightings or work items is committed by itself and in pieces, and waits for those
//! with few. The inbox is bounded: if the database is slower than the forges for long, they are asked to retry.

mod waiting;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::counts::DeliveryCounts;
use crate::clock::ticks;
use crate::forge::ToldItem;
use crate::respond::{CleanSightings, LITTLE, Report, Reported, Responder, Turn};
use crate::store::{Delivery, Reason, Store, StoreError, Tx, Urgency, retried};
use waiting::{Waiting, first_of};

/// Maximum number of deliveries that wait, and as many again that are in order.
const WAITING_MAX: usize = 1_024;

/// Interval at which counts are written to the database.
const TALLY_EVERY: Duration = Duration::from_secs(2);

/// Time after which no more parts are tried of a group that the database did not take. Its senders are told soon.
const PARTS_TIME: Duration = Duration::from_secs(4);

/// Number of failures in a row after which the database is known to take nothing: as many as lead from a whole group to
/// one delivery in it.
const FAILURES_MAX: u32 = 8;

/// Handle that accepts the contents of deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    entries: mpsc::Sender<Entry>,
    committer: Committer,
}

/// Background task of an [`Inbox`]. Its owner runs [`InboxTask::run`] until every [`Inbox`] is dropped.
#[derive(Debug)]
pub struct InboxTask {
    committer: Committer,
    entries: mpsc::Receiver<Entry>,
    all_counts: mpsc::UnboundedReceiver<Arc<DeliveryCounts>>,
}

/// Dependencies of a commit.
#[derive(Debug, Clone)]
struct Committer {
    responder: Responder,
    wake: Arc<Notify>,
}

/// An inbox and its task, created before the webhooks are known.
#[derive(Debug)]
pub struct InboxParts {
    /// Handle for webhooks.
    pub inbox: Inbox,
    /// Task to be run by the owner.
    pub task: InboxTask,
    pub(super) all_counts: mpsc::UnboundedSender<Arc<DeliveryCounts>>,
}

/// Contents of one delivery.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) counts: Arc<DeliveryCounts>,
    /// Identifier of the delivery at the forge.
    pub(super) id: Option<String>,
    pub(super) items: Vec<ToldItem>,
    /// Sightings of known keys.
    pub(super) sightings: CleanSightings,
    pub(super) answer: oneshot::Sender<Result<Taken, Arc<StoreError>>>,
}

/// Result of handing a delivery to the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The delivery is in the database now.
    New,
    /// The delivery already was in the database.
    Repeated,
    /// There is no room for all of its work items. The delivery is not recorded, so that it can be
    /// repeated.
    Full,
}

/// Error returned when a delivery was not accepted. Nothing was changed.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Too many deliveries are waiting, or the program is shutting down.
    Busy,
    /// The database rejected the delivery.
    Store(Arc<StoreError>),
}

impl InboxParts {
    /// Creates an inbox that passes sightings to `responder` and notifies workers of new items through
    /// `wake`.
    pub fn new(responder: Responder, wake: Arc<Notify>) -> Self {
        let (sender, entries) = mpsc::channel(WAITING_MAX);
        let (all_counts, known) = mpsc::unbounded_channel();
        let committer = Committer { responder, wake };
        Self {
            inbox: Inbox {
                entries: sender,
                committer: committer.clone(),
            },
            task: InboxTask {
                committer,
                entries,
                all_counts: known,
            },
            all_counts,
        }
    }
}

impl Inbox {
    /// Hands over the contents of a delivery and waits until they are committed.
    pub(super) async fn take(
        &self,
        entry: impl FnOnce(oneshot::Sender<Result<Taken, Arc<StoreError>>>) -> Entry,
    ) -> Result<Taken, NotTaken> {
        let (answer, answered) = oneshot::channel();
        let entry = entry(answer);
        if entry.weight() > LITTLE {
            let taken = self.committer.commit_alone(entry).await;
            return taken.map_err(|error| NotTaken::Store(Arc::new(error)));
        }
        self.entries.try_send(entry).map_err(|_| NotTaken::Busy)?;
        answered
            .await
            .map_err(|_| NotTaken::Busy)?
            .map_err(NotTaken::Store)
    }
}

impl InboxTask {
    /// Commits deliveries until every [`Inbox`] is dropped and everything handed over before is answered.
    ///
    /// Counts are written concurrently: no delivery waits for them.
    pub async fn run(self) {
        let Self {
            committer,
            mut entries,
            all_counts,
        } = self;
        let counts = committer.responder.store().with_urgency(Urgency::Work);
        let (ended, end) = oneshot::channel();
        let committing = async {
            let mut waiting = Waiting::default();
            while waiting.fill(&mut entries).await {
                committer.commit_and_answer(waiting.next_group()).await;
            }
            drop(ended);
        };
        tokio::join!(committing, keep_counts(&counts, all_counts, end));
    }
}

impl Committer {
    /// Commits a delivery with many sightings or work items when it is its turn, in pieces. It is recorded with the
    /// last one: until then it may be sent again, and what was added is known.
    async fn commit_alone(&self, mut entry: Entry) -> Result<Taken, StoreError> {
        let mut turn = Turn::default();
        let (actor, repository) = (entry.source(), entry.repository().to_owned());
        let store = self.responder.store_of_much(&mut turn, actor, &repository);
        let store = store.await?;
        let (id, mut items) = (entry.id.take(), std::mem::take(&mut entry.items));
        loop {
            let rest = items.split_off(first_of(items.iter().map(ToldItem::weight)));
            entry.items = std::mem::replace(&mut items, rest);
            if items.is_empty() {
                entry.id.clone_from(&id);
            }
            let taken = self.commit(&store, std::slice::from_ref(&entry)).await?[0];
            if items.is_empty() || taken == Taken::Full {
                return Ok(taken);
            }
            entry.sightings.clear();
        }
    }

    /// Commits a group and answers each delivery in it. What the database does not take of it is divided, down to
    /// single deliveries: one that cannot be stored, or takes too long, must not affect the others.
    async fn commit_and_answer(&self, group: Vec<Entry>) {
        let began = Instant::now();
        let mut failures = 0;
        let mut parts = vec![group];
        while let Some(mut part) = parts.pop() {
            let error = match self.commit(self.responder.store(), &part).await {
                Ok(taken) => {
                    failures = 0;
                    for (entry, taken) in part.into_iter().zip(taken) {
                        answer(entry, Ok(taken));
                    }
                    continue;
                }
                Err(error) => error,
            };
            failures += u32::from(error.is_temporary());
            if failures > FAILURES_MAX || (error.is_temporary() && began.elapsed() > PARTS_TIME) {
                part.extend(parts.drain(..).flatten());
            } else if part.len() > 1 {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
                continue;
            }
            let error = Arc::new(error);
            for entry in part {
                answer(entry, Err(Arc::clone(&error)));
            }
        }
    }

    /// Commits all deliveries for which there is room in one transaction, or nothing. Returns one result
    /// per delivery, in their order.
    async fn commit(&self, store: &Store, group: &[Entry]) -> Result<Vec<Taken>, StoreError> {
        let done = retried(|| self.commit_once(store, group)).await?;
        done.found.announce();
        let mut told = HashSet::new();
        for entry in group {
            let source = entry.source();
            let added = done.added.get(source).copied().unwrap_or_default();
            if added > 0 && told.insert(source) {
                entry.counts.items(added);
                self.wake.notify_one();
            }
        }
        Ok(done.taken)
    }

    async fn commit_once(&self, store: &Store, group: &[Entry]) -> Result<Done, StoreError> {
        let now = self.responder.clock().now();
        let mut tx = store.begin().await?;
        let named: Vec<Delivery> = group.iter().filter_map(Entry::delivery).collect();
        let mut new = tx.record_deliveries(&named, now).await?;
        let mut taken: Vec<Taken> = group
            .iter()
            .map(|entry| match entry.delivery() {
                // Of two that arrived together, the first is new.
                Some(delivery) if !new.remove(&delivery) => Taken::Repeated,
                _ => Taken::New,
            })
            .collect();
        let (mut fresh, mut items, mut whose) = (Vec::new(), Vec::new(), Vec::new());
        for (at, entry) in group.iter().enumerate() {
            if taken[at] == Taken::New {
                fresh.push(entry);
            }
            // Those of repeated deliveries, too: what was gone, dead-lettered or not allowed before may be read by now.
            items.extend(entry.items.iter().map(ToldItem::to_item));
            whose.resize(items.len(), at);
        }
        let added = tx.add_work_items_of_sources(&items, now).await?;
        let full = added.refused.iter().map(|item| whose[*item]);
        forget_full(&mut tx, group, full.collect(), &mut taken).await?;
        // Sightings count whether or not the sender retries.
        let reports: Vec<Report<'_>> = fresh.iter().map(|entry| entry.report()).collect();
        let found = self.responder.report_in(&mut tx, &reports).await?;
        tx.commit().await?;
        Ok(Done {
            taken,
            added: added.new,
            found,
        })
    }
}

/// Removes the records of the new deliveries for which there is no room, and marks all of those and their repetitions
/// in the group as [`Taken::Full`].
async fn forget_full(
    tx: &mut Tx,
    group: &[Entry],
    full: HashSet<usize>,
    taken: &mut [Taken],
) -> Result<(), StoreError> {
    // A delivery that was recorded before stays recorded: only its items are missing.
    let new = full.iter().filter(|at| taken[**at] == Taken::New);
    let named = new.filter_map(|at| group[*at].delivery());
    let named: HashSet<Delivery> = named.collect();
    tx.forget_recorded(&named).await?;
    for (at, (entry, taken)) in group.iter().zip(taken).enumerate() {
        if full.contains(&at) || entry.delivery().is_some_and(|id| named.contains(&id)) {
            *taken = Taken::Full;
        }
    }
    Ok(())
}

/// Writes the counts to the database periodically, and a last time once `end` fires.
async fn keep_counts(
    store: &Store,
    mut new: mpsc::UnboundedReceiver<Arc<DeliveryCounts>>,
    mut end: oneshot::Receiver<()>,
) {
    let mut all_counts = Vec::new();
    let mut ticks = ticks(TALLY_EVERY);
    loop {
        let ended = tokio::select! {
            _ = ticks.tick() => false,
            _ = &mut end => true,
        };
        while let Ok(one) = new.try_recv() {
            all_counts.push(one);
        }
        write_down(store, &all_counts).await;
        if ended {
            return;
        }
    }
}

async fn write_down(store: &Store, all_counts: &[Arc<DeliveryCounts>]) {
    for one in all_counts {
        let Some(counts) = one.take() else {
            continue;
        };
        let name = one.forge().source();
        if let Err(error) = store.count_webhook(name, &counts).await {
            tracing::warn!(source = name, %error, "saving the counts of webhooks failed, will retry");
            one.put_back(&counts);
            // The others would wait for the same database.
            return;
        }
    }
}

/// Result of a transaction.
struct Done {
    /// Result for each delivery, in the order of the group.
    taken: Vec<Taken>,
    /// Number of new work items, by webhook.
    added: BTreeMap<String, u64>,
    /// Answers to the sightings.
    found: Reported,
}

impl Entry {
    /// Returns the webhook's name, which is also the source of its items.
    fn source(&self) -> &'static str {
        self.counts.forge().source()
    }

    /// Returns the name of the repository that the delivery is about. Empty if it is about none.
    fn repository(&self) -> &str {
        let item = || self.items.first().map(ToldItem::repository);
        let repository = self.sightings.repository().or_else(item);
        repository.unwrap_or_default()
    }

    /// Returns the number of sightings of keys, and of work items of ordinary size, that take the database as long.
    fn weight(&self) -> usize {
        self.sightings.len() + self.items.iter().map(ToldItem::weight).sum::<usize>()
    }

    fn report(&self) -> Report<'_> {
        Report {
            sightings: &self.sightings,
            reason: Reason::Leaked,
            actor: self.source(),
        }
    }

    fn delivery(&self) -> Option<Delivery> {
        let id = self.id.clone()?;
        Some(Delivery {
            source: self.source().to_owned(),
            id,
        })
    }
}

fn answer(entry: Entry, taken: Result<Taken, Arc<StoreError>>) {
    // Nobody is left to be answered if the sender has disconnected.
    let _ = entry.answer.send(taken);
}
