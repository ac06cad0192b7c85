//! Packs in memory: a listing of their objects, and the contents of one object at a time.
//!
//! Source: `Documentation/gitformat-pack.adoc` of git.

mod delta;
mod entry;
mod objects;
#[cfg(test)]
mod tests;

use gix_hash::Kind as HashKind;
use thiserror::Error;

pub(super) use entry::{Kind, Passing, Stretch};
use objects::LINK_BYTES;
pub(super) use objects::{Allowed, Object, Objects, Skipped};

use super::FetchError;
use super::protocol::Shallow;
use super::weight::Weight;
use entry::{Entry, Inflater, Step};

const HEADER: usize = 12;

/// Length of the shortest entry, in bytes: one of header, eight of an empty zlib stream.
const SHORTEST_ENTRY: usize = 9;

/// Error returned for a corrupt pack, with a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct PackError(pub(super) &'static str);

/// A pack as received.
#[derive(Debug)]
pub(super) struct Pack {
    /// Hash function of the names of its objects, and of its checksum.
    hash: HashKind,
    bytes: Vec<u8>,
    whole: bool,
    known: Option<(Listing, Weight)>,
    /// Commits at which the server cut the history.
    pub(super) shallow: Shallow,
}

/// Entries of a pack, or of a part of it.
#[derive(Debug)]
pub(super) struct Listing {
    hash: HashKind,
    entries: Vec<Entry>,
    cut: bool,
    /// Offset of the bytes that follow the last entry.
    end: usize,
    /// `true` if a limit ended the listing, rather than the end of the bytes.
    is_at_a_limit: bool,
    /// Number of bytes that were inflated to find the ends of the entries, also of one that was not complete.
    inflated: u64,
}

/// Limits of the listing of a pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListLimits {
    /// Maximum number of entries.
    pub(super) objects: u32,
    /// Maximum number of bytes that are inflated to find the ends of the entries.
    pub(super) inflated: u64,
}

impl Pack {
    /// Creates a pack that arrived `whole`, or was cut off on purpose, of a repository with this hash function.
    pub(super) fn new(hash: HashKind, bytes: Vec<u8>, whole: bool) -> Self {
        Self {
            hash,
            bytes,
            whole,
            known: None,
            shallow: Shallow::default(),
        }
    }

    /// Returns the pack of a history that the server cut at some commits.
    pub(super) fn cut_at(self, shallow: Shallow) -> Self {
        Self { shallow, ..self }
    }

    /// Lists the entries.
    ///
    /// A whole pack must be sound from end to end: count, checksum, every entry's size. For a pack that
    /// was cut off, the complete entries are listed. Either way the listing stops where it would exceed a
    /// limit; [`Listing::is_cut`] returns `true` in that case.
    ///
    /// # Errors
    /// Returns [`FetchError::Corrupt`] with a description of the problem, and [`FetchError::Busy`] if the
    /// lane of heavy visits is needed and taken.
    pub(super) fn list(
        &self,
        limits: ListLimits,
        weight: &mut Weight,
    ) -> Result<Listing, FetchError> {
        let mut listing = Listing::new(self.hash, HEADER, !self.whole);
        if self.whole {
            check_trailer(self.hash, &self.bytes)?;
        } else if self.bytes.len() < HEADER {
            return Ok(listing);
        }
        let count = object_count(&self.bytes)?;
        // If the lane has to be waited for, then before the work rather than after it.
        let likely = (count as usize).min(self.bytes.len() / SHORTEST_ENTRY);
        weight.expect(likely * (size_of::<Entry>() + LINK_BYTES))?;
        let trailer = if self.whole {
            self.hash.len_in_bytes()
        } else {
            0
        };
        let end = self.bytes.len() - trailer;
        let stretch = Stretch {
            bytes: &self.bytes[..end],
            gone: 0,
            hash: self.hash,
        };
        listing.fill(stretch, count, self.whole, limits, weight)?;
        Ok(listing)
    }

    /// Keeps a listing for the next reading, together with the lane that it needed.
    pub(super) fn remember(&mut self, listing: Listing, mut weight: Weight) {
        weight.keep(listing.entries.capacity() * size_of::<Entry>());
        self.known = Some((listing, weight));
    }

    /// Takes the listing that was kept, if any.
    pub(super) fn take_known(&mut self) -> Option<(Listing, Weight)> {
        self.known.take()
    }

    /// Returns the hash function of the names of the objects.
    pub(super) fn hash(&self) -> HashKind {
        self.hash
    }

    /// Returns the bytes of the pack.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of entries that the header states, or `None` if there is no valid header.
    pub(super) fn stated_count(&self) -> Option<u32> {
        object_count(&self.bytes).ok()
    }

    /// Returns `true` unless the pack was cut off.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Returns the bytes of the pack, which can then be extended.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Listing {
    fn new(hash: HashKind, end: usize, cut: bool) -> Self {
        Self {
            hash,
            entries: Vec::new(),
            cut,
            end,
            is_at_a_limit: false,
            inflated: 0,
        }
    }

    /// Lists those of the next `count` entries of a pack that are complete in `stretch`.
    ///
    /// # Errors
    /// Returns the errors of [`Pack::list`].
    pub(super) fn of_part(
        stretch: Stretch<'_>,
        count: u32,
        limits: ListLimits,
        weight: &mut Weight,
    ) -> Result<Self, FetchError> {
        let mut listing = Self::new(stretch.hash, 0, true);
        listing.fill(stretch, count, false, limits, weight)?;
        Ok(listing)
    }

    /// Returns the number of entries.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Returns the offset of the bytes that follow the last entry.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Returns the number of bytes that were inflated to find the ends of the entries.
    pub(super) fn inflated(&self) -> u64 {
        self.inflated
    }

    /// Returns `true` if a limit ended the listing, rather than the end of the bytes.
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
        for listed in 0..count {
            if listed >= limits.objects || !weight.room(&mut self.entries, 1)? {
                self.stop();
                return Ok(());
            }
            let (before, budget) = (&self.entries, limits.inflated - self.inflated);
            match entry::read(stretch, self.end, budget, before, &mut inflater, weight)? {
                Step::Entry(entry, next) => {
                    self.inflated += entry.size();
                    self.end = next;
                    self.entries.push(entry);
                }
                Step::TooMuch => {
                    self.stop();
                    return Ok(());
                }
                Step::EndOfInput(_) if whole => {
                    return Err(PackError("it ends in the middle of an object").into());
                }
                Step::EndOfInput(bytes) => {
                    self.inflated += bytes;
                    return Ok(());
                }
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

    /// Returns `true` if the pack may contain more than is listed.
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

/// Checks that the last bytes are the digest of all bytes before them.
fn check_trailer(hash: HashKind, bytes: &[u8]) -> Result<(), PackError> {
    let end = bytes.len().checked_sub(hash.len_in_bytes());
    let Some(end) = end.filter(|end| *end >= HEADER) else {
        return Err(PackError("it is shorter than a pack's header and trailer"));
    };
    let (body, trailer) = bytes.split_at(end);
    let mut hasher = gix_hash::hasher(hash);
    hasher.update(body);
    match hasher.try_finalize() {
        Ok(id) if id.as_slice() == trailer => Ok(()),
        _ => Err(PackError("its checksum does not fit")),
    }
}
