//! The commits and tags of a pack, and how they hang together.

use std::ops::Range;

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::{CommitRefIter, TagRefIter};

use super::FetchError;
use super::weight::Weight;

/// What ordering the commits takes for each of them, in bytes.
const ORDER_BYTES: usize = 24;

/// The most that is kept of one history, in bytes: some 200,000 commits.
const MAX_BYTES: usize = 20 << 20;

/// A commit's links.
#[derive(Debug, Clone)]
struct Commit {
    id: ObjectId,
    tree: ObjectId,
    /// Where its parents stand in the list of all parents.
    parents: Range<u32>,
}

/// The commits and tags of a pack. Beyond what a visit may hold it is incomplete, and says so.
#[derive(Debug, Default)]
pub(super) struct History {
    commits: Vec<Commit>,
    parents: Vec<ObjectId>,
    /// Tags and what they point to.
    tags: Vec<(ObjectId, ObjectId)>,
    bytes: usize,
    incomplete: bool,
}

impl History {
    pub(super) fn add_commit(
        &mut self,
        id: ObjectId,
        data: &[u8],
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let mut commit = CommitRefIter::from_bytes(data, HashKind::Sha1);
        let Ok(tree) = commit.tree_id() else {
            return Ok(());
        };
        if !self.takes(size_of::<Commit>() + ORDER_BYTES)
            || !weight.hold(ORDER_BYTES)?
            || !weight.room(&mut self.commits, 1)?
        {
            self.incomplete = true;
            return Ok(());
        }
        let first = self.parent_count();
        for parent in commit.parent_ids() {
            if !self.takes(size_of::<ObjectId>()) || !weight.room(&mut self.parents, 1)? {
                self.incomplete = true;
                break;
            }
            self.parents.push(parent);
        }
        let parents = first..self.parent_count();
        self.commits.push(Commit { id, tree, parents });
        Ok(())
    }

    pub(super) fn add_tag(
        &mut self,
        id: ObjectId,
        data: &[u8],
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let Ok(target) = TagRefIter::from_bytes(data, HashKind::Sha1).target_id() else {
            return Ok(());
        };
        if self.takes(2 * size_of::<ObjectId>()) && weight.room(&mut self.tags, 1)? {
            self.tags.push((id, target));
        } else {
            self.incomplete = true;
        }
        Ok(())
    }

    /// Whether `bytes` more may be kept; counts them.
    fn takes(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes <= MAX_BYTES
    }

    fn parent_count(&self) -> u32 {
        // There are at most as many as MAX_BYTES allows.
        u32::try_from(self.parents.len()).unwrap_or(u32::MAX)
    }

    /// Whether some commits, tags or parents were too many to be kept.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The id of the commit at this index.
    pub(super) fn commit(&self, at: u32) -> Option<ObjectId> {
        self.commits.get(at as usize).map(|commit| commit.id)
    }

    /// Whether `ancestor` is reached from `tip` through the commits at hand. An incomplete history cannot
    /// tell; it counts as connected.
    pub(super) fn connects(&self, tip: ObjectId, ancestor: ObjectId) -> bool {
        if self.incomplete {
            return true;
        }
        let tip = self.peeled(tip, ancestor);
        if tip == ancestor {
            return true;
        }
        let index = self.index();
        let mut seen = vec![false; self.commits.len()];
        let mut open = Vec::new();
        open.extend(self.find(&index, &tip));
        while let Some(at) = open.pop() {
            for parent in self.parents_of(at) {
                if *parent == ancestor {
                    return true;
                }
                if let Some(at) = self.find(&index, parent)
                    && !std::mem::replace(&mut seen[at as usize], true)
                {
                    open.push(at);
                }
            }
        }
        false
    }

    /// What a tag leads to, through other tags, but not beyond `end`.
    fn peeled(&self, mut id: ObjectId, end: ObjectId) -> ObjectId {
        let mut tags: Vec<_> = self.tags.iter().collect();
        tags.sort_unstable();
        // No tag can lead back to itself; damaged ones may say so.
        for _ in 0..tags.len() {
            if id == end {
                break;
            }
            let Ok(at) = tags.binary_search_by_key(&id, |tag| tag.0) else {
                break;
            };
            id = tags[at].1;
        }
        id
    }

    /// A commit with about half of the others behind it; none if there is but one.
    pub(super) fn middle(&self) -> Option<ObjectId> {
        let last = self.commits.len().checked_sub(2)?;
        self.commit(*self.oldest_first().get(last / 2)?)
    }

    /// The indexes of the commits and their trees, each after its parents, so that a blob is found in the
    /// commit that brought it.
    pub(super) fn roots(&self) -> impl Iterator<Item = (u32, ObjectId)> {
        let sorted = self.oldest_first().into_iter();
        sorted.filter_map(|at| Some((at, self.commits.get(at as usize)?.tree)))
    }

    fn oldest_first(&self) -> Vec<u32> {
        let index = self.index();
        let mut sorted = Vec::with_capacity(self.commits.len());
        let mut done = vec![false; self.commits.len()];
        let mut open: Vec<(u32, u32)> = Vec::new();
        // A pack holds new commits first, so most parents are done before their children from the back.
        for start in (0..count(&self.commits)).rev() {
            if !std::mem::replace(&mut done[start as usize], true) {
                open.push((start, self.commits[start as usize].parents.start));
            }
            while let Some((at, next)) = open.last_mut() {
                let commit = &self.commits[*at as usize];
                if *next >= commit.parents.end {
                    sorted.push(*at);
                    open.pop();
                    continue;
                }
                let parent = self.parents[*next as usize];
                *next += 1;
                if let Some(parent) = self.find(&index, &parent)
                    && !std::mem::replace(&mut done[parent as usize], true)
                {
                    open.push((parent, self.commits[parent as usize].parents.start));
                }
            }
        }
        sorted
    }

    fn parents_of(&self, at: u32) -> &[ObjectId] {
        let Some(commit) = self.commits.get(at as usize) else {
            return &[];
        };
        let Range { start, end } = commit.parents;
        self.parents
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// The indexes of the commits in the order of their ids.
    fn index(&self) -> Vec<u32> {
        let mut index: Vec<u32> = (0..count(&self.commits)).collect();
        index.sort_unstable_by_key(|at| self.commits[*at as usize].id);
        index
    }

    fn find(&self, index: &[u32], id: &ObjectId) -> Option<u32> {
        let at = index.binary_search_by_key(id, |at| self.commits[*at as usize].id);
        index.get(at.ok()?).copied()
    }
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
