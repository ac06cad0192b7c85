//! Paths of blobs: those by which a commit of the same pack reaches them.

use std::collections::HashMap;

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::TreeRefIter;

use super::FetchError;
use super::history::History;
use super::short_id::ShortId;
use super::weight::Weight;

/// Maximum number of names that are kept for one pack. Further blobs are still read, without a path.
const MAX_NAMES: usize = 225_000;

/// Maximum size of all names of one pack, in bytes.
const MAX_NAME_BYTES: usize = 8 << 20;

/// Maximum size of the trees that are kept until the paths are built, in bytes, including 28 for each
/// tree.
const MAX_TREE_BYTES: usize = 24 << 20;

/// Memory needed to keep the place of one blob, in bytes: a slot in a table that is half empty, and its
/// growth.
const PLACE_BYTES: usize = 48;

/// Maximum length of a path, in bytes; git itself stops at 4096. Anything nested deeper has the path of
/// its ancestor.
const MAX_PATH: usize = 8 << 10;

/// Maximum number of names that are joined to paths. A quarter of a million paths need a tenth of it.
const MAX_STEPS: u64 = 20_000_000;

/// Parent of a name in a root tree, which stands for no name.
const ROOT: u32 = u32::MAX;

/// Trees of a pack, kept until the paths are built.
#[derive(Debug, Default)]
pub(super) struct Trees {
    list: Vec<Tree>,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    id: ShortId,
    start: u32,
    end: u32,
}

impl Trees {
    /// Keeps a tree if there is room.
    pub(super) fn add(
        &mut self,
        id: ObjectId,
        data: &[u8],
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let end = self.data.len() + data.len();
        let bytes = end + self.list.len() * size_of::<Tree>();
        if bytes > MAX_TREE_BYTES
            || !weight.room(&mut self.list, 1)?
            || !weight.room(&mut self.data, data.len())?
        {
            return Ok(());
        }
        if let (Ok(start), Ok(end)) = (u32::try_from(self.data.len()), u32::try_from(end)) {
            let id = ShortId::from(&id);
            self.list.push(Tree { id, start, end });
            self.data.extend_from_slice(data);
        }
        Ok(())
    }

    fn find(&self, id: &ObjectId) -> Option<usize> {
        let id = ShortId::from(id);
        self.list.binary_search_by_key(&id, |tree| tree.id).ok()
    }

    fn data(&self, tree: Tree) -> &[u8] {
        let range = tree.start as usize..tree.end as usize;
        self.data.get(range).unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.data.capacity() + self.list.capacity() * size_of::<Tree>()
    }
}

/// Maximum memory of paths while the rest of a large pack is waited for, in bytes.
const MAX_RESTING: usize = 8 << 20;

/// Paths of the blobs of a pack.
#[derive(Debug, Default)]
pub(super) struct Paths {
    names: Vec<Name>,
    /// Bytes of all names, concatenated.
    text: Vec<u8>,
    /// Index of each blob's name, or of its ancestor's name if its path would be too long.
    places: HashMap<ShortId, u32>,
    steps_left: u64,
}

/// A component of a path.
#[derive(Debug, Clone, Copy)]
struct Name {
    /// Index of the name of the parent directory.
    parent: u32,
    /// Index in the history of the commit that introduced it.
    commit: u32,
    start: u32,
    end: u32,
}

/// A tree that is to be read.
#[derive(Debug, Clone, Copy)]
struct Open {
    hash: HashKind,
    tree: usize,
    commit: u32,
    /// Index of its name.
    at: u32,
    /// Length of its path, in bytes.
    length: usize,
}

/// Properties of a path that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Commit that introduced it.
    pub(super) commit: ObjectId,
    /// `true` if the path was truncated.
    pub(super) cut: bool,
}

impl Paths {
    /// Walks the root tree of every commit, oldest first, through all trees at hand. A tree that is not
    /// at hand did not change. Releases the memory of the trees.
    pub(super) fn new(
        history: &History,
        mut trees: Trees,
        weight: &mut Weight,
    ) -> Result<Self, FetchError> {
        let mut paths = Self {
            steps_left: MAX_STEPS,
            ..Self::default()
        };
        trees.list.sort_by_key(|tree| tree.id);
        let mut seen = vec![false; trees.list.len()];
        let mut open = Vec::new();
        for (commit, root) in history.roots() {
            if let Some(tree) = trees.find(&root).filter(|tree| !seen[*tree]) {
                seen[tree] = true;
                open.push(Open {
                    hash: root.kind(),
                    tree,
                    commit,
                    at: ROOT,
                    length: 0,
                });
            }
            while let Some(tree) = open.pop() {
                paths.add_tree(tree, &trees, &mut seen, &mut open, weight)?;
            }
        }
        weight.release(trees.bytes());
        Ok(paths)
    }

    fn add_tree(
        &mut self,
        tree: Open,
        trees: &Trees,
        seen: &mut [bool],
        open: &mut Vec<Open>,
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let data = trees.data(trees.list[tree.tree]);
        // A corrupt entry ends its tree: the position of the next one is unknown.
        let entries = TreeRefIter::from_bytes(data, tree.hash).map_while(Result::ok);
        for entry in entries {
            let id = entry.oid.to_owned();
            let below = if entry.mode.is_tree() {
                trees.find(&id).filter(|tree| !seen[*tree])
            } else {
                None
            };
            let is_new = if entry.mode.is_tree() {
                below.is_some()
            } else {
                !entry.mode.is_commit() && !self.places.contains_key(&ShortId::from(&id))
            };
            if !is_new {
                continue;
            }
            let Some((at, length)) = self.add_name(tree, entry.filename, weight)? else {
                return Ok(());
            };
            if let Some(below) = below {
                seen[below] = true;
                open.push(Open {
                    hash: tree.hash,
                    tree: below,
                    commit: tree.commit,
                    at,
                    length,
                });
            } else if self.has_room(weight)? {
                self.places.insert(ShortId::from(&id), at);
            }
        }
        Ok(())
    }

