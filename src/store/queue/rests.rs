//! Branches that count as read when a new one is read.
//!
//! Of a new branch only that is read which the branch of `HEAD` does not have: the reading rests on that of the other
//! branch. `HEAD` may point elsewhere by the time the other one is read, so each item records on which branch it rests,
//! and none rests on a branch whose reading leads back to its own. It is recorded before it is examined: of two items
//! that examine each other at the same time, at least one sees the other's record.

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{args, one, statements};
use super::super::{Read as _, Store, StoreError};
use super::item::{NewWorkItem, WorkItem};

/// Commit before a new branch.
const NONE: &str = "0000000000000000000000000000000000000000";

/// Maximum number of branches that rest on each other. Few repositories change their default branch more than once.
const CHAIN_MAX: usize = 8;

statements! {
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
}

impl Store {
    /// Returns whether the reading of `item` may rest on that of the branch `head` of its repository, and records that
    /// it does.
    ///
    /// It may if nobody announced that branch as new, or if it was read or waits to be read. What was dead-lettered,
    /// shed, gone, or truncated with no parts to follow, was not read. In neither case it may if the reading of that
    /// branch rests on the branch of `item`.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn rest_on(&self, item: &WorkItem, head: &str) -> Result<bool, StoreError> {
        self.note_rest(item.id, head).await?;
        let may = self.is_read_apart(&item.range, head).await?;
        if !may {
            self.note_rest(item.id, "").await?;
        }
        Ok(may)
    }

    async fn note_rest(&self, id: Uuid, branch: &str) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            tx.execute(NOTE, args![branch, id]).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns whether the branch `head`, and each on which its reading rests, was or will be read without `range`.
    async fn is_read_apart(&self, range: &NewWorkItem, head: &str) -> Result<bool, StoreError> {
        let mut read = self;
        let (host, remote) = (&range.host, range.remote());
        let mut chain = vec![head.to_owned()];
        let mut at = 0;
        while let Some(branch) = chain.get(at).cloned() {
            at += 1;
            if branch == range.ref_name || self.is_lost(range, &branch).await? {
                return Ok(false);
            }
            let args = args![host, &remote, &branch, CHAIN_MAX as u64];
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

    /// Returns whether a branch was announced as new, the last time not to be read.
    async fn is_lost(&self, range: &NewWorkItem, branch: &str) -> Result<bool, StoreError> {
        let mut read = self;
        let (host, remote) = (&range.host, range.remote());
        let newest = args![host, &remote, branch, NONE];
        let Some(newest) = read.fetch_first(NEWEST, newest, one::uuid).await? else {
            return Ok(false);
        };
        let args = args![host, &remote, branch, NONE, newest];
        let lost = read.fetch_first(READ, args, |row| {
            let is_whole = row.count("truncated")? == 0 || row.count("items")? > 1;
            Ok(row.count("lost")? > 0 || !is_whole)
        });
        Ok(lost.await?.unwrap_or_default())
    }
}
