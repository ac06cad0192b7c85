//! Order in which the items of a host are taken, and limits on how many may wait.
//!
//! A queue consists of the waiting items of one host at one priority, and is taken in the order of `turn`. A turn is a
//! point in the virtual time of the queue, whose present is where items are being taken: an owner with nothing waiting
//! gets the present, and an owner with items waiting gets a point after his last. The items of one owner, however many
//! there are and however many repositories they were pushed to, are thus interleaved one at a time with those of the
//! others. An item that waits is overtaken by at most one item of each other owner per step, so it is taken eventually,
//! whatever arrives.
//!
//! The repositories of an owner are separated by levels. The first item of a repository has level 0, the second level
//! 1, the third and the fourth level 2, and so on, each level holding twice as many as the previous one. Each level of
//! an owner is a row of its own, with steps that are longer the higher the level: a quiet repository does not wait for
//! a busy one of the same owner. All rows together have at most some three turns of each step, and of equal turns the
//! lower level comes first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::db::sql::{Arg, ROWS_MAX, args, one, runs, statements};
use super::super::{Read as _, StoreError, Tx};
use super::item::{Lane, NewWorkItem, Priority};

/// Maximum number of waiting items of one repository at one priority.
const REPOSITORY_MAX: u64 = 10_000;

/// Number of items of a repository that are accepted even if its owner or its host has too many: the pushes of others
/// must not prevent a leak in it from being read.
const REPOSITORY_MIN: u64 = 16;

/// Maximum number of waiting items of one host at one priority, unless they would be shed if there are too many or were
/// requested by hand.
const HOST_MAX: u64 = 50_000;

/// Maximum number of waiting items of a host, whatever their owners: whoever signs deliveries can invent owners.
const HOST_END: u64 = 4 * HOST_MAX;

/// Portion of [`HOST_MAX`] that a single owner can take.
const OWNER_MAX: u64 = HOST_MAX / 2;

/// Number of items of an owner that are accepted even if the host has reached [`HOST_MAX`].
const OWNER_MIN: u64 = 256;

/// Maximum number of waiting items of an owner, whatever their repositories, whose number is unlimited.
const OWNER_END: u64 = HOST_MAX;

/// Number of items at the front of a queue that are examined to find where it is being taken. This is too few only if
/// as many items have failed and wait for a retry.
const FRONT_MAX: u64 = 64;

statements! {
    WAITING_OF = "SELECT CAST(line.column1 AS BIGINT) AS line_number, (SELECT COUNT(*) FROM work_items
            WHERE state = 'waiting' AND host = line.column2 AND remote = line.column3
                AND priority = CAST(line.column4 AS BIGINT)) AS waiting
        FROM (VALUES {rows:4}) AS line";
    /// Of all lanes, as for owners: whoever gets items moved to another lane has no more room for it. The few that
    /// workers hold are not counted, so that the index of the queues serves.
    WAITING_AT = "SELECT COUNT(*) FROM (SELECT 1 FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND lane IN (0, 1, 2, 3)
                AND priority = $1 AND host = $2 LIMIT $3) AS found";
    OWNED = "SELECT COUNT(*) FROM (SELECT 1 FROM work_items
            WHERE state = 'waiting' AND host = $1 AND owner = $2 AND priority = $3 LIMIT $4) AS found";
    LAST = "SELECT CAST(line.column1 AS BIGINT) AS line_number, (SELECT MAX(turn) FROM work_items
            WHERE state = 'waiting' AND host = line.column2 AND owner = line.column3
                AND priority = CAST(line.column4 AS BIGINT) AND level = CAST(line.column5 AS BIGINT)) AS last
        FROM (VALUES {rows:5}) AS line";
    /// The redundant `leased_by > ''` is what lets SQLite use the index of held items.
    TAKEN = "SELECT priority, host, turn FROM work_items
        WHERE leased_by IS NOT NULL AND leased_by > '' AND state = 'waiting' AND lane = 0";
    FRONT = "SELECT COALESCE(MIN(CASE WHEN ready_at <= {now} THEN turn END), MAX(turn))
        FROM (SELECT turn, ready_at FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND lane = $1 AND priority = $2 AND host = $3
            ORDER BY turn LIMIT $4) AS front";
}

/// Properties that determine the turn of an item.
#[derive(Debug, Clone)]
pub(in crate::store) struct Seat<'i> {
    priority: Priority,
    host: &'i str,
    remote: Cow<'i, str>,
    owner: Cow<'i, str>,
}

/// Place of an item in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Turn {
    pub(in crate::store) level: u64,
    pub(in crate::store) number: u64,
}

/// Number of items of the same repository that wait before an item.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Depth {
    before: u64,
    pub(in crate::store) has_room: bool,
}

/// Key of a queue: the items that take turns with each other.
type QueueName<'i> = (Priority, &'i str);

/// Key of the items of an owner in a queue.
type OwnerName<'i> = (Priority, &'i str, &'i str);

