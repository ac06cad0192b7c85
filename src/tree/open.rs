//! Opens files in folders that are somebody else's, without waiting for anything.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use crate::regular::AT_ONCE;

/// Treatment of a path that is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Followed,
    Refused,
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    Device,
    Other,
}

impl Kind {
    pub(crate) fn of(kind: FileType) -> Self {
        match kind {
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Folder,
            kind if kind.is_symlink() => Self::Link,
            kind => Self::special(kind),
        }
    }

    #[cfg(unix)]
    fn special(kind: FileType) -> Self {
        use std::os::unix::fs::FileTypeExt as _;

        match kind {
            kind if kind.is_fifo() => Self::Pipe,
            kind if kind.is_socket() => Self::Socket,
            kind if kind.is_char_device() || kind.is_block_device() => Self::Device,
            _ => Self::Other,
        }
    }

    #[cfg(not(unix))]
    fn special(_: FileType) -> Self {
        Self::Other
    }

    /// Returns the kind, with an article.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Folder => "a folder",
            Self::Link => "a symbolic link",
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "neither a file nor a folder",
        }
    }
}

/// Opens a file. To open a pipe does not wait for a writer, so that what was opened can be looked at: it may be another
/// one than a moment ago.
#[cfg(unix)]
pub(crate) fn open(path: &Path, links: Links) -> io::Result<File> {
    Ok(rustix::fs::open(path, flags(links), rustix::fs::Mode::empty())?.into())
}

/// Returns how a file is opened without waiting for anything.
#[cfg(unix)]
pub(super) fn flags(links: Links) -> rustix::fs::OFlags {
    match links {
        Links::Followed => AT_ONCE,
        Links::Refused => AT_ONCE | rustix::fs::OFlags::NOFOLLOW,
    }
}

#[cfg(not(unix))]
pub(crate) fn open(path: &Path, _: Links) -> io::Result<File> {
    File::open(path)
}

/// Contents of a file, read by the system call itself: small files are many, and the C library adds a tenth to each read.
#[derive(Debug)]
pub(crate) struct Contents(pub(crate) File);

impl Read for Contents {
    #[cfg(unix)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }

    #[cfg(not(unix))]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
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
