//! Workers that end: told to stop, with what they hold, or dead while they held it.

use std::time::Duration;

use tokio::time::Instant;

use super::sql::{Fields, args, one, statements};
use super::work_row::counted;
use super::{Read as _, Store, StoreError};

/// How many workers may die while they hold an item before it is put aside.
const DEATHS_MAX: u32 = 3;

statements! {
    EXPIRED = "SELECT (SELECT COUNT(*) FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting' AND ready_at <= {now})
        + (SELECT COUNT(*) FROM work_items WHERE state = 'waiting' AND priority < 0)
        + (SELECT COUNT(*) FROM work_items WHERE state = 'waiting' AND priority > 4)";
    /// In a queue that is none nobody would look.
    MEND = "UPDATE work_items SET priority = 4
        WHERE state = 'waiting' AND (priority < 0 OR priority > 4)";
    BURY = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                AND ready_at <= {now} AND deaths >= 0 AND deaths + 1 >= $2 {for update skip locked})
        UPDATE work_items SET state = 'dead', leased_by = NULL, deaths = deaths + 1, lane = 2,
            last_error = 'its worker died ' || (deaths + 1) || ' times without an error: '
                || 'it may take more memory than there is', finished_at = {now}
        WHERE id IN (SELECT picked_id FROM picked) RETURNING id, repository";
    RECLAIM = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                AND ready_at <= {now} AND deaths >= 0 {for update skip locked})
        UPDATE work_items SET leased_by = NULL, deaths = deaths + 1, lane = 2, ready_at = 0
        WHERE id IN (SELECT picked_id FROM picked) RETURNING id, repository";
    /// What was excused is as if it had been given back.
    RECLAIM_EXCUSED = concat!(
        "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                AND ready_at <= {now} AND deaths < 0 {for update skip locked})
        UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, deaths = ", counted!(), "
        WHERE id IN (SELECT picked_id FROM picked) RETURNING id, repository"
    );
    EXCUSE = "UPDATE work_items SET deaths = -1 - deaths
        WHERE leased_by = $1 AND state = 'waiting' AND deaths >= 0";
    RELEASE = concat!(
        "UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, deaths = ", counted!(), "
        WHERE leased_by = $1 AND state = 'waiting'"
    );
}

impl Store {
    /// Sees to the items whose lease ended while another worker than this one held them: that worker is dead,
    /// and maybe they were the reason. They go to [`Lane::Alone`](super::Lane::Alone), or are put aside after the third time. What
    /// was excused ([`Store::excuse`]) is taken again as if nothing had been. Items with a damaged priority get the
    /// last one.
    ///
    /// Returns how many items; `None`, with nothing done, when the database kept this worker waiting for longer
    /// than `patience`, since then it may have kept others from saying that they are alive.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn reclaim(
        &self,
        worker: &str,
        patience: Duration,
    ) -> Result<Option<usize>, StoreError> {
        let asked = Instant::now();
        let mut read = self;
        let expired = read
            .fetch_first(EXPIRED, args![worker], one::count)
            .await?
            .unwrap_or_default();
        if expired == 0 {
            return Ok(Some(0));
        }
        let mut tx = self.begin().await?;
        if asked.elapsed() > patience {
            tx.rollback().await?;
            return Ok(None);
        }
        let named = |row: &mut Fields<'_>| Ok((row.uuid()?, row.next::<String>()?));
        tx.execute(MEND, args![]).await?;
        let buried = tx.fetch(BURY, args![worker, DEATHS_MAX], named).await?;
        let reclaimed = tx.fetch(RECLAIM, args![worker], named).await?;
        let excused = tx.fetch(RECLAIM_EXCUSED, args![worker], named).await?;
        tx.commit().await?;
        for (item, repository) in &buried {
            tracing::error!(%item, repository, "a work item was put aside: its worker died {DEATHS_MAX} times");
        }
        for (item, repository) in &reclaimed {
            tracing::warn!(%item, repository, "the worker of a work item died; it is read apart from others now");
        }
        for (item, repository) in &excused {
            tracing::info!(%item, repository, "the worker of a work item was stopped; it is taken again");
        }
        Ok(Some(buried.len() + reclaimed.len() + excused.len()))
    }

    /// Sees to it that the coming death of this worker, which was told to stop, does not count against what it
    /// holds. That of any other does, before and after, however often this is said.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn excuse(&self, worker: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(EXCUSE, args![worker]).await?;
        tx.commit().await
    }

    /// Gives back everything a worker holds, when it shuts down; says how many items. The tries do
    /// not count.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn release(&self, worker: &str) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let released = tx.execute(RELEASE, args![worker]).await?;
        tx.commit().await?;
        Ok(released)
    }
}
