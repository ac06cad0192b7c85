//! Where deliveries wait to be committed, many in one transaction.
//!
//! A delivery is answered only when what it amounts to is in the database. While one transaction commits,
//! others arrive; the next one takes all of them along. The inbox is bounded: when the database is slower
//! than the forges for long, they are told to come again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};

use super::tally::Tally;
use crate::respond::{Answer, CleanSightings, Report, Responder, announce};
use crate::store::{Delivery, NewWorkItem, Reason, Store, StoreError, Tx, Urgency, retried};

/// How many deliveries may wait.
const WAITING_MAX: usize = 2_048;

/// The most deliveries of one transaction.
const GROUP_MAX: usize = 128;

/// How often counts are written down.
const TALLY_EVERY: Duration = Duration::from_secs(2);

/// Takes what deliveries amount to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    entries: mpsc::Sender<Entry>,
}

/// The work behind an [`Inbox`]. Its owner runs [`InboxTask::run`] until every [`Inbox`] is gone.
#[derive(Debug)]
pub struct InboxTask {
    responder: Responder,
    wake: Arc<Notify>,
    entries: mpsc::Receiver<Entry>,
    tallies: mpsc::UnboundedReceiver<Arc<Tally>>,
}

/// What commits them.
struct Committer {
    responder: Responder,
    wake: Arc<Notify>,
}

/// Makes an inbox, before it is known which webhooks there are.
#[derive(Debug)]
pub struct InboxParts {
    /// For webhooks.
    pub inbox: Inbox,
    /// To be run.
    pub task: InboxTask,
    pub(super) tallies: mpsc::UnboundedSender<Arc<Tally>>,
}

/// What one delivery amounts to.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tally: Arc<Tally>,
    /// What the forge calls it.
    pub(super) id: Option<String>,
    pub(super) items: Vec<NewWorkItem>,
    /// Of keys of ours.
    pub(super) sightings: CleanSightings,
    pub(super) answer: oneshot::Sender<Result<Taken, Arc<StoreError>>>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the database.
    New,
    /// It was before.
    Repeated,
    /// There is no room for all that it tells of. It is not remembered, so that it can be repeated.
    Full,
}

/// Why a delivery was not taken. Nothing of it has happened.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Too many are waiting, or the program is shutting down.
    Busy,
    /// The database refused.
    Store(Arc<StoreError>),
}

impl InboxParts {
    /// An inbox whose deliveries `responder` responds to; `wake` tells workers of new items.
    pub fn new(responder: Responder, wake: Arc<Notify>) -> Self {
        let (sender, entries) = mpsc::channel(WAITING_MAX);
        let (tallies, known) = mpsc::unbounded_channel();
        Self {
            inbox: Inbox { entries: sender },
            task: InboxTask {
                responder,
                wake,
                entries,
                tallies: known,
            },
            tallies,
        }
    }
}

impl Inbox {
    /// Hands over what a delivery amounts to, and waits until it is committed.
    pub(super) async fn take(
        &self,
        entry: impl FnOnce(oneshot::Sender<Result<Taken, Arc<StoreError>>>) -> Entry,
    ) -> Result<Taken, NotTaken> {
        let (answer, answered) = oneshot::channel();
        self.entries
            .try_send(entry(answer))
            .map_err(|_| NotTaken::Busy)?;
        answered
            .await
            .map_err(|_| NotTaken::Busy)?
            .map_err(NotTaken::Store)
    }
}

impl InboxTask {
    /// Commits deliveries until every [`Inbox`] is gone and everything handed over before is answered.
    ///
    /// Counts are written down beside that: no delivery waits for them.
    pub async fn run(self) {
        let Self {
            responder,
            wake,
            mut entries,
            tallies,
        } = self;
        let committer = Committer { responder, wake };
        let counts = committer.responder.store().with_urgency(Urgency::Work);
        let (ended, end) = oneshot::channel();
        let committing = async {
            let mut group = Vec::with_capacity(GROUP_MAX);
            while entries.recv_many(&mut group, GROUP_MAX).await > 0 {
                committer
                    .commit_and_answer(std::mem::take(&mut group))
                    .await;
            }
            drop(ended);
        };
        tokio::join!(committing, keep_counts(&counts, tallies, end));
    }
}

impl Committer {
    /// Commits a group, and answers each of it. When the database refuses it for what is in it, each is
    /// committed alone: a delivery that nobody can store must not take others along.
    async fn commit_and_answer(&self, group: Vec<Entry>) {
        match self.commit(&group).await {
            Ok(taken) => {
                for (entry, taken) in group.into_iter().zip(taken) {
                    answer(entry, Ok(taken));
                }
            }
            Err(error) if group.len() == 1 || error.is_temporary() => {
                let error = Arc::new(error);
                for entry in group {
                    answer(entry, Err(Arc::clone(&error)));
                }
            }
            Err(_) => {
                for entry in group {
                    let taken = self.commit(std::slice::from_ref(&entry)).await;
                    let taken = taken.map_err(Arc::new);
                    answer(entry, taken.map(|taken| taken[0]));
                }
            }
        }
    }

