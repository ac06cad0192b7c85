//! Opens files in folders that are somebody else's, without waiting for anything.

use std::fs::{File, FileType};
use std::io;
use std::path::{Path, PathBuf};

/// Treatment of a path that is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Followed,
    Refused,
}

/// Opens a file. To open a pipe does not wait for a writer, so that what was opened can be looked at: it may be another
/// one than a moment ago.
#[cfg(unix)]
pub(crate) fn open(path: &Path, links: Links) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};

    let mut how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if links == Links::Refused {
        how |= OFlags::NOFOLLOW;
    }
    Ok(rustix::fs::open(path, how, Mode::empty())?.into())
}

#[cfg(not(unix))]
pub(crate) fn open(path: &Path, _: Links) -> io::Result<File> {
    File::open(path)
}

/// Returns the kind of a file that cannot be scanned, with an article, unless it is a regular file, a folder, a
/// link or a named pipe.
#[cfg(unix)]
pub(crate) fn endless(kind: FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;

    match kind {
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        _ => None,
    }
}

#[cfg(not(unix))]
pub(crate) fn endless(_: FileType) -> Option<&'static str> {
    None
}

/// Converts bytes to a path. On systems other than Unix, invalid UTF-8 becomes a path that does not exist.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
    }
    #[cfg(not(unix))]
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}
