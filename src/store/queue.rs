//! The queue of work items in the database: what is added, and what is finished.
//!
//! An item is `waiting`, `done`, `dead` or `shed`. A waiting item that no worker holds may be claimed once its
//! `ready_at` has passed on the database's clock; of one that is held, `ready_at` is the end of the lease.
//!
//! What is added is bounded: a repository, and a host at one priority, have only so many items that wait. What
//! comes beyond is not added, which is counted. Items are taken in turns over the repositories of a host.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::order::Locks;
use super::sql::{Arg, Fields, LIST_MAX, args, one, pad, runs, statements};
use super::work::{Descendant, Fetched, Lane, Lineage, NewWorkItem, Priority, WorkItem, WorkKind};
use super::{Read as _, StoreError, Tx};

/// Rows of one statement.
const ROWS_MAX: usize = 128;

/// The most items of one repository that wait.
const REPOSITORY_MAX: u64 = 10_000;

/// The most items of one host at one priority that wait, of those that are neither shed when there are too
/// many nor asked for by hand.
const HOST_MAX: u64 = 50_000;

/// So many items of a repository are taken even when its host has [`HOST_MAX`]: what others push must not keep a
/// leak in it from being read.
const REPOSITORY_MIN: u64 = 16;

macro_rules! item_columns {
    () => {
        "id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id, source, \
         priority, event_at, created_at, tries, lane, deaths, origin, generation, parts_left, bytes_left"
    };
}

pub(super) use item_columns;

statements! {
    INSERT = "INSERT INTO work_items (id, kind, host, repository_id, repository, clone_url,
            ref_name, before_id, after_id, source, priority, event_at, created_at, state, ready_at,
            tries, truncated, bytes, blobs, turn, origin, generation, parts_left, bytes_left, part_of)
        VALUES {rows:25}
        ON CONFLICT (host, repository_id, ref_name, before_id, after_id, part_of) DO NOTHING RETURNING source";
    FINISH = "UPDATE work_items SET state = 'done', leased_by = NULL, last_error = NULL,
            finished_at = {now}, truncated = $1, bytes = $2, blobs = $3, gone = $4
        WHERE id = $5 AND leased_by = $6 AND state = 'waiting'";
    KNOWN = "SELECT id, state, priority FROM work_items
        WHERE (state IN ('waiting', 'shed') OR state = 'done' AND gone) AND part_of = ''
            AND (host, repository_id, ref_name, before_id, after_id) IN (VALUES {rows:5})";
    LOCK = "SELECT id, state, priority, source, gone FROM work_items
        WHERE state <> 'dead' AND id IN ({list:1}) ORDER BY id {for update}";
    RAISE = "UPDATE work_items SET priority = $1, state = 'waiting', finished_at = NULL
        WHERE state IN ('waiting', 'shed') AND priority > $1 AND id IN ({list:2})";
    REOPEN = "UPDATE work_items SET priority = $1, state = 'waiting', finished_at = NULL,
            gone = FALSE, tries = 0, ready_at = 0
        WHERE state = 'done' AND gone AND id IN ({list:2})";
    WAITING_OF = "SELECT host, repository_id, COUNT(*) FROM work_items
        WHERE state = 'waiting' AND (host, repository_id) IN (VALUES {rows:2})
        GROUP BY host, repository_id";
    WAITING_AT = "SELECT COUNT(*) FROM (SELECT 1 FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND lane = 0
                AND priority = $1 AND host = $2 LIMIT $3) AS found";
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
        lane: {
            let number = row.next()?;
            Lane::from_number(number)
                .ok_or_else(|| StoreError::row(format!("{number} is no lane")))?
        },
        // Less than none when it was excused from one.
        deaths: u32::try_from(row.next::<i64>()?).unwrap_or(0),
        lineage: {
            let (origin, generation) = (row.optional_uuid()?, row.count()?);
            let (parts, bytes) = (row.optional_count()?, row.optional_count()?);
            origin.map(|origin| Lineage {
                origin,
                generation: u32::try_from(generation).unwrap_or(u32::MAX),
                parts_left: u32::try_from(parts.unwrap_or_default()).unwrap_or(u32::MAX),
                bytes_left: bytes.unwrap_or_default(),
            })
        },
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

/// An item that is to be added.
#[derive(Debug, Clone, Copy)]
struct Adding<'i> {
    item: &'i NewWorkItem,
    lineage: Option<&'i Lineage>,
    is_part: bool,
    /// How many items of its repository are before it.
    turn: u64,
}

impl<'i> Adding<'i> {
    fn named(item: &'i NewWorkItem) -> Self {
        Self {
            item,
            lineage: None,
            is_part: false,
            turn: 0,
        }
    }

    fn derived(descendant: &'i Descendant) -> Self {
        Self {
            item: &descendant.range,
            lineage: Some(&descendant.lineage),
            is_part: descendant.is_part,
            turn: 0,
        }
    }

