//! Protection of a SQLite database that another process has open while one of its files is missing.
//!
//! That process still has the removed file, and what was written last stands only there. SQLite makes a new one for
//! whoever opens the database now, and does not notice that the two do not belong together: a new, empty log under the
//! old shared memory is copied into the database page by page, and so is the old log over what a new one held. Hence
//! nobody opens the database until the other process has ended, which takes over what the removed file holds.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use tokio::time::{Instant, sleep};

use super::super::StoreError;
use super::files::BESIDE;

/// Time for which another process may take to make its files, or to remove them at its end.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes of the database file on which every connection has a shared lock: `SHARED_FIRST` and `SHARED_SIZE` of SQLite's
/// `os.h`. In WAL mode it is held from the first read until the connection is closed.
const SHARED_FIRST: u64 = 0x4000_0002;
const SHARED_SIZE: u64 = 510;

/// Length of what is read of the file's header, and the place in it that says whether the database has a write-ahead
/// log: <https://sqlite.org/fileformat.html#file_format_version_numbers>.
const HEADER: usize = 20;
const READ_VERSION: usize = 19;
const WAL_VERSION: u8 = 2;

/// Returns whether a file is a database in WAL mode. Of any other, no `-wal` is a part, although SQLite would take one
/// that is beside it for that.
pub(in crate::store) fn has_log(path: &Path) -> io::Result<bool> {
    let mut header = [0; HEADER];
    match File::open(path)?.read_exact(&mut header) {
        Ok(()) => Ok(header[READ_VERSION] == WAL_VERSION),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that is missing, and a process that has the database open.
struct Torn {
    missing: PathBuf,
    process: String,
}

/// Checks that no other process has the database open without all of its files.
///
/// # Errors
/// Returns [`StoreError::Torn`] with the remedy if one has.
pub(in crate::store) async fn check(path: &Path) -> Result<(), StoreError> {
    let until = Instant::now() + PATIENCE;
    while let Some(torn) = torn(path) {
        if Instant::now() >= until {
            return Err(StoreError::Torn {
                database: path.display().to_string(),
                cause: format!(
                    "{} was removed while {} has the database open: stop that process, without a kill, and start it \
                     again before anything else opens the database; what the file held is taken over when it stops, \
                     nothing was changed",
                    torn.missing.display(),
                    torn.process
                ),
            });
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Returns the missing file of a database that another process has open. A file that a killed process left behind is no
/// sign of one, since its locks went with it.
fn torn(path: &Path) -> Option<Torn> {
    // SQLite puts its other files beside the file, not beside a link to it.
    let path = path.canonicalize().ok()?;
    let is_missing = |file: &PathBuf| matches!(file.try_exists(), Ok(false));
    let missing = BESIDE.map(|end| beside(&path, end));
    // Looked at first: closing a descriptor of the database ends all locks of this process on it, those of other
    // connections too. While all files are there, nothing is opened.
    let missing = missing.into_iter().find(is_missing)?;
    let mut file = File::open(&path).ok()?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    if header[READ_VERSION] != WAL_VERSION {
        return None;
    }
    let lock = lock_of_another(&file)?;
    // One that holds it alone makes or removes the files itself, and SQLite waits for it.
    if lock.typ != FlockType::ReadLock {
        return None;
    }
    Some(Torn {
        missing,
        process: name(&lock),
    })
}

/// Returns the lock that keeps others from writing to the database alone.
fn lock_of_another(file: &File) -> Option<Flock> {
    let wanted = Flock {
        start: SHARED_FIRST,
        length: SHARED_SIZE,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    fcntl_getlk(file, &wanted).ok()?
}

/// Returns the name of another process that has the database open.
pub(in crate::store) fn user_of(file: &File) -> Option<String> {
    lock_of_another(file).map(|lock| name(&lock))
}

fn name(lock: &Flock) -> String {
    lock.pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {}", pid.as_raw_nonzero()),
    )
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut file = path.as_os_str().to_owned();
    file.push(end);
    PathBuf::from(file)
}
