//! Regular files, opened without waiting for anything.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a regular file. Returns `None` if it is anything else, such as a pipe: opening that would wait for a writer.
///
/// # Errors
/// Returns the error of the operating system.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    // A device may do something when it is opened.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    // It may have been replaced since.
    let file = open_at_once(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Flags with which a file is opened for reading without waiting for anything, and a link followed.
#[cfg(unix)]
pub(crate) const AT_ONCE: rustix::fs::OFlags = rustix::fs::OFlags::RDONLY
    .union(rustix::fs::OFlags::NONBLOCK)
    .union(rustix::fs::OFlags::NOCTTY)
    .union(rustix::fs::OFlags::CLOEXEC);

#[cfg(unix)]
fn open_at_once(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, AT_ONCE, rustix::fs::Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open_at_once(path: &Path) -> io::Result<File> {
    File::open(path)
}
