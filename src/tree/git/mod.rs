//! Scans of git repositories, by means of the `git` program: the whole history ([`scan_history`]), the changes
//! staged for the next commit ([`scan_staged`]), or the additions of the commits since another one
//! ([`scan_since`]).
//!
//! History is what branches, tags, stashes, notes and every other reference lead to. Git lists the objects and writes
//! them out one after the other; nothing is checked out. The repository is somebody else's: nothing that its
//! configuration names is run ([`command`]), and what reads contents does not even see its configuration ([`lender`]);
//! nothing has it wait without end ([`special`], [`silence`]). Of a history each file's contents are scanned once,
//! however many commits have it, and the messages of commits and annotated tags.

mod changes;
mod command;
mod lender;
mod lost;
mod objects;
mod origins;
mod running;
mod shallow;
mod silence;
mod since;
mod special;
mod staged;
mod start;
mod wanted;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::Event;
use super::outlet::{Closed, Outlet};
use crate::scan::{Counters, Engine, Finding, GitKind, GitObject, Scanner};
use command::Repository;
use lost::Lost;
use objects::{Contents, Entry, Kind};

pub use since::scan_since;
pub use staged::scan_staged;

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

/// Scans the whole history of the repository at `path`, and reports to `counters` and `events`.
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if git is not installed, `path` is not a repository, or git fails. Everything found before the
/// failure has been reported.
pub fn scan_history(
    path: &Path,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), HistoryError> {
    let outlet = Outlet { counters, events };
    let repository = Repository::open(path)?;
    let mut findings = Vec::new();
    // A failure of git must not hide what was found before it.
    let read = scan_objects(&repository, path, engine, outlet, &mut findings);
    if let Err(error) = origins::trace(&repository, &mut findings) {
        let _ = outlet.unread(path, error.to_string());
    }
    for finding in findings {
        if outlet.found(finding) == Err(Closed) {
            break;
        }
    }
    read
}

/// Scans every object. Findings in files do not have their commit yet.
fn scan_objects(
    repository: &Repository,
    path: &Path,
    engine: &Engine,
    outlet: Outlet<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), HistoryError> {
    let mut scanner = Scanner::new(engine);
    let mut lost = Lost::default();
    for parent in shallow::see_through(repository)?.into_values().flatten() {
        lost.add_commit(parent);
    }
    let mut contents = Contents::of_history(repository)?;
    while let Some(Entry { kind, id, path }) = contents.next()? {
        let Kind::Text(kind) = kind else {
            if lost.add(id, outlet) == Err(Closed) {
                return Ok(());
            }
            continue;
        };
        let read = scanner.scan(&mut contents, &mut |candidate| {
            findings.push(Finding {
                path: path.clone().filter(|_| kind == GitKind::Blob),
                object: Some(GitObject {
                    kind,
                    id: id.clone(),
                    commit: (kind == GitKind::Commit).then(|| id.clone()),
                }),
                candidate,
            });
        });
        outlet.counters.scanned(read.map_err(objects::broken)?);
    }
    let passed_over = contents.finish();
    // Missing objects are named whether or not git completed.
    if lost.report(repository, outlet) == Err(Closed) {
        return Ok(());
    }
    for complaint in passed_over?
        .into_iter()
        .chain(broken_references(repository)?)
    {
        if outlet.unread(path, complaint) == Err(Closed) {
            break;
        }
    }
    Ok(())
}

/// Returns git's messages about broken references, which it skips silently when listing objects.
fn broken_references(repository: &Repository) -> Result<Vec<String>, HistoryError> {
    let (_, _, complaints) = repository.answer(&["for-each-ref", "--format="])?;
    Ok(running::left_out(&complaints))
}
