//! Whether SQLite's files are still where they were opened.
//!
//! A file that is removed or replaced lives on, nameless, for as long as it is open, and takes every change: all of
//! it is gone with the program. SQLite itself does not look. So the files behind the names are compared with those
//! that were opened before anything is written, and before anybody is told that it was.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;

/// The files beside the database in which SQLite keeps what is not in it yet, and who uses it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Which file it is, whatever its name.
type Identity = (u64, u64);

/// The files of one database. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// As errors name it.
    name: String,
    path: PathBuf,
    opened: Mutex<Opened>,
}

/// What was there when it was opened.
#[derive(Debug, Default)]
struct Opened {
    database: Option<Identity>,
    /// Where SQLite puts the files beside it: not beside a link.
    resolved: PathBuf,
    /// While there is a connection that writes. Where there is none SQLite itself may remove them.
    beside: Option<[Identity; 2]>,
    told: bool,
}

impl Files {
    /// The files of a database that is not opened yet.
    pub(super) fn new(path: &Path) -> Self {
        Self(Arc::new(Inner {
            name: path.display().to_string(),
            // The working folder may change.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            opened: Mutex::default(),
        }))
    }

    /// The database's name, as errors have it.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// The database is open by now.
    pub(super) fn opened(&self) {
        let mut opened = self.lock();
        opened.database = identity(&self.0.path);
        let resolved = self.0.path.canonicalize();
        opened.resolved = resolved.unwrap_or_else(|_| self.0.path.clone());
    }

    /// The connection that writes has used the files beside the database.
    pub(super) fn written(&self) {
        let mut opened = self.lock();
        if opened.beside.is_none() {
            let [Some(log), Some(memory)] = BESIDE.map(|end| identity(&opened.beside(end))) else {
                return;
            };
            opened.beside = Some([log, memory]);
        }
    }

    /// The connection that writes is about to end.
    pub(super) fn writer_ends(&self) {
        self.lock().beside = None;
    }

    /// Whether all of them are still there.
    ///
    /// # Errors
    /// [`StoreError::Gone`], which the log tells once.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let mut opened = self.lock();
        let error = self.compare(&opened).err();
        if opened.told != error.is_some() {
            opened.told = error.is_some();
            if let Some(error) = &error {
                tracing::error!(%error, "nothing is accepted");
            } else {
                tracing::info!(database = self.0.name, "the database's files are back");
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn compare(&self, opened: &Opened) -> Result<(), StoreError> {
        let gone = |file: &Path, found: Option<Identity>| StoreError::Gone {
            database: self.0.name.clone(),
            cause: match found {
                Some(_) => format!(
                    "{} is another file than the one that is open",
                    file.display()
                ),
                None => format!("{} is not there any more", file.display()),
            },
        };
        if let Some(expected) = opened.database {
            let found = identity(&self.0.path);
            if found != Some(expected) {
                return Err(gone(&self.0.path, found));
            }
        }
        for (end, expected) in BESIDE.iter().zip(opened.beside.iter().flatten()) {
            let file = opened.beside(end);
            let found = identity(&file);
            if found != Some(*expected) {
                return Err(gone(&file, found));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    fn beside(&self, end: &str) -> PathBuf {
        let mut file = self.resolved.as_os_str().to_owned();
        file.push(end);
        PathBuf::from(file)
    }
}

fn identity(file: &Path) -> Option<Identity> {
    let file = fs::metadata(file).ok()?;
    Some((file.dev(), file.ino()))
}
