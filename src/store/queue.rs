//! Queue of work items in the database: adding and finishing them.
//!
//! An item is `waiting`, `done`, `dead` or `shed`. A waiting item that no worker holds may be claimed once its
//! `ready_at` has passed on the database's clock. For an item that is held, `ready_at` is the end of the lease.
//!
//! The number of waiting items is limited, and each new one gets a turn among the other items of its host: see `turns`.
//! Items beyond the limit are not added, but counted and logged.

pub(super) mod again;
pub(super) mod backlog;
pub(super) mod begun;
pub(super) mod beside;
pub(super) mod blobs;
pub(super) mod claim;
pub(super) mod counts;
pub(super) mod give_back;
pub(super) mod holders;
pub(super) mod item;
pub(super) mod list_rest;
pub(super) mod misdated;
pub(super) mod rests;
pub(super) mod row;
pub(super) mod turns;
pub(super) mod unread;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::db::order::Locks;
use super::db::sql::{Arg, LIST_MAX, ROWS_MAX, args, one, pad, runs, statements};
use super::{Read as _, StoreError, Tx};
use item::{Descendant, Fetched, Lineage, NewWorkItem, Part};
use row::from_named;
use turns::{Seat, Turn};

statements! {
    INSERT = "INSERT INTO work_items (id, kind, host, repository_id, repository, clone_url, remote,
            ref_name, before_id, after_id, source, priority, event_at, created_at, state, ready_at,
            tries, truncated, bytes, blobs, owner, level, turn, origin, generation, parts_left, bytes_left,
            part_of, haves, dropped)
        VALUES {rows:30}
        ON CONFLICT (host, remote, ref_name, before_id, after_id, part_of) DO NOTHING RETURNING source";
    /// An item that was read is remembered by its names. Its address, which may be as long as all of these, is needed
    /// only if it was gone or not read to its end, or rests on a branch that may be lost, and may come again. One whose
    /// branch was lost is marked with `-`; see `rests`.
    FINISH = "UPDATE work_items SET state = 'done', leased_by = NULL, last_error = NULL,
            finished_at = {now}, truncated = $1, bytes = $2, blobs = $3, gone = $4, unread = $5,
            clone_url = CASE WHEN $4 OR $5 OR rested_on <> '' THEN clone_url END
        WHERE id = $6 AND leased_by = $7 AND state = 'waiting' AND rested_on <> '-'";
    STORED = concat!(
        "SELECT item.host AS host, item.remote AS remote, item.ref_name AS ref_name, item.before_id AS before_id,
            item.after_id AS after_id ",
        from_named!()
    );
    CUT = "UPDATE work_items SET truncated = TRUE WHERE state = 'done' AND id IN ({list:1})";
    /// What has an address of its own got it from the item.
    CUT_SHORT = "UPDATE work_items SET truncated = TRUE, unread = TRUE, clone_url = cut.column2
        FROM (VALUES {rows:2}) AS cut WHERE id = cut.column1 AND state = 'done'";
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros())
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

/// An item to be added.
#[derive(Debug, Clone, Copy)]
struct Adding<'i> {
    item: &'i NewWorkItem,
    lineage: Option<&'i Lineage>,
    part: Option<&'i Part>,
    turn: Turn,
}

impl<'i> Adding<'i> {
    fn named(item: &'i NewWorkItem) -> Self {
        Self {
            item,
            lineage: None,
            part: None,
            turn: Turn::default(),
        }
    }

    fn derived(descendant: &'i Descendant) -> Self {
        Self {
            item: &descendant.range,
            lineage: Some(&descendant.lineage),
            part: descendant.part.as_ref(),
            turn: Turn::default(),
        }
    }

    fn part_of(&self) -> Option<Uuid> {
        let lineage = self.lineage.filter(|_| self.part.is_some());
        lineage.map(|lineage| lineage.origin)
    }

    fn identity(&self) -> ([Cow<'i, str>; 5], Option<Uuid>) {
        (self.item.coordinates(), self.part_of())
    }
}

/// Items for which there is no room, with their indices.
type Refused<'i> = Vec<(usize, &'i NewWorkItem)>;

/// Items that were added, before the others are counted.
struct Inserted<'i> {
    new: BTreeMap<String, u64>,
    refused: Refused<'i>,
    /// Sources of the items that had been shed.
    revived: Vec<String>,
}

/// Outcome of adding items.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// Number of new items, by source.
    pub(crate) new: BTreeMap<String, u64>,
    /// Indices of the items for which there was no room.
    pub(crate) refused: Vec<usize>,
}

