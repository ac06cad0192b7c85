//! Events and counters of scans of folders and repositories.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use super::Candidate;

/// Candidate, and the place where it was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Path of the file; in a repository, the path within it. `None` for the message of a commit or a tag.
    pub path: Option<PathBuf>,
    /// Object of the repository in which it was found, if any.
    pub object: Option<GitObject>,
    /// The candidate.
    pub candidate: Candidate,
}

/// Object of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObject {
    /// Type of the object.
    pub kind: GitKind,
    /// Object name: a hash in hexadecimal.
    pub id: String,
    /// A commit that introduced the object, or the object itself if it is a commit. `None` for an object that no
    /// commit introduced, such as a tag.
    pub commit: Option<String>,
}

/// Type of an object of a git repository. Trees are absent, since they have no text of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitKind {
    /// Contents of a file.
    Blob,
    /// Commit, with its message and the names of its authors.
    Commit,
    /// Annotated tag, with its message.
    Tag,
}

impl GitKind {
    /// Returns git's name for the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }
}

/// Event of a scan.
#[derive(Debug)]
pub enum Event {
    /// A candidate was found.
    Found(Finding),
    /// Something could not be scanned, or not completely.
    Unread(Unread),
    /// An ignore file is not obeyed, so that more files are scanned.
    Disobeyed(Disobeyed),
}

/// Ignore file that is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disobeyed {
    /// The ignore file, or the first of the files that are scanned because deciding whether they are listed takes
    /// too long.
    pub path: PathBuf,
    /// Reason, for the user.
    pub reason: String,
}

/// Something that should have been scanned and was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// File or folder, or whatever exists in its place. `None` for an object of a repository without a path.
    pub path: Option<PathBuf>,
    /// Object of the repository, if it is one.
    pub object: Option<LostObject>,
    /// Reason, for the user.
    pub reason: String,
}

/// Object of a git repository that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostObject {
    /// Git's name for its type, or `object` if the type is unknown.
    pub kind: &'static str,
    /// Object name: a hash in hexadecimal.
    pub id: String,
}

/// Progress of a scan. Every thread updates it, and any thread may read it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of files, or objects of a repository, that were scanned.
    pub texts: AtomicU64,
    /// Total size of these texts, in bytes.
    pub bytes: AtomicU64,
    /// Number of things that could not be read; see [`Unread`].
    pub unread: AtomicU64,
    /// Number of symbolic links, which are not followed.
    pub links: AtomicU64,
    /// Number of folders named `.git`, whose contents are a history and not files.
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

/// Destination of the findings of a scan's threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlet<'a> {
    pub(super) counters: &'a Counters,
    pub(super) events: &'a SyncSender<Event>,
}

/// The receiver of the events was dropped.
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

    /// Reports an ignore file that is not obeyed.
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

    /// Reports an object of a repository that could not be read, and that some commit has at `path`.
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
