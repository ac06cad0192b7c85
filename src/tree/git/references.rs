//! Names of references: branches, tags and the like.

use std::io::{self, BufReader};
use std::process::Stdio;

use super::command::Repository;
use super::{HistoryError, Outlet, Stop, lines, running};
use crate::scan::{Finding, GitKind, GitObject, Part, Scanner};

const LIST: &str = "list the references";

/// Maximum length of a name that is scanned, in bytes. A file system takes no more than 4,096, but git reads longer ones
/// from the file `packed-refs`.
const NAME_MAX: usize = 4 << 10;

/// Scans the names of all references. Returns git's messages about broken ones, which it skips silently when listing
/// objects, and how many names are too long.
pub(super) fn scan(
    repository: &Repository,
    scanner: &Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<Vec<String>, Stop> {
    let arguments = ["for-each-ref", "--format=%(refname)"];
    let mut list = repository.start(LIST, &arguments, Stdio::null())?;
    let mut names = BufReader::new(list.listen(&[]).map_err(broken)?);
    let mut name = Vec::new();
    let mut too_long = 0_u64;
    while let Some(is_whole) =
        lines::next(&mut names, b'\n', NAME_MAX, &mut name).map_err(broken)?
    {
        if is_whole {
            scan_one(&name, scanner, outlet)?;
        } else {
            too_long += 1;
        }
    }
    let (_, complaints) = list.end()?;
    let mut left_out = running::left_out(&complaints);
    if too_long > 0 {
        let most = NAME_MAX >> 10;
        left_out.push(format!(
            "names of references that have more than {most} KiB: {too_long}"
        ));
    }
    Ok(left_out)
}

fn broken(source: io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}

/// Scans the name of the current branch, if there is one.
pub(super) fn scan_current(
    repository: &Repository,
    scanner: &Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<(), Stop> {
    let current = repository.ask(&["symbolic-ref", "--quiet", "HEAD"])?;
    scan_one(&current.unwrap_or_default(), scanner, outlet)
}

fn scan_one(name: &[u8], scanner: &Scanner<'_>, outlet: Outlet<'_>) -> Result<(), Stop> {
    let mut found = Vec::new();
    scanner.scan_slice(name, &mut |candidate| found.push(candidate));
    for candidate in found {
        outlet.found(Finding {
            path: None,
            object: Some(GitObject {
                kind: GitKind::Reference,
                id: String::from_utf8_lossy(name).into_owned(),
                commit: None,
            }),
            part: Part::Name,
            candidate,
        })?;
    }
    Ok(())
}
