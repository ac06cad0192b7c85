//! Claiming work items, holding them, and giving them back one by one.
//!
//! Searching takes no write lock: a worker lists the hosts that have items waiting, reads the front of some of these
//! queues, and takes the items that it chose by their identifiers. It thus allocates its own places as it likes, and a
//! host that is left alone costs nothing, however many of its items wait.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, ROWS_MAX, Sql, args, one, pad, runs, statements};
use super::super::{Read, Store, StoreError};
use super::item::{Claimable, Lane, Priority, Queue, Retry, WorkItem};
use super::micros;
use super::row::{counted, deaths, item, item_columns};
use crate::backoff::Backoff;

/// Maximum number of tries before an item is dead-lettered.
const TRIES_MAX: u32 = 8;
/// Backoff of a failed item. Items that failed together are not all tried again together.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_secs(5), Duration::from_hours(1)).with_jitter(0.5);
/// Maximum length of a stored error message, in characters.
const ERROR_MAX: usize = 1_000;

statements! {
    /// Skips from host to host along the index, without reading the entries in between.
    QUEUES = "WITH RECURSIVE queues (priority, host) AS (
            SELECT CAST(p.column1 AS BIGINT), (SELECT MIN(host) FROM work_items
                WHERE state = 'waiting' AND leased_by IS NULL AND lane = $1
                    AND priority = p.column1 AND host > $2)
            FROM (VALUES (0), (1), (2), (3), (4)) AS p WHERE p.column1 <= $3
            UNION ALL
            SELECT queues.priority, (SELECT MIN(w.host) FROM work_items w
                WHERE w.state = 'waiting' AND w.leased_by IS NULL AND w.lane = $1
                    AND w.priority = queues.priority AND w.host > queues.host)
            FROM queues WHERE queues.host IS NOT NULL)
        SELECT priority, host FROM queues WHERE host IS NOT NULL LIMIT $4";
    FRONT = "SELECT id, remote, owner, deaths FROM work_items
        WHERE state = 'waiting' AND leased_by IS NULL AND lane = $1 AND priority = $2 AND host = $3
            AND ready_at <= {now} AND remote NOT IN ({list:5})
        ORDER BY turn, level, event_at, id LIMIT $4";
    /// Picked first and changed afterwards: within the update itself, PostgreSQL's planner may run the selection more
    /// than once.
    TAKE = concat!(
        "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND ready_at <= {now}
                AND id IN ({list:3}) {for update skip locked})
        UPDATE work_items SET leased_by = $1, ready_at = {now} + $2, wait = $2, tries = tries + 1, deaths = ", counted!(), "
        WHERE id IN (SELECT picked_id FROM picked)
        RETURNING ", item_columns!()
    );
    /// Locked in the order of `id` first, as in every other transaction that takes several.
    HEARTBEAT = "WITH held AS (SELECT id AS held_id FROM work_items
            WHERE leased_by = $2 AND state = 'waiting' AND id IN ({list:3}) ORDER BY id {for update})
        UPDATE work_items SET ready_at = {now} + $1, wait = $1
        WHERE id IN (SELECT held_id FROM held) RETURNING id";
    RETRY = "UPDATE work_items SET leased_by = NULL, last_error = $1, ready_at = {now} + $2, wait = $2
        WHERE id = $3 AND leased_by = $4 AND state = 'waiting' RETURNING ready_at";
    TRIES = "SELECT tries FROM work_items WHERE id = $1 AND leased_by = $2 AND state = 'waiting'
        {for update}";
    DIE = "UPDATE work_items SET state = 'dead', leased_by = NULL, last_error = $1,
            finished_at = {now}
        WHERE id = $2 AND leased_by = $3 AND state = 'waiting'";
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
    /// Returns at most `n` queues of a lane in which items are waiting, of hosts whose names follow `after` and none
    /// less urgent than `least`. It is possible that none of their items is ready.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn queues(
        &self,
        lane: Lane,
        least: Priority,
        after: &str,
        n: u32,
    ) -> Result<Vec<Queue>, StoreError> {
        let args = args![lane.number(), after, least.number(), n];
        let mut read = self;
        read.fetch(QUEUES, args, |row| {
            let number = row.get("priority")?;
            Ok(Queue {
                lane,
                priority: Priority::from_number(number)
                    .ok_or_else(|| StoreError::row(format!("{number} is no priority")))?,
                host: row.get("host")?,
            })
        })
        .await
    }

    /// Returns the first `n` items of a queue that are ready, taking turns among the owners of repositories and among
    /// the repositories of an owner. Remotes in `except`, whose repositories have reached their limit, are skipped: however
    /// many items they have, they do not hide the others. A worker has a bounded number of them, and all are skipped.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn front(
        &self,
        queue: &Queue,
        n: u32,
        except: &[&str],
    ) -> Result<Vec<Claimable>, StoreError> {
        let (lane, priority) = (queue.lane.number(), queue.priority.number());
        let mut args = args![lane, priority, &queue.host, n];
        args.extend(except.iter().copied().map(Arg::from));
        if except.is_empty() {
            // No remote is an empty text.
            args.push(Arg::from(""));
        }
        let n = pad(&mut args, 4);
        let mut read = self;
        read.fetch(FRONT.of(n), args, |row| {
            Ok(Claimable {
                id: row.uuid("id")?,
                remote: row.get("remote")?,
                owner: row.get("owner")?,
                deaths: deaths(row.get("deaths")?),
            })
        })
        .await
    }

    /// Takes those of the items that no other worker has taken meanwhile, most urgent first. They belong to the worker
    /// for the duration of the lease, which [`Store::heartbeat`] extends.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn take(
        &self,
        ids: &[Uuid],
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<WorkItem>, StoreError> {
        let first = args![worker, micros(lease)];
        self.take_by(&TAKE, &first, ids).await
    }

    /// Takes items with a statement whose last arguments are their identifiers, most urgent first.
    pub(super) async fn take_by(
        &self,
        statement: &Sql,
        first: &[Arg],
        ids: &[Uuid],
    ) -> Result<Vec<WorkItem>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut items = retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let mut items = Vec::new();
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = first.to_vec();
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, first.len());
                items.extend(tx.fetch(statement.clone().of(n), args, item).await?);
            }
            tx.commit().await?;
            Ok::<_, StoreError>(items)
        })
        .await?;
        items.sort_by_key(|item| (item.range.priority, item.range.event_at, item.id));
        Ok(items)
    }

    /// Takes up to `n` items of any lane for `worker`, most urgent first. Items whose last worker died are reclaimed
    /// before; see [`Store::reclaim`].
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn claim(
        &self,
        n: u32,
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<WorkItem>, StoreError> {
        self.claim_except(n, worker, lease, &[]).await
    }

    /// Like [`Store::claim`], but without the items of the `paused` hosts.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn claim_except(
        &self,
        n: u32,
        worker: &str,
        lease: Duration,
        paused: &[String],
    ) -> Result<Vec<WorkItem>, StoreError> {
        self.reclaim(worker, Duration::MAX).await?;
        let mut queues = Vec::new();
        for lane in Lane::ALL {
            let of_lane = self.queues(lane, Priority::Backfill, "", 1_000).await?;
            queues.extend(of_lane);
        }
        queues.retain(|queue| !paused.contains(&queue.host));
        queues.sort_by_key(|queue| queue.priority);
        let mut ids = Vec::new();
        let wanted = n as usize;
        for queue in queues {
            if ids.len() >= wanted {
                break;
            }
            let front = self.front(&queue, n, &[]).await?;
            ids.extend(front.into_iter().map(|waiting| waiting.id));
        }
        ids.truncate(wanted);
        self.take(&ids, worker, lease).await
    }

    /// Extends the leases of these items to `lease` from now. Returns those that still belong to the worker. The others
    /// were taken by another worker, so work on them must stop.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn heartbeat(
        &self,
        ids: &[Uuid],
        worker: &str,
        lease: Duration,
    ) -> Result<HashSet<Uuid>, StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let mut held = HashSet::new();
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = args![micros(lease), worker];
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, 2);
                held.extend(tx.fetch(HEARTBEAT.of(n), args, one::uuid).await?);
            }
            tx.commit().await?;
            Ok(held)
        })
        .await
    }

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
            tx.execute(DIE, args![error, id, worker]).await?;
            Retry::Dead
        } else {
            let wait = micros(BACKOFF.after(tries.saturating_sub(1)));
            let args = args![error, wait, id, worker];
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
                let why: String = later.why.chars().take(ERROR_MAX).collect();
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
