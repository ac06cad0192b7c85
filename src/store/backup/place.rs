//! Files of a database, and those beside it, of which either all or none belong to it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

use super::{BackupError, of};
use crate::store::db::marker::{beside, size};
use crate::store::db::others;
use crate::temporary::sync_folder;

/// Suffixes of all files that SQLite takes for a part of a database: its write-ahead log, the memory that connections
/// share, and the journal of one that has no log.
pub(super) const ALL_BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Checks that no process has a database open.
///
/// # Errors
/// Returns [`BackupError::InUse`] if one has.
pub fn check_unused(database: &Path) -> Result<(), BackupError> {
    lock(database).map(drop)
}

/// Locks a database against every other process. Returns `None` if there is none.
pub(super) fn lock(database: &Path) -> Result<Option<File>, BackupError> {
    let file = match File::options().read(true).write(true).open(database) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(of(database)(error)),
    };
    // SQLite's locks are of the same kind, and every connection has one.
    if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(BackupError::InUse {
            database: database.display().to_string(),
            process: others::user_of(&file).unwrap_or_else(|| "another process".to_owned()),
        });
    }
    Ok(Some(file))
}

/// Gives a database a second name that is free, under which it is kept. Returns the new paths of the files that there
/// were, that of the database first if it was one of them. With files beside it, it is moved there with
/// them, the database first: without the others it would lack what was written last, and they would be taken for a part
/// of the one that comes in its place.
pub(super) fn keep_aside(database: &Path) -> io::Result<Vec<PathBuf>> {
    let is_free = |path: &Path| fs::symlink_metadata(path).is_err();
    let are_free = |path: &Path| ALL_BESIDE.iter().all(|end| is_free(&beside(path, end)));
    let mut names = (1..1000).map(|number| beside(database, &format!(".replaced-{number}")));
    let aside = names.find(|name| is_free(name) && are_free(name));
    let aside =
        aside.ok_or_else(|| io::Error::other("too many replaced databases are beside it"))?;
    // A link has no second name: it is moved itself.
    let is_file = fs::symlink_metadata(database).is_ok_and(|file| file.is_file());
    if is_file && are_free(database) && fs::hard_link(database, &aside).is_ok() {
        sync_folder(database)?;
        return Ok(vec![aside]);
    }
    let mut kept = Vec::new();
    for end in [""].iter().chain(&ALL_BESIDE) {
        let (file, aside) = (beside(database, end), beside(&aside, end));
        if !is_free(&file) {
            fs::rename(&file, &aside)?;
            kept.push(aside);
        }
    }
    sync_folder(database)?;
    Ok(kept)
}

/// Returns the files beside `file` that SQLite would take for a part of a database there.
pub fn left_beside(file: &Path) -> Vec<PathBuf> {
    let all = ALL_BESIDE.map(|end| beside(file, end));
    let there = all
        .into_iter()
        .filter(|file| fs::symlink_metadata(file).is_ok());
    there.collect()
}

/// Checks that the file that a backup replaces is no database of which a part is in a log beside it.
///
/// # Errors
/// Returns [`BackupError::Unfit`] if it is.
pub fn check_has_no_log(file: &Path) -> Result<(), BackupError> {
    let log = beside(file, "-wal");
    if size(&log) == 0 || !others::has_log(file).map_err(of(file))? {
        return Ok(());
    }
    let cause = format!(
        "it is a database of which a part is in {}, and both cannot be replaced at once: name another file, or remove both",
        log.display()
    );
    Err(BackupError::Kept {
        path: file.display().to_string(),
        cause,
    })
}
