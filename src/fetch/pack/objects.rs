//! The objects of a pack, one after the other, deltas resolved.
//!
//! Every object that others are deltas to is the root of a family. A family is walked depth first, the
//! smallest branch first, and an object is dropped as soon as its last delta is taken: a chain of any
//! length then needs two objects in memory at a time, a family of n at most log₂ n.

use std::collections::HashMap;

use gix_hash::ObjectId;

use super::delta;
use super::entry::{Entry, Form, Inflater, Kind};
use super::{Pack, PackError};
use crate::fetch::FetchLimits;
use crate::fetch::budget::Weight;

/// The longest chain of deltas that git itself writes.
const MAX_DEPTH: u32 = 4095;

/// No entry: the end of a list of siblings.
const NONE: u32 = u32::MAX;

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

/// Walks the objects of one pack.
pub(in crate::fetch) struct Objects<'p> {
    pack: &'p Pack,
    max_size: u64,
    budget: u64,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    family_size: Vec<u32>,
    waiting: HashMap<ObjectId, Vec<u32>>,
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
    pub(in crate::fetch) fn new(pack: &'p Pack, limits: &FetchLimits) -> Self {
        let count = pack.entries.len();
        let mut objects = Self {
            pack,
            max_size: limits.max_blob_bytes,
            budget: limits.max_inflated_bytes,
            first_child: vec![NONE; count],
            next_sibling: vec![NONE; count],
            family_size: vec![1; count],
            waiting: HashMap::new(),
            inflater: Inflater::new(),
            walked: 0,
            skipped: Skipped::default(),
        };
        objects.link();
        objects
    }

    fn link(&mut self) {
        for (at, entry) in self.pack.indexed().rev() {
            match entry.form {
                Form::Full(_) => {}
                // A base stands in front of its deltas, so its own size is still open when this adds to it.
                Form::DeltaToEntry(base) => {
                    let (at_index, base_index) = (at as usize, base as usize);
                    self.next_sibling[at_index] = self.first_child[base_index];
                    self.first_child[base_index] = at;
                    self.family_size[base_index] += self.family_size[at_index];
                }
                Form::DeltaToObject(id) => self.waiting.entry(id).or_default().push(at),
            }
        }
    }

    /// Calls `each` with every object whose kind `wanted` chooses.
    pub(in crate::fetch) fn walk(
        &mut self,
        wanted: impl Fn(Kind) -> bool,
        weight: &mut Weight<'_>,
        each: &mut dyn FnMut(Object<'_>, &mut Weight<'_>),
    ) -> Result<(), PackError> {
        for (at, entry) in self.pack.indexed() {
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
        Skipped {
            without_base: self.pack.count().saturating_sub(seen),
            ..self.skipped
        }
    }

    /// Walks the entry at `root` and everything that is a delta to it, near or far.
    fn family(
        &mut self,
        root: u32,
        kind: Kind,
        weight: &mut Weight<'_>,
        each: &mut dyn FnMut(Object<'_>, &mut Weight<'_>),
    ) -> Result<(), PackError> {
        let entry = self.entry(root)?;
        let Some(size) = self.allow(root, entry.size) else {
            return Ok(());
        };
        weight.add(size);
        let data = self.inflate(&entry, size)?;
        let mut frames = Vec::new();
        frames.extend(self.enter(root, kind, 0, data, weight, each));
        while let Some(mut frame) = frames.pop() {
            let Some(child) = frame.children.pop() else {
                weight.sub(frame.data.len());
                continue;
            };
            let made = self.make(child, &frame, weight)?;
            let depth = frame.depth + 1;
            if frame.children.is_empty() {
                weight.sub(frame.data.len());
            } else {
                frames.push(frame);
            }
            if let Some(data) = made {
                frames.extend(self.enter(child, kind, depth, data, weight, each));
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
        weight: &mut Weight<'_>,
        each: &mut dyn FnMut(Object<'_>, &mut Weight<'_>),
    ) -> Option<Frame> {
        let id = object_id(kind, &data);
        self.walked += 1;
        let object = Object {
            id,
            kind,
            data: &data,
        };
        each(object, weight);
        let children = self.children(at, &id);
        if children.is_empty() {
            weight.sub(data.len());
            return None;
        }
        Some(Frame {
            data,
            depth,
            children,
        })
    }

    /// The deltas to an object, largest family first.
    fn children(&mut self, at: u32, id: &ObjectId) -> Vec<u32> {
        let mut children = self.waiting.remove(id).unwrap_or_default();
        let mut next = self.first_child[at as usize];
        while next != NONE {
            children.push(next);
            next = self.next_sibling[next as usize];
        }
        children.sort_by_key(|child| std::cmp::Reverse(self.family_size[*child as usize]));
        children
    }

    /// The object that the delta at `at` makes of its base; nothing when a limit forbids it.
    fn make(
        &mut self,
        at: u32,
        base: &Frame,
        weight: &mut Weight<'_>,
    ) -> Result<Option<Vec<u8>>, PackError> {
        let entry = self.entry(at)?;
        if base.depth >= MAX_DEPTH {
            self.skipped.too_big += self.family_size[at as usize];
            return Ok(None);
        }
        let Some(size) = self.allow(at, entry.size) else {
            return Ok(None);
        };
        let delta = self.inflate(&entry, size)?;
        let (sizes, instructions) = delta::sizes(&delta)?;
        if sizes.base != base.data.len() as u64 {
            return Err(PackError("a delta is to an object of another size"));
        }
        let Some(size) = self.allow(at, sizes.result) else {
            return Ok(None);
        };
        weight.add(size);
        delta::apply(&base.data, instructions, size).map(Some)
    }

    /// Whether `size` more bytes may be inflated for the entry at `at`. If not, counts it as left out with
    /// its family.
    fn allow(&mut self, at: u32, size: u64) -> Option<usize> {
        let family = self.family_size[at as usize];
        if size > self.max_size {
            self.skipped.too_big += family;
            return None;
        }
        let Some(left) = self.budget.checked_sub(size) else {
            self.skipped.over_budget += family;
            return None;
        };
        self.budget = left;
        usize::try_from(size).ok()
    }

    fn entry(&self, at: u32) -> Result<Entry, PackError> {
        let entry = self.pack.entries.get(at as usize);
        entry.copied().ok_or(PackError("an object is missing"))
    }

    fn inflate(&mut self, entry: &Entry, size: usize) -> Result<Vec<u8>, PackError> {
        let data = self.pack.bytes.get(entry.data..).unwrap_or_default();
        self.inflater.inflate(data, size)
    }
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
