//! Claiming work items, and holding them.
//!
//! Searching takes no write lock: a worker lists the hosts that have items waiting, reads the front of some of these
//! queues, and takes the items that it chose by their identifiers. It thus allocates its own places as it likes, and a
//! host that is left alone costs nothing, however many of its items wait.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, Sql, args, one, pad, statements};
use super::super::{Read, Store, StoreError};
use super::item::{Claimable, Lane, Priority, Queue, WorkItem};
use super::micros;
use super::row::{counted, deaths, item, item_columns};

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
    /// Picked first and changed afterward: within the update itself, PostgreSQL's planner may run the selection more
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
    /// the repositories of an owner. Remotes in `except`, whose repositories have reached their limit, are skipped:
    /// however many items they have, they do not hide the others. A worker has a bounded number of them, and all are
    /// skipped.
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
}
