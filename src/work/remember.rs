//! Persistence of the ids of clean blobs for the next start, in small transactions that yield to all others.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::fetch::ObjectId;
use crate::store::StoreError;

/// Maximum number of scanned blobs in the database; a worker holds about as many in memory.
pub const KNOWN_BLOBS: u32 = 200_000;

/// Number of blobs per transaction.
const PIECE: usize = 512;

/// Pause between two transactions.
const PAUSE: Duration = Duration::from_millis(100);

/// Number of new blobs after which the oldest are deleted.
const FORGET_AFTER: usize = 50_000;

impl Worker {
    /// Writes the ids of clean blobs to the database until `stop` is canceled. Blobs that are not written by then, or
    /// cannot be, are scanned again at some point.
    pub async fn keep_clean_blobs(&self, stop: &CancellationToken) {
        let keeping = async {
            let mut written = 0;
            loop {
                self.shared.clean.more().await;
                written += self.write_clean_blobs().await;
                if written >= FORGET_AFTER {
                    written = 0;
                    self.forget_clean_blobs().await;
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            () = stop.cancelled() => {}
        }
    }

    /// Writes all pending ids to the database. Returns the number of blobs written.
    pub(super) async fn write_clean_blobs(&self) -> usize {
        let clean = &self.shared.clean;
        let mut written = 0;
        loop {
            let ids = clean.take_unwritten(PIECE);
            if ids.is_empty() {
                break;
            }
            match self.write_piece(&ids).await {
                Ok(()) => written += ids.len(),
                Err(error) => {
                    tracing::warn!(%error, blobs = ids.len(), "saving clean blobs failed, they are scanned again");
                    clean.leave_out(ids.len() as u64);
                }
            }
            if ids.len() == PIECE {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let left_out = clean.take_left_out();
        if left_out > 0 {
            tracing::info!(
                blobs = left_out,
                "too many clean blobs: some are scanned again when they are pushed again"
            );
        }
        written
    }

    async fn write_piece(&self, ids: &[ObjectId]) -> Result<(), StoreError> {
        let parts = &self.shared.parts;
        let ids = ids.iter().map(ObjectId::as_slice).collect();
        let now = parts.clock.now();
        parts.store.remember_blobs(&self.ruleset, ids, now).await
    }

    async fn forget_clean_blobs(&self) {
        match self
            .shared
            .parts
            .store
            .forget_scanned_blobs(KNOWN_BLOBS)
            .await
        {
            Ok(blobs) => tracing::debug!(blobs, "clean blobs were forgotten"),
            Err(error) => tracing::warn!(%error, "forgetting clean blobs failed, will retry"),
        }
    }
}
