//! Bounds on what one fetch may take, and the memory that all of them share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::FetchError;

/// What a pack may hold before it needs the lane for large ones.
pub(super) const SMALL_PACK: usize = 4 << 20;

/// What the inflated objects of one pack may hold before its visit needs the lane for heavy ones.
const LIGHT_VISIT: usize = 8 << 20;

/// Bounds on one fetch. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Pack bytes received for one range. What comes beyond is not read.
    pub max_fetch_bytes: u64,
    /// Size of one object, inflated. Larger ones are left out.
    pub max_blob_bytes: u64,
    /// Bytes inflated for one pack, the results of deltas included.
    pub max_inflated_bytes: u64,
    /// Objects in one pack.
    pub max_objects: u32,
    /// Fetches under way at the same time, each with up to 4 MiB of pack. One of them at a time may be
    /// larger.
    pub concurrent: usize,
    /// How long the server may send nothing.
    pub stall: Duration,
    /// How long one request may take in all.
    pub total: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_fetch_bytes: 256 << 20,
            max_blob_bytes: 32 << 20,
            max_inflated_bytes: 4 << 30,
            max_objects: 500_000,
            concurrent: 8,
            stall: Duration::from_secs(30),
            total: Duration::from_mins(10),
        }
    }
}

/// The memory that concurrent fetches share: many small packs or one large one, and the same for what is
/// inflated from them. So the most that is held is known, whatever is pushed.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    heavy: Mutex<()>,
}

impl Budget {
    pub(super) fn new(concurrent: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(concurrent.max(1))),
            large: Arc::new(Semaphore::new(1)),
            heavy: Mutex::new(()),
        }
    }

    /// Waits for a place among the fetches under way.
    pub(super) async fn admit(&self) -> Result<Admission, FetchError> {
        let small = Arc::clone(&self.small);
        let permit = small.acquire_owned().await.map_err(|_| FetchError::Busy)?;
        Ok(Admission {
            _small: permit,
            large: None,
        })
    }

    fn heavy(&self) -> MutexGuard<'_, ()> {
        self.heavy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one fetch. Given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    _small: OwnedSemaphorePermit,
    large: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Makes sure that packs of `bytes` in all may be held, waiting up to `patience` for the large lane.
    pub(super) async fn cover(
        &mut self,
        budget: &Budget,
        bytes: usize,
        patience: Duration,
    ) -> Result<(), FetchError> {
        if bytes <= SMALL_PACK || self.large.is_some() {
            return Ok(());
        }
        let large = Arc::clone(&budget.large).acquire_owned();
        match tokio::time::timeout(patience, large).await {
            Ok(Ok(permit)) => {
                self.large = Some(permit);
                Ok(())
            }
            _ => Err(FetchError::Busy),
        }
    }
}

/// What one visit holds in memory. From [`LIGHT_VISIT`] on it has the lane of heavy visits for itself, to
/// its end.
#[derive(Debug)]
pub(super) struct Weight<'b> {
    budget: &'b Budget,
    heavy: Option<MutexGuard<'b, ()>>,
    held: usize,
}

impl<'b> Weight<'b> {
    pub(super) fn new(budget: &'b Budget) -> Self {
        Self {
            budget,
            heavy: None,
            held: 0,
        }
    }

    /// Counts `bytes` in, waiting for the lane of heavy visits where needed. Blocks the thread.
    pub(super) fn add(&mut self, bytes: usize) {
        self.held += bytes;
        if self.held > LIGHT_VISIT && self.heavy.is_none() {
            self.heavy = Some(self.budget.heavy());
        }
    }

    /// Counts `bytes` out.
    pub(super) fn sub(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_large_pack_at_a_time() {
        let budget = Budget::new(2);
        let patience = Duration::from_millis(1);
        let mut first = budget.admit().await.unwrap();
        let mut second = budget.admit().await.unwrap();
        first
            .cover(&budget, SMALL_PACK + 1, patience)
            .await
            .unwrap();
        second.cover(&budget, SMALL_PACK, patience).await.unwrap();
        let busy = second.cover(&budget, SMALL_PACK + 1, patience).await;
        assert!(matches!(busy, Err(FetchError::Busy)));
        drop(first);
        second
            .cover(&budget, SMALL_PACK + 1, patience)
            .await
            .unwrap();
    }
}
