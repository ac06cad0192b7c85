//! Workers that end: those that are told to stop while they hold items, and those that die. An item that too many died
//! with is dead-lettered.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Row, args, one, statements};
use super::super::{Read as _, Store, StoreError};
use super::again::DEATHS_MAX;
use super::rests::Branch;
use super::row::{counted, give_back};

statements! {
    EXPIRED = "SELECT (SELECT COUNT(*) FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting' AND ready_at <= {now})
        + (SELECT COUNT(*) FROM work_items WHERE state = 'waiting' AND priority < 0)
        + (SELECT COUNT(*) FROM work_items WHERE state = 'waiting' AND priority > 4)";
    FIRST_END = "SELECT MIN(ready_at) - {now} FROM work_items
        WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'";
    /// A queue with an invalid priority would never be read.
    MEND = "UPDATE work_items SET priority = 4
        WHERE state = 'waiting' AND (priority < 0 OR priority > 4)";
    BURY = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                AND ready_at <= {now} AND deaths >= 0 AND deaths + 1 >= $2 {for update skip locked})
        UPDATE work_items SET state = 'dead', leased_by = NULL, deaths = deaths + 1, lane = 2,
            last_error = 'its worker died ' || (deaths + 1) || ' times without an error: '
                || 'it may take more memory than there is', finished_at = {now}
        WHERE id IN (SELECT picked_id FROM picked) RETURNING id, repository, host, remote, ref_name";
    RECLAIM = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                AND ready_at <= {now} AND deaths >= 0 {for update skip locked})
        UPDATE work_items SET leased_by = NULL, deaths = deaths + 1, lane = 2, ready_at = 0
        WHERE id IN (SELECT picked_id FROM picked) RETURNING id, repository";
    /// Exempted items are treated as if they had been given back.
    RECLAIM_EXCUSED = give_back!(" RETURNING id, repository");
    EXCUSE = "UPDATE work_items SET deaths = -1 - deaths
        WHERE leased_by = $1 AND state = 'waiting' AND deaths >= 0";
    RELEASE = concat!(
        "UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, deaths = ", counted!(), "
        WHERE leased_by = $1 AND state = 'waiting'"
    );
}

impl Store {
    /// Reclaims the items whose lease expired while another worker held them: that worker is dead, and they may be the
    /// reason. They move to [`Lane::Alone`](super::super::Lane::Alone), or are dead-lettered after the third death.
    /// Items that were exempted by [`Store::excuse`] are taken again without any consequence. Items with a damaged
    /// priority get the lowest one.
    ///
    /// Returns the number of items that were reclaimed, exempted or dead-lettered. Returns `None` and does nothing if
    /// the database kept this worker waiting for longer than `patience`, since it may then have kept other workers from
    /// extending their leases.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
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
        let named = |row: &Row<'_>| Ok((row.uuid("id")?, row.get::<String>("repository")?));
        let changed = retried(|| async {
            let mut tx = self.begin().await?;
            if asked.elapsed() > patience {
                tx.rollback().await?;
                return Ok(None);
            }
            tx.locks(Locks::WorkItems);
            tx.execute(MEND, args![]).await?;
            let buried = tx.fetch(BURY, args![worker, DEATHS_MAX], |row| {
                Ok((named(row)?, Branch::of(row)?))
            });
            let (buried, branches): (Vec<_>, BTreeSet<Branch>) = buried.await?.into_iter().unzip();
            let reclaimed = tx.fetch(RECLAIM, args![worker], named).await?;
            let excused = tx.fetch(RECLAIM_EXCUSED, args![worker], named).await?;
            tx.reopen_rests_on(branches).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(Some((buried, reclaimed, excused)))
        });
        let Some((buried, reclaimed, excused)) = changed.await? else {
            return Ok(None);
        };
        for (item, repository) in &buried {
            tracing::error!(%item, repository, "a work item was dead-lettered: its worker died {DEATHS_MAX} times");
        }
        for (item, repository) in &reclaimed {
            tracing::warn!(%item, repository, "the worker of a work item died; it is read apart from others now");
        }
        for (item, repository) in &excused {
            tracing::info!(%item, repository, "the worker of a work item was stopped; it is taken again");
        }
        Ok(Some(buried.len() + reclaimed.len() + excused.len()))
    }

    /// Returns the time until the first lease of another worker ends unless it is renewed, and 0 if one has expired.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn first_lease_ends(&self, worker: &str) -> Result<Option<Duration>, StoreError> {
        let mut read = self;
        let ends = read.fetch_first(FIRST_END, args![worker], one::optional_micros);
        let ends = ends.await?.flatten();
        Ok(ends.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
    }

    /// Exempts the items held by this worker, which was told to stop, from the consequences of its death. The deaths of
    /// other workers count, before and after, however often this is called.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn excuse(&self, worker: &str) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            tx.execute(EXCUSE, args![worker]).await?;
            tx.commit().await
        })
        .await
    }

    /// Gives back all items that a worker holds when it shuts down. The tries do not count. Returns the number of
    /// items.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn release(&self, worker: &str) -> Result<u64, StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let released = tx.execute(RELEASE, args![worker]).await?;
            tx.commit().await?;
            Ok(released)
        })
        .await
    }
}
