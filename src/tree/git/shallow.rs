//! Boundaries of a shallow clone.
//!
//! The file `shallow` lists commits that git treats as having no parents. This marks the end of a truncated
//! history, but anybody can write it to hide a history that exists. Only commits whose parents are really missing
//! are therefore treated as such, and the missing parents are reported.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::command::Repository;
use super::lost::{lacking, read_names};
use super::objects::{Contents, broken};
use super::{HistoryError, links};

/// The largest file that is read: 50,000 names of 41 bytes. Git takes a time that grows with their square.
const FILE_MAX: u64 = 2 << 20;

/// Number of bytes of a commit that are examined. Its parents are at the start.
const START: u64 = 1 << 20;

/// Truncated commits, with the parents that the repository lacks.
pub(super) type Cut = BTreeMap<String, Vec<String>>;

/// Determines where the history is truncated, and makes git follow it exactly that far from now on.
pub(super) fn see_through(repository: &Repository) -> Result<Cut, HistoryError> {
    let path = if let Some(path) = repository.told_shallow() {
        path
    } else {
        let told = repository.ask(&["rev-parse", "--git-path", "shallow"])?;
        repository.told_path(&told.map_err(failed)?)
    };
    let ends = read_names(&path, FILE_MAX);
    let ends =
        ends.map_err(|error| failed(format!("the file `shallow` cannot be read: {error}")))?;
    if ends.is_empty() {
        return Ok(Cut::new());
    }
    let mut parents = parents(repository, ends)?;
    let named = parents.values().flatten().cloned().collect();
    let lacking = lacking(repository, named)?;
    for parents in parents.values_mut() {
        parents.retain(|parent| lacking.contains(parent));
    }
    parents.retain(|_, parents| !parents.is_empty());
    let ends: Vec<&str> = parents.keys().map(String::as_str).collect();
    repository.set_shallow(&ends.join("\n"))?;
    Ok(parents)
}

fn failed(complaint: String) -> HistoryError {
    HistoryError::Failed {
        what: "find out whether the history is cut",
        complaint,
    }
}

/// Returns the parents named in these commits themselves, which git does not report.
fn parents(repository: &Repository, commits: Vec<String>) -> Result<Cut, HistoryError> {
    let mut contents = Contents::of_names(repository, commits)?;
    let mut parents = Cut::new();
    let mut text = Vec::new();
    while let Some(entry) = contents.next()? {
        text.clear();
        let read = contents.by_ref().take(START).read_to_end(&mut text);
        read.map_err(broken)?;
        parents.insert(entry.id, links::parents(&text).collect());
    }
    contents.finish()?;
    Ok(parents)
}
