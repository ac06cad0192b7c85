//! Items that return to the queue: named again with more urgency, or revived by hand. They get a turn in their new
//! queue, as new items do.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, ROWS_MAX, Row, Sql, args, one, pad, runs, statements};
use super::super::{Read as _, Store, StoreError, Tx};
use super::item::{NewWorkItem, Priority};
use super::row::{deaths, from_named};
use super::turns::Seat;

/// Maximum number of items of a source that are revived in one transaction.
const PIECE: usize = 512;

/// Number of workers that may die while they hold an item before it is dead-lettered.
pub(super) const DEATHS_MAX: u32 = 3;

statements! {
    KNOWN = concat!(
        "SELECT item.id AS id, item.state AS state, item.priority AS priority, item.denials AS denials ",
        from_named!(),
        " WHERE item.state IN ('waiting', 'shed', 'dead') OR item.state = 'done' AND item.gone"
    );
    /// Parts of what was read, which are of the same reference. The parts of a listed one belong to the list.
    PARTS = concat!(
        "SELECT part.id AS id, part.state AS state, part.priority AS priority, part.denials AS denials ",
        from_named!(),
        " JOIN work_items AS part ON part.host = item.host AND part.remote = item.remote
            AND part.ref_name = item.ref_name AND part.part_of = COALESCE(item.origin, item.id)
            AND part.part_of <> ''
        WHERE item.state = 'done' AND (part.state = 'dead' OR part.state = 'done' AND part.gone)"
    );
    LOCK = "SELECT id, priority, host, remote, owner, state, source, gone, unread, denials, deaths FROM work_items
        WHERE id IN ({list:1}) ORDER BY id {for update}";
    /// An item that waits because its server denied it is read at once, like one that was gone.
    RAISE = "UPDATE work_items SET priority = CAST(again.column2 AS BIGINT),
            level = CAST(again.column3 AS BIGINT), turn = CAST(again.column4 AS BIGINT),
            state = 'waiting', finished_at = NULL, denials = 0,
            ready_at = CASE WHEN denials > 0 AND leased_by IS NULL THEN 0 ELSE ready_at END
        FROM (VALUES {rows:4}) AS again WHERE id = again.column1";
    /// Whatever used up its budget has another one: that of a push.
    REOPEN = "UPDATE work_items SET priority = CAST(again.column2 AS BIGINT),
            level = CAST(again.column3 AS BIGINT), turn = CAST(again.column4 AS BIGINT),
            state = 'waiting', finished_at = NULL, gone = FALSE, tries = 0, denials = 0, ready_at = 0,
            parts_left = CASE WHEN unread THEN NULL ELSE parts_left END,
            bytes_left = CASE WHEN unread THEN NULL ELSE bytes_left END, unread = FALSE, truncated = FALSE
        FROM (VALUES {rows:4}) AS again WHERE id = again.column1";
    REVIVE = "UPDATE work_items SET priority = CAST(again.column2 AS BIGINT),
            level = CAST(again.column3 AS BIGINT), turn = CAST(again.column4 AS BIGINT),
            state = 'waiting', finished_at = NULL, tries = 0, denials = 0, ready_at = {now}
        FROM (VALUES {rows:4}) AS again WHERE id = again.column1";
    PUT_OFF = "SELECT id, priority, host, remote, owner FROM work_items
        WHERE state = 'waiting' AND leased_by IS NULL AND lane = 0 AND id IN ({list:1})";
    BEHIND = "UPDATE work_items SET priority = CAST(again.column2 AS BIGINT),
            level = CAST(again.column3 AS BIGINT), turn = CAST(again.column4 AS BIGINT)
        FROM (VALUES {rows:4}) AS again WHERE id = again.column1";
    DEAD = "SELECT id, priority, host, remote, owner FROM work_items
        WHERE state = 'dead' AND id IN ({list:1}) ORDER BY id {for update}";
    /// The redundant `state <> 'waiting'` is what lets SQLite use the index of finished items.
    DEAD_OF = "SELECT id FROM work_items
        WHERE state = 'dead' AND state <> 'waiting' AND source = $1 AND id > $2 ORDER BY id LIMIT $3";
    SOURCE = "SELECT source FROM work_items WHERE id = $1";
}

