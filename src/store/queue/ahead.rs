//! Repair of work items that are due too far in the future, because a clock was wrong when their times were set.

use std::time::Duration;

use super::super::db::order::Locks;
use super::super::db::sql::{args, one, statements};
use super::super::{Db, Read as _, Store, StoreError};
use super::micros;

/// Maximum time that an item is postponed, which is a day at a server's request, and a margin for clock differences.
const WAIT_MAX: Duration = Duration::from_hours(25);

/// A time longer than any lease, and a margin for clock differences.
const LEASE_MAX: Duration = Duration::from_mins(10);

statements! {
    /// Each part uses an index, and reads only the rows that it counts.
    AHEAD = "SELECT (SELECT COUNT(*) FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND ready_at > {now} + $1)
        + (SELECT COUNT(*) FROM work_items
            WHERE leased_by IS NOT NULL AND state = 'waiting' AND ready_at > {now} + $2)";
    READY = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL AND ready_at > {now} + $1
            LIMIT $2 {for update skip locked})
        UPDATE work_items SET ready_at = {now}
        WHERE id IN (SELECT picked_id FROM picked)";
    /// A holder that is alive renews the lease before it ends.
    SHORTEN = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND state = 'waiting' AND ready_at > {now} + $2
            LIMIT $3 {for update skip locked})
        UPDATE work_items SET ready_at = {now} + $1
        WHERE id IN (SELECT picked_id FROM picked)";
}

impl Store {
    /// Repairs items that are due later than any valid wait, because a clock was ahead once: those that no worker holds
    /// become ready now, and leases end within `lease` unless their holder renews them. Returns the number of these
    /// items.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn mend_times(&self, lease: Duration) -> Result<u64, StoreError> {
        let (wait_max, lease_max) = (micros(WAIT_MAX), micros(LEASE_MAX));
        let mut read = self;
        let ahead = read
            .fetch_first(AHEAD, args![wait_max, lease_max], one::count)
            .await?
            .unwrap_or_default();
        if ahead == 0 {
            return Ok(0);
        }
        let ready = self
            .in_pieces(Locks::WorkItems, &READY, args![wait_max])
            .await?;
        let args = args![micros(lease), lease_max];
        let shortened = self.in_pieces(Locks::WorkItems, &SHORTEN, args).await?;
        let clock = match &self.0.db {
            Db::Sqlite { .. } => "this machine's clock",
            Db::Postgres(..) => "the clock of the database's server",
        };
        tracing::warn!(
            items = ready + shortened,
            "{clock} was far ahead, or is behind now: work items were to wait for longer than anything waits; \
             they are taken now"
        );
        Ok(ready + shortened)
    }
}
