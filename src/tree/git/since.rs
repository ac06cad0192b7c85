//! Scan of the additions of the commits since another one.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::SyncSender;

use super::command::Repository;
use super::compare::{Comparison, PARENTS_MAX};
use super::lost::{LACKS, Lost};
use super::running::Running;
use super::shallow::{self, Cut};
use super::silence::Listening;
use super::wanted::{self, Wanted};
use super::{Counters, Engine, Event, HistoryError, Outlet, Stop, links, references};
use crate::scan::{LostObject, Scanner};

const LIST: &str = "list the commits and what they add";

/// Number of bytes of a commit that are examined. Its folder and its parents are at the start.
const START: u64 = 1 << 20;

/// Number of bytes of a parent that are examined, in which its folder stands.
const START_OF_PARENT: u64 = 128;

/// Number of commits that are scanned at a time.
const COMMITS: usize = 16 << 10;

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
    let outlet = Outlet { counters, events };
    let cut = shallow::see_through(&repository, outlet)?;
    let unknown = || HistoryError::UnknownRevision {
        revision: revision.to_owned(),
    };
    let since = repository.commit(revision)?;
    let head = repository.commit("HEAD")?;
    if head.is_none() {
        let named = repository.ask(&["rev-parse", "--verify", "--quiet", "HEAD"])?;
        if let Ok(named) = named {
            // The revision may well be one of what is behind it.
            let complaint = format!("{LACKS}: commit {}", String::from_utf8_lossy(&named));
            return Err(HistoryError::Failed {
                what: LIST,
                complaint,
            });
        }
    }
    let since = since.ok_or_else(unknown)?;
    let head = head.ok_or(HistoryError::NoCommits)?;
    let mut lost = Lost::default();
    let mut comparison = Comparison::new(&repository, engine, outlet)?;
    let range = format!("{since}..{head}");
    let mut commits = Commits::list(&repository, &range)?;
    let mut scan_some = || -> Result<bool, Stop> {
        let some = commits.next()?;
        if some.is_empty() {
            return Ok(false);
        }
        let parents = some.iter().filter_map(|commit| cut.get(commit));
        for parent in parents.flatten() {
            lost.add_commit(parent.clone());
        }
        let mut added = some.iter();
        let compared = added.try_for_each(|id| add(&mut comparison, id, &cut, outlet));
        // A failure must not hide what was collected before it.
        comparison.scan_wanted()?;
        let wanted: Vec<Wanted> = some.iter().map(|id| of_commit(id)).collect();
        wanted::scan(&repository, &wanted, engine, outlet)?;
        compared.map(|()| true)
    };
    let scanned = loop {
        match scan_some() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(stop) => break Err(stop),
        }
    };
    let scanned = scanned.and_then(|()| Ok(commits.finish()?));
    let rest = || {
        references::scan_current(&repository, &Scanner::new(engine), outlet)?;
        Ok(lost.report(&repository, outlet)?)
    };
    Stop::end(rest().and(scanned))
}

/// Commits of a range, oldest first, as git lists them: there may be more than could be held.
struct Commits {
    list: Running,
    output: BufReader<Listening>,
}

impl Commits {
    fn list(repository: &Repository, range: &str) -> Result<Self, HistoryError> {
        let arguments = ["rev-list", "--topo-order", "--reverse", range, "--"];
        let mut list = repository.start(LIST, &arguments, Stdio::null())?;
        let output = BufReader::new(list.listen(&[]).map_err(broken)?);
        Ok(Self { list, output })
    }

    /// Returns the next commits, or none at the end.
    fn next(&mut self) -> Result<Vec<String>, HistoryError> {
        let lines = self.output.by_ref().lines().take(COMMITS);
        lines.collect::<io::Result<_>>().map_err(broken)
    }

    /// Waits for the end of the list, which must be a good one.
    fn finish(self) -> Result<(), HistoryError> {
        self.list.finish().map(drop)
    }
}

fn broken(source: io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}

fn of_commit(id: &str) -> Wanted {
    Wanted {
        id: id.to_owned(),
        path: None,
        commit: Some(id.to_owned()),
    }
}

/// Collects what a commit adds to its parents.
fn add(
    comparison: &mut Comparison<'_>,
    commit: &str,
    cut: &Cut,
    outlet: Outlet<'_>,
) -> Result<(), Stop> {
    let start = comparison.commit(commit, START)?;
    if let Some(folder) = folder(comparison, commit, &start) {
        // Those of a shallow clone are not there, and are named elsewhere.
        let cut = cut.get(commit).map_or(&[][..], Vec::as_slice);
        let mut before = Vec::new();
        for parent in links::parents(&start)
            .filter(|parent| cut.binary_search(parent).is_err())
            .take(PARENTS_MAX)
        {
            if comparison.budget.is_spent() {
                break;
            }
            let start = comparison.other_commit(&parent, START_OF_PARENT)?;
            before.extend(self::folder(comparison, &parent, &start));
        }
        comparison.compare(&folder, before, Vec::new(), Some(commit), 0)?;
    }
    if let Some(reason) = comparison.unclear.take() {
        let (kind, id) = ("commit", commit.to_owned());
        let reason = format!("what it adds cannot be told: {reason}");
        outlet.lost(LostObject { kind, id }, None, reason)?;
    }
    Ok(())
}

/// Returns the folder of a commit, by its beginning. If there is none, what is new is unclear.
fn folder(comparison: &mut Comparison<'_>, id: &str, start: &[u8]) -> Option<String> {
    let folder = links::folder(start);
    if folder.is_none() {
        let reason = || format!("{LACKS}: commit {id}");
        comparison.unclear.get_or_insert_with(reason);
    }
    folder
}
