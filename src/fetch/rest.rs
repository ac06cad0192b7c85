//! A pack that is larger than what is held of one: the rest of it, read part by part as it comes.
//!
//! Git writes a pack so that the base of a delta stands in front of it, mostly right there. So each part is
//! read like a pack of its own; a delta whose base went by with an earlier part is counted.

use gix_hash::ObjectId;
use reqwest::Response;
use tokio::runtime::Handle;

use super::budget::Seat;
use super::pace::Pace;
use super::pack::{Allowed, ListLimits, Listing, Objects, Skipped, TRAILER};
use super::patience::Patience;
use super::protocol::FetchAnswer;
use super::texts::Shown;
use super::weight::Weight;
use super::{FetchError, FetchLimits};

/// What the server has still to send of a pack.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) response: Response,
    pub(super) answer: FetchAnswer,
    /// What came already.
    pub(super) came: Vec<u8>,
    /// How many bytes more are read, those that came among them.
    pub(super) room: u64,
    pub(super) pace: Pace,
    pub(super) patience: Patience,
}

/// Where the reading of a pack stands.
pub(super) struct Progress {
    /// What is held of it; the entries in front of this were read.
    pub(super) held: Vec<u8>,
    /// Bytes of the pack in front of that.
    pub(super) gone: u64,
    /// Entries that are still to come.
    pub(super) count: u32,
    /// Entries that were read.
    pub(super) read: u32,
    /// The checksum of what is gone.
    pub(super) hasher: gix_hash::Hasher,
}

impl Rest {
    /// Reads on until `held` has `size` bytes, or there are no more; says whether the pack ended. Blocks the
    /// thread.
    fn fill(&mut self, held: &mut Vec<u8>, size: usize) -> Result<bool, FetchError> {
        loop {
            let wanted = size.saturating_sub(held.len()).min(self.came.len());
            let wanted = wanted.min(usize::try_from(self.room).unwrap_or(usize::MAX));
            held.extend(self.came.drain(..wanted));
            self.room -= wanted as u64;
            if held.len() >= size || self.room == 0 {
                return Ok(false);
            }
            let next = self.patience.wait(self.pace.part(&mut self.response));
            let Some(chunk) = Handle::current().block_on(next)?? else {
                self.answer.finish()?;
                return Ok(true);
            };
            let before = self.came.len();
            self.answer.feed(&chunk, &mut self.came)?;
            self.pace.count(self.came.len() - before)?;
            self.patience.received(self.came.len() - before)?;
        }
    }
}

impl Progress {
    /// Reads the parts that follow, and shows what is in them; says whether something was cut off.
    pub(super) fn go_on(
        mut self,
        mut rest: Rest,
        limits: &FetchLimits,
        seat: &Seat,
        shown: &mut Shown<'_>,
    ) -> Result<bool, FetchError> {
        let mut inflated = limits.max_inflated_bytes;
        loop {
            // Whoever waits for a server holds nobody up: the lane is taken for each part anew.
            let ended = rest.fill(&mut self.held, limits.max_held_bytes)?;
            let weight = &mut Weight::new(seat);
            if !weight.hold(shown.held())? {
                return Ok(true);
            }
            let all = limits.allowance(self.held.len() as u64).min(inflated);
            let list = ListLimits {
                objects: limits.max_objects.saturating_sub(self.read),
                inflated: all,
            };
            let listing = Listing::of_part(&self.held, self.gone, self.count, list, weight)?;
            let skipped = self.show(&listing, all, limits, weight, shown)?;
            shown.skip(skipped);
            inflated -= listing.inflated();
            let is_stuck = listing.count() == 0;
            self.count -= listing.count();
            self.read += listing.count();
            self.pass(listing.end());
            if self.count == 0 {
                return self.check_end(&mut rest);
            }
            if ended {
                return Err(FetchError::Corrupt("it ends in the middle of an object"));
            }
            if is_stuck || listing.is_at_a_limit() || rest.room == 0 {
                return Ok(true);
            }
        }
    }

    fn show(
        &self,
        listing: &Listing,
        total: u64,
        limits: &FetchLimits,
        weight: &mut Weight,
        shown: &mut Shown<'_>,
    ) -> Result<Skipped, FetchError> {
        let allowed = Allowed {
            object: limits.max_blob_bytes,
            total,
        };
        let mut objects = Objects::new(&self.held, listing, allowed, weight)?;
        objects.walk(|_| true, weight, &mut |object, _| {
            shown.show(&object);
            Ok(())
        })?;
        Ok(objects.skipped())
    }

    /// Drops what was read.
    pub(super) fn pass(&mut self, end: usize) {
        self.hasher.update(&self.held[..end]);
        self.gone += end as u64;
        self.held.drain(..end);
    }

    /// Checks what stands behind the last entry.
    fn check_end(mut self, rest: &mut Rest) -> Result<bool, FetchError> {
        rest.fill(&mut self.held, TRAILER + 1)?;
        if self.held.len() < TRAILER && rest.room == 0 {
            return Ok(true);
        }
        let sum = self.hasher.try_finalize().ok();
        let trailer = <[u8; TRAILER]>::try_from(self.held.as_slice()).ok();
        if trailer.map(ObjectId::Sha1) == sum {
            Ok(false)
        } else {
            Err(FetchError::Corrupt("its checksum does not fit"))
        }
    }
}
