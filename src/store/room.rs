//! Whether there is room for a migration that writes tables anew.
//!
//! SQLite writes them into its write-ahead log first and takes them over into the file afterwards. So for a while there
//! are the old tables, the log and the new ones, and what is sorted for their indexes; and a disk that is full in between
//! stops every write, although the migration itself may be committed already.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::StoreError;

/// The multiple of its size that has to be free. A database of 600,000 keys that came from version 2 took 3.4 times its
/// size at the peak: the log, what was sorted beside it, and what the file grew by. One of 60,000 took 3.0.
const TIMES: u64 = 4;

/// The least size of SQLite's shared memory, and a few pages.
const SMALLEST: usize = 64 << 10;

/// Refuses a migration of this file for which there may not be enough room. Nothing is said where the operating system
/// does not tell how much is free.
pub(super) fn check(database: &str) -> Result<(), StoreError> {
    let file = Path::new(database);
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let log = format!("{database}-wal");
    let sizes = [size(file), size(Path::new(&log))];
    let Some(free) = free_beside(file) else {
        return Ok(());
    };
    match lacking(sizes, free) {
        None => Ok(()),
        Some(needed) => Err(StoreError::NoRoom {
            database: database.to_owned(),
            needed,
            free,
        }),
    }
}

/// The bytes that have to be free for files of these sizes, if that is more than there are.
fn lacking(sizes: [u64; 2], free: u64) -> Option<u64> {
    let size = sizes
        .iter()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    let needed = size.saturating_mul(TIMES);
    (needed > free).then_some(needed)
}

/// Bytes that this user may still write on the file system that the file is on, behind links too.
fn free_beside(file: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(file).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Returns whether not even the smallest of the files beside this one finds room.
pub(super) fn is_full(database: &str) -> bool {
    let file = Path::new(database);
    free_beside(file).is_some_and(|free| free < SMALLEST as u64) || refuses(file)
}

/// Returns whether this user cannot write a file beside this one for lack of room. A quota may be used up, or the
/// number of files, where there is room for others.
fn refuses(file: &Path) -> bool {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let written =
        tempfile::tempfile_in(folder).and_then(|mut file| file.write_all(&vec![0; SMALLEST]));
    written.is_err_and(|error| is_for_lack_of_room(&error))
}

/// Returns whether the operating system has no room for what was to be written.
pub(super) fn is_for_lack_of_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_the_file_and_its_log_have_to_be_free() {
        assert_eq!(lacking([1_000, 0], 4_000), None);
        assert_eq!(lacking([1_000, 0], 3_999), Some(4_000));
        assert_eq!(lacking([1_000, 500], 5_999), Some(6_000));
        assert_eq!(lacking([0, 0], 0), None);
        assert_eq!(lacking([u64::MAX, 1], u64::MAX), None);
    }
}
