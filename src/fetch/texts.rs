//! What was fetched, shown text by text.

use std::sync::Arc;

use gix_hash::ObjectId;

use super::budget::{Admission, Budget, Weight};
use super::pack::{Kind, Objects, Pack};
use super::paths::{History, Paths, Trees};
use super::{FetchError, FetchLimits};

/// What kind of text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// A whole commit object: headers and message.
    Commit,
    /// A whole annotated tag: headers and message.
    Tag,
    /// A tree as git stores it: names between bytes of ids.
    Tree,
    /// The contents of a file or symbolic link.
    Blob,
}

/// One text of a pushed range.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// What it is.
    pub kind: TextKind,
    /// Its object id.
    pub id: ObjectId,
    /// A commit that has it: for a blob the first one of the range, for a commit itself.
    pub commit: Option<ObjectId>,
    /// A blob's path in that commit; bytes, for a name need not be UTF-8. None when no tree of the range
    /// names it.
    pub path: Option<&'a [u8]>,
    /// The text.
    pub data: &'a [u8],
}

/// What of a range was not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The server sent, or would have sent, more than the limits allow.
    pub cut: bool,
    /// Objects over the size limit, or deltas to them.
    pub too_big: u32,
    /// Deltas to objects that the server did not send.
    pub without_base: u32,
    /// Objects after the limit on all inflated bytes.
    pub over_budget: u32,
}

impl LeftOut {
    /// Whether everything was shown.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// What was not shown.
    pub left_out: LeftOut,
    /// Of a range that the limits cut: a commit in its middle. What is between it and the two ends can be
    /// asked for apart. None when the range is a single commit.
    pub middle: Option<ObjectId>,
}

/// The packs of one pushed range, in memory until dropped.
#[derive(Debug)]
pub struct Fetched {
    packs: Vec<Pack>,
    limits: Arc<FetchLimits>,
    budget: Arc<Budget>,
    _admission: Option<Admission>,
}

impl Fetched {
    pub(super) fn new(
        packs: Vec<Pack>,
        limits: Arc<FetchLimits>,
        budget: Arc<Budget>,
        admission: Option<Admission>,
    ) -> Self {
        Self {
            packs,
            limits,
            budget,
            _admission: admission,
        }
    }

    /// Bytes of pack data received.
    pub fn bytes(&self) -> usize {
        self.packs.iter().map(Pack::size).sum()
    }

    /// Objects in the packs.
    pub fn objects(&self) -> u32 {
        self.packs.iter().map(Pack::count).sum()
    }

    /// Calls `each` with every text: commits and tags, then trees, then blobs. It is all computation and may
    /// wait for memory, so it blocks the thread.
    ///
    /// # Errors
    /// [`FetchError::Corrupt`] when an object cannot be decoded. What was shown before is still true.
    pub fn visit(&self, mut each: impl FnMut(Text<'_>)) -> Result<Visited, FetchError> {
        let mut visited = Visited::default();
        let left_out = &mut visited.left_out;
        for pack in &self.packs {
            let mut objects = Objects::new(pack, &self.limits);
            let history = self.visit_pack(&mut objects, &mut each)?;
            let skipped = objects.skipped();
            if pack.is_cut() || skipped.over_budget > 0 {
                visited.middle = visited.middle.or_else(|| history.middle());
            }
            left_out.cut |= pack.is_cut();
            left_out.too_big += skipped.too_big;
            left_out.without_base += skipped.without_base;
            left_out.over_budget += skipped.over_budget;
        }
        Ok(visited)
    }

    fn visit_pack(
        &self,
        objects: &mut Objects<'_>,
        each: &mut impl FnMut(Text<'_>),
    ) -> Result<History, FetchError> {
        let mut weight = Weight::new(&self.budget);
        let mut history = History::default();
        let mut trees = Trees::default();
        read_history(objects, &mut weight, &mut history, each)?;
        objects.walk(
            |kind| kind == Kind::Tree,
            &mut weight,
            &mut |object, weight| {
                each(Text {
                    kind: TextKind::Tree,
                    id: object.id,
                    commit: None,
                    path: None,
                    data: object.data,
                });
                trees.add(object.id, object.data, weight);
            },
        )?;
        let paths = Paths::new(&history, trees, &mut weight);
        objects.walk(|kind| kind == Kind::Blob, &mut weight, &mut |object, _| {
            let place = paths.find(&object.id);
            let (commit, path) = place.unzip();
            each(Text {
                kind: TextKind::Blob,
                id: object.id,
                commit,
                path: path.as_deref(),
                data: object.data,
            });
        })?;
        Ok(history)
    }
}

/// Reads the commits and tags of a pack into `history`, showing them as texts.
fn read_history(
    objects: &mut Objects<'_>,
    weight: &mut Weight<'_>,
    history: &mut History,
    each: &mut impl FnMut(Text<'_>),
) -> Result<(), FetchError> {
    objects.walk(
        |kind| matches!(kind, Kind::Commit | Kind::Tag),
        weight,
        &mut |object, _| {
            let is_commit = object.kind == Kind::Commit;
            each(Text {
                kind: if is_commit {
                    TextKind::Commit
                } else {
                    TextKind::Tag
                },
                id: object.id,
                commit: is_commit.then_some(object.id),
                path: None,
                data: object.data,
            });
            if is_commit {
                history.add_commit(object.id, object.data);
            } else {
                history.add_tag(object.id, object.data);
            }
        },
    )?;
    Ok(())
}

/// Whether the commits of `pack` lead from `tip` back to `ancestor`.
pub(super) fn connects(
    pack: &Pack,
    tip: ObjectId,
    ancestor: ObjectId,
    limits: &FetchLimits,
    budget: &Budget,
) -> Result<bool, FetchError> {
    let mut history = History::default();
    let mut objects = Objects::new(pack, limits);
    read_history(
        &mut objects,
        &mut Weight::new(budget),
        &mut history,
        &mut |_| {},
    )?;
    Ok(history.connects(tip, ancestor))
}
