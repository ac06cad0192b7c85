//! Walks the objects of a pack one by one, resolving deltas.
//!
//! Every object to which others are deltas is the root of a family. A family is walked depth first, the
//! smallest branch first, and an object is dropped as soon as its last delta is taken. A chain of any
//! length then needs two objects in memory at a time, and a family of n at most log₂ n. Anything that
//! exceeds the memory of a visit is omitted and counted.

mod large;
mod skipped;

use gix_hash::{Kind as HashKind, ObjectId};

use super::delta;
use super::entry::{Entry, Form, Inflater, Kind, NONE};
use super::{Listing, PackError};
use crate::fetch::FetchError;
use crate::fetch::weight::Weight;
pub(in crate::fetch) use skipped::Skipped;

/// Maximum length of a chain of deltas that git itself writes.
const MAX_DEPTH: u32 = 4095;

/// Memory kept for each entry while a pack is walked, in bytes: its place in its family and in a list of
/// children.
pub(super) const LINK_BYTES: usize = 24;

/// A complete object.
#[derive(Debug, Clone, Copy)]
pub(in crate::fetch) struct Object<'a> {
    pub(in crate::fetch) id: ObjectId,
    pub(in crate::fetch) kind: Kind,
    pub(in crate::fetch) data: &'a [u8],
}

/// Limits of reading one pack, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::fetch) struct Allowed {
    /// Maximum size of one object.
    pub(in crate::fetch) object: u64,
    /// Maximum size of all objects together, including the deltas from which they are built.
    pub(in crate::fetch) total: u64,
}

/// Walker of the objects of one pack.
pub(in crate::fetch) struct Objects<'p> {
    hash: HashKind,
    bytes: &'p [u8],
    entries: &'p [Entry],
    allowed: Allowed,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    family_size: Vec<u32>,
    /// Entries that are deltas to objects by id, in the order of those ids.
    waiting: Vec<u32>,
    /// `true` at the first entry of each group in `waiting` that was taken.
    taken: Vec<bool>,
    inflater: Inflater,
    walked: u32,
    skipped: Skipped,
}

/// An object and the deltas to it that are yet to be taken, the last one first.
struct Frame {
    data: Vec<u8>,
    depth: u32,
    children: Vec<u32>,
}

impl<'p> Objects<'p> {
    /// Creates a walker of the objects in `bytes` that `listing` lists.
    ///
    /// # Errors
    /// Returns [`FetchError::Busy`] if there are so many objects that the lane of heavy visits is needed
    /// and taken.
    pub(in crate::fetch) fn new(
        bytes: &'p [u8],
        listing: &'p Listing,
        allowed: Allowed,
        weight: &mut Weight,
    ) -> Result<Self, FetchError> {
        let entries = listing.entries.as_slice();
        let count = entries.len();
        if !weight.hold(count * LINK_BYTES)? {
            return Err(FetchError::Busy);
        }
        let mut objects = Self {
            hash: listing.hash,
            bytes,
            entries,
            allowed,
            first_child: vec![NONE; count],
            next_sibling: vec![NONE; count],
            family_size: vec![1; count],
            waiting: Vec::new(),
            taken: Vec::new(),
            inflater: Inflater::new(),
            walked: 0,
            skipped: Skipped::default(),
        };
        objects.link();
        Ok(objects)
    }

    fn link(&mut self) {
        for (at, entry) in indexed(self.entries).rev() {
            match entry.form {
                // A base precedes its deltas, so its own family size is not yet added to anything at this
                // point.
                Form::DeltaToEntry if entry.base != NONE => {
                    let (at_index, base_index) = (at as usize, entry.base as usize);
                    self.next_sibling[at_index] = self.first_child[base_index];
                    self.first_child[base_index] = at;
                    self.family_size[base_index] += self.family_size[at_index];
                }
                Form::DeltaToObject => self.waiting.push(at),
                Form::Full(_) | Form::DeltaToEntry => {}
            }
        }
        let (hash, bytes, entries) = (self.hash, self.bytes, self.entries);
        self.waiting
            .sort_by_key(|at| base_id(hash, bytes, entries, *at));
        self.taken = vec![false; self.waiting.len()];
    }

