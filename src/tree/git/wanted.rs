//! Scan of a list of objects.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::command::Repository;
use super::lost::LACKS;
use super::objects::{Contents, Entry, broken};
use super::{Outlet, Stop, damaged};
use crate::scan::{Engine, Finding, GitKind, GitObject, LostObject, Part, Scanner};

/// Size of what is known of objects, in bytes, beyond which these are scanned before there are more.
pub(super) const WANTED_MAX: usize = 16 << 20;

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

impl Wanted {
    /// Returns the number of bytes that it holds, and takes while it is asked for.
    pub(super) fn held(&self) -> usize {
        let path = self.path.as_ref().map_or(0, |path| path.as_os_str().len());
        let commit = self.commit.as_ref().map_or(0, String::len);
        size_of::<Self>() + size_of::<String>() + path + commit + 2 * self.id.len()
    }
}

/// Scans objects and reports the findings in their order.
pub(super) fn scan(
    repository: &Repository,
    wanted: &[Wanted],
    engine: &Engine,
    outlet: Outlet<'_>,
) -> Result<(), Stop> {
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.id.clone()).collect();
    let mut scanner = Scanner::new(engine);
    damaged::read_each(repository, &names, |number, read| {
        let wanted = &wanted[number];
        match read {
            Ok((contents, entry)) => scan_one(contents, &entry, wanted, &mut scanner, outlet),
            Err(why) => lost(wanted, why, outlet),
        }
    })
}

fn lost(wanted: &Wanted, why: impl Into<String>, outlet: Outlet<'_>) -> Result<(), Stop> {
    let kind = match wanted.path {
        Some(_) => "blob",
        None => "commit",
    };
    let id = wanted.id.clone();
    let object = LostObject { kind, id };
    Ok(outlet.lost(object, wanted.path.clone(), why)?)
}

fn scan_one(
    contents: &mut Contents,
    entry: &Entry,
    wanted: &Wanted,
    scanner: &mut Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<(), Stop> {
    let Some(kind) = entry.kind else {
        return lost(wanted, LACKS, outlet);
    };
    let object = GitObject {
        kind,
        id: wanted.id.clone(),
        commit: wanted.commit.clone(),
    };
    scan_text(scanner, contents, wanted.path.as_deref(), &object, outlet)?;
    // A folder can say of anything that it is a file. What that leads to is read by nobody.
    if kind != GitKind::Blob && wanted.path.is_some() {
        let why = format!(
            "a {}, which is no file: what it leads to was not read",
            kind.name()
        );
        return lost(wanted, &why, outlet);
    }
    Ok(())
}

/// Scans the contents of an object.
pub(super) fn scan_text(
    scanner: &mut Scanner<'_>,
    text: &mut impl Read,
    path: Option<&Path>,
    object: &GitObject,
    outlet: Outlet<'_>,
) -> Result<(), Stop> {
    let mut listening = Ok(());
    let read = scanner.scan(text, &mut |candidate| {
        if listening.is_ok() {
            listening = outlet.found(Finding {
                path: path.map(Path::to_owned),
                object: Some(object.clone()),
                part: Part::Contents,
                candidate,
            });
        }
    });
    listening?;
    outlet.counters.scanned(read.map_err(broken)?);
    Ok(())
}
