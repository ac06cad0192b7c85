//! Scan of the additions of the commits since another one.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::SyncSender;
use std::thread;

use super::changes::{After, Changes};
use super::command::Repository;
use super::lost::Lost;
use super::wanted::{self, Wanted};
use super::{Closed, Counters, Engine, Event, HistoryError, Outlet, shallow};
use crate::scan::LostObject;

const LIST: &str = "list the commits and what they add";

/// Scans the additions of each commit reachable from `HEAD` but not from `revision`, relative to its parents and
/// even if a later commit removed them, as well as the messages of these commits. Reports to `counters` and
/// `events`. Identical contents are scanned once, and reported for the oldest commit that added them.
///
/// The repository is found as in [`scan_staged`](super::scan_staged).
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if git is not installed, there is no such repository, `revision` is not a commit of it, or git
/// fails.
pub fn scan_since(
    path: Option<&Path>,
    revision: &str,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), HistoryError> {
    let repository = Repository::around(path)?;
    let cut = shallow::see_through(&repository)?;
    let unknown = || HistoryError::UnknownRevision {
        revision: revision.to_owned(),
    };
    let since = repository.commit(revision)?.ok_or_else(unknown)?;
    let head = repository.commit("HEAD")?;
    let head = head.ok_or(HistoryError::NoCommits)?;
    let commits = list(&repository, &format!("{since}..{head}"))?;
    let outlet = Outlet { counters, events };
    let mut lost = Lost::default();
    let parents = commits.lines().filter_map(|commit| cut.get(commit));
    for parent in parents.flatten() {
        lost.add_commit(parent.clone());
    }
    let Ok(mut wanted) = added(&repository, &commits, outlet)? else {
        return Ok(());
    };
    wanted.extend(commits.lines().map(|id| Wanted {
        id: id.to_owned(),
        path: None,
        commit: Some(id.to_owned()),
    }));
    wanted::scan(&repository, &wanted, engine, outlet)?;
    // A dropped receiver is no error.
    let _ = lost.report(&repository, outlet);
    Ok(())
}

/// Returns the commits of a range, oldest first, one per line.
fn list(repository: &Repository, range: &str) -> Result<String, HistoryError> {
    let arguments = ["rev-list", "--topo-order", "--reverse", range, "--"];
    let listed = repository.ask(&arguments)?;
    let listed = listed.map_err(|complaint| HistoryError::Failed {
        what: LIST,
        complaint,
    })?;
    Ok(String::from_utf8_lossy(&listed).into_owned())
}

/// Returns the contents that commits added, each once. Git stops at the first commit whose folders it cannot read.
/// In that case, every commit is examined separately, and unreadable ones are reported.
fn added(
    repository: &Repository,
    commits: &str,
    outlet: Outlet<'_>,
) -> Result<Result<Vec<Wanted>, Closed>, HistoryError> {
    match compare(repository, commits) {
        Err(HistoryError::Failed { .. }) => {}
        compared => return compared.map(Ok),
    }
    let mut seen = HashSet::new();
    let mut added = Vec::new();
    for commit in commits.lines() {
        match compare(repository, commit) {
            Ok(wanted) => {
                added.extend(
                    wanted
                        .into_iter()
                        .filter(|wanted| seen.insert(wanted.id.clone())),
                );
            }
            Err(HistoryError::Failed { complaint, .. }) => {
                let (kind, id) = ("commit", commit.to_owned());
                let reason = format!("what it adds cannot be told: {complaint}");
                if outlet.lost(LostObject { kind, id }, None, reason) == Err(Closed) {
                    return Ok(Err(Closed));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(added))
}

/// Returns the contents that commits added, each once.
fn compare(repository: &Repository, commits: &str) -> Result<Vec<Wanted>, HistoryError> {
    let arguments = [
        "diff-tree",
        "--stdin",
        "-r",
        // Of a merge, only what none of its parents has: the rest came with the parents.
        "-c",
        "--root",
        "--raw",
        "-z",
        "--no-abbrev",
        "--no-renames",
        "--no-relative",
    ];
    let mut compare = repository.start(LIST, &arguments, Stdio::piped())?;
    let input = compare.stdin();
    let changes = Changes::new(BufReader::new(compare.listen(&[]).map_err(broken)?));
    let wanted = thread::scope(|scope| {
        scope.spawn(move || {
            let mut input = input?;
            // If git does not read this, it failed, and reports why at the end.
            input.write_all(commits.as_bytes()).ok()?;
            input.write_all(b"\n").ok()
        });
        collect(changes)
    })?;
    compare.finish()?;
    Ok(wanted)
}

fn collect(mut changes: Changes<impl std::io::BufRead>) -> Result<Vec<Wanted>, HistoryError> {
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    while let Some(change) = changes.next().map_err(broken)? {
        if let After::Blob(id) = change.after
            && seen.insert(id.clone())
        {
            wanted.push(Wanted {
                id,
                path: Some(change.path),
                commit: change.commit,
            });
        }
    }
    Ok(wanted)
}

fn broken(source: std::io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}
