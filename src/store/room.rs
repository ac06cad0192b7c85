//! Whether there is room for a migration that writes tables anew.
//!
//! SQLite writes them into its write-ahead log first and takes them over into the file afterwards. So for a while there
//! are the old tables, the log and the new ones, and a disk that is full in between stops every write, although
//! the migration itself may be committed already.

use std::fs;
use std::path::Path;

use super::StoreError;

/// How many times its size has to be free.
const TIMES: u64 = 2;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_file_and_its_log_have_to_be_free() {
        assert_eq!(lacking([1_000, 0], 2_000), None);
        assert_eq!(lacking([1_000, 0], 1_999), Some(2_000));
        assert_eq!(lacking([1_000, 500], 2_999), Some(3_000));
        assert_eq!(lacking([0, 0], 0), None);
        assert_eq!(lacking([u64::MAX, 1], u64::MAX), None);
    }
}
