//! Commits finished tries: their findings, their outcomes, and the work that follows from them, in one transaction.

use std::collections::BTreeMap;

use super::Worker;
use super::ends::{Done, End, Tried};
use super::troubles::PROBE_MAX;
use crate::fetch::ObjectId;
use crate::forge::actor_of;
use crate::respond::{CleanSightings, Report, Reported};
use crate::store::{
    Descendant, NewWorkItem, Postponed, Reason, Retry, StoreError, Tx, WorkDone, WorkKind, retried,
};

/// Work and results that the items of one transaction add to the database.
#[derive(Default)]
struct Gains<'g> {
    /// Totals by source.
    work: BTreeMap<&'g str, WorkDone>,
    clean_blobs: Vec<ObjectId>,
    more: Vec<Descendant>,
    /// Last example of what was left unread, by source.
    examples: BTreeMap<&'g str, String>,
    /// Ranges of which something was not read, with nothing to follow.
    unread: Vec<&'g NewWorkItem>,
}

impl<'g> Gains<'g> {
    /// Adds what came of an item that is done, and of so many that are done with it.
    fn add(&mut self, tried: &'g Tried, done: &Done, beside: u64) {
        self.clean_blobs.extend(&tried.clean_blobs);
        self.more.extend(done.more.iter().cloned());
        if let Some(listed) = &done.listed {
            self.more.extend(listed.descendants(&tried.item));
        }
        let range = &tried.item.range;
        if done.fetched.gone || done.fetched.truncated && done.more.is_empty() {
            self.unread.push(range);
        }
        if let Some(why) = &done.unread {
            let what = [&*range.repository, &*range.ref_name, why].into_iter();
            let what: Vec<&str> = what.filter(|part| !part.is_empty()).collect();
            self.examples.insert(&range.source, what.join(", "));
        }
        let work = self.work.entry(&range.source).or_default();
        work.scanned += u64::from(range.kind == WorkKind::Range && !done.fetched.gone) + beside;
        work.blobs += done.fetched.blobs - done.known_blobs;
        work.known_blobs += done.known_blobs;
        work.truncated += u64::from(done.fetched.truncated);
        work.gone += u64::from(done.fetched.gone);
        let at = range.event_at;
        work.oldest_event_at = Some(work.oldest_event_at.map_or(at, |oldest| oldest.min(at)));
    }
}

impl Worker {
    pub(super) async fn commit_group(&self, group: &[Tried]) -> Result<(), StoreError> {
        self.commit_ends(group).await?.announce();
        let later: Vec<Postponed<'_>> = group.iter().filter_map(put_off).collect();
        if !later.is_empty() {
            let store = &self.shared.parts.store;
            store.postpone_all(&later, &self.id).await?;
        }
        for tried in group {
            self.give_back(tried).await?;
        }
        Ok(())
    }

    /// Responds to the findings and completes the items that are done.
    async fn commit_ends(&self, group: &[Tried]) -> Result<Reported, StoreError> {
        let is_done = |tried: &Tried| matches!(tried.end, End::Done(_));
        let found_nothing = |tried: &Tried| tried.sightings.is_empty();
        if group.iter().all(found_nothing) && !group.iter().any(is_done) {
            return Ok(Reported::default());
        }
        retried(|| self.commit_ends_once(group)).await
    }

