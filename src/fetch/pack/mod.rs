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
pub(super) use objects::Objects;

use super::FetchLimits;
use entry::{Entry, Inflater, Step};

const HEADER: usize = 12;
const TRAILER: usize = 20;

/// A pack is damaged; says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct PackError(pub(super) &'static str);

/// A pack as it came, with a list of the entries in it.
#[derive(Debug)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    cut: bool,
}

impl Pack {
    /// Lists the entries of a pack.
    ///
    /// A `whole` pack must be sound from end to end: count, checksum, every entry's size. Of one that was
    /// cut off on purpose the entries that came whole are listed. Either way the listing stops where it
    /// would pass a limit; [`Pack::is_cut`] then says so.
    ///
    /// # Errors
    /// [`PackError`] names what is wrong with it.
    pub(super) fn parse(
        bytes: Vec<u8>,
        whole: bool,
        limits: &FetchLimits,
    ) -> Result<Self, PackError> {
        let mut pack = Self {
            bytes,
            entries: Vec::new(),
            cut: !whole,
        };
        if whole {
            check_trailer(&pack.bytes)?;
        } else if pack.bytes.len() < HEADER {
            return Ok(pack);
        }
        let count = object_count(&pack.bytes)?;
        let end = pack.bytes.len() - if whole { TRAILER } else { 0 };
        pack.list(count, end, whole, limits)?;
        Ok(pack)
    }

    fn list(
        &mut self,
        count: u32,
        end: usize,
        whole: bool,
        limits: &FetchLimits,
    ) -> Result<(), PackError> {
        let mut inflater = Inflater::new();
        let mut at = HEADER;
        let mut budget = limits.max_inflated_bytes;
        for listed in 0..count {
            if listed >= limits.max_objects {
                self.cut = true;
                return Ok(());
            }
            match entry::read(&self.bytes[..end], at, budget, &self.entries, &mut inflater)? {
                Step::Entry(entry, next) => {
                    budget -= entry.size;
                    at = next;
                    self.entries.push(entry);
                }
                Step::TooMuch => {
                    self.cut = true;
                    return Ok(());
                }
                Step::EndOfInput if whole => {
                    return Err(PackError("it ends in the middle of an object"));
                }
                Step::EndOfInput => return Ok(()),
            }
        }
        if whole && at != end {
            return Err(PackError("it holds more than the objects it counts"));
        }
        Ok(())
    }

    /// How many entries are listed.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Whether it may hold more than is listed.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Bytes of the pack.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn indexed(&self) -> impl DoubleEndedIterator<Item = (u32, &Entry)> {
        (0..self.count()).zip(&self.entries)
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
