//! Bounds on one fetch.

use std::time::Duration;

use super::budget::FetchLane;
use super::pace::PaceLimits;

/// What may be inflated of any pack, in bytes.
const BASE_ALLOWANCE: u64 = 64 << 20;

/// What more may be inflated for each byte of a pack. Source code deflates to a fourth, deltas to less. A
/// history that needs more is read in halves.
const ALLOWANCE_RATIO: u64 = 32;

/// Bounds on one fetch. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Pack bytes received for one range. What comes beyond is not read.
    pub max_fetch_bytes: u64,
    /// Pack bytes that are held at a time. A history that is larger is read in halves, a single commit part by
    /// part.
    pub max_held_bytes: usize,
    /// Size of one object, inflated. Larger ones are left out.
    pub max_blob_bytes: u64,
    /// Bytes inflated for one pack, the results of deltas included. For a small pack it is less: 64 MiB and 32
    /// bytes for each byte received.
    pub max_inflated_bytes: u64,
    /// Objects in one pack.
    pub max_objects: u32,
    /// Fetches under way at the same time, each with up to 1 MiB of pack. Two more may have 16 MiB, and one as much
    /// as is held.
    pub concurrent: usize,
    /// More of them, for what is read apart from others because a worker died while it held it.
    pub beside: usize,
    /// The longest time without anything from the server.
    pub stall: Duration,
    /// The longest time that the server is waited for in all.
    pub total: Duration,
    /// Over which time the rate of an answer is measured. At its beginning the server has half of it for
    /// putting the pack together, and longer while it says that it still does so.
    pub window: Duration,
    /// The least bytes per second. A server below it is left.
    pub rate: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_fetch_bytes: 256 << 20,
            max_held_bytes: 32 << 20,
            max_blob_bytes: 32 << 20,
            max_inflated_bytes: 4 << 30,
            max_objects: 500_000,
            concurrent: 16,
            beside: 4,
            stall: Duration::from_secs(20),
            total: Duration::from_mins(10),
            window: Duration::from_secs(20),
            rate: 32 << 10,
        }
    }
}

impl FetchLimits {
    /// Returns what may be inflated of a pack of `received` bytes.
    pub(super) fn allowance(&self, received: u64) -> u64 {
        let more = received.saturating_mul(ALLOWANCE_RATIO);
        self.max_inflated_bytes
            .min(BASE_ALLOWANCE.saturating_add(more))
    }

    /// The bounds for a push that a process ended with, `deaths` times so far: a quarter of them for each.
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

    /// The pace of an answer, when the server was waited for that long before.
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

    /// The same for a pack: as long as a server only says that it is alive, it prepares one. In the large lane it
    /// may do so to the end, elsewhere it is left for that lane.
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
    }
}
