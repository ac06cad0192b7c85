//! Findings in files and repositories, and what could not be read there.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Candidate;

/// Name of the standard input in the place of a path.
pub const STANDARD_INPUT: &str = "(standard input)";

/// Candidate, and the place where it was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Path of the file or folder; in a repository, the path within it. `None` for the message of a commit or a tag,
    /// and for the name of a reference.
    pub path: Option<PathBuf>,
    /// Object of the repository in which it was found, if any.
    pub object: Option<GitObject>,
    /// Part in which it was found.
    pub part: Part,
    /// The candidate.
    pub candidate: Candidate,
}

/// Part of a file, a folder, an object or a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its contents. Lines are counted in them.
    Contents,
    /// Its name, which is the last one of its path and has no lines.
    Name,
}

/// Object of a git repository, or a reference to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObject {
    /// Type of the object.
    pub kind: GitKind,
    /// Object name: a hash in hexadecimal. Of a reference its whole name, which anybody may choose.
    pub id: String,
    /// A commit that introduced the object, or the object itself if it is a commit. `None` for an object that no
    /// commit introduced, such as a tag.
    pub commit: Option<String>,
}

/// Type of an object of a git repository. These and the names of references are all the texts that a repository has:
/// the daemon reads the same ones of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitKind {
    /// Contents of a file.
    Blob,
    /// Commit, with its message and the names of its authors.
    Commit,
    /// Annotated tag, with its message.
    Tag,
    /// Folder, with the names of what is in it.
    Tree,
    /// Reference, such as a branch or a tag: no object, but a name that leads to one.
    Reference,
}

impl GitKind {
    /// Returns git's name for the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Commit => "commit",
            Self::Tag => "tag",
            Self::Tree => "tree",
            Self::Reference => "reference",
        }
    }
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
    /// Number of files and folders that ignore files list, and that were left out.
    pub ignored: AtomicU64,
}

impl Counters {
    pub(crate) fn scanned(&self, bytes: u64) {
        self.texts.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
