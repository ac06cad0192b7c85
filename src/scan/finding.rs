//! What scans of folders and repositories report.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use super::Candidate;

/// A candidate and where it was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The file; in a repository, the path that the file has there. A message of a commit or a tag has
    /// none.
    pub path: Option<PathBuf>,
    /// Which object of a repository it was found in, if it was one.
    pub object: Option<GitObject>,
    /// The candidate.
    pub candidate: Candidate,
}

/// An object of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObject {
    /// What it is.
    pub kind: GitKind,
    /// Its name: a hash in hexadecimal.
    pub id: String,
    /// A commit that introduced it, or is it. None for what no commit introduced, such as a tag's message.
    pub commit: Option<String>,
}

/// What an object of a git repository is. Folders hold no text of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitKind {
    /// A file's contents.
    Blob,
    /// A commit, with its message and its authors' names.
    Commit,
    /// An annotated tag, with its message.
    Tag,
}

impl GitKind {
    /// Git's own word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }
}

/// What happens during a scan.
#[derive(Debug)]
pub enum Event {
    /// A candidate was found.
    Found(Finding),
    /// Something could not be scanned, or not as a whole.
    Unread(Unread),
    /// An ignore file is not obeyed, so that more is scanned.
    Disobeyed(Disobeyed),
}

/// An ignore file that is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disobeyed {
    /// The ignore file, or the first of the files that are scanned because it is too much work to tell whether they
    /// are listed.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Something that should have been scanned and was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The file or folder, or what there is in its place. Not every object of a repository has one.
    pub path: Option<PathBuf>,
    /// The object of a repository that it is, if it is one.
    pub object: Option<LostObject>,
    /// Why.
    pub reason: String,
}

/// An object of a git repository that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostObject {
    /// Git's word for what it is, or `object` where nothing tells.
    pub kind: &'static str,
    /// Its name: a hash in hexadecimal.
    pub id: String,
}

/// How far a scan is. Every thread adds to it and anybody may look.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files, or a repository's objects, that were scanned.
    pub texts: AtomicU64,
    /// Their size in bytes.
    pub bytes: AtomicU64,
    /// What could not be read: see [`Unread`].
    pub unread: AtomicU64,
    /// Symbolic links, which are not followed.
    pub links: AtomicU64,
    /// Folders named `.git`, whose contents are not files but a history.
    pub git_folders: AtomicU64,
}

impl Counters {
    pub(super) fn scanned(&self, bytes: u64) {
        self.texts.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where a scan's threads send what they find.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlet<'a> {
    pub(super) counters: &'a Counters,
    pub(super) events: &'a SyncSender<Event>,
}

/// Nobody wants to know any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

impl Outlet<'_> {
    pub(super) fn found(&self, finding: Finding) -> Result<(), Closed> {
        self.events.send(Event::Found(finding)).map_err(|_| Closed)
    }

    pub(super) fn unread(
        &self,
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        self.tell(Unread {
            path: Some(path.into()),
            object: None,
            reason: reason.into(),
        })
    }

    /// Ignore files are not obeyed.
    pub(super) fn disobeyed(
        &self,
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        let disobeyed = Disobeyed {
            path: path.into(),
            reason: reason.into(),
        };
        let sent = self.events.send(Event::Disobeyed(disobeyed));
        sent.map_err(|_| Closed)
    }

    /// An object of a repository could not be read, which some commit has at `path`.
    pub(super) fn lost(
        &self,
        object: LostObject,
        path: Option<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        self.tell(Unread {
            path,
            object: Some(object),
            reason: reason.into(),
        })
    }

    fn tell(&self, unread: Unread) -> Result<(), Closed> {
        Counters::count(&self.counters.unread);
        self.events.send(Event::Unread(unread)).map_err(|_| Closed)
    }
}
