//! Names of references: branches, tags and the like.

use super::command::Repository;
use super::{Outlet, Stop, running};
use crate::scan::{Finding, GitKind, GitObject, Part, Scanner};

/// Scans the names of all references. Returns git's messages about broken ones, which it skips silently when listing
/// objects.
pub(super) fn scan(
    repository: &Repository,
    scanner: &Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<Vec<String>, Stop> {
    let (_, names, complaints) = repository.answer(&["for-each-ref", "--format=%(refname)"])?;
    for name in names.split(|byte| *byte == b'\n') {
        scan_one(name, scanner, outlet)?;
    }
    Ok(running::left_out(&complaints))
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