    async fn commit_ends_once(&self, group: &[Tried]) -> Result<Reported, StoreError> {
        let mut tries: Vec<&Tried> = group.iter().collect();
        // Every transaction that locks several items locks them in this order.
        tries.sort_by_key(|tried| tried.item.id);
        let mut tx = self.shared.parts.store.begin().await?;
        let mut gains = Gains::default();
        let mut seen = Vec::new();
        if tries.iter().any(|tried| tried.ends_others()) {
            let ids = tries.iter().flat_map(|tried| tried.ended_items());
            tx.lock_items(ids.collect()).await?;
        }
        for tried in tries {
            if let End::Done(done) = &tried.end {
                if tx.finish(tried.item.id, &self.id, done.fetched).await? {
                    let beside = tx.finish_beside(tried.item.id, &done.beside).await?;
                    gains.add(tried, done, beside);
                } else {
                    // The sightings still count: whoever reads it next may find the repository gone.
                    let item = tried.item.id;
                    tracing::warn!(%item, "a work item is read again: its lease ended, or the branch on which it rested was not read");
                }
            }
            seen.push((tried.item.range.source.as_str(), &tried.sightings));
        }
        let clean_blobs = std::mem::take(&mut gains.clean_blobs);
        self.keep(&mut tx, gains).await?;
        let found = self.respond(&mut tx, &seen).await?;
        tx.commit().await?;
        // Written separately in the background: losing them costs no more than scanning them again.
        self.shared.clean.write_later(&clean_blobs);
        Ok(found)
    }

    /// Responds to the findings of all items together: keys are locked once per transaction, in a fixed order.
    async fn respond(
        &self,
        tx: &mut Tx,
        seen: &[(&str, &CleanSightings)],
    ) -> Result<Reported, StoreError> {
        let actors: Vec<String> = seen.iter().map(|(source, _)| actor_of(source)).collect();
        let reports: Vec<Report<'_>> = seen
            .iter()
            .zip(&actors)
            .map(|((_, sightings), actor)| Report {
                sightings,
                reason: Reason::Leaked,
                actor,
            })
            .collect();
        self.shared.parts.responder.report_in(tx, &reports).await
    }

    async fn keep(&self, tx: &mut Tx, gains: Gains<'_>) -> Result<(), StoreError> {
        let now = self.shared.parts.clock.now();
        if !gains.unread.is_empty() {
            tx.reopen_rests(&gains.unread).await?;
        }
        if !gains.more.is_empty() {
            tx.add_descendants(&gains.more, now).await?;
        }
        for (source, done) in gains.work {
            tx.add_work_done(source, done).await?;
        }
        for (source, what) in gains.examples {
            tx.note_unread(source, &what).await?;
        }
        Ok(())
    }

    /// Returns an item that failed, or moves to another lane, to the queue.
    async fn give_back(&self, tried: &Tried) -> Result<(), StoreError> {
        let store = &self.shared.parts.store;
        let (id, repository) = (tried.item.id, &tried.item.range.repository);
        match &tried.end {
            End::Done(_) | End::Later { .. } | End::Denied { .. } => {}
            End::Moved { lane, why } => {
                tracing::debug!(item = %id, repository, ?lane, why, "a work item goes on in another lane");
                store.change_lane(id, &self.id, *lane, why).await?;
            }
            End::Failed(error) => match store.retry(id, &self.id, error).await? {
                Retry::Again(at) => {
                    tracing::warn!(item = %id, repository, error, again = %at, "a work item failed");
                }
                Retry::Dead => {
                    tracing::error!(item = %id, repository, error, "a work item was dead-lettered");
                }
                Retry::Lost => {}
            },
        }
        Ok(())
    }
}

/// Returns how an item is put off, if it is.
fn put_off(tried: &Tried) -> Option<Postponed<'_>> {
    let (id, repository) = (tried.item.id, &tried.item.range.repository);
    let (wait, why, is_denial) = match &tried.end {
        End::Later { wait, why } => (wait, why, false),
        End::Denied { wait, why } => (wait, why, true),
        End::Done(_) | End::Moved { .. } | End::Failed(_) => return None,
    };
    let seconds = wait.as_secs();
    // The pause of its host is logged once; the host is probed over and over.
    if *wait <= PROBE_MAX {
        tracing::debug!(item = %id, repository, why, "a work item is put off");
    } else {
        tracing::info!(item = %id, repository, why, seconds, "a work item is put off");
    }
    Some(Postponed {
        id,
        wait: *wait,
        why,
        is_denial,
    })
}