/// An item that returns to the queue.
pub(super) struct Again {
    id: Uuid,
    /// Number of the priority that it has, or is to have.
    priority: i64,
    host: String,
    remote: String,
    owner: String,
}

impl Again {
    pub(super) fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.uuid("id")?,
            priority: row.get("priority")?,
            host: row.get("host")?,
            remote: row.get("remote")?,
            owner: row.get("owner")?,
        })
    }

    fn seat(&self) -> Seat<'_> {
        // A damaged priority becomes the lowest one.
        let priority = Priority::from_number(self.priority).unwrap_or(Priority::Backfill);
        Seat::new(priority, &self.host, &self.remote, &self.owner)
    }
}

impl Tx {
    /// Returns the known items that have to be raised, with their new priorities: those that are waiting or were shed
    /// with a lower priority than the items named again, and those that were gone, denied or dead-lettered, or parts of
    /// them were. They are not locked, so this may have changed once they are.
    pub(in crate::store) async fn less_urgent(
        &mut self,
        items: impl Iterator<Item = &NewWorkItem>,
    ) -> Result<Vec<(Uuid, Priority)>, StoreError> {
        let mut by_priority: BTreeMap<Priority, Vec<&NewWorkItem>> = BTreeMap::new();
        for item in items {
            by_priority.entry(item.priority).or_default().push(item);
        }
        // No priority is lower than the last one.
        by_priority.remove(&Priority::Backfill);
        let mut lower = Vec::new();
        for (priority, items) in by_priority {
            let values = items.iter().flat_map(|item| item.coordinates());
            let values: Vec<Arg> = values.map(|text| Arg::from(&*text)).collect();
            let read = |row: &Row<'_>| -> Result<_, StoreError> {
                Ok((
                    row.uuid("id")?,
                    row.get::<String>("state")?,
                    row.get::<i64>("priority")?,
                    row.get::<i64>("denials")? > 0,
                ))
            };
            let mut known = self
                .fetch(KNOWN.of(items.len()), values.clone(), read)
                .await?;
            // Feeds repeat themselves, and parts are not fetched anew for that.
            if priority < Priority::Firehose {
                let parts = self.fetch(PARTS.of(items.len()), values, read);
                known.extend(parts.await?);
            }
            let known = known.into_iter().filter(|(_, state, number, is_denied)| {
                wants(priority, state, *number, *is_denied)
            });
            lower.extend(known.map(|(id, ..)| (id, priority)));
        }
        Ok(lower)
    }

    /// Raises known items that are still waiting, or were shed, gone, dead-lettered or not read to their end, to the
    /// priority of those that were named again. One whose workers died stays dead-lettered: it is for somebody to look at. Returns the sources of
    /// those that were shed.
    pub(in crate::store) async fn raise(
        &mut self,
        mut wanted: Vec<(Uuid, Priority)>,
    ) -> Result<Vec<String>, StoreError> {
        wanted.sort_unstable();
        wanted.dedup_by_key(|(id, _)| *id);
        let wanted: BTreeMap<Uuid, Priority> = wanted.into_iter().collect();
        let ids: Vec<Uuid> = wanted.keys().copied().collect();
        let (mut raised, mut reopened) = (Vec::new(), Vec::new());
        // Only rows that are changed are counted: their states cannot change any more once they are locked.
        let mut shed = Vec::new();
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let rows = self.fetch(LOCK.of(n), args, |row| {
                let again = Again::of(row)?;
                let (state, source) = (row.get::<String>("state")?, row.get::<String>("source")?);
                let is_denied = row.get::<i64>("denials")? > 0;
                let may_reopen = match &*state {
                    "done" => Some(row.get::<bool>("gone")? || row.get::<bool>("unread")?),
                    "dead" => Some(deaths(row.get("deaths")?) < DEATHS_MAX),
                    _ => None,
                };
                Ok((again, state, source, may_reopen, is_denied))
            });
            for (again, state, source, may_reopen, is_denied) in rows.await? {
                let is_ended = may_reopen.is_some();
                let wanted = wanted.get(&again.id).filter(|_| may_reopen != Some(false));
                let is_less =
                    |wanted: &&Priority| wants(**wanted, &state, again.priority, is_denied);
                let Some(priority) = wanted.filter(is_less) else {
                    continue;
                };
                if state == "shed" {
                    shed.push(source);
                }
                let again = Again {
                    priority: if is_ended {
                        priority.number()
                    } else {
                        priority.number().min(again.priority)
                    },
                    ..again
                };
                if is_ended { &mut reopened } else { &mut raised }.push(again);
            }
        }
        self.come_again(&RAISE, &raised).await?;
        self.come_again(&REOPEN, &reopened).await?;
        Ok(shed)
    }

    /// Gives locked items a turn in their new queue.
    pub(super) async fn come_again(
        &mut self,
        sql: &Sql,
        items: &[Again],
    ) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        let seats: Vec<Seat<'_>> = items.iter().map(Again::seat).collect();
        // Items that were accepted once always have room.
        let depths = self.depths(&seats).await?;
        let turns = self.turns(&seats, &depths).await?;
        let rows: Vec<_> = items.iter().zip(turns).collect();
        for run in runs(rows.len(), ROWS_MAX) {
            let rows = &rows[run];
            let values = rows
                .iter()
                .flat_map(|(again, turn)| args![again.id, again.priority, turn.level, turn.number]);
            let values: Vec<Arg> = values.collect();
            self.execute(sql.clone().of(rows.len()), values).await?;
        }
        Ok(())
    }

    /// Gives items that were just put off a new turn in their queue, behind what waits there. Those in the other lanes,
    /// whose places are shared out by time, keep theirs.
    pub(in crate::store) async fn lose_turns(&mut self, ids: &[Uuid]) -> Result<(), StoreError> {
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let put_off = self.fetch(PUT_OFF.of(n), args, Again::of).await?;
            self.come_again(&BEHIND, &put_off).await?;
        }
        Ok(())
    }

    /// Puts those of the items that were dead-lettered back into the queue. Returns their identifiers.
    async fn revive(&mut self, mut ids: Vec<Uuid>) -> Result<HashSet<Uuid>, StoreError> {
        self.locks(Locks::WorkItems);
        ids.sort_unstable();
        ids.dedup();
        let mut revived = HashSet::with_capacity(ids.len());
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let dead = self.fetch(DEAD.of(n), args, Again::of).await?;
            self.come_again(&REVIVE, &dead).await?;
            revived.extend(dead.iter().map(|again| again.id));
        }
        Ok(revived)
    }
}