    /// One transaction for all of them that there is room for, or nothing. What became of each stands in their order.
    async fn commit(&self, group: &[Entry]) -> Result<Vec<Taken>, StoreError> {
        let done = retried(|| self.commit_once(group)).await?;
        for (source, answers) in &done.found {
            announce(answers, source);
        }
        let mut told = HashSet::new();
        for entry in group {
            let source = entry.source();
            let added = done.added.get(source).copied().unwrap_or_default();
            if added > 0 && told.insert(source) {
                entry.tally.items(added);
                self.wake.notify_one();
            }
        }
        Ok(done.taken)
    }

    async fn commit_once<'g>(&self, group: &'g [Entry]) -> Result<Done<'g>, StoreError> {
        let now = self.responder.clock().now();
        let mut tx = self.responder.store().begin().await?;
        let named: Vec<Delivery> = group.iter().filter_map(Entry::delivery).collect();
        let mut new = tx.record_deliveries(&named, now).await?;
        let mut taken: Vec<Taken> = group
            .iter()
            .map(|entry| match entry.delivery() {
                // Of two that came at once, the first.
                Some(delivery) if !new.remove(&delivery) => Taken::Repeated,
                _ => Taken::New,
            })
            .collect();
        let (mut fresh, mut items, mut whose) = (Vec::new(), Vec::new(), Vec::new());
        for (at, entry) in group.iter().enumerate() {
            if taken[at] == Taken::New {
                fresh.push(entry);
                items.extend(entry.items.iter().cloned());
                whose.resize(items.len(), at);
            }
        }
        let added = tx.add_work_items_of_sources(&items, now).await?;
        let full = added.refused.iter().map(|item| whose[*item]);
        forget_full(&mut tx, group, full.collect(), &mut taken).await?;
        // What was seen was seen, whether or not the sender comes again.
        let found = self.respond(&mut tx, &fresh).await?;
        tx.commit().await?;
        Ok(Done {
            taken,
            added: added.new,
            found,
        })
    }

    /// Responds to all sightings at once; gives the answers with the webhook that saw them.
    async fn respond<'g>(
        &self,
        tx: &mut Tx,
        fresh: &[&'g Entry],
    ) -> Result<Vec<(&'g str, Vec<Answer>)>, StoreError> {
        let seen = fresh.iter().filter(|entry| !entry.sightings.is_empty());
        let reports: Vec<Report<'g>> = seen.map(|entry| entry.report()).collect();
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.responder.report_in(tx, &reports).await?;
        let actors = reports.iter().map(|report| report.actor);
        Ok(actors.zip(answers).collect())
    }
}

/// Sees to it that the deliveries for which there is no room, and those that repeat one of them, count as none
/// that came.
async fn forget_full(
    tx: &mut Tx,
    group: &[Entry],
    full: HashSet<usize>,
    taken: &mut [Taken],
) -> Result<(), StoreError> {
    let named = full.iter().filter_map(|at| group[*at].delivery());
    let named: HashSet<Delivery> = named.collect();
    tx.forget_recorded(&named).await?;
    for (at, (entry, taken)) in group.iter().zip(taken).enumerate() {
        if full.contains(&at) || entry.delivery().is_some_and(|id| named.contains(&id)) {
            *taken = Taken::Full;
        }
    }
    Ok(())
}

/// Writes down what is counted, now and then and at last, until `end` comes.
async fn keep_counts(
    store: &Store,
    mut new: mpsc::UnboundedReceiver<Arc<Tally>>,
    mut end: oneshot::Receiver<()>,
) {
    let mut tallies = Vec::new();
    let mut ticks = ticks();
    loop {
        let ended = tokio::select! {
            _ = ticks.tick() => false,
            _ = &mut end => true,
        };
        while let Ok(tally) = new.try_recv() {
            tallies.push(tally);
        }
        write_down(store, &tallies).await;
        if ended {
            return;
        }
    }
}

async fn write_down(store: &Store, tallies: &[Arc<Tally>]) {
    for tally in tallies {
        let Some(counts) = tally.take() else {
            continue;
        };
        let name = tally.forge().source();
        if let Err(error) = store.count_webhook(name, &counts).await {
            tracing::warn!(source = name, %error, "the counts of webhooks are written down later");
            tally.put_back(&counts);
            // The others would wait for the same database.
            return;
        }
    }
}

/// What a transaction did.
struct Done<'g> {
    /// What became of each delivery.
    taken: Vec<Taken>,
    /// New work items, by webhook.
    added: BTreeMap<String, u64>,
    /// What came of the sightings, with the webhook that told of them.
    found: Vec<(&'g str, Vec<Answer>)>,
}

impl Entry {
    /// Its webhook's name, which is also the source of its items.
    fn source(&self) -> &str {
        self.tally.forge().source()
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
    // Nobody is left to tell when the sender went away meanwhile.
    let _ = entry.answer.send(taken);
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(TALLY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
