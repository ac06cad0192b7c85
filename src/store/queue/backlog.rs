//! Operators' view of the queue: its size, dead-lettered items, shedding and pruning.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::db::gate::Urgency;
use super::super::db::order::Locks;
use super::super::db::page::{Conditions, Page, PageRequest, position};
use super::super::db::retry::retried;
use super::super::db::sql::{Row, args, one, statements};
use super::super::{Read, Store, StoreError};
use super::counts::WorkCounts;
use super::item::{DeadItem, Priority};
use super::micros;
use super::rests::Branch;
use super::row::{item, item_columns};

/// Maximum number of items that are shed at once. Shedding continues a moment later.
const SHED_MAX: u64 = 2_000;

statements! {
    /// The redundant `state <> 'waiting'` is what lets SQLite use the index of finished items.
    FORGET = "DELETE FROM work_items WHERE id IN (SELECT id FROM work_items
        WHERE state IN ('done', 'shed') AND state <> 'waiting' AND finished_at < {now} - $1 LIMIT $2)";
    /// Each half reads only the newest entries of its part of the index.
    OLDEST_KEPT = "SELECT finished_at FROM (
            SELECT * FROM (SELECT finished_at FROM work_items WHERE state = 'done' AND state <> 'waiting'
                ORDER BY finished_at DESC LIMIT $1) AS done
            UNION ALL
            SELECT * FROM (SELECT finished_at FROM work_items WHERE state = 'shed' AND state <> 'waiting'
                ORDER BY finished_at DESC LIMIT $1) AS shed) AS finished
        ORDER BY finished_at DESC LIMIT 1 OFFSET $2";
    FORGET_OLDER = "DELETE FROM work_items WHERE id IN (SELECT id FROM work_items
        WHERE state IN ('done', 'shed') AND state <> 'waiting' AND finished_at < $1 LIMIT $2)";
    EXCESS = "SELECT COUNT(*) FROM work_items
        WHERE state = 'waiting' AND leased_by IS NULL AND priority = $1";
    /// Picked in a subquery first, as in `TAKE`.
    SHED_EXCESS = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND priority = $1
            ORDER BY event_at, id LIMIT $2 {for update skip locked})
        UPDATE work_items SET state = 'shed', finished_at = {now}
        WHERE id IN (SELECT picked_id FROM picked)
        RETURNING source, host, remote, ref_name";
    /// Items that are locked by another transaction at the moment are examined again soon.
    SHED_LATE = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND priority = $1 AND created_at < $2
            ORDER BY event_at, id LIMIT $3 {for update skip locked})
        UPDATE work_items SET state = 'shed', finished_at = {now}
        WHERE id IN (SELECT picked_id FROM picked)
        RETURNING source, host, remote, ref_name";
    COUNTS = "SELECT
            COUNT(CASE WHEN state = 'waiting' AND leased_by IS NULL THEN 1 END) AS waiting,
            COUNT(CASE WHEN state = 'waiting' AND leased_by IS NOT NULL THEN 1 END) AS leased,
            COUNT(CASE WHEN state = 'done' THEN 1 END) AS done,
            COUNT(CASE WHEN state = 'done' AND truncated THEN 1 END) AS truncated,
            COUNT(CASE WHEN state = 'dead' THEN 1 END) AS dead,
            COUNT(CASE WHEN state = 'shed' THEN 1 END) AS shed,
            MIN(CASE WHEN state = 'waiting' THEN event_at END) AS oldest_event_at
        FROM work_items";
}

/// Limits beyond which items of the firehose are shed: there are more of them than can be read in time.
///
/// Only items of [`Priority::Firehose`] are shed, the oldest first: what a partner, a webhook or a watched repository
/// named is read however late, and what was requested from an archive can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// Maximum number of items that wait.
    pub max_waiting: u64,
    /// Maximum time that an item waits, from when it was added.
    pub max_wait: Duration,
}

