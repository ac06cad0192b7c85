//! Branches that count as read when a new one is read.
//!
//! Of a new branch only that is read which the branch of `HEAD` does not have: the reading rests on that of the other
//! branch. `HEAD` may point elsewhere by the time the other one is read, so each item records on which branch it rests,
//! and none rests on a branch whose reading leads back to its own. It is recorded before it is examined: of two items
//! that examine each other at the same time, at least one sees the other's record.
//!
//! It may turn out later that the other branch is not read. In the transaction in which it does, what rests on it
//! returns to the queue, and rests on it no more. What is being read at that time is marked, and returns once its
//! reading is done.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, ROWS_MAX, Row, args, one, runs, statements};
use super::super::{Read, Store, StoreError, Tx};
use super::again::Again;
use super::item::{NewWorkItem, WorkItem};
use super::row::counted;

/// Commit before a new branch.
const NONE: &str = "0000000000000000000000000000000000000000";

/// Maximum number of branches that rest on each other. Few repositories change their default branch more than once.
const CHAIN_MAX: usize = 8;

statements! {
    /// Whoever ends an item of the other branch has ended it before this returns, or sees the record after it.
    ENDING = "SELECT id FROM work_items
        WHERE id = $1 OR host = $2 AND remote = $3 AND ref_name = $4 AND state = 'waiting'
            AND (before_id = $5 OR part_of <> '')
        ORDER BY id {for update}";
    NOTE = "UPDATE work_items SET rested_on = $1 WHERE id = $2 AND rested_on <> $1";
    RESTED_ON = "SELECT DISTINCT rested_on FROM work_items
        WHERE host = $1 AND remote = $2 AND ref_name = $3 AND rested_on <> '' LIMIT $4";
    /// The identifier is not sorted as it is, or a database might walk along the index of all identifiers instead.
    NEWEST = "SELECT COALESCE(origin, id) FROM work_items
        WHERE host = $1 AND remote = $2 AND ref_name = $3 AND before_id = $4 ORDER BY id || '' DESC LIMIT 1";
    READ = "SELECT COUNT(*) AS items,
            COUNT(CASE WHEN state IN ('dead', 'shed') OR gone THEN 1 END) AS lost,
            COUNT(CASE WHEN truncated THEN 1 END) AS truncated
        FROM (SELECT state, gone, truncated FROM work_items
                WHERE host = $1 AND remote = $2 AND ref_name = $3 AND part_of = $5
            UNION ALL SELECT state, gone, truncated FROM work_items
                WHERE host = $1 AND remote = $2 AND ref_name = $3 AND before_id = $4 AND part_of = ''
                    AND (id = $5 OR origin = $5)) AS found";
    ANNOUNCED = "SELECT after_id FROM work_items
        WHERE host = $1 AND remote = $2 AND ref_name = $3 AND after_id <> $4 AND kind = 'range' AND part_of = ''
        ORDER BY event_at DESC, id DESC LIMIT 1";
    /// The redundant `rested_on <> ''` is what lets the databases use the index of these items.
    RESTED = "SELECT DISTINCT item.host AS host, item.remote AS remote, item.rested_on AS ref_name
        FROM (VALUES {rows:3}) AS named JOIN work_items AS item ON item.host = named.column1
            AND item.remote = named.column2 AND item.rested_on = named.column3
        WHERE item.rested_on <> ''";
    RESTING = "SELECT id, priority, host, remote, owner, state FROM work_items
        WHERE host = $1 AND remote = $2 AND rested_on = $3 AND rested_on <> ''
            AND (state = 'waiting' OR state = 'done' AND NOT gone)
        ORDER BY id {for update}";
    READ_AGAIN = "UPDATE work_items SET priority = CAST(again.column2 AS BIGINT),
            level = CAST(again.column3 AS BIGINT), turn = CAST(again.column4 AS BIGINT),
            state = 'waiting', finished_at = NULL, truncated = FALSE, tries = 0, denials = 0, ready_at = 0,
            rested_on = ''
        FROM (VALUES {rows:4}) AS again WHERE id = again.column1";
    /// No branch has the name `-`. What no worker holds asks again when it is read.
    MARK = "UPDATE work_items SET rested_on = CASE WHEN leased_by IS NULL THEN '' ELSE '-' END
        WHERE host = $1 AND remote = $2 AND rested_on = $3 AND rested_on <> '' AND state = 'waiting'";
    GIVE_MARKED_BACK = concat!(
        "UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, rested_on = '', deaths = ",
        counted!(), "
        WHERE id = $1 AND leased_by = $2 AND state = 'waiting' AND rested_on = '-'"
    );
}

/// Commit up to which a branch counts as read, with all that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadTo {
    /// Present target of the branch, of which nothing was announced.
    Present,
    /// Object id of the commit that was announced last.
    Commit(String),
}

/// A branch of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Branch {
    pub(super) host: String,
    pub(super) remote: String,
    pub(super) name: String,
}

