//! Backups of SQLite databases: copies that are made while the daemon works, examined before they are relied on, and put
//! back while nobody does.

mod contents;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use secrecy::ExposeSecret as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::db::connect::{CONNECTION_WAIT, Db, sqlite_file};
use super::db::files::BESIDE;
use super::db::marker::{Marker, beside, size, sync_folder};
use super::db::others;
use super::{LogHead, Store, StoreError, StoreOptions, Urgency};
use contents::{compare, examine};

/// Maximum time that a copy takes.
const COPYING: Duration = Duration::from_hours(24);

/// Interval at which the progress of a copy is told.
const LOOK: Duration = Duration::from_millis(250);

/// Error of a backup, or of putting one back. What was there is still there.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database is on a server, which has tools of its own.
    #[error("the database {database} is on a server, which has tools for that: {command}")]
    OnAServer {
        /// URL without the password.
        database: String,
        /// The command that does it.
        command: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Path of the file.
        path: String,
        /// Message of the operating system.
        cause: io::Error,
    },
    /// The file is no sound backup of a database of this program.
    #[error("{path} cannot be put back: {cause}")]
    Unfit {
        /// Path of the file.
        path: String,
        /// Problem with it, and the remedy.
        cause: String,
    },
    /// A process has the database open.
    #[error(
        "{process} has the database {database} open: stop it, and everything else that uses the database (nothing was changed)"
    )]
    InUse {
        /// Path of the database.
        database: String,
        /// The process.
        process: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Contents of an examined copy of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Number of keys, valid or not.
    pub keys: u64,
    /// Last entry of the revocation log.
    pub head: LogHead,
    /// Version of the schema.
    pub version: i64,
    /// Identity of the store, if its schema has one.
    id: Option<String>,
}

/// A key or an access token that is valid in a backup, and is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAgain {
    /// A key that was revoked since.
    RevokedKey(String),
    /// A key that was rotated since. Its successor is not in the backup.
    RotatedKey(String),
    /// A key whose expiry was brought forward, and the expiry in microseconds since 1970.
    ShortenedKey(String, i64),
    /// An access token that was revoked since.
    RevokedToken(String),
}

/// A copy of a backup, in the folder of the database, that is complete and sound and can take its place.
#[derive(Debug)]
pub struct Candidate {
    file: NamedTempFile,
    database: PathBuf,
    /// Its contents.
    pub contents: Contents,
}

impl Store {
    /// Makes a backup in `file`, which is replaced if it exists, and examines it. `progress` is called with the number
    /// of bytes that are written and their approximate total. Others read and write the database meanwhile.
    ///
    /// # Errors
    /// Returns a [`BackupError`]; there is no file then, or the one that was there.
    pub async fn back_up(
        &self,
        file: &Path,
        progress: impl Fn(u64, u64),
    ) -> Result<Contents, BackupError> {
        let Db::Sqlite { lists, .. } = &self.0.db else {
            return Err(BackupError::OnAServer {
                database: self.0.name.clone(),
                command: format!(
                    "pg_dump --format=custom --file='{}' '{}'",
                    file.display(),
                    self.0.name
                ),
            });
        };
        // Only its owner may read it. SQLite writes into a file that is there if it is empty.
        let copy = temporary_beside(file)?;
        let target = copy.path().display().to_string().replace('\'', "''");
        let total = size(Path::new(&self.0.name)) + size(&beside(Path::new(&self.0.name), "-wal"));
        let copying = async {
            let until = Instant::now() + CONNECTION_WAIT;
            let mut held = lists.acquire(Urgency::Housekeeping, until).await?;
            held.run(COPYING, format!("VACUUM INTO '{target}'")).await
        };
        let looking = async {
            loop {
                tokio::time::sleep(LOOK).await;
                progress(size(copy.path()), total);
            }
        };
        let copied = tokio::select! {
            copied = copying => copied,
            never = looking => never,
        };
        copied.map_err(|error| self.failed(&error))?;
        let contents = examine(copy.path()).await?;
        copy.as_file().sync_all().map_err(of(file))?;
        copy.persist(file).map_err(|error| of(file)(error.error))?;
        sync_folder(file).map_err(of(file))?;
        Ok(contents)
    }
}

/// Returns the path of the SQLite file that these options name.
///
/// # Errors
/// Returns [`BackupError::OnAServer`] if they name a server, with the command that puts `backup` back there.
pub fn database_file(options: &StoreOptions, backup: &Path) -> Result<PathBuf, BackupError> {
    if !options.is_on_a_server() {
        return Ok(sqlite_file(options.url.expose_secret())?);
    }
    let database = super::db::connect::server_name(options.url.expose_secret())?;
    Err(BackupError::OnAServer {
        command: format!(
            "with the daemon stopped, and into an empty database, pg_restore --single-transaction --dbname='{database}' '{}'",
            backup.display()
        ),
        database,
    })
}

/// Checks that no process has a database open.
///
/// # Errors
/// Returns [`BackupError::InUse`] if one has.
pub fn check_unused(database: &Path) -> Result<(), BackupError> {
    lock(database).map(drop)
}

