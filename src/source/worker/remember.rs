//! Which blobs need not be scanned again is written down for the next start, in small transactions that let
//! all others go first.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::fetch::ObjectId;
use crate::store::StoreError;

/// How many scanned blobs are kept for the next start; a worker remembers about as many.
pub const KNOWN_BLOBS: u32 = 200_000;

/// The blobs of one transaction.
const PIECE: usize = 512;

/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// After so many new blobs the oldest are forgotten.
const FORGET_AFTER: usize = 50_000;

impl Worker {
    /// Writes down which blobs need not be scanned again, until `stop` is cancelled. What is not written
    /// by then, or cannot be, is scanned again some time.
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

    /// Writes down what is there to be written; says how many blobs.
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
                    tracing::warn!(%error, blobs = ids.len(), "clean blobs are scanned again some time");
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
                "too many clean blobs to remember: they are scanned again when they come again"
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
            Err(error) => tracing::warn!(%error, "clean blobs are forgotten later"),
        }
    }
}