impl Added {
    fn total(&self) -> u64 {
        self.new.values().sum()
    }
}

impl Tx {
    /// Adds work items and returns how many were new. A range that is known is left as it is, whichever source saw it
    /// first, with two exceptions: one that is still waiting, or was shed, takes the more urgent priority, and one that
    /// was gone is fetched again if it is named with some urgency.
    ///
    /// No item is added for a repository, owner or host that has too many waiting. Such items are counted with their
    /// source.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn add_work_items(
        &mut self,
        items: &[NewWorkItem],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let added = self.add_work_items_of_sources(items, now).await?;
        Ok(added.total())
    }

    /// Like [`Tx::add_work_items`], for items of several sources. Returns how many were new for each, and which were
    /// refused.
    pub(crate) async fn add_work_items_of_sources(
        &mut self,
        items: &[NewWorkItem],
        now: Timestamp,
    ) -> Result<Added, StoreError> {
        self.add(items.iter().map(Adding::named).collect(), now)
            .await
    }

    /// Adds items that are derived from others, as [`Tx::add_work_items`] does. If a descendant is refused, its origin
    /// and its parent are marked as truncated, provided that they are finished, and the parent is read again when
    /// something rests on its branch.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn add_descendants(
        &mut self,
        descendants: &[Descendant],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let inserted = self.insert_items(descendants.iter().map(Adding::derived).collect(), now);
        let inserted = inserted.await?;
        let refused = inserted.refused.iter().map(|(at, _)| &descendants[*at]);
        let origins: BTreeSet<Uuid> = refused.map(|refused| refused.lineage.origin).collect();
        let origins: Vec<Uuid> = origins.into_iter().collect();
        for chunk in origins.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            self.execute(CUT.of(n), args).await?;
        }
        let refused = inserted.refused.iter().map(|(at, _)| &descendants[*at]);
        let parents = refused.map(|refused| (refused.parent, refused.range.clone_url.clone()));
        let parents: Vec<_> = parents.collect::<BTreeMap<_, _>>().into_iter().collect();
        for run in runs(parents.len(), ROWS_MAX) {
            let rows = &parents[run];
            let values = rows.iter().flat_map(|(id, url)| args![*id, url.clone()]);
            self.execute(CUT_SHORT.of(rows.len()), values.collect())
                .await?;
        }
        let refused: Vec<&NewWorkItem> = inserted.refused.iter().map(|(_, item)| *item).collect();
        self.reopen_rests(&refused).await?;
        Ok(self.count_inserted(inserted).await?.total())
    }

    async fn add(&mut self, items: Vec<Adding<'_>>, now: Timestamp) -> Result<Added, StoreError> {
        let inserted = self.insert_items(items, now).await?;
        self.count_inserted(inserted).await
    }

    async fn insert_items<'i>(
        &mut self,
        items: Vec<Adding<'i>>,
        now: Timestamp,
    ) -> Result<Inserted<'i>, StoreError> {
        self.locks(Locks::WorkItems);
        let (mut items, refused) = self.in_turn(items).await?;
        // Sorted in the same order in all transactions, so that no two sources wait for each other. Each range occurs
        // once, at its most urgent, since not every database lets a statement conflict with itself.
        items.sort_by_cached_key(|adding| (adding.identity(), adding.item.priority));
        items.dedup_by_key(|adding| adding.identity());
        let mut new = BTreeMap::new();
        let mut known = Vec::new();
        for run in runs(items.len(), ROWS_MAX) {
            let rows = &items[run];
            let values = rows.iter().flat_map(|item| columns(item, now));
            let insert = INSERT.of(rows.len());
            let sources = self.fetch(insert, values.collect(), one::text).await?;
            if sources.len() < rows.len() {
                let named = rows.iter().filter(|adding| adding.part.is_none());
                known.extend(self.less_urgent(named.map(|adding| adding.item)).await?);
            }
            for source in sources {
                *new.entry(source).or_default() += 1;
            }
        }
        let named = items.iter().filter(|adding| adding.lineage.is_none());
        known.extend(self.unread_before(named.map(|adding| adding.item)).await?);
        let revived = self.raise(known).await?;
        Ok(Inserted {
            new,
            refused,
            revived,
        })
    }

    async fn count_inserted(&mut self, inserted: Inserted<'_>) -> Result<Added, StoreError> {
        let Inserted {
            new,
            refused,
            revived,
        } = inserted;
        self.uncount_shed(revived).await?;
        let by_source = by_source(&refused);
        self.count_refused(by_source).await?;
        if let Some((_, item)) = refused.last() {
            let what = format!(
                "{}: too much of its repository, its owner or its host waits",
                item.repository
            );
            let source = item.source.clone();
            self.note_unread(&source, &what).await?;
        }
        let refused = refused.into_iter().map(|(at, _)| at).collect();
        Ok(Added { new, refused })
    }

    /// Gives each item its turn, and separates those for which there is no room. Known ranges need no room.
    async fn in_turn<'i>(
        &mut self,
        items: Vec<Adding<'i>>,
    ) -> Result<(Vec<Adding<'i>>, Refused<'i>), StoreError> {
        let seats: Vec<Seat<'_>> = items.iter().map(|adding| Seat::of(adding.item)).collect();
        let depths = self.depths(&seats).await?;
        let without = items.iter().zip(&depths);
        let without = without.filter(|(adding, depth)| !depth.has_room && adding.part.is_none());
        let known = self.stored(without.map(|(adding, _)| adding.item)).await?;
        let mut kept = Vec::with_capacity(items.len());
        let (mut taken, mut places) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        for ((at, adding), (seat, depth)) in items
            .into_iter()
            .enumerate()
            .zip(seats.into_iter().zip(depths))
        {
            let is_known = || {
                adding.part.is_none()
                    && known.contains(&adding.item.coordinates().map(Cow::into_owned))
            };
            if !depth.has_room && !is_known() {
                refused.push((at, adding.item));
                continue;
            }
            kept.push(adding);
            taken.push(seat);
            places.push(depth);
        }
        let turns = self.turns(&taken, &places).await?;
        for (adding, turn) in kept.iter_mut().zip(turns) {
            adding.turn = turn;
        }
        Ok((kept, refused))
    }

    /// Returns which of these ranges are stored, in any state.
    async fn stored(
        &mut self,
        items: impl Iterator<Item = &NewWorkItem>,
    ) -> Result<HashSet<[String; 5]>, StoreError> {
        let items: Vec<&NewWorkItem> = items.collect();
        let mut stored = HashSet::new();
        for run in runs(items.len(), ROWS_MAX) {
            let rows = &items[run];
            let values = rows.iter().flat_map(|item| item.coordinates());
            let values = values.map(|text| Arg::from(&*text)).collect();
            let found = self.fetch(STORED.of(rows.len()), values, |row| {
                Ok([
                    row.get("host")?,
                    row.get("remote")?,
                    row.get("ref_name")?,
                    row.get("before_id")?,
                    row.get("after_id")?,
                ])
            });
            stored.extend(found.await?);
        }
        Ok(stored)
    }

    /// Marks an item as fetched and scanned. Call this in the transaction that responds to the findings. Returns
    /// `false` if the item is no longer held by this worker, since another one does the same work, or if the branch on
    /// which the reading rests was lost meanwhile, and gives the item back in the latter case.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn finish(
        &mut self,
        id: Uuid,
        worker: &str,
        fetched: Fetched,
    ) -> Result<bool, StoreError> {
        self.locks(Locks::WorkItems);
        let Fetched {
            truncated,
            unread,
            bytes,
            blobs,
            gone,
        } = fetched;
        let args = args![truncated, bytes, blobs, gone, unread, id, worker];
        let is_done = self.execute(FINISH, args).await? == 1;
        if !is_done {
            self.give_marked_back(id, worker).await?;
        }
        Ok(is_done)
    }
}

