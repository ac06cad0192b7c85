//! Texts of a pushed range, shown one at a time.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use gix_hash::ObjectId;

use super::budget::{Admission, Seat};
use super::history::History;
use super::pack::{Allowed, Kind, ListLimits, Object, Objects, Pack, Skipped};
use super::paths::{Paths, Trees};
use super::rest::{Progress, Rest};
use super::weight::Weight;
use super::{FetchError, FetchLimits};

/// Kind of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// A whole commit object: headers and message.
    Commit,
    /// A whole annotated tag: headers and message.
    Tag,
    /// A tree as git stores it: names between the bytes of ids.
    Tree,
    /// The contents of a file or symbolic link.
    Blob,
}

/// A text of a pushed range.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Kind of the text.
    pub kind: TextKind,
    /// Id of the object.
    pub id: ObjectId,
    /// Commit that contains the text: the first of the range for a blob, the commit itself for a commit.
    pub commit: Option<ObjectId>,
    /// Path of a blob in that commit, as bytes, since a name need not be UTF-8. `None` if no tree of the
    /// range names the blob.
    pub path: Option<&'a [u8]>,
    /// `true` if the path was truncated to 8 KiB.
    pub path_is_cut: bool,
    /// Contents of the text.
    pub data: &'a [u8],
    /// Check that there is time left for the text.
    pub breath: Breath<'a>,
}

impl Text<'_> {
    /// Returns a reader of the contents, which fails once others have waited for too long. The text is shown again
    /// another time then.
    pub fn reader(&self) -> impl Read {
        TextReader {
            data: self.data,
            breath: self.breath,
        }
    }
}

/// Check that there is time left for a text, since a single one can take long to scan.
#[derive(Clone, Copy, Default)]
pub struct Breath<'a>(Option<&'a dyn Fn() -> bool>);

impl fmt::Debug for Breath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Breath")
    }
}

struct TextReader<'a> {
    data: &'a [u8],
    breath: Breath<'a>,
}

impl Read for TextReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.breath.0.is_some_and(|goes_on| !goes_on()) {
            return Err(io::Error::other("others waited for too long"));
        }
        self.data.read(buffer)
    }
}

/// Parts of a range that were not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// `true` if the server sent, or would have sent, more than the limits allow.
    pub cut: bool,
    /// Number of objects that exceed the size limit or do not fit into memory together with the base of
    /// their delta, and of deltas to them.
    pub too_big: u32,
    /// Number of deltas to objects that the server did not send.
    pub without_base: u32,
    /// Number of objects beyond the limit on all inflated bytes.
    pub over_budget: u32,
}

impl LeftOut {
    /// Returns `true` if everything was shown.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Result of a visit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// Parts that were not shown.
    pub left_out: LeftOut,
    /// A commit in the middle of a range that the limits cut. The two halves of the range can be fetched
    /// separately. `None` if the range is a single commit.
    pub middle: Option<ObjectId>,
}

/// The packs of one pushed range, in memory until dropped. If a pack is too large, only its beginning is
/// in memory.
#[derive(Debug)]
pub struct Fetched {
    packs: Vec<Pack>,
    limits: Arc<FetchLimits>,
    seat: Seat,
    rest: Option<Rest>,
    _admission: Option<Admission>,
}

impl Fetched {
    pub(super) fn new(
        packs: Vec<Pack>,
        limits: Arc<FetchLimits>,
        seat: Seat,
        admission: Option<Admission>,
    ) -> Self {
        Self {
            packs,
            limits,
            seat,
            rest: None,
            _admission: admission,
        }
    }

    /// Adds the remainder of the last pack.
    pub(super) fn with_rest(self, rest: Option<Rest>) -> Self {
        Self { rest, ..self }
    }

    /// Returns the number of bytes of pack data received.
    pub fn bytes(&self) -> usize {
        self.packs.iter().map(|pack| pack.bytes().len()).sum()
    }

