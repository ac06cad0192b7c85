//! File beside a SQLite database that says that there is a store, and which one.
//!
//! Without it, nobody could tell a first start from one in whose place the database went away: a folder that was not
//! mounted, a copy of the file without its write-ahead log, in which everything may still be. Both would make a new,
//! empty store, which knows no key and takes each leak for nobody's.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::temporary::Temporary;

/// Suffix of the file's name.
const SUFFIX: &str = ".id";

/// First line while a store is being made: from before there is a file of the database until it has tables.
const BEGUN: &str = "being made";

/// Maximum size of the file that is looked at, in bytes.
const MOST: u64 = 4096;

const EXPLANATION: &str = "\
The identity of the rescind store beside this file. If the database is not there any more, or is another one, rescind
says so instead of making a new one. Backups need not have it.
";

/// Contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Marked {
    /// There is no file.
    No,
    /// A store is being made, or its making was interrupted.
    Begun,
    /// There is a store with this identity.
    Made(String),
}

/// The file beside a database.
#[derive(Debug, Clone)]
pub(in crate::store) struct Marker(PathBuf);

impl Marker {
    pub(in crate::store) fn of(database: &Path) -> Self {
        // The working directory may change.
        let database = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
        Self(beside(&database, SUFFIX))
    }

    /// Returns the path of the file.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns what the file says.
    ///
    /// # Errors
    /// Returns an error if it is there and cannot be read.
    pub(in crate::store) fn read(&self) -> io::Result<Marked> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Marked::No),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(match text.lines().next().unwrap_or_default().trim() {
            BEGUN => Marked::Begun,
            id => Marked::Made(id.to_owned()),
        })
    }

    /// Says that a store is being made, unless there is a file already. Returns whether it was written.
    pub(in crate::store) fn begin(&self) -> io::Result<bool> {
        match self.prepared(BEGUN)?.persist_noclobber(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that a store is being made, whatever there was.
    pub(in crate::store) fn begin_anew(&self) -> io::Result<()> {
        self.write(BEGUN)
    }

    /// Says that the store with this identity is there.
    pub(in crate::store) fn made(&self, id: &str) -> io::Result<()> {
        self.write(id)
    }

    fn write(&self, first_line: &str) -> io::Result<()> {
        self.prepared(first_line)?.persist(&self.0)
    }

    fn prepared(&self, first_line: &str) -> io::Result<Temporary> {
        // Only its owner may read it, as the database.
        let mut file = Temporary::beside(&self.0, 0o600)?;
        write!(file, "{first_line}\n\n{EXPLANATION}")?;
        Ok(file)
    }
}

/// Returns the path of a file whose name is that of the database with this suffix.
pub(in crate::store) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut file = database.as_os_str().to_owned();
    file.push(suffix);
    PathBuf::from(file)
}

/// Returns the size of a file, 0 if there is none.
pub(in crate::store) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Moves a file out of the way, to a name that no other has, and returns that.
pub(in crate::store) fn move_aside(file: &Path) -> io::Result<PathBuf> {
    for number in 1..1000 {
        let aside = beside(file, &format!(".replaced-{number}"));
        if fs::symlink_metadata(&aside).is_err() {
            fs::rename(file, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other(format!(
        "too many files named {}.replaced-…",
        file.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_written_and_is_never_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::of(&folder.path().join("a.db"));
        assert_eq!(marker.read().unwrap(), Marked::No);
        assert!(marker.begin().unwrap());
        assert_eq!(marker.read().unwrap(), Marked::Begun);
        marker.made("0123").unwrap();
        assert_eq!(marker.read().unwrap(), Marked::Made("0123".to_owned()));
        assert!(!marker.begin().unwrap(), "it is there already");
        assert_eq!(marker.read().unwrap(), Marked::Made("0123".to_owned()));
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn what_is_moved_aside_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let mut names = Vec::new();
        for text in ["first", "second"] {
            fs::write(&file, text).unwrap();
            names.push(move_aside(&file).unwrap());
        }
        assert_eq!(fs::read_to_string(&names[0]).unwrap(), "first");
        assert_eq!(fs::read_to_string(&names[1]).unwrap(), "second");
    }
}
