//! Limits of a fetch.

use std::time::Duration;

use super::lane::FetchLane;
use super::pace::PaceLimits;
use crate::memory;

/// Number of bytes that may be inflated from any pack.
const BASE_ALLOWANCE: u64 = 64 << 20;

/// Number of additional bytes that may be inflated for each byte of a pack. Source code deflates to a
/// quarter, deltas to less. A history that needs more is read in halves.
const ALLOWANCE_RATIO: u64 = 32;

/// Number of bytes that may be inflated from any pack to find the ends of its objects, without being kept. Zeros deflate
/// to a thousandth, and objects that follow a file of them are to be found: this much takes a quarter of a second.
const BASE_LISTED: u64 = 256 << 20;

/// Limits of a fetch. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Maximum size of the packs received for one range. Anything beyond is not read.
    pub max_fetch_bytes: u64,
    /// Maximum size of the packs that are held at a time. A history that is larger is read in halves, a
    /// single commit part by part.
    pub max_held_bytes: usize,
    /// Maximum size of one object, inflated. Larger objects are omitted.
    pub max_blob_bytes: u64,
    /// Maximum number of bytes inflated from one pack, including the results of deltas. The limit is
    /// lower for a small pack: 64 MiB plus 32 bytes for each byte received, and 256 MiB instead of 64 MiB to
    /// find the ends of objects.
    pub max_inflated_bytes: u64,
    /// Maximum number of objects in one pack.
    pub max_objects: u32,
    /// Maximum number of concurrent fetches, each with up to 1 MiB of pack. Two more may have 8 MiB, and
    /// one as much as is held.
    pub concurrent: usize,
    /// Additional number of fetches, for work items that are read apart because a worker died while it
    /// held them.
    pub beside: usize,
    /// Maximum time without any data from the server.
    pub stall: Duration,
    /// Maximum time spent waiting for the server in total.
    pub total: Duration,
    /// Window over which the rate of a response is measured. At the start the server has half of it to
    /// prepare the pack, and longer while it reports that it is still doing so.
    pub window: Duration,
    /// Minimum rate, in bytes per second. The fetch from a slower server is abandoned.
    pub rate: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_fetch_bytes: 256 << 20,
            max_held_bytes: memory::LARGE_PACK,
            max_blob_bytes: 32 << 20,
            max_inflated_bytes: 4 << 30,
            max_objects: 500_000,
            concurrent: memory::SMALL_PACKS,
            beside: memory::SMALL_PACKS_APART,
            stall: Duration::from_secs(20),
            total: Duration::from_mins(10),
            window: Duration::from_secs(20),
            rate: 32 << 10,
        }
    }
}

impl FetchLimits {
    /// Returns the number of bytes that may be inflated from a pack of `received` bytes.
    pub(super) fn allowance(&self, received: u64) -> u64 {
        let more = received.saturating_mul(ALLOWANCE_RATIO);
        self.max_inflated_bytes
            .min(BASE_ALLOWANCE.saturating_add(more))
    }

    /// Returns the number of bytes that may be inflated from a pack of `received` bytes to find the ends of its objects.
    pub(super) fn listed(&self, received: u64) -> u64 {
        let more = received.saturating_mul(ALLOWANCE_RATIO);
        self.max_inflated_bytes
            .min(BASE_LISTED.saturating_add(more))
    }

    /// Returns the limits for a push during which a process died `deaths` times so far: each death
    /// divides them by four.
    #[must_use]
    pub fn tightened(&self, deaths: u32) -> Self {
        let shift = deaths.saturating_mul(2).min(16);
        Self {
            max_fetch_bytes: self.max_fetch_bytes >> shift,
            max_blob_bytes: self.max_blob_bytes >> shift,
            max_inflated_bytes: self.max_inflated_bytes >> shift,
            max_held_bytes: self.max_held_bytes >> shift,
            max_objects: self.max_objects >> shift,
            ..self.clone()
        }
    }

    /// Returns the pace of a response after the server was already waited for during `waited`.
    pub(super) fn pace_after(&self, waited: Duration) -> PaceLimits {
        PaceLimits {
            stall: self.stall,
            total: self.total.saturating_sub(waited),
            grace: self.window / 2,
            window: self.window,
            rate: self.rate,
            prepare: None,
        }
    }

    /// Returns the pace of a pack. While a server only sends keep-alives, it is preparing the pack. In
    /// the large lane it may do so until the deadline, elsewhere the fetch moves on to that lane.
    pub(super) fn pace_of_pack(&self, waited: Duration, lane: FetchLane) -> PaceLimits {
        let pace = self.pace_after(waited);
        let prepare = match lane {
            FetchLane::Large => pace.total,
            FetchLane::Ordinary | FetchLane::Medium => pace.grace + pace.window,
        };
        PaceLimits {
            prepare: Some(prepare),
            ..pace
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_death_leaves_a_quarter() {
        let limits = FetchLimits::default();
        let tight = limits.tightened(2);
        assert_eq!(tight.max_fetch_bytes, limits.max_fetch_bytes / 16);
        assert_eq!(tight.max_objects, limits.max_objects / 16);
        assert_eq!(limits.tightened(0).max_blob_bytes, limits.max_blob_bytes);
    }

    #[test]
    fn a_small_pack_may_not_become_anything() {
        let limits = FetchLimits::default();
        assert_eq!(limits.allowance(0), 64 << 20);
        assert_eq!(limits.allowance(4 << 20), 192 << 20);
        assert_eq!(limits.allowance(u64::MAX), limits.max_inflated_bytes);
        assert_eq!(limits.listed(0), 256 << 20);
        assert_eq!(limits.listed(u64::MAX), limits.max_inflated_bytes);
        assert!(limits.tightened(2).listed(0) < limits.max_inflated_bytes);
    }
}