impl Candidate {
    /// Copies a backup into the folder of `database`, and examines the copy. A `-wal` beside the backup is taken over.
    ///
    /// # Errors
    /// Returns [`BackupError::Unfit`] if the backup is not sound, is not one of this program, or is of a newer one.
    pub async fn of(backup: &Path, database: &Path) -> Result<Self, BackupError> {
        if size(backup) == 0 {
            return Err(unfit(backup, "it is missing or empty"));
        }
        let same = |path: &Path| path.canonicalize().ok();
        if same(backup).is_some() && same(backup) == same(database) {
            return Err(unfit(backup, "it is the database itself"));
        }
        if let Some(folder) = database.parent() {
            fs::create_dir_all(folder).map_err(of(folder))?;
        }
        let file = temporary_beside(database)?;
        let copied = fs::copy(backup, file.path()).and_then(|_| {
            // Copying sets the permissions of the other file.
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(file.path(), own)
        });
        copied.map_err(of(backup))?;
        let log = beside(backup, "-wal");
        if size(&log) > 0 {
            fs::copy(&log, beside(file.path(), "-wal")).map_err(of(&log))?;
        }
        let examined = examine(file.path()).await;
        for end in BESIDE {
            let _ = fs::remove_file(beside(file.path(), end));
        }
        let contents = examined.map_err(|error| match error {
            BackupError::Unfit { cause, .. } => unfit(backup, &cause),
            BackupError::Store(error) => unfit(backup, &error.to_string()),
            other => other,
        })?;
        file.as_file().sync_all().map_err(of(backup))?;
        Ok(Self {
            file,
            database: database.to_owned(),
            contents,
        })
    }

    /// Returns what is valid in the backup, and is not in the database that it replaces. Returns `None` if that cannot be
    /// read.
    pub async fn valid_again(&self) -> Option<Vec<ValidAgain>> {
        if size(&self.database) == 0 {
            return None;
        }
        let copy = self.file.path().display().to_string().replace('\'', "''");
        let options = SqliteConnectOptions::new().filename(&self.database);
        let compared = async {
            let mut now = options.disable_statement_logging().connect().await?;
            let attach = format!("ATTACH '{copy}' AS backup");
            sqlx::raw_sql(AssertSqlSafe(attach))
                .execute(&mut now)
                .await?;
            let compared = compare(&mut now).await;
            now.close().await?;
            compared
        };
        compared.await.ok()
    }

    /// Puts the copy in the place of the database, which is moved aside. Returns the path to which that was moved, if
    /// there was one.
    ///
    /// Killed in between, there is no database, and its identity is noted: nothing makes a new one.
    ///
    /// # Errors
    /// Returns [`BackupError::InUse`] if a process has the database open.
    pub fn put_back(self) -> Result<Option<PathBuf>, BackupError> {
        let database = &self.database;
        // Held until the other file is in place: whoever opens the database meanwhile waits for it.
        let _alone = lock(database)?;
        if let Some(id) = &self.contents.id {
            let marked = Marker::of(database).made(id);
            marked.map_err(of(database))?;
        }
        let aside = move_aside(database).map_err(of(database))?;
        self.file
            .persist(database)
            .map_err(|error| of(database)(error.error))?;
        sync_folder(database).map_err(of(database))?;
        Ok(aside)
    }
}

/// Locks a database against every other process. Returns `None` if there is none.
fn lock(database: &Path) -> Result<Option<File>, BackupError> {
    let file = match File::options().read(true).write(true).open(database) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(of(database)(error)),
    };
    // SQLite's locks are of the same kind, and every connection has one.
    if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(BackupError::InUse {
            database: database.display().to_string(),
            process: others::user_of(&file).unwrap_or_else(|| "another process".to_owned()),
        });
    }
    Ok(Some(file))
}

/// Moves a database with the files beside it to a name that is free. The database goes first: without the others it
/// would lack what was written last.
fn move_aside(database: &Path) -> io::Result<Option<PathBuf>> {
    let is_free = |path: &Path| fs::symlink_metadata(path).is_err();
    let mut names = (1..1000).map(|number| beside(database, &format!(".replaced-{number}")));
    let aside =
        names.find(|name| is_free(name) && BESIDE.iter().all(|end| is_free(&beside(name, end))));
    let aside =
        aside.ok_or_else(|| io::Error::other("too many replaced databases are beside it"))?;
    let mut is_any = false;
    for end in ["", BESIDE[0], BESIDE[1]] {
        let file = beside(database, end);
        if !is_free(&file) {
            fs::rename(&file, beside(&aside, end))?;
            is_any = true;
        }
    }
    sync_folder(database)?;
    Ok(is_any.then_some(aside))
}

fn temporary_beside(file: &Path) -> Result<NamedTempFile, BackupError> {
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix(".rescind-backup-").tempfile_in(folder);
    made.map_err(of(file))
}

fn of(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.display().to_string();
    move |cause| BackupError::File { path, cause }
}

fn unfit(path: &Path, cause: &str) -> BackupError {
    BackupError::Unfit {
        path: path.display().to_string(),
        cause: cause.to_owned(),
    }
}
