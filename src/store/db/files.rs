//! Checks that SQLite's files are still those that were opened, and undamaged.
//!
//! A file that is deleted or replaced lives on without a name for as long as it is open, and accepts every change, all
//! of which are lost when the program ends. SQLite does not check for this. Therefore, the files behind the names are
//! compared with those that were opened before anything is written, and before a commit is acknowledged.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::StoreError;
use super::damage::Damage;

/// Suffixes of SQLite's files beside the database: its write-ahead log, and the memory that connections share.
pub(in crate::store) const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Device and inode of a file, which identify it whatever its name.
type Identity = (u64, u64);

/// Files of one database. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::store) struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Name of the database in errors.
    name: String,
    path: PathBuf,
    opened: Mutex<Opened>,
    damage: Damage,
}

/// Identities of the files at the time they were opened.
#[derive(Debug, Default)]
struct Opened {
    database: Option<Identity>,
    /// Path of the database with links resolved. SQLite puts its other files beside the file, not beside a link to it.
    resolved: PathBuf,
    /// Known while there is a connection that writes. Without one, SQLite itself may delete these files.
    beside: Option<[Identity; 2]>,
    told: bool,
}

impl Files {
    /// Creates the files of a database that is not open yet.
    pub(in crate::store) fn new(path: &Path) -> Self {
        let name = path.display().to_string();
        Self(Arc::new(Inner {
            damage: Damage::new(name.clone()),
            name,
            // The working directory may change.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            opened: Mutex::default(),
        }))
    }

    /// Returns the name of the database in errors.
    pub(in crate::store) fn name(&self) -> &str {
        &self.0.name
    }

    /// Records that the database has been opened.
    pub(in crate::store) fn opened(&self) {
        let mut opened = self.lock();
        opened.database = identity(&self.0.path).ok();
        let resolved = self.0.path.canonicalize();
        opened.resolved = resolved.unwrap_or_else(|_| self.0.path.clone());
    }

    /// Records that the writing connection has used the files beside the database.
    pub(in crate::store) fn written(&self) {
        let mut opened = self.lock();
        if opened.beside.is_none() {
            let [Ok(log), Ok(memory)] = BESIDE.map(|end| identity(&opened.beside(end))) else {
                return;
            };
            opened.beside = Some([log, memory]);
        }
    }

    /// Records that the writing connection is about to be closed. SQLite did not remove files that are gone by then.
    /// They stay known, since the next connection would make new ones in their place.
    pub(in crate::store) fn writer_ends(&self) {
        let mut opened = self.lock();
        if self.compare(&opened).is_ok() {
            opened.beside = None;
        }
    }

    /// Checks that all files are still there.
    ///
    /// # Errors
    /// Returns [`StoreError::Gone`], which is logged once, if one of them is missing or has been replaced, and
    /// [`StoreError::Forbidden`] if their folder cannot be searched.
    pub(in crate::store) fn check(&self) -> Result<(), StoreError> {
        let mut opened = self.lock();
        let error = self.compare(&opened).err();
        if opened.told != error.is_some() {
            opened.told = error.is_some();
            if let Some(error) = &error {
                tracing::error!(%error, "the database's files are gone, or out of reach: nothing is accepted");
            } else {
                tracing::info!(database = self.0.name, "the database's files are back");
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Returns the memory of damage. What is read from files that were removed or replaced says nothing of it.
    pub(in crate::store) fn damage(&self) -> &Damage {
        &self.0.damage
    }

    /// Returns whether all files are still there.
    pub(in crate::store) fn are_there(&self) -> bool {
        self.compare(&self.lock()).is_ok()
    }

    /// Checks that all files are still there, and that none was found damaged.
    ///
    /// # Errors
    /// Returns the errors of [`Files::check`], and [`StoreError::Damaged`].
    pub(in crate::store) fn check_sound(&self) -> Result<(), StoreError> {
        self.check()?;
        self.0.damage.check()
    }

    fn compare(&self, opened: &Opened) -> Result<(), StoreError> {
        if let Some(expected) = opened.database {
            let found = identity(&self.0.path);
            self.is_same(&self.0.path, expected, found)?;
        }
        for (end, expected) in BESIDE.iter().zip(opened.beside.iter().flatten()) {
            let file = opened.beside(end);
            let found = identity(&file);
            self.is_same(&file, *expected, found)?;
        }
        Ok(())
    }

    fn is_same(
        &self,
        file: &Path,
        expected: Identity,
        found: io::Result<Identity>,
    ) -> Result<(), StoreError> {
        let file = file.display();
        let cause = match found {
            Ok(found) if found == expected => return Ok(()),
            Ok(_) => format!("{file} is another file than the one that is open"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(StoreError::Forbidden {
                    database: self.0.name.clone(),
                    cause: format!("{file} cannot be looked at: {error}"),
                    remedy:
                        "give the user of rescind the permission to search its folder (chmod u+x)"
                            .to_owned(),
                });
            }
            Err(_) => format!("{file} is not there any more"),
        };
        Err(StoreError::Gone {
            database: self.0.name.clone(),
            cause,
        })
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

fn identity(file: &Path) -> io::Result<Identity> {
    let file = fs::metadata(file)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that runs as root may search every folder.
    #[test]
    fn a_folder_that_may_not_be_searched_is_a_matter_of_permissions() {
        let files = Files::new(Path::new("/srv/rescind.db"));
        let ask = |found| files.is_same(Path::new("/srv/rescind.db"), (1, 2), found);
        let denied = ask(Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        let said = denied.to_string();
        assert!(matches!(denied, StoreError::Forbidden { .. }), "{said}");
        assert!(
            said.contains("/srv/rescind.db") && said.contains("chmod u+x"),
            "{said}"
        );
        for found in [Ok((1, 3)), Err(io::ErrorKind::NotFound.into())] {
            assert!(matches!(ask(found), Err(StoreError::Gone { .. })));
        }
        assert!(ask(Ok((1, 2))).is_ok());
    }
}
