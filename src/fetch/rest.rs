//! Remainder of a pack that is too large to be held, read part by part as it arrives.
//!
//! Git writes a pack so that the base of a delta precedes it, usually immediately. So each part is read
//! like a pack of its own; a delta whose base was in an earlier part is counted.

use gix_hash::ObjectId;
use reqwest::Response;
use tokio::runtime::Handle;

use super::budget::Seat;
use super::pace::Pace;
use super::pack::{Allowed, ListLimits, Listing, Objects, Skipped, TRAILER};
use super::patience::Patience;
use super::protocol::FetchAnswer;
use super::shown::Shown;
use super::weight::Weight;
use super::{FetchError, FetchLimits};

/// Remainder of a pack that the server has yet to send.
#[derive(Debug)]
pub(super) struct PackRest {
    pub(super) response: Response,
    pub(super) answer: FetchAnswer,
    /// Bytes that have already arrived.
    pub(super) came: Vec<u8>,
    /// Number of bytes that may still be read, including those that have already arrived.
    pub(super) room: u64,
    pub(super) pace: Pace,
    pub(super) patience: Patience,
}

/// Progress of reading a pack.
pub(super) struct Progress {
    /// Bytes of the pack that are held; the entries before them were read.
    pub(super) held: Vec<u8>,
    /// Number of bytes of the pack before those that are held.
    pub(super) gone: u64,
    /// Number of entries that are yet to be read.
    pub(super) count: u32,
    /// Number of entries that were read.
    pub(super) read: u32,
    /// Hasher of the bytes that are gone, for the checksum.
    pub(super) hasher: gix_hash::Hasher,
}

impl PackRest {
    /// Reads until `held` has `size` bytes, or there are no more. Returns `true` if the pack ended.
    /// Blocks the thread.
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
    /// Reads the parts that follow and shows their contents. Returns `true` if something was cut off.
    pub(super) fn go_on(
        mut self,
        mut rest: PackRest,
        limits: &FetchLimits,
        seat: &Seat,
        shown: &mut Shown<'_>,
    ) -> Result<bool, FetchError> {
        let mut inflated = limits.max_inflated_bytes;
        loop {
            // A fetch that waits for a server must not delay others, so the lane is taken anew for each
            // part.
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
        objects.walk(|_| true, weight, &mut |object, weight| {
            shown.show(&object, weight)
        })?;
        Ok(objects.skipped())
    }

    /// Drops the bytes that were read.
    pub(super) fn pass(&mut self, end: usize) {
        self.hasher.update(&self.held[..end]);
        self.gone += end as u64;
        self.held.drain(..end);
    }

    /// Checks the trailer after the last entry.
    fn check_end(mut self, rest: &mut PackRest) -> Result<bool, FetchError> {
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
