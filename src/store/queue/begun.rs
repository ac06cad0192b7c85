//! Items that a worker claims ahead of a free place, and that it has begun or not.
//!
//! An item that was not begun cannot be the reason for which its worker died. Until it is, it is held like one whose
//! holder is exempted (see `row::deaths`), and for a shorter time.

use std::time::Duration;

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, args, one, pad, statements};
use super::super::{Read as _, Store, StoreError};
use super::item::WorkItem;
use super::micros;
use super::row::{counted, give_back, item_columns};

statements! {
    /// Those in the other lanes are begun at once.
    TAKE_AHEAD = concat!(
        "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND ready_at <= {now}
                AND id IN ({list:4}) {for update skip locked})
        UPDATE work_items SET leased_by = $1, tries = tries + 1,
            ready_at = {now} + CASE WHEN lane = 0 THEN CAST($2 AS BIGINT) ELSE CAST($3 AS BIGINT) END,
            wait = CASE WHEN lane = 0 THEN CAST($2 AS BIGINT) ELSE CAST($3 AS BIGINT) END,
            deaths = CASE WHEN lane = 0 THEN -1 - (", counted!(), ") ELSE ", counted!(), " END
        WHERE id IN (SELECT picked_id FROM picked)
        RETURNING ", item_columns!()
    );
    /// Locked in the order of `id` first, as in every other transaction that takes several.
    BEGIN = concat!(
        "WITH held AS (SELECT id AS held_id FROM work_items
            WHERE leased_by = $2 AND state = 'waiting' AND id IN ({list:3}) ORDER BY id {for update})
        UPDATE work_items SET ready_at = {now} + $1, wait = $1, deaths = ", counted!(), "
        WHERE id IN (SELECT held_id FROM held)"
    );
    /// Likewise.
    RELEASE_UNBEGUN = concat!(
        "WITH held AS (SELECT id AS held_id FROM work_items
            WHERE leased_by = $1 AND state = 'waiting' AND id IN ({list:2}) ORDER BY id {for update})
        UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, deaths = ", counted!(), "
        WHERE id IN (SELECT held_id FROM held)"
    );
    LEFT = "SELECT COUNT(*) FROM work_items
        WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting' AND ready_at <= {now} AND deaths < 0";
    GIVE_BACK = give_back!("");
}

impl Store {
    /// Takes items as [`Store::take`] does, but those of the ordinary lane without beginning them, for the duration of
    /// `ahead` only. [`Store::begin_items`] is to be called for those that are begun.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn take_ahead(
        &self,
        ids: &[Uuid],
        worker: &str,
        lease: Duration,
        ahead: Duration,
    ) -> Result<Vec<WorkItem>, StoreError> {
        let first = args![worker, micros(ahead), micros(lease)];
        self.take_by(&TAKE_AHEAD, &first, ids).await
    }

    /// Records that a worker has begun items that it took ahead: from now on its death counts. Those that it no longer
    /// holds are ignored.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn begin_items(
        &self,
        ids: &[Uuid],
        worker: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = args![micros(lease), worker];
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, 2);
                tx.execute(BEGIN.of(n), args).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Gives back items that a worker took ahead and will not begin, as they were. Those that it no longer holds are
    /// ignored.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn release_unbegun(&self, ids: &[Uuid], worker: &str) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = args![worker];
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, 1);
                tx.execute(RELEASE_UNBEGUN.of(n), args).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Gives back the items whose lease expired before another worker had begun them, as they were. Whether that worker
    /// is dead does not matter: at worst an item is read twice. Returns the number of items.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn give_back_unbegun(&self, worker: &str) -> Result<u64, StoreError> {
        let mut read = self;
        let left = read.fetch_first(LEFT, args![worker], one::count).await?;
        if left.unwrap_or_default() == 0 {
            return Ok(0);
        }
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let given = tx.execute(GIVE_BACK, args![worker]).await?;
            tx.commit().await?;
            Ok(given)
        })
        .await
    }
}
