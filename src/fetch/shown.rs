//! Texts of a pack, shown one at a time: what is known of each, and of what is left out.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};

use gix_hash::ObjectId;

use super::FetchError;
use super::history::History;
use super::pack::{Kind, Object, Objects, Skipped};
use super::paths::{Paths, Trees};
use super::weight::Weight;

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
    /// `true` if the server sent, or would have sent, more than the limits allow, or cut the history itself.
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

/// State of a pack while its texts are shown.
pub(super) struct Shown<'v> {
    pub(super) history: History,
    pub(super) paths: Paths,
    path: Vec<u8>,
    left_out: &'v mut LeftOut,
    each: &'v mut dyn FnMut(Text<'_>),
}

impl<'v> Shown<'v> {
    pub(super) fn new(left_out: &'v mut LeftOut, each: &'v mut dyn FnMut(Text<'_>)) -> Self {
        Self {
            history: History::default(),
            paths: Paths::default(),
            path: Vec::new(),
            left_out,
            each,
        }
    }

    /// Shows commits and tags, then trees, then blobs, so that the path of each blob is known.
    pub(super) fn visit(
        &mut self,
        objects: &mut Objects<'_>,
        weight: &mut Weight,
    ) -> Result<(), FetchError> {
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
pub(super) fn read_history(
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
