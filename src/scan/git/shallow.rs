//! What a shallow clone leaves out.
//!
//! The file `shallow` names commits that git takes for ones without parents. That is what the end of a cut
//! history looks like, and what anybody may write to hide a history that is there. So only commits whose parents
//! are missing indeed are taken for such, and the parents are named.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::HistoryError;
use super::command::Repository;
use super::lost::{headers, lacking, read_names};
use super::objects::{Contents, broken};

/// The largest file that is read: 50,000 names of 41 bytes. Git takes a time that grows with their square.
const FILE_MAX: u64 = 2 << 20;

/// So much of a commit is looked at: its parents stand at its start.
const START: u64 = 1 << 20;

/// By commit, its parents that the repository lacks because it was cut there.
pub(super) type Cut = BTreeMap<String, Vec<String>>;

/// Finds out where a history is cut, and has git follow it to there and no less from here on.
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

/// The parents that these commits name themselves, which git does not tell of.
fn parents(repository: &Repository, commits: Vec<String>) -> Result<Cut, HistoryError> {
    let mut contents = Contents::of_names(repository, commits)?;
    let mut parents = Cut::new();
    let mut text = Vec::new();
    while let Some(entry) = contents.next()? {
        text.clear();
        let read = contents.by_ref().take(START).read_to_end(&mut text);
        read.map_err(broken)?;
        let of_this = headers(&text).filter(|(name, _)| *name == "parent");
        let of_this = of_this.map(|(_, id)| id.to_owned()).collect();
        parents.insert(entry.id, of_this);
    }
    contents.finish()?;
    Ok(parents)
}
