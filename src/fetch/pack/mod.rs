//! A pack in memory: which objects it holds, and their contents one at a time.
//!
//! Source: `Documentation/gitformat-pack.adoc` of git.

mod delta;
mod entry;
mod objects;
#[cfg(test)]
mod tests;

use gix_hash::ObjectId;
use thiserror::Error;

pub(super) use entry::Kind;
use objects::LINK_BYTES;
pub(super) use objects::{Allowed, Object, Objects, Skipped};

use super::FetchError;
use super::weight::Weight;
use entry::{Entry, Inflater, Step, Stretch};

const HEADER: usize = 12;

/// Bytes of the checksum at its end.
pub(super) const TRAILER: usize = 20;

/// Bytes of the shortest entry: one of header, eight of an empty zlib stream.
const SHORTEST_ENTRY: usize = 9;

/// A pack is damaged; says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct PackError(pub(super) &'static str);

/// A pack as it came.
#[derive(Debug)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    whole: bool,
    known: Option<(Listing, Weight)>,
}

/// The entries of a pack, or of a part of it.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    cut: bool,
    /// Where the bytes stand that follow the last entry.
    end: usize,
    /// A limit stopped it, and not the end of the bytes.
    is_at_a_limit: bool,
}

/// How much of a pack is listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListLimits {
    /// Entries.
    pub(super) objects: u32,
    /// Bytes that are inflated to find their ends.
    pub(super) inflated: u64,
}

impl Pack {
    /// A pack that came `whole`, or was cut off on purpose.
    pub(super) fn new(bytes: Vec<u8>, whole: bool) -> Self {
        Self {
            bytes,
            whole,
            known: None,
        }
    }

    /// Lists the entries.
    ///
    /// A whole pack must be sound from end to end: count, checksum, every entry's size. Of one that was cut
    /// off the entries that came whole are listed. Either way the listing stops where it would pass a limit;
    /// [`Listing::is_cut`] then says so.
    ///
    /// # Errors
    /// [`FetchError::Corrupt`] names what is wrong with it; [`FetchError::Busy`] when the lane of heavy
    /// visits is needed and taken.
    pub(super) fn list(
        &self,
        limits: ListLimits,
        weight: &mut Weight,
    ) -> Result<Listing, FetchError> {
        let mut listing = Listing::new(HEADER, !self.whole);
        if self.whole {
            check_trailer(&self.bytes)?;
        } else if self.bytes.len() < HEADER {
            return Ok(listing);
        }
        let count = object_count(&self.bytes)?;
        // Whoever has to wait should do so before the work, not after it.
        let likely = (count as usize).min(self.bytes.len() / SHORTEST_ENTRY);
        weight.expect(likely * (size_of::<Entry>() + LINK_BYTES))?;
        let end = self.bytes.len() - if self.whole { TRAILER } else { 0 };
        let stretch = Stretch {
            bytes: &self.bytes[..end],
            gone: 0,
        };
        listing.fill(stretch, count, self.whole, limits, weight)?;
        Ok(listing)
    }

    /// Keeps a listing for the next reading, and with it the lane that it needed.
    pub(super) fn remember(&mut self, listing: Listing, mut weight: Weight) {
        weight.keep(listing.entries.capacity() * size_of::<Entry>());
        self.known = Some((listing, weight));
    }

    /// The listing that was kept, if any.
    pub(super) fn take_known(&mut self) -> Option<(Listing, Weight)> {
        self.known.take()
    }

    /// The pack itself.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many entries there are, if its header came.
    pub(super) fn stated_count(&self) -> Option<u32> {
        object_count(&self.bytes).ok()
    }

    /// The pack itself, to be read on.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Listing {
    fn new(end: usize, cut: bool) -> Self {
        Self {
            entries: Vec::new(),
            cut,
            end,
            is_at_a_limit: false,
        }
    }

    /// Lists those of the next `count` entries of a pack that are whole in `bytes`, behind `gone` bytes that
    /// are not at hand any more.
    ///
    /// # Errors
    /// As [`Pack::list`].
    pub(super) fn of_part(
        bytes: &[u8],
        gone: u64,
        count: u32,
        limits: ListLimits,
        weight: &mut Weight,
    ) -> Result<Self, FetchError> {
        let mut listing = Self::new(0, true);
        let stretch = Stretch { bytes, gone };
        listing.fill(stretch, count, false, limits, weight)?;
        Ok(listing)
    }

    /// How many entries it has.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Where the bytes stand that follow the last entry.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Bytes that were inflated to find the ends of the entries.
    pub(super) fn inflated(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size()).sum()
    }

    /// Whether a limit stopped it, and not the end of the bytes.
    pub(super) fn is_at_a_limit(&self) -> bool {
        self.is_at_a_limit
    }

    fn fill(
        &mut self,
        stretch: Stretch<'_>,
        count: u32,
        whole: bool,
        limits: ListLimits,
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let mut inflater = Inflater::new();
        let mut budget = limits.inflated;
        for listed in 0..count {
            if listed >= limits.objects || !weight.room(&mut self.entries, 1)? {
                self.stop();
                return Ok(());
            }
            match entry::read(stretch, self.end, budget, &self.entries, &mut inflater)? {
                Step::Entry(entry, next) => {
                    weight.work(entry.size())?;
                    budget -= entry.size();
                    self.end = next;
                    self.entries.push(entry);
                }
                Step::TooMuch => {
                    self.stop();
                    return Ok(());
                }
                Step::EndOfInput if whole => {
                    return Err(PackError("it ends in the middle of an object").into());
                }
                Step::EndOfInput => return Ok(()),
            }
        }
        if whole && self.end != stretch.bytes.len() {
            return Err(PackError("it holds more than the objects it counts").into());
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.cut = true;
        self.is_at_a_limit = true;
    }

    /// Whether the pack may hold more than is listed.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }
}

fn object_count(bytes: &[u8]) -> Result<u32, PackError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(PackError("it is shorter than a pack's header"));
    };
    let [p, a, c, k, v0, v1, v2, v3, n0, n1, n2, n3] = *header;
    if [p, a, c, k] != *b"PACK" {
        return Err(PackError("it does not start with PACK"));
    }
    if !matches!(u32::from_be_bytes([v0, v1, v2, v3]), 2 | 3) {
        return Err(PackError("its version is neither 2 nor 3"));
    }
    Ok(u32::from_be_bytes([n0, n1, n2, n3]))
}

/// The last 20 bytes are the SHA-1 of all before them.
fn check_trailer(bytes: &[u8]) -> Result<(), PackError> {
    let Some((body, trailer)) = bytes
        .split_last_chunk::<TRAILER>()
        .filter(|(body, _)| body.len() >= HEADER)
    else {
        return Err(PackError("it is shorter than a pack's header and trailer"));
    };
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(body);
    match hasher.try_finalize() {
        Ok(id) if id == ObjectId::Sha1(*trailer) => Ok(()),
        _ => Err(PackError("its checksum does not fit")),
    }
}
