//! Blobs that were scanned and contain no candidate. They need not be scanned again with the same key formats.

use jiff::Timestamp;

use super::super::db::gate::Urgency;
use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, args, one, runs, statements};
use super::super::{Read, Store, StoreError, Tx};

/// Maximum number of rows per statement.
const ROWS_MAX: usize = 256;

statements! {
    NEWEST = "SELECT blob FROM scanned_blobs WHERE ruleset = $1 ORDER BY scanned_at DESC LIMIT $2";
    ADD = "INSERT INTO scanned_blobs (ruleset, blob, scanned_at) VALUES {rows:3}
        ON CONFLICT (ruleset, blob) DO NOTHING";
    OLDEST_KEPT = "SELECT scanned_at FROM scanned_blobs ORDER BY scanned_at DESC LIMIT 1 OFFSET $1";
    FORGET = "DELETE FROM scanned_blobs WHERE (ruleset, blob) IN (
        SELECT ruleset, blob FROM scanned_blobs WHERE scanned_at < $1 ORDER BY scanned_at LIMIT $2)";
}

impl Store {
    /// Returns the object ids of the blobs that were last scanned with this set of key formats, at most `limit`.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn scanned_blobs(
        &self,
        ruleset: &str,
        limit: u32,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut read = self;
        read.fetch(NEWEST, args![ruleset, limit], one::bytes).await
    }

    /// Records the object ids of blobs that were scanned with this set of key formats and contain no candidate. Uses a
    /// transaction of its own that lets all others go first.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn remember_blobs(
        &self,
        ruleset: &str,
        ids: Vec<&[u8]>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        retried(|| async {
            let mut tx = store.begin().await?;
            tx.add_scanned_blobs(ruleset, ids.clone(), now).await?;
            tx.commit().await
        })
        .await
    }

    /// Deletes all but about `keep` of the blobs, keeping those that were scanned last, in batches. Returns how many
    /// were deleted.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_scanned_blobs(&self, keep: u32) -> Result<u64, StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        let mut read = &store;
        let Some(oldest) = read
            .fetch_first(OLDEST_KEPT, args![keep], one::time)
            .await?
        else {
            return Ok(0);
        };
        self.in_pieces(Locks::Blobs, &FORGET, args![oldest]).await
    }
}

impl Tx {
    /// Records the object ids of blobs that were scanned with this set of key formats and contain no candidate.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn add_scanned_blobs(
        &mut self,
        ruleset: &str,
        mut ids: Vec<&[u8]>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Blobs);
        // Sorted in the same order in all transactions, so that no two workers wait for each other.
        ids.sort_unstable();
        ids.dedup();
        for run in runs(ids.len(), ROWS_MAX) {
            let rows = &ids[run];
            let values = rows
                .iter()
                .flat_map(|id| args![ruleset, Arg::Bytes(id.to_vec()), now]);
            self.execute(ADD.of(rows.len()), values.collect()).await?;
        }
        Ok(())
    }
}