/// Counts refused items by source, and logs the counts.
fn by_source<'i>(refused: &Refused<'i>) -> BTreeMap<&'i str, u64> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, item) in refused {
        *counts.entry(&item.source).or_default() += 1;
    }
    for (source, items) in &counts {
        tracing::warn!(
            source,
            items,
            "too many work items of a repository, its owner or its host wait: new ones were refused"
        );
    }
    counts
}

fn columns(adding: &Adding<'_>, now: Timestamp) -> Vec<Arg> {
    let item = adding.item;
    let lineage = adding.lineage;
    args![
        Uuid::now_v7(),
        item.kind.name(),
        &item.host,
        &item.repository_id,
        &item.repository,
        item.clone_url.clone(),
        item.remote(),
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
        item.owner(),
        adding.turn.level,
        adding.turn.number,
        lineage.map(|lineage| lineage.origin),
        lineage.map_or(0, |lineage| lineage.generation),
        lineage.map(|lineage| u64::from(lineage.parts_left)),
        lineage.map(|lineage| lineage.bytes_left),
        adding
            .part_of()
            .map_or_else(String::new, |id| id.to_string()),
        adding
            .part
            .map_or_else(String::new, |part| part.haves.join(" ")),
        adding.part.is_some_and(|part| part.is_dropped),
    ]
}
