//! Scan of the changes staged for the next commit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::changes::{After, Changes};
use super::command::Repository;
use super::wanted::{self, Wanted};
use super::{Closed, Counters, Engine, Event, HistoryError, Outlet, shallow};
use crate::scan::LostObject;
use crate::tree::open::path_of;

const LIST: &str = "list what is staged";

/// Scans the staged contents of every file that the index of a repository adds or changes relative to `HEAD`, or of
/// all its files if there is no commit yet, and reports to `counters` and `events`. Paths are relative to the top
/// folder. Both sides of a file with conflicts are scanned.
///
/// The repository is the one that contains `path`, or if `path` is `None` the one that `git` itself uses in the
/// current folder. The environment that git sets for its hooks, such as a temporary index, is respected.
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if git is not installed, there is no such repository, it has no index, or git fails.
pub fn scan_staged(
    path: Option<&Path>,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), HistoryError> {
    let repository = Repository::around(path)?;
    let bare = ask(&repository, &["rev-parse", "--is-bare-repository"])?;
    if bare == b"true" {
        return Err(HistoryError::NothingStaged);
    }
    // Staged contents have no parents, but git reads the list of truncated commits even so.
    shallow::see_through(&repository)?;
    let outlet = Outlet { counters, events };
    let empty = empty_folder(&repository)?;
    let wanted = match repository.commit("HEAD")? {
        None => list(&repository, &empty)?,
        Some(head) => match list(&repository, &head) {
            // The contents of the commit are unknown, so everything staged counts as new.
            Err(HistoryError::Failed { complaint, .. }) => {
                let wanted = list(&repository, &empty)?;
                let (kind, id) = ("commit", head);
                let reason = format!("its folders cannot be read: {complaint}");
                if outlet.lost(LostObject { kind, id }, None, reason) == Err(Closed) {
                    return Ok(());
                }
                wanted
            }
            listed => listed?,
        },
    };
    wanted::scan(&repository, &wanted, engine, outlet)
}

/// Returns the staged contents that `base`, a commit or a folder, does not have at the same path.
fn list(repository: &Repository, base: &str) -> Result<Vec<Wanted>, HistoryError> {
    let arguments = [
        "diff-index",
        // Folders that a sparse index has as a whole may hold what is new.
        "-r",
        "--cached",
        "--raw",
        "-z",
        "--no-abbrev",
        "--no-renames",
        "--no-relative",
        // A file only announced with `git add --intent-to-add` has no contents yet.
        "--ita-invisible-in-index",
        base,
        "--",
    ];
    let output = ask(repository, &arguments)?;
    let mut changes = Changes::new(output.as_slice());
    let mut wanted = Vec::new();
    let mut unmerged = HashMap::new();
    while let Some(change) = changes.next().map_err(broken)? {
        match change.after {
            After::Blob(id) => wanted.push(staged(id, change.path)),
            After::Nothing => {}
            After::Unmerged => {
                unmerged.insert(change.path, change.before);
            }
        }
    }
    if !unmerged.is_empty() {
        wanted.extend(sides(repository, &unmerged)?);
    }
    Ok(wanted)
}

/// Returns the empty folder, with which the index is compared if there is no commit yet.
fn empty_folder(repository: &Repository) -> Result<String, HistoryError> {
    // Its name depends on the repository's hash function. Standard input is empty.
    let empty = ask(repository, &["hash-object", "-t", "tree", "--stdin"])?;
    Ok(String::from_utf8_lossy(&empty).into_owned())
}

/// Returns both sides of files with conflicts, except for those that are as in `HEAD`.
fn sides(
    repository: &Repository,
    unmerged: &HashMap<PathBuf, String>,
) -> Result<Vec<Wanted>, HistoryError> {
    let arguments = [
        // `:/`, which names the top folder, is pathspec magic and not a literal path.
        "--no-literal-pathspecs",
        "ls-files",
        "--unmerged",
        "-z",
        "--full-name",
        "--",
        ":/",
    ];
    let output = ask(repository, &arguments)?;
    let entries = output.split(|byte| *byte == 0);
    Ok(entries.filter_map(|entry| side(entry, unmerged)).collect())
}

/// Parses one side of a file with conflicts: mode, object, stage; a tab; the path. Stage 1 is the common ancestor.
fn side(entry: &[u8], unmerged: &HashMap<PathBuf, String>) -> Option<Wanted> {
    let tab = entry.iter().position(|byte| *byte == b'\t')?;
    let path = path_of(&entry[tab + 1..]);
    let words = std::str::from_utf8(&entry[..tab]).ok()?;
    let [mode, id, stage] = words.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let known = unmerged.get(&path).is_some_and(|head| head == id);
    (mode != "160000" && stage != "1" && !known).then(|| staged(id.to_owned(), path))
}

fn staged(id: String, path: PathBuf) -> Wanted {
    Wanted {
        id,
        path: Some(path),
        commit: None,
    }
}

fn ask(repository: &Repository, arguments: &[&str]) -> Result<Vec<u8>, HistoryError> {
    repository
        .ask(arguments)?
        .map_err(|complaint| HistoryError::Failed {
            what: LIST,
            complaint,
        })
}

fn broken(source: std::io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}
