//! Attribution of findings in files to the commits that introduced them.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use super::HistoryError;
use super::changes::{After, Changes};
use super::command::Repository;
use super::objects::{broken, stashes};
use super::running::Running;
use crate::scan::{Finding, GitKind};

const TRACE: &str = "trace candidates to their commits";

/// Findings by the object that contains them.
type Wanted<'a> = HashMap<String, Vec<&'a mut Finding>>;

/// Sets the commit of each finding in a file to the oldest one that has its contents, and the path to the one in
/// that commit.
///
/// The first pass covers only the commits that touch a known path of such contents, so that it is cheap if there
/// are few findings. However, the list of objects cuts paths at a line break and drops blanks at their ends, so
/// whatever is not found this way is searched for in all commits.
pub(super) fn trace(repository: &Repository, findings: &mut [Finding]) -> Result<(), HistoryError> {
    let mut wanted = Wanted::new();
    for finding in findings {
        if let Some(object) = &finding.object
            && object.kind == GitKind::Blob
        {
            wanted.entry(object.id.clone()).or_default().push(finding);
        }
    }
    let paths: BTreeSet<PathBuf> = wanted
        .values()
        .flatten()
        .filter_map(|finding| finding.path.clone())
        .collect();
    if !paths.is_empty() {
        trace_in(repository, &mut wanted, &paths)?;
    }
    trace_in(repository, &mut wanted, &BTreeSet::new())
}

/// Traces in the commits that touch `paths`, or in all commits if there are none.
fn trace_in(
    repository: &Repository,
    wanted: &mut Wanted<'_>,
    paths: &BTreeSet<PathBuf>,
) -> Result<(), HistoryError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut commits = list_commits(repository, paths)?;
    let arguments = [
        "diff-tree",
        "--stdin",
        "-r",
        "-m",
        "--root",
        "--raw",
        "-z",
        "--no-renames",
    ];
    let listed = Stdio::from(commits.stdout().map_err(broken)?);
    let mut changes = repository.start(TRACE, &arguments, listed)?;
    let output = changes.listen(&[&commits]).map_err(broken)?;
    assign(BufReader::new(output), wanted)?;
    if wanted.is_empty() {
        // The rest of the history is not needed.
        return Ok(());
    }
    commits.finish()?;
    changes.finish()?;
    Ok(())
}

/// Starts listing the commits that touch `paths`, or all commits if there are none, oldest first.
fn list_commits(
    repository: &Repository,
    paths: &BTreeSet<PathBuf>,
) -> Result<Running, HistoryError> {
    let mut input = stashes(repository)?;
    if !paths.is_empty() {
        input.extend(b"--\n");
    }
    for path in paths {
        input.extend(path.as_os_str().as_encoded_bytes());
        input.push(b'\n');
    }
    let arguments = [
        "rev-list",
        "--all",
        "--full-history",
        "--topo-order",
        "--reverse",
        "--stdin",
    ];
    let mut commits = repository.start(TRACE, &arguments, Stdio::piped())?;
    commits.tell(&input).map_err(traced)?;
    Ok(commits)
}

/// Assigns the contents that each commit introduces to their findings, and removes these from `wanted`.
fn assign(changes: impl BufRead, wanted: &mut Wanted<'_>) -> Result<(), HistoryError> {
    let mut changes = Changes::new(changes);
    while !wanted.is_empty()
        && let Some(change) = changes.next().map_err(traced)?
    {
        let After::Blob(object) = change.after else {
            continue;
        };
        for finding in wanted.remove(&object).into_iter().flatten() {
            finding.path = Some(change.path.clone());
            if let Some(object) = &mut finding.object {
                object.commit.clone_from(&change.commit);
            }
        }
    }
    Ok(())
}

fn traced(source: std::io::Error) -> HistoryError {
    HistoryError::Broken {
        what: TRACE,
        source,
    }
}
