//! Where a blob stands: the path by which a commit of the same pack reaches it.

use std::collections::{HashMap, HashSet};

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::{CommitRefIter, TagRefIter, TreeRefIter};

use super::budget::Weight;

/// The most names that are kept for one pack. Blobs beyond are read all the same, without a path.
const MAX_NAMES: usize = 500_000;

/// The most bytes of trees that are kept while paths are made out.
const MAX_TREE_BYTES: usize = 48 << 20;

/// What keeping one name costs beside the name itself: the name's own record and the place in the map.
const NAME_OVERHEAD: usize = 96;

/// No parent: a name in the root tree.
const ROOT: u32 = u32::MAX;

/// A commit's links.
#[derive(Debug, Clone)]
struct Commit {
    id: ObjectId,
    tree: ObjectId,
    parents: Vec<ObjectId>,
}

/// The commits and tags of a pack, and how they hang together.
#[derive(Debug, Default)]
pub(super) struct History {
    commits: Vec<Commit>,
    tags: HashMap<ObjectId, ObjectId>,
}

impl History {
    pub(super) fn add_commit(&mut self, id: ObjectId, data: &[u8]) {
        let mut commit = CommitRefIter::from_bytes(data, HashKind::Sha1);
        if let Ok(tree) = commit.tree_id() {
            let parents = commit.parent_ids().collect();
            self.commits.push(Commit { id, tree, parents });
        }
    }

    pub(super) fn add_tag(&mut self, id: ObjectId, data: &[u8]) {
        if let Ok(target) = TagRefIter::from_bytes(data, HashKind::Sha1).target_id() {
            self.tags.insert(id, target);
        }
    }

    /// Whether `ancestor` is reached from `tip` through the commits at hand.
    pub(super) fn connects(&self, tip: ObjectId, ancestor: ObjectId) -> bool {
        let parents: HashMap<_, _> = self
            .commits
            .iter()
            .map(|commit| (commit.id, commit.parents.as_slice()))
            .collect();
        let mut seen = HashSet::new();
        let mut open = vec![tip];
        while let Some(id) = open.pop() {
            if id == ancestor {
                return true;
            }
            if seen.insert(id) {
                open.extend(parents.get(&id).copied().unwrap_or_default());
                open.extend(self.tags.get(&id));
            }
        }
        false
    }

    /// A commit with about half of the others behind it; none if there is but one.
    pub(super) fn middle(&self) -> Option<ObjectId> {
        let last = self.commits.len().checked_sub(2)?;
        Some(self.oldest_first().get(last / 2)?.id)
    }

    /// The commits, each after its parents, so that a blob is found in the commit that brought it.
    fn oldest_first(&self) -> Vec<&Commit> {
        let index: HashMap<_, _> = (0..).zip(&self.commits).map(|(at, c)| (c.id, at)).collect();
        let mut sorted = Vec::with_capacity(self.commits.len());
        let mut done = vec![false; self.commits.len()];
        // A pack holds new commits first, so most parents are done before their children from the back.
        for start in (0..self.commits.len()).rev() {
            let mut open = vec![(start, false)];
            while let Some((at, parents_done)) = open.pop() {
                if parents_done {
                    sorted.push(&self.commits[at]);
                } else if !done[at] {
                    done[at] = true;
                    open.push((at, true));
                    let parents = self.commits[at].parents.iter();
                    open.extend(
                        parents
                            .filter_map(|id| index.get(id))
                            .map(|at| (*at, false)),
                    );
                }
            }
        }
        sorted
    }
}

/// The trees of a pack, kept until the paths are made out.
#[derive(Debug, Default)]
pub(super) struct Trees {
    by_id: HashMap<ObjectId, Vec<u8>>,
    bytes: usize,
}

impl Trees {
    pub(super) fn add(&mut self, id: ObjectId, data: &[u8], weight: &mut Weight<'_>) {
        if self.bytes + data.len() <= MAX_TREE_BYTES {
            self.bytes += data.len();
            weight.add(data.len());
            self.by_id.insert(id, data.to_vec());
        }
    }
}

/// Where the blobs of a pack stand.
#[derive(Debug, Default)]
pub(super) struct Paths {
    names: Vec<(u32, Box<[u8]>)>,
    places: HashMap<ObjectId, (ObjectId, u32)>,
}

impl Paths {
    /// Walks the root tree of every commit, oldest first, through all trees at hand. A tree that is not at
    /// hand did not change. Gives the trees' memory back.
    pub(super) fn new(history: &History, trees: Trees, weight: &mut Weight<'_>) -> Self {
        let Trees { by_id, bytes } = trees;
        let mut paths = Self::default();
        let mut seen = HashSet::new();
        for commit in history.oldest_first() {
            let mut open = vec![(commit.tree, ROOT)];
            while let Some((id, parent)) = open.pop() {
                let Some(tree) = by_id.get(&id) else {
                    continue;
                };
                if seen.insert(id) {
                    paths.add_tree(commit.id, parent, tree, &mut open, weight);
                }
            }
        }
        drop(by_id);
        weight.sub(bytes);
        paths
    }

    fn add_tree(
        &mut self,
        commit: ObjectId,
        parent: u32,
        tree: &[u8],
        open: &mut Vec<(ObjectId, u32)>,
        weight: &mut Weight<'_>,
    ) {
        // A damaged entry ends its tree: what comes after it cannot be told.
        let entries = TreeRefIter::from_bytes(tree, HashKind::Sha1).map_while(Result::ok);
        for entry in entries {
            let id = entry.oid.to_owned();
            let is_tree = entry.mode.is_tree();
            if entry.mode.is_commit() || (!is_tree && self.places.contains_key(&id)) {
                continue;
            }
            let Ok(at) = u32::try_from(self.names.len()) else {
                return;
            };
            if self.names.len() >= MAX_NAMES {
                return;
            }
            weight.add(NAME_OVERHEAD + entry.filename.len());
            let name: &[u8] = entry.filename;
            self.names.push((parent, name.into()));
            if is_tree {
                open.push((id, at));
            } else {
                self.places.insert(id, (commit, at));
            }
        }
    }

    /// The commit and the path of a blob.
    pub(super) fn find(&self, blob: &ObjectId) -> Option<(ObjectId, Vec<u8>)> {
        let (commit, mut at) = *self.places.get(blob)?;
        let mut parts: Vec<&[u8]> = Vec::new();
        while at != ROOT {
            let (parent, name) = self.names.get(at as usize)?;
            parts.push(name);
            at = *parent;
        }
        parts.reverse();
        Some((commit, parts.join(b"/".as_slice())))
    }
}
