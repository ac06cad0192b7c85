//! Families of objects that are too large to be held.
//!
//! Git stores a small file as a delta to a large one if they are alike. The bytes that such a delta copies are picked
//! out while the large object is inflated, so that only the small one is held.

use super::super::delta::{self, Picked};
use super::{Each, Entry, FetchError, Kind, Objects, PackError, Weight};

impl Objects<'_> {
    /// Walks the deltas to the object at `root`, which is too large itself. Those that name it by its id are not known
    /// to be deltas to it, and count as without a base.
    pub(super) fn family_of_large(
        &mut self,
        root: u32,
        kind: Kind,
        weight: &mut Weight,
        each: &mut Each<'_>,
    ) -> Result<(), FetchError> {
        self.skipped.too_big += 1;
        let children: Vec<u32> = self.children_by_entry(root).collect();
        for child in children {
            if let Some(data) = self.pick(child, root, weight)? {
                self.descend(child, kind, 1, data, weight, each)?;
            }
        }
        Ok(())
    }

    /// Builds the object from the delta at `at` and its base at `root`. Returns `None` if a limit forbids it.
    fn pick(
        &mut self,
        at: u32,
        root: u32,
        weight: &mut Weight,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let (entry, base) = (self.entry(at)?, self.entry(root)?);
        let Some(delta_size) = self.allow(at, entry.size(), weight)? else {
            return Ok(None);
        };
        let delta = self.inflate(entry, delta_size)?;
        let (sizes, instructions) = delta::sizes(&delta)?;
        if sizes.base != base.size() {
            return Err(PackError("a delta is to an object of another size").into());
        }
        let made = self.build(at, base, sizes.result, instructions, weight)?;
        weight.release(delta_size);
        Ok(made)
    }

    /// Builds the object of `size` bytes that the `instructions` at `at` describe in terms of `base`.
    fn build(
        &mut self,
        at: u32,
        base: Entry,
        size: u64,
        instructions: &[u8],
        weight: &mut Weight,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let Some(size) = self.allow(at, size, weight)? else {
            return Ok(None);
        };
        let copies = Picked::bytes(instructions)?;
        if !weight.hold(copies)? {
            weight.release(size);
            self.skip(at, weight)?;
            return Ok(None);
        }
        let made = if self.pay(at, base.size()) {
            let picked = Picked::begin(base.size(), instructions, size)?;
            Some(self.show_to(picked, base, weight)?)
        } else {
            weight.release(size);
            None
        };
        weight.release(copies);
        Ok(made)
    }

    /// Shows the object in `base` to one that is built from it.
    fn show_to(
        &mut self,
        mut picked: Picked,
        base: Entry,
        weight: &mut Weight,
    ) -> Result<Vec<u8>, FetchError> {
        let data = self.bytes.get(base.data()..).unwrap_or_default();
        self.inflater
            .pieces(data, base.size(), &mut |start, piece| {
                picked.take(start, piece);
                weight.work(piece.len() as u64)
            })?;
        Ok(picked.finish())
    }
}
