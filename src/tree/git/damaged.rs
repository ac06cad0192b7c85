//! Reading on in a repository in which git fails at an object, or cannot open a whole pack.
//!
//! Git ends at the first object that is damaged, whether it reads or lists them. So it is started again behind each one;
//! and as nothing leads any more to what stands behind a commit or folder that cannot be read, all objects that the
//! repository has are read then, whatever leads to them.

use std::collections::HashSet;
use std::io::{self, BufRead as _, BufReader};
use std::process::Stdio;

use super::command::Repository;
use super::objects::{Contents, Entry, broken, list_objects};
use super::running::Running;
use super::{HistoryError, Stop};

const LIST: &str = "list all objects";

/// Maximum number of objects that are listed once more. Their names take some 50 MiB beside everything else.
const LISTED_MAX: usize = 1 << 18;

/// Maximum number of objects at which git fails. Each costs the start of another git.
const FAILURES_MAX: usize = 1 << 10;

/// Number of objects for which one git is asked.
const AT_ONCE: usize = 1 << 14;

impl HistoryError {
    /// Returns whether git failed by itself, so that the next one may get further. One that had to be ended because it
    /// did nothing would have the next one wait as long.
    pub(super) fn is_of_git(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::Broken { source, .. } => source.kind() != io::ErrorKind::TimedOut,
            _ => false,
        }
    }
}

/// Returns whether git complained of something that it could not read, such as a pack, though it did not end. Nothing
/// stands behind a reference that leads nowhere.
pub(super) fn is_damage(complaint: &str) -> bool {
    complaint.starts_with("error:") && !complaint.starts_with("error: refs/")
}

/// Returns the objects of the history in the order in which they are read, up to the one at which git fails to list
/// them. Returns `None` if there are too many to be named once more.
pub(super) fn listed(repository: &Repository) -> Result<Option<Vec<String>>, HistoryError> {
    let (list, _) = list_objects(repository, &[])?;
    names(list, |_| true)
}

/// Returns all objects of the repository that are not among these, or `None` if there are too many.
pub(super) fn others(
    repository: &Repository,
    listed: &HashSet<String>,
) -> Result<Option<Vec<String>>, HistoryError> {
    let arguments = [
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objectname)",
    ];
    let all = repository.start_reading(LIST, &arguments, Stdio::null())?;
    names(all, |name| !listed.contains(name))
}

/// Reads the names of objects that git writes out, those that are missing like the others, until it ends, be it well or
/// not.
fn names(
    mut process: Running,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Option<Vec<String>>, HistoryError> {
    let output = BufReader::new(process.listen(&[]).map_err(broken)?);
    let mut names = Vec::new();
    for line in output.lines() {
        let line = line.map_err(broken)?;
        let name = line.trim_start_matches('?');
        if !is_wanted(name) {
            continue;
        }
        if names.len() == LISTED_MAX {
            return Ok(None);
        }
        names.push(name.to_owned());
    }
    Ok(Some(names))
}

/// Reads the named objects in this order, and goes on behind each one at which git fails. `look` gets the number of each
/// and the object, or the reason why it cannot be read.
pub(super) fn read_each(
    repository: &Repository,
    names: &[String],
    mut look: impl FnMut(usize, Result<(&mut Contents, Entry), String>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (mut at, mut failures) = (0, 0);
    while at < names.len() {
        let end = names.len().min(at + AT_ONCE);
        let mut contents = Contents::of_names(repository, names[at..end].to_vec())?;
        let failed = loop {
            if at == end {
                break None;
            }
            let read = match contents.next() {
                Ok(Some(entry)) => look(at, Ok((&mut contents, entry))),
                Ok(None) => Err(broken(io::ErrorKind::UnexpectedEof.into()).into()),
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(()) => at += 1,
                Err(Stop::Failed(error)) if error.is_of_git() => break Some(error),
                Err(stop) => return Err(stop),
            }
        };
        let Some(error) = failed else {
            // Its complaints are about objects that were told.
            contents.finish()?;
            continue;
        };
        let error = contents.why_it_ended(error);
        failures += 1;
        if failures > FAILURES_MAX {
            return Err(error.into());
        }
        look(at, Err(error.to_string()))?;
        at += 1;
    }
    Ok(())
}
