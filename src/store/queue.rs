//! The queue of work items in the database.
//!
//! An item is `waiting`, `done` or `dead`. A waiting item may be claimed once its `ready_at` has
//! passed on the database's clock; a lease and a back-off both put `ready_at` into the future, so an
//! item whose worker died comes back by itself.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::order::Locks;
use super::sql::{Arg, Fields, LIST_MAX, args, one, pad, runs, statements};
use super::work::{Fetched, NewWorkItem, Priority, Retry, WorkItem, WorkKind};
use super::{Read, Store, StoreError, Tx};

/// Rows of one statement.
const ROWS_MAX: usize = 128;
/// How often an item is tried before it is put aside.
const TRIES_MAX: u32 = 8;
/// The wait after the first failed try; each further one doubles it.
const BACK_OFF: Duration = Duration::from_secs(5);
/// The longest wait between two tries.
const BACK_OFF_MAX: Duration = Duration::from_hours(1);
/// The longest error text that is kept, in characters.
const ERROR_MAX: usize = 1_000;

macro_rules! item_columns {
    () => {
        "id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id, source, \
         priority, event_at, created_at, tries"
    };
}

pub(super) use item_columns;

statements! {
    INSERT = "INSERT INTO work_items (id, kind, host, repository_id, repository, clone_url,
            ref_name, before_id, after_id, source, priority, event_at, created_at, state, ready_at,
            tries, truncated, bytes, blobs)
        VALUES {rows:19}
        ON CONFLICT (host, repository_id, ref_name, before_id, after_id) DO NOTHING RETURNING source";
    /// Picked first and changed then: within the update itself, PostgreSQL's planner may run the
    /// selection more than once and take more than it was to.
    CLAIM = concat!(
        "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND ready_at <= {now} AND host NOT IN ({list:4})
            ORDER BY priority, event_at, id LIMIT $3 {for update skip locked})
        UPDATE work_items SET leased_by = $1, ready_at = {now} + $2, tries = tries + 1
        WHERE id IN (SELECT picked_id FROM picked)
        RETURNING ", item_columns!()
    );
    /// Locked in the order of `id` first, as every other transaction does that takes several.
    HEARTBEAT = "WITH held AS (SELECT id AS held_id FROM work_items
            WHERE leased_by = $2 AND state = 'waiting' AND id IN ({list:3}) ORDER BY id {for update})
        UPDATE work_items SET ready_at = {now} + $1
        WHERE id IN (SELECT held_id FROM held) RETURNING id";
    FINISH = "UPDATE work_items SET state = 'done', leased_by = NULL, last_error = NULL,
            finished_at = {now}, truncated = $1, bytes = $2, blobs = $3
        WHERE id = $4 AND leased_by = $5 AND state = 'waiting'";
    RETRY = "UPDATE work_items SET leased_by = NULL, last_error = $1, ready_at = {now} + $2
        WHERE id = $3 AND leased_by = $4 AND state = 'waiting' RETURNING ready_at";
    TRIES = "SELECT tries FROM work_items WHERE id = $1 AND leased_by = $2 AND state = 'waiting'
        {for update}";
    DIE = "UPDATE work_items SET state = 'dead', leased_by = NULL, last_error = $1,
            finished_at = {now}
        WHERE id = $2 AND leased_by = $3 AND state = 'waiting'";
    POSTPONE = "UPDATE work_items SET leased_by = NULL, tries = tries - 1, last_error = $1,
            ready_at = {now} + $2
        WHERE id = $3 AND leased_by = $4 AND state = 'waiting'";
    RELEASE = "UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = {now}
        WHERE leased_by = $1 AND state = 'waiting'";
    KNOWN = "SELECT id, priority FROM work_items
        WHERE state IN ('waiting', 'shed')
            AND (host, repository_id, ref_name, before_id, after_id) IN (VALUES {rows:5})";
    LOCK = "SELECT id, state, priority, source FROM work_items
        WHERE state IN ('waiting', 'shed') AND id IN ({list:1}) ORDER BY id {for update}";
    RAISE = "UPDATE work_items SET priority = $1, state = 'waiting', finished_at = NULL
        WHERE state IN ('waiting', 'shed') AND priority > $1 AND id IN ({list:2})";
}

pub(super) fn item(row: &mut Fields<'_>) -> Result<WorkItem, StoreError> {
    Ok(WorkItem {
        id: row.uuid()?,
        range: NewWorkItem {
            kind: {
                let name: String = row.next()?;
                WorkKind::from_name(&name).ok_or_else(|| {
                    StoreError::row("a work item is of an unknown kind".to_owned())
                })?
            },
            host: row.next()?,
            repository_id: row.next()?,
            repository: row.next()?,
            clone_url: row.next()?,
            ref_name: row.next()?,
            before: row.next()?,
            after: row.next()?,
            source: row.next()?,
            priority: priority(row.next()?),
            event_at: row.time()?,
        },
        created_at: row.time()?,
        tries: u32::try_from(row.count()?).unwrap_or(u32::MAX),
    })
}

