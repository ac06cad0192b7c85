//! Giving back items that are held: for a later try, after a while, or to another lane. An item whose last try failed
//! is dead-lettered here; one whose workers died, in `holders.rs`.

use std::time::Duration;

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{ROWS_MAX, args, one, runs, statements};
use super::super::{Read as _, Store, StoreError};
use super::counts::{NOTHING_TO_READ, TRIED_AGAIN};
use super::item::{Lane, Retry};
use super::micros;
use super::rests::Branch;
use crate::backoff::Backoff;

/// Maximum number of tries before an item is dead-lettered.
const TRIES_MAX: u32 = 8;
/// Backoff of a failed item. Items that failed together are not all tried again together.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_secs(5), Duration::from_hours(1)).with_jitter(0.5);
/// Maximum length of a stored error message, in characters.
const ERROR_MAX: usize = 1_000;

statements! {
    RETRY = "UPDATE work_items SET leased_by = NULL, last_error = $1, ready_at = {now} + $2, wait = $2
        WHERE id = $3 AND leased_by = $4 AND state = 'waiting' RETURNING ready_at";
    TRIES = "SELECT tries FROM work_items WHERE id = $1 AND leased_by = $2 AND state = 'waiting'
        {for update}";
    DIE = "UPDATE work_items SET state = 'dead', leased_by = NULL, last_error = $1,
            finished_at = {now}
        WHERE id = $2 AND leased_by = $3 AND state = 'waiting' RETURNING host, remote, ref_name";
    POSTPONE = "UPDATE work_items SET leased_by = NULL, tries = tries - 1, last_error = later.column4,
            ready_at = {now} + CAST(later.column3 AS BIGINT), wait = CAST(later.column3 AS BIGINT),
            denials = denials + CAST(later.column5 AS BIGINT)
        FROM (VALUES {rows:5}) AS later
        WHERE id = later.column1 AND leased_by = later.column2 AND state = 'waiting'";
    MOVE = "UPDATE work_items SET leased_by = NULL, tries = tries - 1, last_error = $1,
            ready_at = 0, lane = $2
        WHERE id = $3 AND leased_by = $4 AND state = 'waiting' AND lane <> 2";
}

/// An item that is given back for a while.
#[derive(Debug, Clone, Copy)]
pub struct Postponed<'p> {
    /// Identifier of the item.
    pub id: Uuid,
    /// Time until it may be taken again.
    pub wait: Duration,
    /// Reason, in redacted text.
    pub why: &'p str,
    /// `true` if the server said that there is nothing to read, which is counted.
    pub is_denial: bool,
}

impl Store {
    /// Gives an item back after a failed try, for a later one, or dead-letters it after the last.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn retry(&self, id: Uuid, worker: &str, error: &str) -> Result<Retry, StoreError> {
        let error: String = error.chars().take(ERROR_MAX).collect();
        retried(|| self.retry_once(id, worker, &error)).await
    }

    async fn retry_once(&self, id: Uuid, worker: &str, error: &str) -> Result<Retry, StoreError> {
        let mut tx = self.begin().await?;
        tx.locks(Locks::WorkItems);
        let Some(tries) = tx.fetch_first(TRIES, args![id, worker], one::count).await? else {
            return Ok(Retry::Lost);
        };
        let tries = u32::try_from(tries).unwrap_or(u32::MAX);
        let outcome = if tries >= TRIES_MAX {
            let args = args![error, id, worker];
            let died = tx.fetch(DIE, args, Branch::of).await?;
            tx.reopen_rests_on(died.into_iter().collect()).await?;
            Retry::Dead
        } else {
            let wait = micros(BACKOFF.after(tries.saturating_sub(1)));
            let why = format!("{TRIED_AGAIN}{error}");
            let args = args![why, wait, id, worker];
            let ready = tx.fetch_first(RETRY, args, one::time).await?;
            ready.map_or(Retry::Lost, Retry::Again)
        };
        tx.commit().await?;
        Ok(outcome)
    }

    /// Gives an item back for the duration of `wait`, because its server requested it. The try does not count. Returns
    /// `false` if the item was no longer held by this worker.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn postpone(
        &self,
        id: Uuid,
        worker: &str,
        wait: Duration,
        why: &str,
    ) -> Result<bool, StoreError> {
        let later = Postponed {
            id,
            wait,
            why,
            is_denial: false,
        };
        Ok(self.postpone_all(&[later], worker).await? == 1)
    }

    /// Gives items back, as [`Store::postpone`] does, all in one transaction: while a host is down, many are. They lose
    /// their turns in the ordinary lane to what waits. Returns how many were still held by this worker.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn postpone_all(
        &self,
        items: &[Postponed<'_>],
        worker: &str,
    ) -> Result<u64, StoreError> {
        // Locked in the order of `id`, as in every other transaction that takes several.
        let mut items: Vec<&Postponed<'_>> = items.iter().collect();
        items.sort_by_key(|later| later.id);
        items.dedup_by_key(|later| later.id);
        retried(|| self.postpone_once(&items, worker)).await
    }

    async fn postpone_once(
        &self,
        items: &[&Postponed<'_>],
        worker: &str,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        tx.locks(Locks::WorkItems);
        let mut changed = 0;
        for run in runs(items.len(), ROWS_MAX) {
            let rows = &items[run];
            let values = rows.iter().flat_map(|later| {
                let kind = if later.is_denial { NOTHING_TO_READ } else { "" };
                let why: String = kind
                    .chars()
                    .chain(later.why.chars())
                    .take(ERROR_MAX)
                    .collect();
                args![
                    later.id,
                    worker,
                    micros(later.wait),
                    why,
                    i64::from(later.is_denial)
                ]
            });
            let values = values.collect();
            changed += tx.execute(POSTPONE.of(rows.len()), values).await?;
        }
        let ids: Vec<Uuid> = items.iter().map(|later| later.id).collect();
        tx.lose_turns(&ids).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Gives an item back to wait for its turn in another lane. The try does not count. Returns `false` if the item was
    /// no longer held by this worker, or is in [`Lane::Alone`], which it never leaves.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn change_lane(
        &self,
        id: Uuid,
        worker: &str,
        lane: Lane,
        why: &str,
    ) -> Result<bool, StoreError> {
        let why: String = why.chars().take(ERROR_MAX).collect();
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let args = args![&why, lane.number(), id, worker];
            let changed = tx.execute(MOVE, args).await?;
            tx.commit().await?;
            Ok(changed == 1)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_differ() {
        for (tries, middle) in [
            (1, 5),
            (2, 10),
            (7, 320),
            (8, 640),
            (12, 3_600),
            (u32::MAX, 3_600),
        ] {
            let waits: Vec<Duration> = (0..100).map(|_| BACKOFF.after(tries - 1)).collect();
            let (least, most) = (
                Duration::from_secs(middle) / 2,
                Duration::from_secs(middle) * 3 / 2,
            );
            assert!(
                waits.iter().all(|wait| (least..=most).contains(wait)),
                "{tries}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{tries}");
        }
    }
}