    /// Calls `each` with every text: commits and tags, then trees, then blobs.
    ///
    /// This is pure computation, which may wait for memory and, for a single commit in a very large pack,
    /// for the server. It blocks the thread and, in a runtime, belongs on a thread that may block.
    ///
    /// # Errors
    ///
    /// Returns [`FetchError::Corrupt`] if an object cannot be decoded, and [`FetchError::Busy`] if the
    /// range is large and too many large ranges are waiting. Texts that were already shown remain valid.
    pub fn visit(self, mut each: impl FnMut(Text<'_>)) -> Result<Visited, FetchError> {
        let mut visited = Visited::default();
        let last = self.packs.len().saturating_sub(1);
        let mut rest = self.rest;
        for (at, pack) in self.packs.into_iter().enumerate() {
            let visit = Visit {
                limits: &self.limits,
                seat: &self.seat,
                visited: &mut visited,
                each: &mut each,
            };
            visit.pack(pack, rest.take_if(|_| at == last))?;
        }
        Ok(visited)
    }
}

impl FetchLimits {
    fn list(&self, pack: &Pack) -> ListLimits {
        ListLimits {
            objects: self.max_objects,
            inflated: self.allowance(pack.bytes().len() as u64),
        }
    }

    fn allowed(&self, pack: &Pack) -> Allowed {
        Allowed {
            object: self.max_blob_bytes,
            total: self.allowance(pack.bytes().len() as u64),
        }
    }
}

/// Visit of a pack.
struct Visit<'v> {
    limits: &'v FetchLimits,
    seat: &'v Seat,
    visited: &'v mut Visited,
    each: &'v mut dyn FnMut(Text<'_>),
}

impl Visit<'_> {
    /// Shows the texts of a pack and of its remainder.
    fn pack(self, mut pack: Pack, rest: Option<Rest>) -> Result<(), FetchError> {
        let (listing, mut weight) = if let Some(known) = pack.take_known() {
            known
        } else {
            let mut weight = Weight::new(self.seat);
            let listing = pack.list(self.limits.list(&pack), &mut weight)?;
            (listing, weight)
        };
        let weight = &mut weight;
        let allowed = self.limits.allowed(&pack);
        let mut objects = Objects::new(pack.bytes(), &listing, allowed, weight)?;
        let mut shown = Shown {
            history: History::default(),
            paths: Paths::default(),
            path: Vec::new(),
            left_out: &mut self.visited.left_out,
            each: self.each,
        };
        shown.visit(&mut objects, weight)?;

        let skipped = objects.skipped();
        let mut is_cut = listing.is_cut() || shown.history.is_incomplete();
        let is_part = is_cut || skipped.over_budget > 0;
        let middle = is_part.then(|| shown.history.middle()).flatten();
        shown.skip(skipped);
        let goes_on = middle.is_none() && !listing.is_at_a_limit();
        if let (Some(rest), Some(stated)) = (rest.filter(|_| goes_on), pack.stated_count()) {
            let (count, end) = (listing.count(), listing.end());
            shown.paths.shrink();
            drop(listing);
            let mut progress = Progress {
                held: pack.into_bytes(),
                gone: 0,
                count: stated.saturating_sub(count),
                read: count,
                hasher: gix_hash::hasher(gix_hash::Kind::Sha1),
            };
            progress.pass(end);
            weight.end();
            is_cut = progress.go_on(rest, self.limits, self.seat, &mut shown)?
                || shown.history.is_incomplete();
        }
        self.visited.middle = self.visited.middle.or(middle);
        self.visited.left_out.cut |= is_cut;
        Ok(())
    }
}

/// State of a pack while its texts are shown.
pub(super) struct Shown<'v> {
    history: History,
    paths: Paths,
    path: Vec<u8>,
    left_out: &'v mut LeftOut,
    each: &'v mut dyn FnMut(Text<'_>),
}