    /// Adds a name in a directory. Returns its index and the length of its path, or `None` if no more
    /// names are kept.
    fn add_name(
        &mut self,
        folder: Open,
        name: &[u8],
        weight: &mut Weight,
    ) -> Result<Option<(u32, usize)>, FetchError> {
        // The slash that follows a folder's path is counted in its length.
        if folder.length > MAX_PATH + 1 {
            return Ok(Some((folder.at, folder.length)));
        }
        // One byte more than is shown tells a path that is cut from one that ends there.
        let kept = &name[..name.len().min(MAX_PATH + 1)];
        let start = self.text.len();
        let end = start + kept.len();
        if self.names.len() >= MAX_NAMES
            || end > MAX_NAME_BYTES
            || !weight.room(&mut self.names, 1)?
            || !weight.room(&mut self.text, kept.len())?
        {
            return Ok(None);
        }
        let (Ok(at), Ok(start), Ok(end)) = (
            u32::try_from(self.names.len()),
            u32::try_from(start),
            u32::try_from(end),
        ) else {
            return Ok(None);
        };
        self.text.extend_from_slice(kept);
        self.names.push(Name {
            parent: folder.at,
            commit: folder.commit,
            start,
            end,
        });
        Ok(Some((at, folder.length + kept.len() + 1)))
    }

    /// Returns the memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let names = self.names.capacity() * size_of::<Name>();
        names + self.text.capacity() + self.places.capacity() * PLACE_BYTES
    }

    /// Drops all paths if they take more memory than may be held while a server is waited for.
    pub(super) fn shrink(&mut self) {
        if self.bytes() > MAX_RESTING {
            *self = Self::default();
        }
    }

    fn has_room(&mut self, weight: &mut Weight) -> Result<bool, FetchError> {
        let capacity = self.places.capacity();
        if self.places.len() < capacity {
            return Ok(true);
        }
        let more = capacity.max(64);
        if !weight.hold(more * PLACE_BYTES)? {
            return Ok(false);
        }
        self.places.reserve(more);
        Ok(true)
    }

    /// Returns the commit of a blob and writes the blob's path to `path`.
    pub(super) fn find(
        &mut self,
        history: &History,
        blob: &ObjectId,
        path: &mut Vec<u8>,
    ) -> Option<Found> {
        path.clear();
        let last = *self.places.get(&ShortId::from(blob))?;
        let commit = history.commit(self.names.get(last as usize)?.commit)?;
        let mut at = last;
        // From the last name to the first, hence each of them reversed.
        while let Some(name) = self.names.get(at as usize) {
            self.steps_left = self.steps_left.checked_sub(1)?;
            if !path.is_empty() {
                path.push(b'/');
            }
            let range = name.start as usize..name.end as usize;
            path.extend(self.text.get(range).unwrap_or_default().iter().rev());
            at = name.parent;
        }
        path.reverse();
        let cut = path.len() > MAX_PATH;
        path.truncate(MAX_PATH);
        Some(Found { commit, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Seat;
    use super::*;

    fn id(number: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[number; 20])
    }

    fn entry(mode: &str, name: &[u8], id: ObjectId) -> Vec<u8> {
        [mode.as_bytes(), b" ", name, b"\0", id.as_slice()].concat()
    }

    /// Returns the path of blob 9, which has a name of `file` bytes in a folder that has one of `folder`.
    fn path(folder: usize, file: usize) -> (usize, bool) {
        let mut weight = Weight::new(&Seat::alone());
        let (mut history, mut trees) = (History::default(), Trees::default());
        let commit = format!("tree {}\nauthor a <a> 0 +0000\n\n", id(2));
        history
            .add_commit(id(1), commit.as_bytes(), &mut weight)
            .unwrap();
        let root = entry("40000", &vec![b'd'; folder], id(3));
        let below = entry("100644", &vec![b'f'; file], id(9));
        trees.add(id(2), &root, &mut weight).unwrap();
        trees.add(id(3), &below, &mut weight).unwrap();
        let mut paths = Paths::new(&history, trees, &mut weight).unwrap();
        let mut path = Vec::new();
        let found = paths.find(&history, &id(9), &mut path).unwrap();
        (path.len(), found.cut)
    }

    #[test]
    fn only_a_path_that_is_longer_than_the_longest_is_cut() {
        for (folder, file, length, cut) in [
            (10, 20, 31, false),
            (1, MAX_PATH - 2, MAX_PATH, false),
            (1, MAX_PATH - 1, MAX_PATH, true),
            (MAX_PATH - 2, 1, MAX_PATH, false),
            (MAX_PATH - 1, 1, MAX_PATH, true),
            (MAX_PATH, 1, MAX_PATH, true),
            (MAX_PATH + 1, 1, MAX_PATH, true),
            (MAX_PATH * 2, MAX_PATH * 2, MAX_PATH, true),
        ] {
            assert_eq!(path(folder, file), (length, cut), "{folder}/{file}");
        }
    }
}