impl Store {
    /// Puts a dead-lettered item back into the queue with all its tries. Returns `false` if there is no such item.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn revive(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(!self.revive_these(&[id]).await?.is_empty())
    }

    /// Puts dead-lettered items back into the queue, all in one transaction. Returns the identifiers of those that
    /// existed.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change, in which case no item was revived.
    pub async fn revive_these(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let revived = tx.revive(ids.to_vec()).await?;
            tx.commit().await?;
            Ok(revived)
        })
        .await
    }

    /// Like [`Store::revive`], but ignores an item of another source.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn revive_of(&self, source: &str, id: Uuid) -> Result<bool, StoreError> {
        // An item never changes its source.
        let mut read = self;
        let whose = read.fetch_first(SOURCE, args![id], one::text).await?;
        if whose.as_deref() != Some(source) {
            return Ok(false);
        }
        self.revive(id).await
    }

    /// Puts all dead-lettered items of a source back into the queue, in pieces, so that no other transaction waits for
    /// long. Returns how many there were.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change. The pieces before an error remain revived.
    pub async fn revive_all(&self, source: &str) -> Result<u64, StoreError> {
        let mut read = self;
        let (mut total, mut after) = (0, Uuid::nil());
        loop {
            let args = args![source, after, PIECE as u64];
            let dead = read.fetch(DEAD_OF, args, one::uuid).await?;
            let Some(last) = dead.last() else {
                return Ok(total);
            };
            // Those that die again meanwhile are not met again.
            after = *last;
            total += self.revive_these(&dead).await?.len() as u64;
            if dead.len() < PIECE {
                return Ok(total);
            }
        }
    }
}

/// Returns whether an item in this state, and with this number of a priority, has to be changed when it is named again.
/// Items that were gone, denied or dead-lettered are not fetched anew each time, since feeds repeat their events for hours.
fn wants(priority: Priority, state: &str, number: i64, is_denied: bool) -> bool {
    match state {
        "done" | "dead" => priority < Priority::Firehose,
        _ => number > priority.number() || is_denied && priority < Priority::Firehose,
    }
}