    /// Calls `each` with every object whose kind satisfies `wanted`.
    ///
    /// # Errors
    /// Returns [`FetchError::Corrupt`] if an object cannot be decoded, and [`FetchError::Busy`] if the
    /// lane of heavy visits is needed and taken.
    pub(in crate::fetch) fn walk(
        &mut self,
        wanted: impl Fn(Kind) -> bool,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<(), FetchError> {
        for (at, entry) in indexed(self.entries) {
            match entry.form {
                Form::Full(kind) if wanted(kind) => self.family(at, kind, weight, each)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Walks the entry at `root` and all of its direct and indirect deltas.
    fn family(
        &mut self,
        root: u32,
        kind: Kind,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<(), FetchError> {
        let entry = self.entry(root)?;
        if entry.size() > self.allowed.object {
            return self.family_of_large(root, kind, weight, each);
        }
        let Some(size) = self.allow(root, entry.size(), weight)? else {
            return Ok(());
        };
        let data = self.inflate(entry, size)?;
        self.descend(root, kind, 0, data, weight, each)
    }

    /// Shows an object, and walks all of its direct and indirect deltas.
    fn descend(
        &mut self,
        at: u32,
        kind: Kind,
        depth: u32,
        data: Vec<u8>,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<(), FetchError> {
        let mut frames = Vec::new();
        frames.extend(self.enter(at, kind, depth, data, weight, each)?);
        while let Some(mut frame) = frames.pop() {
            let Some(child) = frame.children.pop() else {
                weight.release(frame.data.len());
                continue;
            };
            let made = self.make(child, &frame, weight)?;
            let depth = frame.depth + 1;
            if frame.children.is_empty() {
                weight.release(frame.data.len());
            } else {
                frames.push(frame);
            }
            if let Some(data) = made {
                frames.extend(self.enter(child, kind, depth, data, weight, each)?);
            }
        }
        Ok(())
    }

    /// Shows an object, and keeps it if there are deltas to it.
    fn enter(
        &mut self,
        at: u32,
        kind: Kind,
        depth: u32,
        data: Vec<u8>,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<Option<Frame>, FetchError> {
        let id = object_id(self.hash, kind, &data);
        self.walked += 1;
        let object = Object {
            id,
            kind,
            data: &data,
        };
        each(object, weight)?;
        let children = self.children(at, &id);
        if children.is_empty() {
            weight.release(data.len());
            return Ok(None);
        }
        Ok(Some(Frame {
            data,
            depth,
            children,
        }))
    }

    /// Returns the deltas to an object, largest family first.
    fn children(&mut self, at: u32, id: &ObjectId) -> Vec<u32> {
        let mut children = self.take_waiting(id);
        children.extend(self.children_by_entry(at));
        children.sort_by_key(|child| std::cmp::Reverse(self.family_size[*child as usize]));
        children
    }

    /// Returns the deltas that name their base by its place.
    fn children_by_entry(&self, at: u32) -> impl Iterator<Item = u32> {
        let child = |at: u32| Some(at).filter(|at| *at != NONE);
        let first = child(self.first_child[at as usize]);
        std::iter::successors(first, move |at| child(self.next_sibling[*at as usize]))
    }

    /// Takes the deltas that name their base by this id. They are returned only once: a pack may contain
    /// the base twice.
    fn take_waiting(&mut self, id: &ObjectId) -> Vec<u32> {
        let (hash, bytes, entries) = (self.hash, self.bytes, self.entries);
        let of = |at: &u32| base_id(hash, bytes, entries, *at);
        let first = self.waiting.partition_point(|at| of(at) < id.as_slice());
        // All deltas to an id are taken together, so the first one is representative.
        if self.taken.get(first).is_none_or(|taken| *taken) {
            return Vec::new();
        }
        let rest = &self.waiting[first..];
        let count = rest.partition_point(|at| of(at) <= id.as_slice());
        if count > 0 {
            self.taken[first] = true;
        }
        rest[..count].to_vec()
    }

    /// Builds the object from the delta at `at` and its base. Returns `None` if a limit forbids it.
    fn make(
        &mut self,
        at: u32,
        base: &Frame,
        weight: &mut Weight,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let entry = self.entry(at)?;
        if base.depth >= MAX_DEPTH {
            self.skip(at, weight)?;
            return Ok(None);
        }
        let Some(delta_size) = self.allow(at, entry.size(), weight)? else {
            return Ok(None);
        };
        let delta = self.inflate(entry, delta_size)?;
        let (sizes, instructions) = delta::sizes(&delta)?;
        if sizes.base != base.data.len() as u64 {
            return Err(PackError("a delta is to an object of another size").into());
        }
        let made = match self.allow(at, sizes.result, weight)? {
            Some(size) => Some(delta::apply(&base.data, instructions, size)?),
            None => None,
        };
        weight.release(delta_size);
        Ok(made)
    }

    /// Reserves `size` more bytes to be inflated and held for the entry at `at`. Returns `None` if a
    /// limit forbids it, after counting the entry and its family as skipped.
    fn allow(
        &mut self,
        at: u32,
        size: u64,
        weight: &mut Weight,
    ) -> Result<Option<usize>, FetchError> {
        let Some(bytes) = usize::try_from(size)
            .ok()
            .filter(|_| size <= self.allowed.object)
        else {
            self.skip(at, weight)?;
            return Ok(None);
        };
        if !self.pay(at, size) {
            return Ok(None);
        }
        if !weight.hold(bytes)? {
            self.allowed.total += size;
            self.skip(at, weight)?;
            return Ok(None);
        }
        weight.work(size)?;
        Ok(Some(bytes))
    }

    /// Takes `size` from the bytes that may be inflated. Returns `false` if there are fewer left, after counting the
    /// entry and its family as skipped.
    fn pay(&mut self, at: u32, size: u64) -> bool {
        let Some(left) = self.allowed.total.checked_sub(size) else {
            self.skipped.over_budget += self.family_size[at as usize];
            return false;
        };
        self.allowed.total = left;
        true
    }

    fn entry(&self, at: u32) -> Result<Entry, PackError> {
        let entry = self.entries.get(at as usize);
        entry.copied().ok_or(PackError("an object is missing"))
    }

    fn inflate(&mut self, entry: Entry, size: usize) -> Result<Vec<u8>, PackError> {
        let data = self.bytes.get(entry.data()..).unwrap_or_default();
        self.inflater.inflate(data, size)
    }
}

/// Callback for each object.
pub(in crate::fetch) type Each<'e> =
    dyn FnMut(Object<'_>, &mut Weight) -> Result<(), FetchError> + 'e;

fn indexed(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (u32, Entry)> {
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    (0..count).zip(entries.iter().copied())
}

/// Returns the id by which the delta at `at` names its base.
fn base_id<'b>(hash: HashKind, bytes: &'b [u8], entries: &[Entry], at: u32) -> &'b [u8] {
    let entry = entries.get(at as usize);
    let id = entry.and_then(|entry| entry.base_id(hash, bytes));
    id.unwrap_or_default()
}

/// Returns the id of an object, or the null id for an object that was crafted to collide. Such an object is still
/// shown.
fn object_id(hash: HashKind, kind: Kind, data: &[u8]) -> ObjectId {
    let name = match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    };
    let mut hasher = gix_hash::hasher(hash);
    hasher.update(format!("{name} {}\0", data.len()).as_bytes());
    hasher.update(data);
    hasher.try_finalize().unwrap_or(ObjectId::null(hash))
}