impl<'i> Seat<'i> {
    pub(in crate::store) fn of(item: &'i NewWorkItem) -> Self {
        Self {
            priority: item.priority,
            host: &item.host,
            remote: Cow::Owned(item.remote()),
            owner: Cow::Owned(item.owner()),
        }
    }

    pub(in crate::store) fn new(
        priority: Priority,
        host: &'i str,
        remote: &'i str,
        owner: &'i str,
    ) -> Self {
        Self {
            priority,
            host,
            remote: Cow::Borrowed(remote),
            owner: Cow::Borrowed(owner),
        }
    }

    fn queue(&self) -> QueueName<'i> {
        (self.priority, self.host)
    }

    fn owned(&self) -> OwnerName<'_> {
        (self.priority, self.host, &self.owner)
    }

    fn repository(&self) -> (Priority, &str, &str) {
        (self.priority, self.host, &self.remote)
    }
}

/// Returns the level of an item, given the number of items of its repository that wait before it.
fn level(depth: u64) -> u64 {
    u64::from(u64::BITS - depth.leading_zeros())
}

/// Items that wait besides those that are being added.
struct Crowd<'s> {
    of_repository: BTreeMap<(Priority, &'s str, &'s str), u64>,
    /// Only for queues with a limit.
    at_host: BTreeMap<QueueName<'s>, u64>,
    /// Only for owners whose limit may be reached.
    of_owner: BTreeMap<OwnerName<'s>, u64>,
}

impl<'s> Crowd<'s> {
    /// Returns whether there is room for one more item.
    fn has_room(&self, seat: &'s Seat<'_>, depth: u64) -> bool {
        let at_host = self.at_host.get(&seat.queue()).copied();
        let of_owner = self.of_owner.get(&seat.owned()).copied();
        let (at_host, of_owner) = (at_host.unwrap_or_default(), of_owner.unwrap_or_default());
        let is_quiet = depth < REPOSITORY_MIN || of_owner < OWNER_MIN;
        let is_within = of_owner < OWNER_MAX && at_host < HOST_MAX;
        let is_at_end = depth >= REPOSITORY_MAX || of_owner >= OWNER_END || at_host >= HOST_END;
        !is_at_end && (is_quiet || is_within)
    }

    fn add(&mut self, seat: &'s Seat<'_>) {
        *self.of_repository.entry(seat.repository()).or_default() += 1;
        if let Some(count) = self.at_host.get_mut(&seat.queue()) {
            *count += 1;
        }
        if let Some(count) = self.of_owner.get_mut(&seat.owned()) {
            *count += 1;
        }
    }
}

impl Tx {
    /// Returns for each item, in order, how many items of its repository come before it, and whether there is room.
    pub(in crate::store) async fn depths(
        &mut self,
        seats: &[Seat<'_>],
    ) -> Result<Vec<Depth>, StoreError> {
        let at_host = self.waiting_at(seats).await?;
        let mut crowd = Crowd {
            of_repository: self.waiting_of(seats).await?,
            of_owner: self.owned(seats, &at_host).await?,
            at_host,
        };
        let mut depths = Vec::with_capacity(seats.len());
        for seat in seats {
            let before = crowd.of_repository.get(&seat.repository());
            let before = before.copied().unwrap_or_default();
            let has_room = crowd.has_room(seat, before);
            if has_room {
                crowd.add(seat);
            }
            depths.push(Depth { before, has_room });
        }
        Ok(depths)
    }

    /// Returns the turn of each item, in order, given the number of items of its repository that come before it.
    pub(in crate::store) async fn turns(
        &mut self,
        seats: &[Seat<'_>],
        depths: &[Depth],
    ) -> Result<Vec<Turn>, StoreError> {
        let levels = depths.iter().map(|depth| level(depth.before));
        let lines: Vec<_> = seats
            .iter()
            .zip(levels)
            .map(|(seat, level)| (seat.owned(), level))
            .collect();
        let mut last: BTreeMap<_, Option<u64>> = lines.iter().map(|line| (*line, None)).collect();
        self.last_turns(&mut last).await?;
        let present = self.presents(seats).await?;
        let turns = seats.iter().zip(lines).map(|(seat, line)| {
            let (_, level) = line;
            let present = present.get(&seat.queue()).copied().unwrap_or_default();
            let before = last.entry(line).or_default();
            let next = before.map_or(0, |last| last.saturating_add(1 + level));
            let number = next.max(present.saturating_add(level));
            *before = Some(number);
            Turn { level, number }
        });
        Ok(turns.collect())
    }

    /// Returns the number of waiting items of each repository, by priority.
    async fn waiting_of<'s>(
        &mut self,
        seats: &'s [Seat<'_>],
    ) -> Result<BTreeMap<(Priority, &'s str, &'s str), u64>, StoreError> {
        let repositories = seats.iter().map(|seat| (seat.repository(), 0));
        let mut waiting: BTreeMap<_, u64> = repositories.collect();
        let mut all: Vec<_> = waiting.iter_mut().collect();
        for run in runs(all.len(), ROWS_MAX) {
            let rows = &mut all[run];
            let values = rows.iter().enumerate().flat_map(|(at, (repository, _))| {
                let (priority, host, id) = **repository;
                args![at as u64, host, id, priority.number()]
            });
            let values: Vec<Arg> = values.collect();
            let found = self.fetch(WAITING_OF.of(rows.len()), values, |row| {
                Ok((row.count("line_number")?, row.count("waiting")?))
            });
            for (at, count) in found.await? {
                let row = usize::try_from(at).ok().and_then(|at| rows.get_mut(at));
                if let Some((_, waiting)) = row {
                    **waiting = count;
                }
            }
        }
        Ok(waiting)
    }

