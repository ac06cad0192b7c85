//! Scans of a file, a stream, or all files of a folder.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::Event;
use super::open::{Contents, Kind};
use super::outlet::{Closed, Outlet};
use super::walk::{Entry, Visitor, Walk};
use crate::scan::{Counters, Engine, Finding, Part, Scanner};

/// Error that prevents a path from being scanned at all.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The path does not exist.
    #[error("there is no such file or folder")]
    Missing,
    /// The path is a socket or a device, which has no contents or no end. Holds its kind, with an article.
    #[error("it is {0}, not a file or folder")]
    NotAFile(&'static str),
    /// The path cannot be examined or opened.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// Scans `path`, which may be a folder, a file or a named pipe, and reports to `counters` and `events`.
///
/// The files of a folder are scanned by as many threads as there are processors. Hidden files are included, since
/// leaks live in files such as `.env`; files listed in ignore files (`.gitignore`, `.ignore`, …) are counted and left
/// out, unless `all` is set, git tracks them, or those above `path` list all that is in it. A `.gitignore` applies
/// outside a repository too, since an unpacked archive or an export has one as well. One that is too large or not a
/// regular file is reported and not obeyed. Everything that cannot be read is reported. The target of a symbolic link is
/// scanned as the text of the link, and not followed, and folders named `.git` are left to [`scan_history`](super::scan_history). Names are scanned as well as
/// contents.
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if `path` does not exist, cannot be read, or is a socket or a device.
pub fn scan_path(
    path: &Path,
    all: bool,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), FilesError> {
    let outlet = Outlet { counters, events };
    // Links are followed here and only here: this is the one path that the user named.
    let kind = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FilesError::Missing,
        _ => FilesError::Unreadable(error),
    })?;
    let mut scanner = Scanner::new(engine);
    if let Some(name) = path.file_name()
        && scan_name(name, &|| path.to_owned(), &scanner, outlet).is_err()
    {
        return Ok(());
    }
    if kind.is_dir() {
        fs::read_dir(path).map_err(FilesError::Unreadable)?;
        return scan_folder(path, all, engine, outlet).map_err(FilesError::Unreadable);
    }
    // A named pipe that the user named is waited for.
    if let kind @ (Kind::Socket | Kind::Device) = Kind::of(kind.file_type()) {
        return Err(FilesError::NotAFile(kind.name()));
    }
    let mut file = File::open(path).map_err(FilesError::Unreadable)?;
    // A dropped receiver is no error.
    let _ = scan_text(&mut file, &|| path.to_owned(), &mut scanner, outlet);
    Ok(())
}

/// Scans a stream, which reports call `name`. A stream that cannot be read to its end is reported to `events`.
pub fn scan_stream(
    text: &mut impl Read,
    name: &Path,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) {
    let outlet = Outlet { counters, events };
    let _ = scan_text(text, &|| name.to_owned(), &mut Scanner::new(engine), outlet);
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

/// Visitor that scans the files of a folder.
struct Files<'a> {
    scanner: Scanner<'a>,
    outlet: Outlet<'a>,
}

impl Visitor for Files<'_> {
    fn enters(&mut self, folder: &Entry) -> Result<bool, Closed> {
        if folder.name() == ".git" {
            Counters::count(&self.outlet.counters.git_folders);
            return Ok(false);
        }
        let path = || folder.path();
        scan_name(folder.name(), &path, &self.scanner, self.outlet)?;
        Ok(true)
    }

    fn visit(&mut self, entry: &Entry) -> Result<(), Closed> {
        let outlet = self.outlet;
        let path = || entry.path();
        scan_name(entry.name(), &path, &self.scanner, outlet)?;
        match entry.kind() {
            // A replacement of the file since it was listed cannot hold up the scan: a link is refused, and opening a
            // pipe does not block. Checking again would take as long as reading the file.
            Kind::File => match entry.open() {
                Ok(file) => scan_text(&mut Contents(file), &path, &mut self.scanner, outlet),
                Err(error) => outlet.unread(path(), error.to_string()),
            },
            Kind::Link => {
                Counters::count(&outlet.counters.links);
                // As in a repository, where it is what the link contains.
                match entry.target() {
                    Ok(target) => {
                        scan_text(&mut target.as_slice(), &path, &mut self.scanner, outlet)
                    }
                    Err(error) => outlet.unread(path(), error.to_string()),
                }
            }
            // Opening a pipe would wait for a writer.
            other => outlet.unread(path(), format!("{}, not opened", other.name())),
        }
    }
}

/// Scans the name of a file or folder.
fn scan_name(
    name: &OsStr,
    path: &dyn Fn() -> PathBuf,
    scanner: &Scanner<'_>,
    outlet: Outlet<'_>,
) -> Result<(), Closed> {
    let mut listening = Ok(());
    scanner.scan_slice(name.as_encoded_bytes(), &mut |candidate| {
        if listening.is_ok() {
            listening = outlet.found(Finding {
                path: Some(path()),
                object: None,
                part: Part::Name,
                candidate,
            });
        }
    });
    listening
}

fn scan_text(
    text: &mut impl Read,
    path: &dyn Fn() -> PathBuf,
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
                path: Some(path()),
                object: None,
                part: Part::Contents,
                candidate,
            }));
        }
    });
    listening.get()?;
    match read {
        Ok(bytes) => outlet.counters.scanned(bytes),
        Err(error) => outlet.unread(path(), error.to_string())?,
    }
    Ok(())
}

/// Text that ends once the receiver of the findings is dropped, since the rest may have no end.
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