impl Store {
    /// Sheds items of the firehose, a few thousand at most, and counts them with their sources. Returns how many were
    /// shed. Checking takes no write lock.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn shed(&self, limits: &Shedding, now: Timestamp) -> Result<u64, StoreError> {
        let firehose = Priority::Firehose.number();
        let mut read = self;
        let waiting = read
            .fetch_first(EXCESS, args![firehose], one::count)
            .await?
            .unwrap_or_default();
        if waiting == 0 {
            return Ok(0);
        }
        let latest = now.checked_sub(limits.max_wait).unwrap_or(Timestamp::MIN);
        retried(|| self.shed_once(limits, waiting, latest)).await
    }

    async fn shed_once(
        &self,
        limits: &Shedding,
        waiting: u64,
        latest: Timestamp,
    ) -> Result<u64, StoreError> {
        let firehose = Priority::Firehose.number();
        let mut tx = self.begin().await?;
        tx.locks(Locks::WorkItems);
        let args = args![firehose, latest, SHED_MAX];
        let mut shed = tx.fetch(SHED_LATE, args, shed_row).await?;
        let excess = waiting
            .saturating_sub(shed.len() as u64)
            .saturating_sub(limits.max_waiting)
            .min(SHED_MAX.saturating_sub(shed.len() as u64));
        if excess > 0 {
            let args = args![firehose, excess];
            shed.extend(tx.fetch(SHED_EXCESS, args, shed_row).await?);
        }
        if shed.is_empty() {
            tx.rollback().await?;
            return Ok(0);
        }
        let total = shed.len() as u64;
        let (sources, branches): (Vec<String>, BTreeSet<Branch>) = shed.into_iter().unzip();
        tx.reopen_rests_on(branches).await?;
        tx.count_shed(sources).await?;
        tx.commit().await?;
        Ok(total)
    }

    /// Deletes items that were done or shed longer ago than `age`, in batches. Returns how many were deleted. An event
    /// that is repeated after that is scanned again.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_done(&self, age: Duration) -> Result<u64, StoreError> {
        self.in_pieces(Locks::WorkItems, &FORGET, args![micros(age)])
            .await
    }

    /// Deletes all but about `keep` of the items that were done or shed, keeping those that ended last, in batches.
    /// Returns how many were deleted.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_done_beyond(&self, keep: u32) -> Result<u64, StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        let (mut read, last) = (&store, keep.saturating_sub(1));
        let oldest = read.fetch_first(OLDEST_KEPT, args![keep, last], one::time);
        let Some(oldest) = oldest.await? else {
            return Ok(0);
        };
        self.in_pieces(Locks::WorkItems, &FORGET_OLDER, args![oldest])
            .await
    }

    /// Returns the number of items in each state.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn work_counts(&self) -> Result<WorkCounts, StoreError> {
        let mut read = self;
        let counts = read
            .fetch_first(COUNTS, args![], |row| {
                Ok(WorkCounts {
                    waiting: row.count("waiting")?,
                    leased: row.count("leased")?,
                    done: row.count("done")?,
                    truncated: row.count("truncated")?,
                    dead: row.count("dead")?,
                    shed: row.count("shed")?,
                    oldest_event_at: row.optional_time("oldest_event_at")?,
                })
            })
            .await?;
        Ok(counts.unwrap_or_default())
    }

    /// Returns dead-lettered items, newest first, of one source or of all.
    ///
    /// # Errors
    /// Returns [`StoreError::Cursor`], or any [`StoreError`] of a read.
    pub async fn dead_items(
        &self,
        source: Option<&str>,
        request: &PageRequest,
    ) -> Result<Page<DeadItem>, StoreError> {
        let mut conditions = Conditions::new();
        // The redundant `state <> 'waiting'` is what lets SQLite use the index of finished items.
        conditions.and("state = 'dead' AND state <> 'waiting'", args![]);
        if let Some(source) = source {
            conditions.and("source = ?", args![source]);
        }
        if let Some((at, id)) = request.after()? {
            conditions.and("(finished_at, id) < (?, ?)", args![at, id]);
        }
        let select = concat!(
            "SELECT ",
            item_columns!(),
            ", last_error, finished_at FROM work_items"
        );
        let order = "ORDER BY finished_at DESC, id DESC";
        let (sql, args) = conditions.finish(select, order, request.fetch());
        let mut read = self;
        let dead = read
            .fetch(sql, args, |row| {
                Ok(DeadItem {
                    item: item(row)?,
                    error: row.get("last_error")?,
                    died_at: row.time("finished_at")?,
                })
            })
            .await?;
        Ok(request.page(dead, |dead| position(dead.died_at, dead.item.id)))
    }
}

/// Reads the source and the branch of an item that was shed.
fn shed_row(row: &Row<'_>) -> Result<(String, Branch), StoreError> {
    Ok((row.get("source")?, Branch::of(row)?))
}