/// A number that is no priority means the last place: an item that cannot be read would keep all others from
/// being taken.
fn priority(number: i64) -> Priority {
    Priority::from_number(number).unwrap_or_else(|| {
        tracing::warn!(
            number,
            "a priority in the database is damaged, the last is taken for it"
        );
        Priority::Backfill
    })
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros())
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

/// The wait after the given number of failed tries: doubled each time, up to half more or less by
/// chance, so that items which failed together are not all tried together again.
fn back_off(tries: u32) -> Duration {
    let doubled = BACK_OFF.saturating_mul(1 << tries.saturating_sub(1).min(16));
    doubled
        .min(BACK_OFF_MAX)
        .mul_f64(rand::random_range(0.5..1.5))
}

impl Store {
    /// Takes up to `n` items for `worker`, most urgent first and oldest first among equals. They are
    /// its own for the length of the lease; [`Store::heartbeat`] makes it longer. Items whose last
    /// try ended with the death of its worker are put aside here.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn claim(
        &self,
        n: u32,
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<WorkItem>, StoreError> {
        self.claim_except(n, worker, lease, &[]).await
    }

    /// As [`Store::claim`], but items of the `paused` hosts stay where they are.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn claim_except(
        &self,
        n: u32,
        worker: &str,
        lease: Duration,
        paused: &[String],
    ) -> Result<Vec<WorkItem>, StoreError> {
        let mut args = args![worker, micros(lease), n];
        args.extend(paused.iter().take(LIST_MAX).map(Arg::from));
        if paused.is_empty() {
            // No host has an empty name.
            args.extend(args![""]);
        }
        let hosts = pad(&mut args, 3);
        let mut tx = self.begin().await?;
        let mut items = tx.fetch(CLAIM.of(hosts), args, item).await?;
        let mut dead = false;
        for item in items.iter().filter(|item| item.tries > TRIES_MAX) {
            let error = "the worker died in each try, without an error";
            dead = true;
            tx.execute(DIE, args![error, item.id, worker]).await?;
            tracing::error!(item = %item.id, repository = %item.range.repository, "work item put aside: {error}");
        }
        tx.commit().await?;
        if dead {
            items.retain(|item| item.tries <= TRIES_MAX);
        }
        items.sort_by_key(|item| (item.range.priority, item.range.event_at, item.id));
        Ok(items)
    }

    /// Makes the leases of these items last `lease` from now on; gives those that are still the
    /// worker's. The others were taken by somebody else: work on them is to stop.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn heartbeat(
        &self,
        ids: &[Uuid],
        worker: &str,
        lease: Duration,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let mut tx = self.begin().await?;
        let mut held = HashSet::new();
        for chunk in ids.chunks(LIST_MAX) {
            let mut args = args![micros(lease), worker];
            args.extend(chunk.iter().copied().map(Arg::from));
            let n = pad(&mut args, 2);
            held.extend(tx.fetch(HEARTBEAT.of(n), args, one::uuid).await?);
        }
        tx.commit().await?;
        Ok(held)
    }

    /// Gives an item back after a failed try, for a later one, or puts it aside after the last.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn retry(&self, id: Uuid, worker: &str, error: &str) -> Result<Retry, StoreError> {
        let error: String = error.chars().take(ERROR_MAX).collect();
        let mut tx = self.begin().await?;
        let Some(tries) = tx.fetch_first(TRIES, args![id, worker], one::count).await? else {
            return Ok(Retry::Lost);
        };
        let tries = u32::try_from(tries).unwrap_or(u32::MAX);
        let outcome = if tries >= TRIES_MAX {
            tx.execute(DIE, args![&error, id, worker]).await?;
            Retry::Dead
        } else {
            let wait = micros(back_off(tries));
            let args = args![&error, wait, id, worker];
            let ready = tx.fetch_first(RETRY, args, one::time).await?;
            ready.map_or(Retry::Lost, Retry::Again)
        };
        tx.commit().await?;
        Ok(outcome)
    }

    /// Gives an item back for as long as `wait`, because its server asked for it. The try does not
    /// count. `false` when it was not this worker's any more.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn postpone(
        &self,
        id: Uuid,
        worker: &str,
        wait: Duration,
        why: &str,
    ) -> Result<bool, StoreError> {
        let why: String = why.chars().take(ERROR_MAX).collect();
        let mut tx = self.begin().await?;
        let args = args![why, micros(wait), id, worker];
        let changed = tx.execute(POSTPONE, args).await?;
        tx.commit().await?;
        Ok(changed == 1)
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

impl Tx {
    /// Adds work items; says how many were new. A range that is known is left as it is, whichever
    /// source saw it first, except that one which still waits, or was shed, takes the more urgent place.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn add_work_items(
        &mut self,
        items: &[NewWorkItem],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let added = self.add_work_items_of_sources(items, now).await?;
        Ok(added.values().sum())
    }

    /// As [`Tx::add_work_items`], for items of several sources; says how many were new of each.
    pub(crate) async fn add_work_items_of_sources(
        &mut self,
        items: &[NewWorkItem],
        now: Timestamp,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        self.locks(Locks::WorkItems);
        // In one order in all transactions, so that two sources never wait for each other; and each
        // range once, at its most urgent, since one statement cannot meet its own conflict on every database.
        let mut items: Vec<&NewWorkItem> = items.iter().collect();
        items.sort_by_key(|item| (identity(item), item.priority));
        items.dedup_by_key(|item| identity(item));
        let mut added = BTreeMap::new();
        let mut known = Vec::new();
        for run in runs(items.len(), ROWS_MAX) {
            let rows = &items[run];
            let values = rows.iter().flat_map(|item| columns(item, now));
            let insert = INSERT.of(rows.len());
            let sources = self.fetch(insert, values.collect(), one::text).await?;
            if sources.len() < rows.len() {
                known.extend(self.less_urgent(rows).await?);
            }
            for source in sources {
                *added.entry(source).or_default() += 1;
            }
        }
        self.raise(known).await?;
        Ok(added)
    }

    /// Which known items wait, or were shed, with less priority than those that came again, and what they
    /// are to have. They are not locked, so this may have changed when they are.
    async fn less_urgent(
        &mut self,
        items: &[&NewWorkItem],
    ) -> Result<Vec<(Uuid, Priority)>, StoreError> {
        let mut by_priority: BTreeMap<Priority, Vec<&NewWorkItem>> = BTreeMap::new();
        for item in items {
            by_priority.entry(item.priority).or_default().push(item);
        }
        // Nothing is below the last.
        by_priority.remove(&Priority::Backfill);
        let mut lower = Vec::new();
        for (priority, items) in by_priority {
            let values = items.iter().flat_map(|item| identity(item)).map(Arg::from);
            let known = KNOWN.of(items.len());
            let known = self.fetch(known, values.collect(), |row| {
                Ok((row.uuid()?, row.next::<i64>()?))
            });
            let known = known.await?.into_iter();
            let known = known.filter(|(_, of)| *of > priority.number());
            lower.extend(known.map(|(id, _)| (id, priority)));
        }
        Ok(lower)
    }

    /// Gives known items that still wait, or were shed, the priority of those that came again.
    async fn raise(&mut self, mut wanted: Vec<(Uuid, Priority)>) -> Result<(), StoreError> {
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup_by_key(|(id, _)| *id);
        let wanted: BTreeMap<Uuid, Priority> = wanted.into_iter().collect();
        let ids: Vec<Uuid> = wanted.keys().copied().collect();
        let mut raised: BTreeMap<Priority, Vec<Uuid>> = BTreeMap::new();
        // What is counted is what is changed: the states of rows that are locked stay as they were read.
        let mut shed = Vec::new();
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let rows = self.fetch(LOCK.of(n), args, |row| {
                let (id, state) = (row.uuid()?, row.next::<String>()?);
                Ok((id, state, row.next::<i64>()?, row.next::<String>()?))
            });
            for (id, state, of, source) in rows.await? {
                let Some(priority) = wanted.get(&id).filter(|wanted| wanted.number() < of) else {
                    continue;
                };
                raised.entry(*priority).or_default().push(id);
                if state == "shed" {
                    shed.push(source);
                }
            }
        }
        for (priority, ids) in raised {
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = args![priority.number()];
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, 1);
                self.execute(RAISE.of(n), args).await?;
            }
        }
        if shed.is_empty() {
            return Ok(());
        }
        self.uncount_shed(shed).await
    }

    /// Notes that an item was fetched and scanned: in the transaction that responds to what was
    /// found. `false` when it was not this worker's any more; the transaction is to be dropped then,
    /// since somebody else does the same work.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn finish(
        &mut self,
        id: Uuid,
        worker: &str,
        fetched: Fetched,
    ) -> Result<bool, StoreError> {
        self.locks(Locks::WorkItems);
        let Fetched {
            truncated,
            bytes,
            blobs,
        } = fetched;
        let args = args![truncated, bytes, blobs, id, worker];
        Ok(self.execute(FINISH, args).await? == 1)
    }
}

fn identity(item: &NewWorkItem) -> [&str; 5] {
    [
        &item.host,
        &item.repository_id,
        &item.ref_name,
        &item.before,
        &item.after,
    ]
}

fn columns(item: &NewWorkItem, now: Timestamp) -> Vec<Arg> {
    args![
        Uuid::now_v7(),
        item.kind.as_str(),
        &item.host,
        &item.repository_id,
        &item.repository,
        item.clone_url.clone(),
        &item.ref_name,
        &item.before,
        &item.after,
        &item.source,
        item.priority.number(),
        item.event_at,
        now,
        "waiting",
        0_i64,
        0_i64,
        false,
        0_i64,
        0_i64,
    ]
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
            let waits: Vec<Duration> = (0..100).map(|_| back_off(tries)).collect();
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
