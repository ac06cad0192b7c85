//! Scans a file, a stream, or all files of a folder.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::finding::{Closed, Outlet};
use super::open::{Links, open};
use super::walk::{Visitor, Walk};
use super::{Counters, Engine, Event, Finding, Scanner};

/// Why a path cannot be scanned at all.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is nothing of that name.
    #[error("there is no such file or folder")]
    Missing,
    /// It is something that has no contents, or no end.
    #[error("it is {0}, not a file or folder")]
    NotAFile(&'static str),
    /// It cannot be looked at.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// Scans `path`, which may be a folder, a file or a named pipe, and reports to `counters` and `events`. A
/// folder's files are scanned by as many threads as there are processors, hidden ones too, but not those
/// that ignore files (`.gitignore`, `.ignore`, …) list, unless `all` is set: leaks live in hidden files such as
/// `.env`. A `.gitignore` counts without a repository around it too, since an unpacked archive or an export has one
/// as well; one that is no regular file, or too large, is reported and not obeyed. Whatever cannot be read is
/// reported, symbolic links are not followed, and folders named `.git` are left to
/// [`scan_history`](super::scan_history).
///
/// Ends early, without an error, when nobody listens to `events` any more.
///
/// # Errors
/// When there is nothing to scan at `path`.
pub fn scan_path(
    path: &Path,
    all: bool,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), FilesError> {
    let outlet = Outlet { counters, events };
    // Links are followed here, and only here: this is the one path that somebody named.
    let kind = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FilesError::Missing,
        _ => FilesError::Unreadable(error),
    })?;
    if kind.is_dir() {
        fs::read_dir(path).map_err(FilesError::Unreadable)?;
        return scan_folder(path, all, engine, outlet).map_err(FilesError::Unreadable);
    }
    if let Some(what) = endless(kind.file_type()) {
        return Err(FilesError::NotAFile(what));
    }
    let mut file = File::open(path).map_err(FilesError::Unreadable)?;
    // That nobody listens any more is no error.
    let _ = scan_text(&mut file, path, &mut Scanner::new(engine), outlet);
    Ok(())
}

/// What reports call standard input.
pub const STANDARD_INPUT: &str = "(standard input)";

/// Scans a stream, which reports call `name`.
pub fn scan_stream(
    text: &mut impl Read,
    name: &Path,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) {
    let outlet = Outlet { counters, events };
    let _ = scan_text(text, name, &mut Scanner::new(engine), outlet);
}

fn scan_folder(
    root: &Path,
    all: bool,
    engine: &Engine,
    outlet: Outlet<'_>,
) -> Result<(), io::Error> {
    Walk::new(all, outlet).run(root, || Files {
        scanner: Scanner::new(engine),
        outlet,
    })
}

/// Scans the files of a folder.
struct Files<'a> {
    scanner: Scanner<'a>,
    outlet: Outlet<'a>,
}

impl Visitor for Files<'_> {
    fn enters(&mut self, name: &OsStr) -> bool {
        let is_git = name == ".git";
        if is_git {
            Counters::count(&self.outlet.counters.git_folders);
        }
        !is_git
    }

    fn visit(&mut self, path: &Path, kind: FileType) -> Result<(), Closed> {
        let outlet = self.outlet;
        if kind.is_file() {
            let opened = open(path, Links::Refused).and_then(|file| Ok((file.metadata()?, file)));
            return match opened {
                Ok((found, mut file)) if found.is_file() => {
                    scan_text(&mut file, path, &mut self.scanner, outlet)
                }
                Ok(_) => outlet.unread(path, "no file any more"),
                Err(error) => outlet.unread(path, error.to_string()),
            };
        }
        if kind.is_symlink() {
            Counters::count(&outlet.counters.links);
            return match fs::metadata(path) {
                Ok(_) => Ok(()),
                Err(error) => outlet.unread(path, format!("broken link: {error}")),
            };
        }
        // To open a pipe would wait for a writer.
        let what = endless(kind).unwrap_or("a named pipe");
        outlet.unread(path, format!("{what}, not opened"))
    }
}

/// What a file is that cannot be scanned, if it is not a regular file, a folder, a link or a named pipe.
#[cfg(unix)]
pub(super) fn endless(kind: FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;

    match kind {
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        _ => None,
    }
}

#[cfg(not(unix))]
pub(super) fn endless(_: FileType) -> Option<&'static str> {
    None
}

fn scan_text(
    text: &mut impl Read,
    path: &Path,
    scanner: &mut Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<(), Closed> {
    let listening = Cell::new(Ok(()));
    let mut text = WhileListening {
        text,
        listening: &listening,
    };
    let read = scanner.scan(&mut text, &mut |candidate| {
        if listening.get().is_ok() {
            listening.set(outlet.found(Finding {
                path: Some(PathBuf::from(path)),
                object: None,
                candidate,
            }));
        }
    });
    listening.get()?;
    match read {
        Ok(bytes) => outlet.counters.scanned(bytes),
        Err(error) => outlet.unread(path, error.to_string())?,
    }
    Ok(())
}

/// A text that ends when nobody wants to know what is in the rest of it, which may have no end.
struct WhileListening<'a, R> {
    text: &'a mut R,
    listening: &'a Cell<Result<(), Closed>>,
}

impl<R: Read> Read for WhileListening<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.listening.get() {
            Ok(()) => self.text.read(buffer),
            Err(Closed) => Ok(0),
        }
    }
}
