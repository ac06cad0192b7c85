//! New branches that are read together with another one of their repository, in one request.
//!
//! Nobody holds them meanwhile: they are done only if they still wait when the other one is. At worst one of them is
//! read twice.

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::sql::{Arg, LIST_MAX, args, one, pad, statements};
use super::super::{Read as _, Store, StoreError, Tx};
use super::item::WorkItem;

/// Commit before a new branch.
const NONE: &str = "0000000000000000000000000000000000000000";

statements! {
    /// Those that nobody has tried yet, of the same source and as urgent.
    BESIDE = "SELECT id, after_id FROM work_items
        WHERE state = 'waiting' AND host = $1 AND remote = $2 AND priority = $3 AND leased_by IS NULL
            AND kind = 'range' AND before_id = $4 AND source = $5 AND id <> $6 AND tries = 0 AND denials = 0
            AND deaths = 0 AND haves = '' AND NOT dropped AND ready_at <= {now}
        ORDER BY event_at, id LIMIT $7";
    /// In the order of every other transaction that locks several.
    LOCK = "SELECT id FROM work_items WHERE id IN ({list:1}) ORDER BY id {for update}";
    RESTS = "SELECT rested_on FROM work_items WHERE id = $1";
    /// A branch on which others rest may itself rest on one of these.
    CHAINED = "SELECT COUNT(*) FROM (SELECT 1 FROM work_items AS item JOIN work_items AS head
            ON head.host = item.host AND head.remote = item.remote AND head.ref_name = item.rested_on
        WHERE item.id = $1 AND item.rested_on <> '' AND head.rested_on <> '' LIMIT 1) AS found";
    FINISH_BESIDE = "UPDATE work_items SET state = 'done', last_error = NULL, finished_at = {now},
            truncated = FALSE, bytes = 0, blobs = 0, gone = FALSE, rested_on = CAST($1 AS TEXT),
            clone_url = CASE WHEN CAST($1 AS TEXT) <> '' THEN clone_url END
        WHERE state = 'waiting' AND leased_by IS NULL AND ref_name <> CAST($1 AS TEXT) AND id IN ({list:2})";
}

/// A new branch that waits beside another one of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Identifier of its item.
    pub id: Uuid,
    /// Commit of the branch.
    pub after: String,
}

impl Store {
    /// Returns at most `most` new branches that wait beside the one of `item`.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn waiting_beside(
        &self,
        item: &WorkItem,
        most: u32,
    ) -> Result<Vec<Beside>, StoreError> {
        let range = &item.range;
        let priority = range.priority.number();
        let (host, remote, source) = (&range.host, range.remote(), &range.source);
        let args = args![host, remote, priority, NONE, source, item.id, most];
        let mut read = self;
        read.fetch(BESIDE, args, |row| {
            Ok(Beside {
                id: row.uuid("id")?,
                after: row.get("after_id")?,
            })
        })
        .await
    }
}

impl Tx {
    /// Locks items that end in this transaction, if other items end with one of them.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn lock_items(&mut self, mut ids: Vec<Uuid>) -> Result<(), StoreError> {
        self.locks(Locks::WorkItems);
        ids.sort_unstable();
        ids.dedup();
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            self.fetch(LOCK.of(n), args, one::uuid).await?;
        }
        Ok(())
    }

    /// Marks those of the items `beside` as read that still wait, since all that they bring was read with the item `id`,
    /// which was marked in this transaction. They rest on the branch on which that one rests. Returns their number.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn finish_beside(&mut self, id: Uuid, beside: &[Uuid]) -> Result<u64, StoreError> {
        self.locks(Locks::WorkItems);
        let chained = self.fetch_first(CHAINED, args![id], one::count).await?;
        if beside.is_empty() || chained.unwrap_or_default() > 0 {
            return Ok(0);
        }
        let rests = self.fetch_first(RESTS, args![id], one::text).await?;
        let rests = rests.unwrap_or_default();
        let mut finished = 0;
        for chunk in beside.chunks(LIST_MAX) {
            let mut args = args![&rests];
            args.extend(chunk.iter().copied().map(Arg::from));
            let n = pad(&mut args, 1);
            finished += self.execute(FINISH_BESIDE.of(n), args).await?;
        }
        Ok(finished)
    }
}
