//! Scans of git repositories, by means of the `git` program: the whole history ([`scan_history`]), the changes
//! staged for the next commit ([`scan_staged`]), or the additions of the commits since another one
//! ([`scan_since`]).
//!
//! History is what branches, tags, stashes, notes and every other reference lead to. Git lists the objects and writes
//! them out one after the other; nothing is checked out. The repository is somebody else's: nothing that its
//! configuration names is run ([`command`]), and what reads contents does not even see its configuration ([`lender`]);
//! nothing has it wait without end ([`special`], [`silence`]).
//!
//! The texts of a repository are its objects, as the daemon fetches them: contents of files, folders with the names
//! in them, commits and annotated tags with messages and authors; and the names of references. Each object is read
//! once, however many commits and paths lead to it: 13 objects can name 1,000,000,000 files.

mod additions;
mod budget;
mod command;
mod compare;
mod damaged;
mod folder;
mod history;
mod lender;
mod lines;
mod links;
mod lost;
mod objects;
mod references;
mod running;
mod seen;
mod shallow;
mod silence;
mod since;
mod special;
mod staged;
mod start;
mod tracked;
mod trail;
mod wanted;

use std::io;
use std::path::PathBuf;

use super::Event;
use super::outlet::{Closed, Outlet};
use crate::scan::{Counters, Engine};

pub use history::scan_history;
pub use since::scan_since;
pub use staged::scan_staged;
pub(super) use tracked::{Room, Tracked};

/// Error that prevents a repository from being scanned, or from being scanned completely.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The program `git` is not installed.
    #[error(
        "the program `git` was not found: install git; files are scanned without it by `rescind scan PATH`"
    )]
    NoGit,
    /// The program `git` cannot be run.
    #[error("the program `git` cannot be run: {0}")]
    CannotRun(#[source] io::Error),
    /// The temporary folder that git needs to read objects cannot be created.
    #[error("no temporary folder can be made: {0}; set TMPDIR to one that can be written to")]
    NoFolder(#[source] io::Error),
    /// The path cannot be examined.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// There is something in the repository that is neither a file nor a folder.
    #[error("it is {what} and not a file, so that git would not come to its end")]
    Special {
        /// Path of the entry.
        path: PathBuf,
        /// Kind of the entry, such as "a named pipe".
        what: &'static str,
    },
    /// There is no repository at the path.
    #[error(
        "it is not the top folder of a git repository, nor a bare one; without --git its files are scanned ({complaint})"
    )]
    NotARepository {
        /// Message of git.
        complaint: String,
    },
    /// The path is not inside a repository.
    #[error("it is not in a git repository, whose files are staged and committed ({complaint})")]
    NoRepository {
        /// Message of git.
        complaint: String,
    },
    /// The repository is bare, and a bare repository has no index.
    #[error("it is a bare repository, in which nothing is staged; --git scans its history")]
    NothingStaged,
    /// The revision is not a commit of the repository.
    #[error(
        "there is no commit `{revision}` in the repository: `git log` shows what there is; in a shallow clone `git fetch --unshallow` gets the rest"
    )]
    UnknownRevision {
        /// Revision given by the user.
        revision: String,
    },
    /// The current branch has no commits.
    #[error("the current branch has no commits yet; --staged scans what the first one will hold")]
    NoCommits,
    /// Git exited with an error.
    #[error("git failed to {what}: {complaint}; `git fsck` tells more")]
    Failed {
        /// Purpose of the command.
        what: &'static str,
        /// Message of git.
        complaint: String,
    },
    /// The connection to git broke.
    #[error("git stopped while it had to {what}: {source}")]
    Broken {
        /// Purpose of the command.
        what: &'static str,
        /// Error that revealed it.
        #[source]
        source: io::Error,
    },
}

impl HistoryError {
    fn from_start(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoGit,
            _ => Self::CannotRun(error),
        }
    }
}

/// Reason that a scan ends before everything was read.
#[derive(Debug)]
enum Stop {
    /// Nobody listens any more.
    Closed,
    Failed(HistoryError),
}

impl Stop {
    /// Converts the result of a scan: that nobody listens is no failure.
    fn end(scanned: Result<(), Self>) -> Result<(), HistoryError> {
        match scanned {
            Ok(()) | Err(Self::Closed) => Ok(()),
            Err(Self::Failed(error)) => Err(error),
        }
    }
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<HistoryError> for Stop {
    fn from(error: HistoryError) -> Self {
        Self::Failed(error)
    }
}
