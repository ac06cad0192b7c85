//! Commits and tags of a pack and the links between them.

use std::ops::Range;

use gix_hash::ObjectId;
use gix_object::{CommitRefIter, TagRefIter};

use super::FetchError;
use super::protocol::Shallow;
use super::weight::Weight;

/// Memory needed to order the commits, in bytes per commit.
const ORDER_BYTES: usize = 24;

/// Maximum memory of one history, in bytes: some 150,000 commits.
const MAX_BYTES: usize = 20 << 20;

/// Links of a commit.
#[derive(Debug, Clone)]
struct Commit {
    id: ObjectId,
    tree: ObjectId,
    /// Range of the commit's parents in the list of all parents.
    parents: Range<u32>,
}

/// Commits and tags of a pack. The history is marked as incomplete if it exceeds what a visit may hold.
#[derive(Debug, Default)]
pub(super) struct History {
    commits: Vec<Commit>,
    parents: Vec<ObjectId>,
    /// Tags and their targets.
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
        let mut commit = CommitRefIter::from_bytes(data, id.kind());
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
        let Ok(target) = TagRefIter::from_bytes(data, id.kind()).target_id() else {
            return Ok(());
        };
        if self.takes(2 * size_of::<ObjectId>()) && weight.room(&mut self.tags, 1)? {
            self.tags.push((id, target));
        } else {
            self.incomplete = true;
        }
        Ok(())
    }

    /// Counts `bytes` and returns `true` if they may be kept.
    fn takes(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes <= MAX_BYTES
    }

    fn parent_count(&self) -> u32 {
        // `MAX_BYTES` bounds the number of parents.
        u32::try_from(self.parents.len()).unwrap_or(u32::MAX)
    }

    /// Returns `true` if commits, tags or parents were omitted because there were too many.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Returns the id of the commit at the given index.
    pub(super) fn commit(&self, at: u32) -> Option<ObjectId> {
        self.commits.get(at as usize).map(|commit| commit.id)
    }

    /// Returns `true` if `ancestor` is reachable from `tip` through the commits at hand. An incomplete
    /// history does not allow an answer and counts as connected.
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

    /// Returns whether the server cut the history before its end, or before as many commits as were asked for. A
    /// repository may itself be cut, and lie about that in no other way.
    pub(super) fn is_cut_by(&self, shallow: &Shallow) -> bool {
        if shallow.is_cut() {
            return true;
        }
        if shallow.commits().is_empty() {
            return false;
        }
        let index = self.index();
        let mut cut = shallow.commits().iter();
        let near = shallow.limit();
        let near = near.map(|(last, count)| self.last(&index, &last, count.saturating_sub(1)));
        cut.any(|id| {
            let Some(at) = self.find(&index, id) else {
                return false;
            };
            let mut parents = self.parents_of(at).iter();
            let is_near = near.as_ref().is_none_or(|near| near[at as usize]);
            is_near && parents.any(|parent| self.find(&index, parent).is_none())
        })
    }

    /// Returns for each commit whether it is among so many in a row, back from `last`.
    fn last(&self, index: &[u32], last: &ObjectId, count: u32) -> Vec<bool> {
        let mut is_last = vec![false; self.commits.len()];
        let mut open: Vec<u32> = self.find(index, last).into_iter().collect();
        for _ in 0..count {
            let mut before = Vec::new();
            for at in open {
                if !std::mem::replace(&mut is_last[at as usize], true) {
                    let parents = self.parents_of(at).iter();
                    before.extend(parents.filter_map(|parent| self.find(index, parent)));
                }
            }
            open = before;
        }
        is_last
    }

    /// Follows tags to their target, but not beyond `end`.
    fn peeled(&self, mut id: ObjectId, end: ObjectId) -> ObjectId {
        let mut tags: Vec<_> = self.tags.iter().collect();
        tags.sort_unstable();
        // Sound tags cannot form a cycle, but corrupt ones may.
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

    /// Returns the parents of a commit.
    pub(super) fn parents(&self, id: &ObjectId) -> Vec<ObjectId> {
        let at = self.find(&self.index(), id);
        at.map_or(Vec::new(), |at| self.parents_of(at).to_vec())
    }

    /// Returns whether a commit or tag is at hand, or may be, in a history that is incomplete.
    pub(super) fn may_have(&self, id: &ObjectId) -> bool {
        let is_tag = self.tags.iter().any(|(tag, _)| tag == id);
        self.incomplete || is_tag || self.find(&self.index(), id).is_some()
    }

    /// Returns the commits that are not at hand, and are parents of some that are.
    pub(super) fn before(&self) -> Vec<ObjectId> {
        let index = self.index();
        let mut before = self.parents.clone();
        before.retain(|parent| self.find(&index, parent).is_none());
        before.sort_unstable();
        before.dedup();
        before
    }

    /// Returns a commit that about half of the others precede, or `None` if there is at most one commit.
    pub(super) fn middle(&self) -> Option<ObjectId> {
        let last = self.commits.len().checked_sub(2)?;
        self.commit(*self.oldest_first().get(last / 2)?)
    }

    /// Returns an iterator over the indexes of the commits and their trees. Each commit comes after its
    /// parents, so that a blob is found in the commit that introduced it.
    pub(super) fn roots(&self) -> impl Iterator<Item = (u32, ObjectId)> {
        let sorted = self.oldest_first().into_iter();
        sorted.filter_map(|at| Some((at, self.commits.get(at as usize)?.tree)))
    }

    fn oldest_first(&self) -> Vec<u32> {
        let index = self.index();
        let mut sorted = Vec::with_capacity(self.commits.len());
        let mut done = vec![false; self.commits.len()];
        let mut open: Vec<(u32, u32)> = Vec::new();
        // Packs list new commits first, so going backward most parents are done before their children.
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

    /// Returns the indexes of the commits, sorted by id.
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
