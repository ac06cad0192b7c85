//! Space for the database: whether there is enough for a migration that rewrites tables, and whether a write failed for
//! lack of it.
//!
//! SQLite writes the new tables into its write-ahead log first, and copies them into the file afterward. For a while,
//! there are the old tables, the log, the new tables, and temporary files for sorting their indexes. A disk that
//! becomes full in between stops every write, although the migration itself may be committed already.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Factor of the size of the database that has to be free. A database of 600,000 keys that was migrated from version 2
/// took 3.4 times its size at the peak: the log, the temporary files for sorting, and the growth of the file. A
/// database of 60,000 keys took 3.0 times its size.
const TIMES: u64 = 4;

/// Minimum size of SQLite's shared memory and a few pages, in bytes.
const SMALLEST: usize = 64 << 10;

/// Maximum size of what is added to a file at once, in bytes, as far as it matters for the limit on its size.
const NEXT_PAGES: u64 = 1 << 20;

/// Space that a migration needs, and that it has, in bytes.
pub(in crate::store) struct Lack {
    pub(in crate::store) needed: u64,
    pub(in crate::store) free: u64,
}

/// Returns what a migration of this file may lack. Returns `None` if there is enough, or if the operating system does
/// not report the free space.
pub(in crate::store) fn lack(database: &str) -> Option<Lack> {
    let file = Path::new(database);
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let log = format!("{database}-wal");
    let sizes = [size(file), size(Path::new(&log))];
    let free = free_beside(file)?;
    lacking(sizes, free).map(|needed| Lack { needed, free })
}

/// Returns the number of bytes that have to be free for files of these sizes, if that is more than `free`.
fn lacking(sizes: [u64; 2], free: u64) -> Option<u64> {
    let size = sizes
        .iter()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    let needed = size.saturating_mul(TIMES);
    (needed > free).then_some(needed)
}

/// Returns the number of bytes that this user can still write to the file system of the file. Follows links.
fn free_beside(file: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(file).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Returns whether there is no space for even the smallest of the files beside this one. A failing disk may take its
/// time, in which other tasks of this thread go on elsewhere.
pub(in crate::store) fn is_full(database: &str) -> bool {
    let file = Path::new(database);
    aside(|| free_beside(file).is_some_and(|free| free < SMALLEST as u64) || refuses(file))
}

/// Returns the limit on the size of files that this process has, in bytes, if a file of the database has reached it.
pub(in crate::store) fn limit_reached(database: &str) -> Option<u64> {
    let limit = getrlimit(Resource::Fsize).current?;
    let size = |file: String| fs::metadata(file).map_or(0, |file| file.len());
    let sizes = ["", "-wal", "-shm"].map(|end| size(format!("{database}{end}")));
    // Files grow by several pages at a time.
    let has_reached = |size: u64| size.saturating_add(NEXT_PAGES) > limit;
    sizes.into_iter().any(has_reached).then_some(limit)
}

/// Runs what may block, with the other tasks of this thread handed over to another one where there can be one.
fn aside<T>(blocking: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if matches!(runtime, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(blocking)
    } else {
        blocking()
    }
}

/// Returns whether a lack of space prevents this user from writing a file beside this one. A quota, or the limit on the
/// number of files, may be exhausted although others still have space.
fn refuses(file: &Path) -> bool {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let written =
        tempfile::tempfile_in(folder).and_then(|mut file| file.write_all(&vec![0; SMALLEST]));
    written.is_err_and(|error| is_for_lack_of_room(&error))
}

/// Returns whether the error means that the operating system has no space for a write.
pub(in crate::store) fn is_for_lack_of_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_while_a_disk_is_waited_for() {
        let (send, receive) = std::sync::mpsc::channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut others = tokio::task::JoinSet::new();
            others.spawn(async move { send.send(()) });
            let got = aside(|| receive.recv_timeout(std::time::Duration::from_secs(10)));
            drop(others);
            got
        });
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Ok(()));
        // Where there is no other thread it is done all the same.
        let outside = std::thread::spawn(|| aside(|| 1));
        assert_eq!(outside.join().unwrap(), 1);
    }

    #[test]
    fn four_times_the_file_and_its_log_have_to_be_free() {
        assert_eq!(lacking([1_000, 0], 4_000), None);
        assert_eq!(lacking([1_000, 0], 3_999), Some(4_000));
        assert_eq!(lacking([1_000, 500], 5_999), Some(6_000));
        assert_eq!(lacking([0, 0], 0), None);
        assert_eq!(lacking([u64::MAX, 1], u64::MAX), None);
    }
}