impl Shown<'_> {
    /// Shows commits and tags, then trees, then blobs, so that the path of each blob is known.
    fn visit(&mut self, objects: &mut Objects<'_>, weight: &mut Weight) -> Result<(), FetchError> {
        read_history(objects, weight, &mut self.history, self.each)?;
        let mut trees = Trees::default();
        objects.walk(|kind| kind == Kind::Tree, weight, &mut |object, weight| {
            self.show(&object, weight)?;
            trees.add(object.id, object.data, weight)
        })?;
        self.paths = Paths::new(&self.history, trees, weight)?;
        objects.walk(|kind| kind == Kind::Blob, weight, &mut |object, weight| {
            self.show(&object, weight)
        })
    }

    /// Shows an object, while others do not wait for too long.
    pub(super) fn show(
        &mut self,
        object: &Object<'_>,
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
        let text = match object.kind {
            Kind::Commit => Text {
                commit: Some(object.id),
                ..text(TextKind::Commit, object)
            },
            Kind::Tag => text(TextKind::Tag, object),
            Kind::Tree => text(TextKind::Tree, object),
            Kind::Blob => {
                let (history, path) = (&self.history, &mut self.path);
                let found = self.paths.find(history, &object.id, path);
                Text {
                    commit: found.map(|found| found.commit),
                    path: found.map(|_| path.as_slice()),
                    path_is_cut: found.is_some_and(|found| found.cut),
                    ..text(TextKind::Blob, object)
                }
            }
        };
        show(text, weight, self.each)
    }

    /// Counts objects that were not shown.
    pub(super) fn skip(&mut self, skipped: Skipped) {
        self.left_out.too_big += skipped.too_big;
        self.left_out.without_base += skipped.without_base;
        self.left_out.over_budget += skipped.over_budget;
    }

    /// Returns the memory held from one part of a pack to the next, in bytes.
    pub(super) fn held(&self) -> usize {
        self.paths.bytes()
    }
}

/// Reads the commits and tags of a pack into `history`, showing them as texts.
fn read_history(
    objects: &mut Objects<'_>,
    weight: &mut Weight,
    history: &mut History,
    each: &mut dyn FnMut(Text<'_>),
) -> Result<(), FetchError> {
    objects.walk(
        |kind| matches!(kind, Kind::Commit | Kind::Tag),
        weight,
        &mut |object, weight| {
            if object.kind == Kind::Commit {
                let commit = Some(object.id);
                let text = Text {
                    commit,
                    ..text(TextKind::Commit, &object)
                };
                show(text, weight, each)?;
                history.add_commit(object.id, object.data, weight)
            } else {
                show(text(TextKind::Tag, &object), weight, each)?;
                history.add_tag(object.id, object.data, weight)
            }
        },
    )
}

/// Shows a text. Whoever looks at it may find that there is no time left, and ends then.
fn show(
    text: Text<'_>,
    weight: &mut Weight,
    each: &mut dyn FnMut(Text<'_>),
) -> Result<(), FetchError> {
    let state = RefCell::new((weight, Ok(())));
    let goes_on = || {
        let (weight, ended) = &mut *state.borrow_mut();
        if ended.is_ok() {
            *ended = weight.work(0);
        }
        ended.is_ok()
    };
    each(Text {
        breath: Breath(Some(&goes_on)),
        ..text
    });
    state.into_inner().1
}

/// Returns the text of an object, without commit and path.
fn text<'a>(kind: TextKind, object: &Object<'a>) -> Text<'a> {
    Text {
        kind,
        id: object.id,
        commit: None,
        path: None,
        path_is_cut: false,
        data: object.data,
        breath: Breath::default(),
    }
}

/// Returns `true` if the commits of `pack` lead from `tip` back to `ancestor`. A pack that is not listed
/// completely does not allow an answer and counts as connected.
pub(super) fn connects(
    pack: &mut Pack,
    tip: ObjectId,
    ancestor: ObjectId,
    limits: &FetchLimits,
    seat: &Seat,
) -> Result<bool, FetchError> {
    let mut weight = Weight::new(seat);
    let listing = pack.list(limits.list(pack), &mut weight)?;
    let mut connected = true;
    if !listing.is_cut() {
        let allowed = limits.allowed(pack);
        let mut objects = Objects::new(pack.bytes(), &listing, allowed, &mut weight)?;
        let mut history = History::default();
        read_history(&mut objects, &mut weight, &mut history, &mut |_| {})?;
        connected = history.connects(tip, ancestor);
    }
    // A range that is not connected waits for another pack, and no fetch waits for a server while it
    // holds the lane.
    if connected || !weight.is_heavy() {
        pack.remember(listing, weight);
    }
    Ok(connected)
}