    /// Returns the number of other items that wait at each host, for queues with a limit.
    async fn waiting_at<'s>(
        &mut self,
        seats: &'s [Seat<'_>],
    ) -> Result<BTreeMap<QueueName<'s>, u64>, StoreError> {
        let bounded = seats
            .iter()
            .filter(|seat| seat.priority < Priority::Firehose);
        let mut waiting: BTreeMap<_, u64> = bounded.map(|seat| (seat.queue(), 0)).collect();
        for ((priority, host), count) in &mut waiting {
            let args = args![priority.number(), *host, HOST_END];
            let found = self.fetch_first(WAITING_AT, args, one::count).await?;
            *count = found.unwrap_or_default();
        }
        Ok(waiting)
    }

    /// Returns the number of other items of each owner that wait, for hosts where so many wait that it matters.
    async fn owned<'s>(
        &mut self,
        seats: &'s [Seat<'_>],
        at_host: &BTreeMap<QueueName<'_>, u64>,
    ) -> Result<BTreeMap<OwnerName<'s>, u64>, StoreError> {
        let added = seats.len() as u64;
        let matters = |seat: &&Seat<'_>| {
            let waiting = at_host.get(&seat.queue());
            waiting.is_some_and(|waiting| waiting + added > OWNER_MAX)
        };
        let owners = seats.iter().filter(matters).map(|seat| (seat.owned(), 0));
        let mut owners: BTreeMap<_, u64> = owners.collect();
        for ((priority, host, owner), count) in &mut owners {
            let args = args![*host, *owner, priority.number(), OWNER_END];
            let found = self.fetch_first(OWNED, args, one::count).await?;
            *count = found.unwrap_or_default();
        }
        Ok(owners)
    }

    /// Looks up the last turn of each row of an owner.
    async fn last_turns(
        &mut self,
        lines: &mut BTreeMap<(OwnerName<'_>, u64), Option<u64>>,
    ) -> Result<(), StoreError> {
        let mut all: Vec<_> = lines.iter_mut().collect();
        for run in runs(all.len(), ROWS_MAX) {
            let rows = &mut all[run];
            let values = rows.iter().enumerate().flat_map(|(at, (line, _))| {
                let ((priority, host, owner), level) = **line;
                args![at as u64, host, owner, priority.number(), level]
            });
            let values: Vec<Arg> = values.collect();
            let found = self.fetch(LAST.of(rows.len()), values, |row| {
                Ok((row.count("line_number")?, row.optional_count("last")?))
            });
            for (at, turn) in found.await? {
                let row = usize::try_from(at).ok().and_then(|at| rows.get_mut(at));
                if let Some((_, last)) = row {
                    **last = turn;
                }
            }
        }
        Ok(())
    }

    /// Returns the present of each queue, which is where it is being taken.
    async fn presents<'s>(
        &mut self,
        seats: &'s [Seat<'_>],
    ) -> Result<BTreeMap<QueueName<'s>, u64>, StoreError> {
        let queues = seats.iter().map(|seat| (seat.queue(), 0));
        let mut presents: BTreeMap<_, u64> = queues.collect();
        let taken = self.fetch(TAKEN, args![], |row| {
            Ok(((row.get("priority")?, row.get("host")?), row.count("turn")?))
        });
        let mut last: BTreeMap<(i64, String), u64> = BTreeMap::new();
        for (queue, turn) in taken.await? {
            let last = last.entry(queue).or_default();
            *last = turn.max(*last);
        }
        for ((priority, host), present) in &mut presents {
            let queue = (priority.number(), (*host).to_owned());
            *present = last.get(&queue).copied().unwrap_or_default();
            // Items in the other lanes keep the turns that they had.
            for lane in Lane::ALL {
                let args = args![lane.number(), priority.number(), *host, FRONT_MAX];
                let front = self.fetch_first(FRONT, args, one::optional_count);
                if let Some(front) = front.await?.flatten() {
                    *present = front.max(*present);
                    break;
                }
                if *present > 0 {
                    break;
                }
            }
        }
        Ok(presents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_holds_twice_as_many_as_the_one_before() {
        let levels = [0, 1, 2, 3, 4, 7, 8, 9_999].map(level);
        assert_eq!(levels, [0, 1, 2, 2, 3, 3, 4, 14]);
        let of_each_step: f64 = (1_u32..=15).map(|step| 1.0 / f64::from(step)).sum();
        assert!(of_each_step < 3.5, "{of_each_step}");
    }
}
