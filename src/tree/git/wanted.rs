//! Scan of a list of objects.

use std::path::PathBuf;

use super::command::Repository;
use super::lost::LACKS;
use super::objects::{Contents, Entry, Kind, broken};
use super::{Closed, HistoryError, Outlet};
use crate::scan::{Engine, Finding, GitObject, LostObject, Scanner};

/// Object to scan, and its origin.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Object name: a hash in hexadecimal.
    pub(super) id: String,
    /// Path of the object, if it is the contents of a file.
    pub(super) path: Option<PathBuf>,
    /// Commit that added the object, or that is the object.
    pub(super) commit: Option<String>,
}

/// Scans objects and reports the findings in their order.
pub(super) fn scan(
    repository: &Repository,
    wanted: &[Wanted],
    engine: &Engine,
    outlet: Outlet<'_>,
) -> Result<(), HistoryError> {
    let names = wanted.iter().map(|wanted| wanted.id.clone()).collect();
    let mut contents = Contents::of_names(repository, names)?;
    let mut scanner = Scanner::new(engine);
    // Git answers in the order of the requests.
    for wanted in wanted {
        let Some(entry) = contents.next()? else {
            break;
        };
        if scan_one(&mut contents, &entry, wanted, &mut scanner, outlet)? == Err(Closed) {
            return Ok(());
        }
    }
    // Complaints of git were reported with their objects.
    contents.finish().map(drop)
}

fn scan_one(
    contents: &mut Contents,
    entry: &Entry,
    wanted: &Wanted,
    scanner: &mut Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<Result<(), Closed>, HistoryError> {
    let Kind::Text(kind) = entry.kind else {
        let kind = if wanted.path.is_some() {
            "blob"
        } else {
            "commit"
        };
        let object = LostObject {
            kind,
            id: wanted.id.clone(),
        };
        return Ok(outlet.lost(object, wanted.path.clone(), LACKS));
    };
    let mut found = Vec::new();
    let read = scanner.scan(contents, &mut |candidate| found.push(candidate));
    let mut listening = Ok(());
    for candidate in found {
        listening = listening.and_then(|()| {
            outlet.found(Finding {
                path: wanted.path.clone(),
                object: Some(GitObject {
                    kind,
                    id: wanted.id.clone(),
                    commit: wanted.commit.clone(),
                }),
                candidate,
            })
        });
    }
    outlet.counters.scanned(read.map_err(broken)?);
    Ok(listening)
}
