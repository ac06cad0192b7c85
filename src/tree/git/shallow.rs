//! Boundaries of a shallow clone.
//!
//! The file `shallow` lists commits that git treats as having no parents. This marks the end of a truncated
//! history, but anybody can write it to hide a history that exists. Only commits whose parents are really missing
//! are therefore treated as such, and the missing parents are reported.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::PathBuf;

use super::command::Repository;
use super::lost::{lacking, read_names};
use super::objects::{Contents, broken};
use super::{HistoryError, Outlet, links};

/// The largest file that is read: 50,000 names of 41 bytes. Git takes a time that grows with their square.
const FILE_MAX: u64 = 2 << 20;

/// Number of bytes of a commit that are examined. Its parents are at the start.
const START: u64 = 1 << 20;

/// Maximum number of parents of all listed commits, which take some 30 MiB: two of each.
const PARENTS_MAX: usize = 128 << 10;

/// Maximum size of all listed commits, in bytes: 5 KiB of each.
const COMMITS_MAX: u64 = 256 << 20;

/// Maximum number of parents times that of files in folders of packs: git looks at each of the latter again for each parent
/// that is missing, some 3,000,000 a second.
const LOOKS_MAX: usize = 20_000_000;

/// Truncated commits, with the parents that the repository lacks, sorted.
pub(super) type Cut = BTreeMap<String, Vec<String>>;

/// Determines where the history is truncated, and makes git follow it exactly that far from now on. If that takes too
/// much to find out, git follows it as far as the file says, and that is reported.
pub(super) fn see_through(
    repository: &Repository,
    outlet: Outlet<'_>,
) -> Result<Cut, HistoryError> {
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
    let Some(mut parents) = parents(repository, ends)? else {
        unclear(path, outlet);
        return Ok(Cut::new());
    };
    let named: BTreeSet<&String> = parents.values().flatten().collect();
    if named.len().saturating_mul(repository.looked().packs) > LOOKS_MAX {
        unclear(path, outlet);
        return Ok(Cut::new());
    }
    let lacking = lacking(repository, named.into_iter().cloned().collect())?;
    for parents in parents.values_mut() {
        parents.retain(|parent| lacking.contains(parent));
    }
    parents.retain(|_, parents| !parents.is_empty());
    let ends: Vec<&str> = parents.keys().map(String::as_str).collect();
    repository.set_shallow(&ends.join("\n"))?;
    Ok(parents)
}

/// Reports that what is behind the listed commits is not known.
fn unclear(path: PathBuf, outlet: Outlet<'_>) {
    let reason = "the commits that it lists have too many parents, or are too large, to find out what is behind them";
    // If nobody listens, whatever is reported next finds out.
    let _ = outlet.unread(path, reason);
}

fn failed(complaint: String) -> HistoryError {
    HistoryError::Failed {
        what: "find out whether the history is cut",
        complaint,
    }
}

/// Returns the parents named in these commits themselves, which git does not report, or `None` if these are too many, or
/// the commits too large.
fn parents(
    repository: &Repository,
    commits: BTreeSet<String>,
) -> Result<Option<Cut>, HistoryError> {
    let mut contents = Contents::of_names(repository, commits.into_iter().collect())?;
    let mut parents = Cut::new();
    let mut text = Vec::new();
    let (mut bytes, mut count) = (0_u64, 0);
    while let Some(entry) = contents.next()? {
        bytes = bytes.saturating_add(contents.left());
        if bytes > COMMITS_MAX {
            return Ok(None);
        }
        text.clear();
        let read = contents.by_ref().take(START).read_to_end(&mut text);
        read.map_err(broken)?;
        let mut of_commit: Vec<String> = links::parents(&text)
            .take(PARENTS_MAX + 1 - count)
            .collect();
        count += of_commit.len();
        if count > PARENTS_MAX {
            return Ok(None);
        }
        of_commit.sort_unstable();
        of_commit.dedup();
        parents.insert(entry.id, of_commit);
    }
    contents.finish()?;
    Ok(Some(parents))
}
