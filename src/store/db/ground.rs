//! Decides whether a SQLite database may be made where there is none: only where none has been, unless that is asked for.

use std::path::{Path, PathBuf};

use super::super::StoreError;
use super::files::BESIDE;
use super::marker::{Marked, Marker, beside, move_aside, size};
use super::space;

/// The place of a SQLite database, as it was found.
#[derive(Debug)]
pub(in crate::store) struct Ground {
    pub(in crate::store) marker: Marker,
    /// `true` if no store was there, so that tables are to be made, or are being made by another process.
    pub(in crate::store) may_be_empty: bool,
}

/// Looks at the place of a database that is about to be opened, and notes it if a store begins there.
///
/// # Errors
/// Returns [`StoreError::Lost`] if there was a store that is not there any more, unless `init` allows to begin anew. If
/// nothing is to be made, [`StoreError::Missing`].
pub(in crate::store) fn survey(
    path: &Path,
    create: bool,
    init: bool,
) -> Result<Ground, StoreError> {
    let marker = Marker::of(path);
    let on_disk = |error: std::io::Error| {
        let (database, cause) = (path.display().to_string(), error.to_string());
        if space::is_for_lack_of_room(&error) {
            StoreError::Full { database, cause }
        } else {
            StoreError::Disk { database, cause }
        }
    };
    // In this order: a process that makes the database now writes the file last.
    let is_empty = size(path) == 0;
    let said = marker.read().map_err(on_disk)?;
    let found = Ground {
        may_be_empty: said == Marked::Begun || init,
        marker,
    };
    // Looked at again: the process may have ended meanwhile.
    if !is_empty || (matches!(said, Marked::Made(_)) && size(path) > 0) {
        return Ok(found);
    }
    let leftover = leftover(path);
    if let Marked::Made(_) = said
        && !init
    {
        let log = leftover.as_ref().map_or_else(
            || "with its -wal if there is one".to_owned(),
            |file| format!("beside {}, which would be lost", file.display()),
        );
        let cause = format!(
            "{} says that there was one, and the file is missing or empty: is its disk mounted, and database.url \
             right? Then put the database back, {log}, or a backup (`rescind restore`)",
            found.marker.path().display()
        );
        return Err(unless_wanted(path, &cause));
    }
    if let Some(file) = &leftover
        && !init
    {
        let cause = format!(
            "it is missing or empty, but {}, which belongs to one, is there and would be lost; put the database back \
             beside it",
            file.display()
        );
        return Err(unless_wanted(path, &cause));
    }
    if !create && !path.exists() {
        return Err(StoreError::Missing {
            database: path.display().to_string(),
        });
    }
    if init {
        clear(path).map_err(on_disk)?;
    }
    make_folder(path).map_err(on_disk)?;
    if init {
        found.marker.begin_anew().map_err(on_disk)?;
    } else if said == Marked::No && !found.marker.begin().map_err(on_disk)? {
        // Another process was faster.
        return survey(path, create, init);
    }
    Ok(Ground {
        may_be_empty: true,
        ..found
    })
}

/// Returns a file that SQLite keeps beside a database, where there is no database. SQLite would delete it.
fn leftover(path: &Path) -> Option<PathBuf> {
    let [log, memory] = BESIDE.map(|end| beside(path, end));
    let found = if size(&log) > 0 {
        Some(log)
    } else {
        Some(memory).filter(|memory| memory.exists())
    };
    // In this order: a process that makes the database now writes the file first.
    found.filter(|_| size(path) == 0)
}

/// Moves the files away that SQLite would delete.
fn clear(path: &Path) -> std::io::Result<()> {
    for file in BESIDE.map(|end| beside(path, end)) {
        if file.exists() {
            let aside = move_aside(&file)?;
            tracing::warn!(
                file = %file.display(),
                aside = %aside.display(),
                "a file of a database that is not there was moved aside"
            );
        }
    }
    Ok(())
}

/// Makes the folder of the database, for its owner only.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let Some(folder) = folder.filter(|folder| !folder.exists()) else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Returns the error of a store that is not there, where another one may be made if that is wanted.
pub(in crate::store) fn unless_wanted(path: &Path, cause: &str) -> StoreError {
    lost(
        path,
        format!(
            "{cause}. To begin anew, without the keys that there were, so that leaks of them are not revoked, add --init"
        ),
    )
}

pub(in crate::store) fn lost(path: &Path, cause: String) -> StoreError {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    StoreError::Lost {
        database: place.display().to_string(),
        cause,
    }
}