impl Branch {
    pub(in crate::store) fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            host: row.get("host")?,
            remote: row.get("remote")?,
            name: row.get("ref_name")?,
        })
    }

    pub(super) fn pushed(range: &NewWorkItem) -> Self {
        Self {
            host: range.host.clone(),
            remote: range.remote(),
            name: range.ref_name.clone(),
        }
    }

    /// Returns whether it was announced as new, the last time not to be read.
    async fn is_lost(&self, read: &mut impl Read) -> Result<bool, StoreError> {
        let Self { host, remote, name } = self;
        let newest = args![host, remote, name, NONE];
        let Some(newest) = read.fetch_first(NEWEST, newest, one::uuid).await? else {
            return Ok(false);
        };
        let args = args![host, remote, name, NONE, newest];
        let lost = read.fetch_first(READ, args, |row| {
            let is_whole = row.count("truncated")? == 0 || row.count("items")? > 1;
            Ok(row.count("lost")? > 0 || !is_whole)
        });
        Ok(lost.await?.unwrap_or_default())
    }
}

impl Store {
    /// Returns up to which commit the branch `head` of its repository counts as read when `item` is read, and records
    /// that the reading of `item` rests on that branch. Returns `None` if nothing of it counts as read.
    ///
    /// It counts if nobody announced that branch as new, or if it was read or waits to be read. What was dead-lettered,
    /// shed, gone, or truncated with no parts to follow, was not read; if that happens later, `item` is read again. In
    /// neither case it counts if the reading of that branch rests on the branch of `item`. Of later pushes, and of parts
    /// that were truncated, what was not read is read again by itself.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn rest_on(&self, item: &WorkItem, head: &str) -> Result<Option<ReadTo>, StoreError> {
        self.note_rest(item, head).await?;
        if !self.is_read_apart(&item.range, head).await? {
            self.note_rest(item, "").await?;
            return Ok(None);
        }
        self.reopen_unread(&item.range, head).await?;
        // What the branch has got since then was named by nobody, and may be taken back before anybody does.
        let mut read = self;
        let args = args![&item.range.host, item.range.remote(), head, NONE];
        let last = read.fetch_first(ANNOUNCED, args, one::text).await?;
        Ok(Some(last.map_or(ReadTo::Present, ReadTo::Commit)))
    }

    async fn note_rest(&self, item: &WorkItem, branch: &str) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            if !branch.is_empty() {
                let range = &item.range;
                let args = args![item.id, &range.host, range.remote(), branch, NONE];
                tx.fetch(ENDING, args, one::uuid).await?;
            }
            tx.execute(NOTE, args![branch, item.id]).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns whether the branch `head`, and each on which its reading rests, was or will be read without `range`.
    async fn is_read_apart(&self, range: &NewWorkItem, head: &str) -> Result<bool, StoreError> {
        let mut read = self;
        let of_range = Branch::pushed(range);
        let mut chain = vec![head.to_owned()];
        let mut at = 0;
        while let Some(name) = chain.get(at).cloned() {
            at += 1;
            let branch = Branch {
                name,
                ..of_range.clone()
            };
            if branch == of_range || branch.is_lost(&mut read).await? {
                return Ok(false);
            }
            let Branch { host, remote, name } = branch;
            let args = args![host, remote, name, CHAIN_MAX as u64];
            for next in read.fetch(RESTED_ON, args, one::text).await? {
                if !chain.contains(&next) {
                    chain.push(next);
                }
            }
            if chain.len() >= CHAIN_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Tx {
    /// Returns to the queue what rests on the branches of these ranges, of those branches that are not read after all.
    /// Call this in the transaction that ends the ranges, once their parts were added.
    pub(crate) async fn reopen_rests(&mut self, ended: &[&NewWorkItem]) -> Result<(), StoreError> {
        let branches = ended.iter().map(|range| Branch::pushed(range));
        self.reopen_rests_on(branches.collect()).await
    }

    /// Like [`Tx::reopen_rests`], for branches.
    pub(in crate::store) async fn reopen_rests_on(
        &mut self,
        branches: BTreeSet<Branch>,
    ) -> Result<(), StoreError> {
        self.locks(Locks::WorkItems);
        let branches: Vec<Branch> = branches.into_iter().collect();
        let mut rested = BTreeSet::new();
        for run in runs(branches.len(), ROWS_MAX) {
            let rows = &branches[run];
            let values = rows
                .iter()
                .flat_map(|branch| args![&branch.host, &branch.remote, &branch.name]);
            let values: Vec<Arg> = values.collect();
            let found = self.fetch(RESTED.of(rows.len()), values, Branch::of);
            rested.extend(found.await?);
        }
        for branch in rested {
            if branch.is_lost(self).await? {
                self.read_again_without(&branch).await?;
            }
        }
        Ok(())
    }

    async fn read_again_without(&mut self, branch: &Branch) -> Result<(), StoreError> {
        let Branch { host, remote, name } = branch;
        let args = args![host, remote, name];
        let resting = self.fetch(RESTING, args.clone(), |row| {
            Ok((row.get::<String>("state")? == "done", Again::of(row)?))
        });
        let resting = resting.await?;
        let done = resting.into_iter().filter(|(is_done, _)| *is_done);
        let done: Vec<Again> = done.map(|(_, again)| again).collect();
        self.come_again(&READ_AGAIN, &done).await?;
        self.execute(MARK, args).await?;
        let items = done.len();
        tracing::warn!(
            host,
            branch = name,
            items,
            "a branch that counted as read could not be read: what rests on it is read again"
        );
        Ok(())
    }

    /// Gives an item back that a worker has read, if the branch on which that rests was lost meanwhile.
    pub(in crate::store) async fn give_marked_back(
        &mut self,
        id: Uuid,
        worker: &str,
    ) -> Result<(), StoreError> {
        self.execute(GIVE_MARKED_BACK, args![id, worker]).await?;
        Ok(())
    }
}