    fn part_of(&self) -> Option<Uuid> {
        self.lineage
            .filter(|_| self.is_part)
            .map(|lineage| lineage.origin)
    }

    fn identity(&self) -> ([&'i str; 5], Option<Uuid>) {
        (coordinates(self.item), self.part_of())
    }
}

/// The items that are added, and how many of each source are not.
type InTurn<'i> = (Vec<Adding<'i>>, BTreeMap<&'i str, u64>);

impl Tx {
    /// Adds work items; says how many were new. A range that is known is left as it is, whichever
    /// source saw it first, except that one which still waits, or was shed, takes the more urgent place,
    /// and one that was gone is looked for again when it is named with some urgency.
    ///
    /// Of a repository of which too much waits, and of such a host, nothing is added; that is counted with
    /// the source.
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
        self.add(items.iter().map(Adding::named).collect(), now)
            .await
    }

    /// Adds what came of other items, as [`Tx::add_work_items`] does.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn add_descendants(
        &mut self,
        descendants: &[Descendant],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let descendants = descendants.iter().map(Adding::derived).collect();
        let added = self.add(descendants, now).await?;
        Ok(added.values().sum())
    }

    async fn add(
        &mut self,
        items: Vec<Adding<'_>>,
        now: Timestamp,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        self.locks(Locks::WorkItems);
        let (mut items, refused) = self.in_turn(items).await?;
        // In one order in all transactions, so that two sources never wait for each other; and each
        // range once, at its most urgent, since one statement cannot meet its own conflict on every database.
        items.sort_by_key(|adding| (adding.identity(), adding.item.priority));
        items.dedup_by_key(|adding| adding.identity());
        let mut added = BTreeMap::new();
        let mut known = Vec::new();
        for run in runs(items.len(), ROWS_MAX) {
            let rows = &items[run];
            let values = rows.iter().flat_map(|item| columns(item, now));
            let insert = INSERT.of(rows.len());
            let sources = self.fetch(insert, values.collect(), one::text).await?;
            if sources.len() < rows.len() {
                let named = rows.iter().filter(|adding| !adding.is_part);
                known.extend(self.less_urgent(named.map(|adding| adding.item)).await?);
            }
            for source in sources {
                *added.entry(source).or_default() += 1;
            }
        }
        let shed = self.raise(known).await?;
        self.uncount_shed(shed).await?;
        self.count_refused(refused).await?;
        Ok(added)
    }

    /// Gives each item its turn among those of its repository, and leaves out those that are too many.
    async fn in_turn<'i>(&mut self, items: Vec<Adding<'i>>) -> Result<InTurn<'i>, StoreError> {
        let mut of_repository = self.waiting_of(&items).await?;
        let mut at_host = self.waiting_at(&items).await?;
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        let mut kept = Vec::with_capacity(items.len());
        for mut adding in items {
            let NewWorkItem {
                host,
                repository_id,
                source,
                priority,
                ..
            } = adding.item;
            let before = of_repository.entry((host, repository_id)).or_default();
            let beside = at_host.get_mut(&(*priority, host.as_str()));
            let host_is_full = beside.as_deref().is_some_and(|count| *count >= HOST_MAX);
            if *before >= REPOSITORY_MAX || (host_is_full && *before >= REPOSITORY_MIN) {
                *refused.entry(source).or_default() += 1;
                continue;
            }
            adding.turn = *before;
            *before += 1;
            if let Some(count) = beside {
                *count += 1;
            }
            kept.push(adding);
        }
        for (source, items) in &refused {
            tracing::warn!(
                source,
                items,
                "too much of a repository or a host waits: items were refused"
            );
        }
        Ok((kept, refused))
    }

    /// How many items of each repository wait.
    async fn waiting_of<'i>(
        &mut self,
        items: &[Adding<'i>],
    ) -> Result<BTreeMap<(&'i str, &'i str), u64>, StoreError> {
        let repositories = items
            .iter()
            .map(|adding| (&*adding.item.host, &*adding.item.repository_id));
        let mut waiting: BTreeMap<_, u64> = repositories.map(|of| (of, 0)).collect();
        let all: Vec<(&str, &str)> = waiting.keys().copied().collect();
        for run in runs(all.len(), ROWS_MAX) {
            let rows = &all[run];
            let values = rows.iter().flat_map(|(host, id)| args![*host, *id]);
            let counted = self
                .fetch(WAITING_OF.of(rows.len()), values.collect(), |row| {
                    Ok((row.next::<String>()?, row.next::<String>()?, row.count()?))
                })
                .await?;
            for (host, id, count) in counted {
                if let Ok(at) = rows.binary_search(&(&*host, &*id)) {
                    waiting.insert(rows[at], count);
                }
            }
        }
        Ok(waiting)
    }

    /// How many items of each host wait beside these, where that is bounded.
    async fn waiting_at<'i>(
        &mut self,
        items: &[Adding<'i>],
    ) -> Result<BTreeMap<(Priority, &'i str), u64>, StoreError> {
        let bounded = |priority: Priority| priority < Priority::Firehose;
        let hosts = items.iter().filter(|adding| bounded(adding.item.priority));
        let hosts = hosts.map(|adding| (adding.item.priority, &*adding.item.host));
        let mut waiting: BTreeMap<_, u64> = hosts.map(|at| (at, 0)).collect();
        for ((priority, host), count) in &mut waiting {
            let args = args![priority.number(), *host, HOST_MAX];
            let found = self.fetch_first(WAITING_AT, args, one::count).await?;
            *count = found.unwrap_or_default();
        }
        Ok(waiting)
    }

    /// Which known items wait, or were shed, with less priority than those that came again, or were gone, and
    /// what they are to have. They are not locked, so this may have changed when they are.
    async fn less_urgent(
        &mut self,
        items: impl Iterator<Item = &NewWorkItem>,
    ) -> Result<Vec<(Uuid, Priority)>, StoreError> {
        let mut by_priority: BTreeMap<Priority, Vec<&NewWorkItem>> = BTreeMap::new();
        for item in items {
            by_priority.entry(item.priority).or_default().push(item);
        }
        // Nothing is below the last.
        by_priority.remove(&Priority::Backfill);
        let mut lower = Vec::new();
        for (priority, items) in by_priority {
            let values = items.iter().flat_map(|item| coordinates(item));
            let values = values.map(Arg::from).collect();
            let known = self.fetch(KNOWN.of(items.len()), values, |row| {
                Ok((row.uuid()?, row.next::<String>()?, row.next::<i64>()?))
            });
            let known = known.await?.into_iter();
            let known = known.filter(|(_, state, number)| wants(priority, state, *number));
            lower.extend(known.map(|(id, ..)| (id, priority)));
        }
        Ok(lower)
    }

    /// Gives known items that still wait, or were shed or gone, the priority of those that came again; gives
    /// the sources of those that were shed.
    async fn raise(
        &mut self,
        mut wanted: Vec<(Uuid, Priority)>,
    ) -> Result<Vec<String>, StoreError> {
        wanted.sort_unstable();
        wanted.dedup_by_key(|(id, _)| *id);
        let wanted: BTreeMap<Uuid, Priority> = wanted.into_iter().collect();
        let ids: Vec<Uuid> = wanted.keys().copied().collect();
        let mut raised: BTreeMap<(Priority, bool), Vec<Uuid>> = BTreeMap::new();
        // What is counted is what is changed: the states of rows that are locked stay as they were read.
        let mut shed = Vec::new();
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let rows = self.fetch(LOCK.of(n), args, |row| {
                let (id, state, number) = (row.uuid()?, row.next::<String>()?, row.next::<i64>()?);
                Ok((
                    id,
                    state,
                    number,
                    row.next::<String>()?,
                    row.next::<bool>()?,
                ))
            });
            for (id, state, number, source, gone) in rows.await? {
                let is_done = state == "done";
                let wanted = wanted.get(&id).filter(|_| !is_done || gone);
                let Some(priority) = wanted.filter(|wanted| wants(**wanted, &state, number)) else {
                    continue;
                };
                raised.entry((*priority, is_done)).or_default().push(id);
                if state == "shed" {
                    shed.push(source);
                }
            }
        }
        for ((priority, is_done), ids) in raised {
            let sql = if is_done { REOPEN } else { RAISE };
            for chunk in ids.chunks(LIST_MAX) {
                let mut args = args![priority.number()];
                args.extend(chunk.iter().copied().map(Arg::from));
                let n = pad(&mut args, 1);
                self.execute(sql.clone().of(n), args).await?;
            }
        }
        Ok(shed)
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
            gone,
        } = fetched;
        let args = args![truncated, bytes, blobs, gone, id, worker];
        Ok(self.execute(FINISH, args).await? == 1)
    }
}

/// Whether an item in this state, with this number of a priority, is to be changed when it comes again. What
/// feeds repeat for hours is not asked for each time.
fn wants(priority: Priority, state: &str, number: i64) -> bool {
    match state {
        "done" => priority < Priority::Firehose,
        _ => number > priority.number(),
    }
}

fn coordinates(item: &NewWorkItem) -> [&str; 5] {
    [
        &item.host,
        &item.repository_id,
        &item.ref_name,
        &item.before,
        &item.after,
    ]
}

fn columns(adding: &Adding<'_>, now: Timestamp) -> Vec<Arg> {
    let item = adding.item;
    let lineage = adding.lineage;
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
        adding.turn,
        lineage.map(|lineage| lineage.origin),
        lineage.map_or(0, |lineage| lineage.generation),
        lineage.map(|lineage| u64::from(lineage.parts_left)),
        lineage.map(|lineage| lineage.bytes_left),
        adding
            .part_of()
            .map_or_else(String::new, |id| id.to_string()),
    ]
}
