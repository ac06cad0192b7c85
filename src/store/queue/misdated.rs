//! Repair of work items that are due too far in the future, because a clock was wrong when their times were set.
//!
//! Each item has the time that it was to wait, from when its `ready_at` was set. As long as the clock goes on, it is
//! never further ahead than that.

use std::time::Duration;

use super::super::db::order::Locks;
use super::super::db::sql::{args, one, statements};
use super::super::{Db, Read as _, Store, StoreError};
use super::micros;

/// Time for which it may be ahead in spite of that: clocks are corrected by fractions of a second all the time.
const MARGIN: Duration = Duration::from_secs(2);

/// Maximum time that an item of an earlier version is postponed, which is a day at a server's request, and a margin.
const WAIT_MAX: Duration = Duration::from_hours(25);

/// A time longer than any lease of an earlier version.
const LEASE_MAX: Duration = Duration::from_mins(10);

statements! {
    /// Each part uses an index, and reads only the rows that it counts.
    AHEAD = "SELECT (SELECT COUNT(*) FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL
                AND ready_at > {now} + $3 AND ready_at > {now} + $3 + COALESCE(wait, $1))
        + (SELECT COUNT(*) FROM work_items
            WHERE leased_by IS NOT NULL AND state = 'waiting'
                AND ready_at > {now} + $3 + COALESCE(wait, $2))";
    READY = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE state = 'waiting' AND leased_by IS NULL
                AND ready_at > {now} + $2 AND ready_at > {now} + $2 + COALESCE(wait, $1)
            LIMIT $3 {for update skip locked})
        UPDATE work_items SET ready_at = {now}
        WHERE id IN (SELECT picked_id FROM picked)";
    /// A holder that is alive renews the lease before it ends.
    SHORTEN = "WITH picked AS (SELECT id AS picked_id FROM work_items
            WHERE leased_by IS NOT NULL AND state = 'waiting'
                AND ready_at > {now} + $3 + COALESCE(wait, $2)
            LIMIT $4 {for update skip locked})
        UPDATE work_items SET ready_at = {now} + $1, wait = $1
        WHERE id IN (SELECT picked_id FROM picked)";
}

impl Store {
    /// Repairs items that are due later than they were to wait, because a clock was ahead once: those that no worker
    /// holds become ready now, and leases end within `lease` unless their holder renews them. Returns the number of
    /// these items.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn mend_times(&self, lease: Duration) -> Result<u64, StoreError> {
        let (wait_max, lease_max) = (micros(WAIT_MAX), micros(LEASE_MAX));
        let margin = micros(MARGIN);
        let mut read = self;
        let ahead = read
            .fetch_first(AHEAD, args![wait_max, lease_max, margin], one::count)
            .await?
            .unwrap_or_default();
        if ahead == 0 {
            return Ok(0);
        }
        let ready = self
            .in_pieces(Locks::WorkItems, &READY, args![wait_max, margin])
            .await?;
        let args = args![micros(lease), lease_max, margin];
        let shortened = self.in_pieces(Locks::WorkItems, &SHORTEN, args).await?;
        let clock = match &self.0.db {
            Db::Sqlite { .. } => "this machine's clock",
            Db::Postgres(..) => "the clock of the database's server",
        };
        tracing::warn!(
            items = ready + shortened,
            "{clock} was ahead, or is behind now: work items were to wait for longer than they should; they are taken now"
        );
        Ok(ready + shortened)
    }
}
