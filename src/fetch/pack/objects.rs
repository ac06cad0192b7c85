//! The objects of a pack, one after the other, deltas resolved.
//!
//! Every object that others are deltas to is the root of a family. A family is walked depth first, the
//! smallest branch first, and an object is dropped as soon as its last delta is taken: a chain of any
//! length then needs two objects in memory at a time, a family of n at most log₂ n. What a visit may not
//! hold at once is left out and counted.

use gix_hash::ObjectId;

use super::delta;
use super::entry::{Entry, Form, Inflater, Kind, NONE};
use super::{Listing, PackError};
use crate::fetch::FetchError;
use crate::fetch::weight::Weight;

/// The longest chain of deltas that git itself writes.
const MAX_DEPTH: u32 = 4095;

/// What is kept of each entry while a pack is walked, in bytes: its place in its family, and in a list of
/// children.
pub(super) const LINK_BYTES: usize = 24;

/// An object, whole.
#[derive(Debug, Clone, Copy)]
pub(in crate::fetch) struct Object<'a> {
    pub(in crate::fetch) id: ObjectId,
    pub(in crate::fetch) kind: Kind,
    pub(in crate::fetch) data: &'a [u8],
}

/// What of a pack was not walked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::fetch) struct Skipped {
    /// Objects over the size limit, and deltas to them.
    pub(in crate::fetch) too_big: u32,
    /// Deltas whose base is not in the pack.
    pub(in crate::fetch) without_base: u32,
    /// Objects after the limit on all inflated bytes.
    pub(in crate::fetch) over_budget: u32,
}

/// How much may be read of one pack.
#[derive(Debug, Clone, Copy)]
pub(in crate::fetch) struct Allowed {
    /// The size of one object.
    pub(in crate::fetch) object: u64,
    /// All of them together, and the deltas that they are made from.
    pub(in crate::fetch) total: u64,
}

/// Walks the objects of one pack.
pub(in crate::fetch) struct Objects<'p> {
    bytes: &'p [u8],
    entries: &'p [Entry],
    allowed: Allowed,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    family_size: Vec<u32>,
    /// Deltas to objects by id, in the order of those ids.
    waiting: Vec<u32>,
    /// Which of them were given away.
    taken: Vec<bool>,
    inflater: Inflater,
    walked: u32,
    skipped: Skipped,
}

/// An object with deltas to it that are still to be taken, the last one first.
struct Frame {
    data: Vec<u8>,
    depth: u32,
    children: Vec<u32>,
}

impl<'p> Objects<'p> {
    /// Walks what `listing` lists of `bytes`.
    ///
    /// # Errors
    /// [`FetchError::Busy`] when there are so many that the lane of heavy visits is needed and taken.
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
                // A base stands in front of its deltas, so its own size is still open when this adds to it.
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
        let (bytes, entries) = (self.bytes, self.entries);
        self.waiting.sort_by_key(|at| base_id(bytes, entries, *at));
        self.taken = vec![false; self.waiting.len()];
    }

    /// Calls `each` with every object whose kind `wanted` chooses.
    ///
    /// # Errors
    /// [`FetchError::Corrupt`] when an object cannot be decoded, [`FetchError::Busy`] when the lane of heavy
    /// visits is needed and taken.
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

    /// What was left out, once everything was walked.
    pub(in crate::fetch) fn skipped(&self) -> Skipped {
        let seen = self.walked + self.skipped.too_big + self.skipped.over_budget;
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        Skipped {
            without_base: count.saturating_sub(seen),
            ..self.skipped
        }
    }

    /// Walks the entry at `root` and everything that is a delta to it, near or far.
    fn family(
        &mut self,
        root: u32,
        kind: Kind,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<(), FetchError> {
        let entry = self.entry(root)?;
        let Some(size) = self.allow(root, entry.size(), weight)? else {
            return Ok(());
        };
        let data = self.inflate(entry, size)?;
        let mut frames = Vec::new();
        frames.extend(self.enter(root, kind, 0, data, weight, each)?);
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
        let id = object_id(kind, &data);
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

    /// The deltas to an object, largest family first.
    fn children(&mut self, at: u32, id: &ObjectId) -> Vec<u32> {
        let mut children = self.take_waiting(id);
        let mut next = self.first_child[at as usize];
        while next != NONE {
            children.push(next);
            next = self.next_sibling[next as usize];
        }
        children.sort_by_key(|child| std::cmp::Reverse(self.family_size[*child as usize]));
        children
    }

    /// The deltas that name their base by this id. They are given once: a pack may hold the base twice.
    fn take_waiting(&mut self, id: &ObjectId) -> Vec<u32> {
        let (bytes, entries) = (self.bytes, self.entries);
        let of = |at: &u32| base_id(bytes, entries, *at);
        let first = self.waiting.partition_point(|at| of(at) < id.as_slice());
        // All of an id are taken together, so the first tells.
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

    /// The object that the delta at `at` makes of its base; nothing when a limit forbids it.
    fn make(
        &mut self,
        at: u32,
        base: &Frame,
        weight: &mut Weight,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let entry = self.entry(at)?;
        if base.depth >= MAX_DEPTH {
            self.skipped.too_big += self.family_size[at as usize];
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

    /// Whether `size` more bytes may be inflated and held for the entry at `at`. If not, counts it as left
    /// out with its family.
    fn allow(
        &mut self,
        at: u32,
        size: u64,
        weight: &mut Weight,
    ) -> Result<Option<usize>, FetchError> {
        let family = self.family_size[at as usize];
        let Some(bytes) = usize::try_from(size)
            .ok()
            .filter(|_| size <= self.allowed.object)
        else {
            self.skipped.too_big += family;
            return Ok(None);
        };
        let left = self.allowed.total.checked_sub(size);
        let Some(left) = left else {
            self.skipped.over_budget += family;
            return Ok(None);
        };
        if !weight.hold(bytes)? {
            self.skipped.too_big += family;
            return Ok(None);
        }
        weight.work(size)?;
        self.allowed.total = left;
        Ok(Some(bytes))
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

/// What is called with each object.
pub(in crate::fetch) type Each<'e> =
    dyn FnMut(Object<'_>, &mut Weight) -> Result<(), FetchError> + 'e;

fn indexed(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (u32, Entry)> {
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    (0..count).zip(entries.iter().copied())
}

/// The id that the delta at `at` names its base by.
fn base_id<'b>(bytes: &'b [u8], entries: &[Entry], at: u32) -> &'b [u8] {
    let entry = entries.get(at as usize);
    let id = entry.and_then(|entry| entry.base_id(bytes));
    id.unwrap_or_default()
}

/// The SHA-1 of an object. One that was made to collide has none of its own; it is still shown.
fn object_id(kind: Kind, data: &[u8]) -> ObjectId {
    let name = match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    };
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(format!("{name} {}\0", data.len()).as_bytes());
    hasher.update(data);
    hasher
        .try_finalize()
        .unwrap_or(ObjectId::null(gix_hash::Kind::Sha1))
}
