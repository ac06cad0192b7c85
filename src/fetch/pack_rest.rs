//! Remainder of a pack that is too large to be held, read part by part as it arrives.
//!
//! Git writes a pack so that the base of a delta precedes it, usually immediately. So each part is read
//! like a pack of its own; a delta whose base was in an earlier part is counted, and so is an object that
//! has more bytes than are held.

use gix_hash::Kind as HashKind;
use reqwest::Response;
use tokio::runtime::Handle;

use super::budget::Seat;
use super::pace::Pace;
use super::pack::{Allowed, ListLimits, Listing, Objects, Passing, Skipped, Stretch};
use super::patience::Patience;
use super::protocol::FetchAnswer;
use super::shown::Shown;
use super::token::Token;
use super::weight::Weight;
use super::{FetchError, FetchLimits};

/// Number of bytes that are waited for at once while an object is passed over.
const PASSED_AT_ONCE: usize = 1 << 20;

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
    /// `true` once the server has sent everything.
    pub(super) has_ended: bool,
    /// Token that was sent to the server.
    pub(super) token: Option<Token>,
}

/// Progress of reading a pack.
pub(super) struct Progress {
    pub(super) hash: HashKind,
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
        let filled = self.try_to_fill(held, size);
        filled.map_err(|error| error.without(self.token.as_ref()))
    }

    fn try_to_fill(&mut self, held: &mut Vec<u8>, size: usize) -> Result<bool, FetchError> {
        loop {
            let wanted = size.saturating_sub(held.len()).min(self.came.len());
            let wanted = wanted.min(usize::try_from(self.room).unwrap_or(usize::MAX));
            held.extend(self.came.drain(..wanted));
            self.room -= wanted as u64;
            if held.len() >= size || self.room == 0 {
                return Ok(false);
            }
            if self.has_ended {
                return Ok(true);
            }
            let next = self.patience.wait(self.pace.part(&mut self.response));
            let Some(chunk) = Handle::current().block_on(next)?? else {
                self.answer.finish()?;
                self.has_ended = true;
                continue;
            };
            let before = self.came.len();
            self.answer.feed(&chunk, &mut self.came)?;
            self.pace.count(self.came.len() - before)?;
            self.patience.received(self.came.len() - before)?;
        }
    }
}

impl Progress {
    /// Reads the parts that follow and shows their contents. Calls `pause` before it waits for one. Returns `true` if
    /// something was cut off.
    pub(super) fn go_on(
        mut self,
        mut rest: PackRest,
        limits: &FetchLimits,
        seat: &Seat,
        shown: &mut Shown<'_>,
        pause: &mut dyn FnMut(),
    ) -> Result<bool, FetchError> {
        let mut inflated = limits.max_inflated_bytes;
        while self.count > 0 {
            pause();
            // A fetch that waits for a server must not delay others, so the lane is taken anew for each
            // part.
            let ended = rest.fill(&mut self.held, limits.max_held_bytes)?;
            let Some(listing) = self.part(inflated, limits, seat, shown)? else {
                return Ok(true);
            };
            inflated -= listing.inflated();
            self.count -= listing.count();
            self.read += listing.count();
            self.pass(listing.end());
            if self.count == 0 {
                break;
            }
            if listing.is_at_a_limit() {
                return Ok(true);
            }
            if listing.count() == 0 {
                // It has more bytes than are held, so nothing of it can be shown.
                let Some(size) = self.pass_over(&mut rest, inflated, seat)? else {
                    return Ok(true);
                };
                inflated -= size;
                shown.skip(Skipped::large());
            } else if ended {
                return Err(Self::ENDS);
            } else if rest.room == 0 {
                return Ok(true);
            }
        }
        self.check_end(&mut rest)
    }

    const ENDS: FetchError = FetchError::Corrupt("it ends in the middle of an object");

    /// Lists and shows the objects that are held. Returns `None` if there is no room for that.
    fn part(
        &self,
        inflated: u64,
        limits: &FetchLimits,
        seat: &Seat,
        shown: &mut Shown<'_>,
    ) -> Result<Option<Listing>, FetchError> {
        let weight = &mut Weight::new(seat);
        if !weight.hold(shown.held())? {
            return Ok(None);
        }
        let held = self.held.len() as u64;
        let list = ListLimits {
            objects: limits.max_objects.saturating_sub(self.read),
            inflated: limits.listed(held).min(inflated),
        };
        let listing = Listing::of_part(self.stretch(), self.count, list, weight)?;
        let all = limits.allowance(held).min(inflated);
        let skipped = self.show(&listing, all, limits, weight, shown)?;
        shown.skip(skipped);
        Ok(Some(listing))
    }

    /// Passes over the next object, of which more may be to come than can be held. Returns its size, or `None` if that
    /// is more than may be `inflated`, or more than may be read is to come.
    fn pass_over(
        &mut self,
        rest: &mut PackRest,
        inflated: u64,
        seat: &Seat,
    ) -> Result<Option<u64>, FetchError> {
        let Some((mut passing, header)) = Passing::begin(self.stretch())? else {
            return if rest.room == 0 {
                Ok(None)
            } else {
                Err(Self::ENDS)
            };
        };
        if passing.size() > inflated {
            return Ok(None);
        }
        self.pass(header);
        loop {
            let (passed, is_over) = passing.pass(&self.held, &mut Weight::new(seat))?;
            self.pass(passed);
            if is_over {
                self.count -= 1;
                self.read += 1;
                return Ok(Some(passing.size()));
            }
            let ended = rest.fill(&mut self.held, PASSED_AT_ONCE)?;
            if self.held.is_empty() {
                return if ended { Err(Self::ENDS) } else { Ok(None) };
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

    fn stretch(&self) -> Stretch<'_> {
        Stretch {
            bytes: &self.held,
            gone: self.gone,
            hash: self.hash,
        }
    }

    /// Drops the bytes that were read.
    pub(super) fn pass(&mut self, end: usize) {
        self.hasher.update(&self.held[..end]);
        self.gone += end as u64;
        self.held.drain(..end);
    }

    /// Checks the trailer after the last entry.
    fn check_end(mut self, rest: &mut PackRest) -> Result<bool, FetchError> {
        let trailer = self.hash.len_in_bytes();
        rest.fill(&mut self.held, trailer + 1)?;
        if self.held.len() < trailer && rest.room == 0 {
            return Ok(true);
        }
        let sum = self.hasher.try_finalize().ok();
        if sum.is_some_and(|sum| sum.as_slice() == self.held) {
            Ok(false)
        } else {
            Err(FetchError::Corrupt("its checksum does not fit"))
        }
    }
}
