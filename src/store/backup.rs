//! Backups of SQLite databases: copies that are made while the daemon works, examined before they are relied on, and put
//! back while nobody does.

mod contents;
mod place;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::time::Instant;

use super::db::connect::{CONNECTION_WAIT, Db, sqlite_file};
use super::db::marker::{Marker, beside, size};
use super::db::others;
use super::{LogHead, Store, StoreError, StoreOptions, Urgency};
use crate::temporary::Temporary;
use contents::{compare, examine};
use place::{ALL_BESIDE, keep_aside, lock};
pub use place::{check_has_no_log, check_unused, left_beside};

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
    /// The file is not replaced by a backup.
    #[error("{path} is not replaced: {cause}")]
    Kept {
        /// Path of the file.
        path: String,
        /// Reason, and the remedy.
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
    /// Time at which the newest key was created.
    pub newest_key_at: Option<Timestamp>,
    /// Time of the last entry of the revocation log.
    pub last_entry_at: Option<Timestamp>,
    /// Identity of the store, if its schema has one.
    id: Option<String>,
}

/// Differences between a database and a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Keys and access tokens that are valid in the backup, and are not any more.
    pub valid_again: Vec<ValidAgain>,
    /// Keys and access tokens that are not in the backup.
    pub lacking: Lacking,
}

/// Keys and access tokens that a backup lacks, since they were issued after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Number of keys.
    pub keys: u64,
    /// The first of them, at most [`Lacking::NAMED`], by their age.
    pub named: Vec<LackingKey>,
    /// Number of access tokens.
    pub tokens: u64,
}

impl Lacking {
    /// Maximum number of keys that are named.
    pub const NAMED: u32 = 20;
}

/// A key that a backup lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingKey {
    /// Identifier.
    pub id: String,
    /// Last four characters of the key.
    pub last_four: String,
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
    file: Temporary,
    database: PathBuf,
    /// Its contents.
    pub contents: Contents,
    /// Files beside the backup that SQLite would take for a part of it, and that are none.
    pub foreign: Vec<PathBuf>,
}

impl Store {
    /// Copies the database into `copy`, an empty file, and examines the copy, which is complete without any other file.
    /// `progress` is called with the number of bytes that are written and their approximate total. Others read and write
    /// the database meanwhile.
    ///
    /// # Errors
    /// Returns a [`BackupError`]; what is in the file then is no backup.
    pub async fn back_up(
        &self,
        copy: &Path,
        progress: impl Fn(u64, u64),
    ) -> Result<Contents, BackupError> {
        let Db::Sqlite { lists, .. } = &self.0.db else {
            return Err(self.on_a_server(copy));
        };
        let target = copy.display().to_string().replace('\'', "''");
        let total = size(Path::new(&self.0.name)) + size(&beside(Path::new(&self.0.name), "-wal"));
        let copying = async {
            let until = Instant::now() + CONNECTION_WAIT;
            let mut held = lists.acquire(Urgency::Housekeeping, until).await?;
            held.run(COPYING, format!("VACUUM INTO '{target}'")).await
        };
        let looking = async {
            loop {
                tokio::time::sleep(LOOK).await;
                progress(size(copy), total);
            }
        };
        let copied = tokio::select! {
            copied = copying => copied,
            never = looking => never,
        };
        copied.map_err(|error| self.failed(&error))?;
        examine(copy).await
    }

    /// Checks that the database is a file, of which a backup can be made.
    ///
    /// # Errors
    /// Returns [`BackupError::OnAServer`] if it is on a server, with the command that makes one in `file` there.
    pub fn check_is_a_file(&self, file: &Path) -> Result<(), BackupError> {
        match self.0.db {
            Db::Sqlite { .. } => Ok(()),
            Db::Postgres(_) => Err(self.on_a_server(file)),
        }
    }

    fn on_a_server(&self, file: &Path) -> BackupError {
        let (file, database) = (file.display(), self.0.name.clone());
        let command = format!("pg_dump --format=custom --file='{file}' '{database}'");
        BackupError::OnAServer { database, command }
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

impl Candidate {
    /// Copies a backup into the folder of `database`, and examines the copy. A `-wal` beside a copy of a database that had
    /// one is taken over. One beside a backup is of another database, as a backup is complete without.
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
        let file = Temporary::beside(database, 0o600).map_err(of(database))?;
        let copied = fs::copy(backup, file.path()).and_then(|_| {
            // Copying sets the permissions of the other file.
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(file.path(), own)
        });
        copied.map_err(of(backup))?;
        let mut foreign = left_beside(backup);
        if others::has_log(file.path()).map_err(of(backup))? {
            let log = beside(backup, "-wal");
            if size(&log) > 0 {
                fs::copy(&log, beside(file.path(), "-wal")).map_err(of(&log))?;
            }
            foreign.clear();
        }
        let examined = examine(file.path()).await;
        for end in ALL_BESIDE {
            let _ = fs::remove_file(beside(file.path(), end));
        }
        let contents = examined.map_err(|error| match error {
            BackupError::Unfit { cause, .. } => unfit(backup, &cause),
            BackupError::Store(error) => unfit(backup, &error.to_string()),
            other => other,
        })?;
        Ok(Self {
            file,
            database: database.to_owned(),
            contents,
            foreign,
        })
    }

    /// Compares the backup with the database that it replaces. Returns `None` if that cannot be read.
    pub async fn compare(&self) -> Option<Compared> {
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

    /// Puts the copy in the place of the database, which is moved aside with the files beside it. Returns the paths to
    /// which they were moved, as far as there were any.
    ///
    /// Killed at any instant, there is the one or the other. If the database has a log that could not be taken over,
    /// there may be none instead, but then its identity is noted: nothing makes a new one. The caller sees to it that no
    /// signal removes the copy meanwhile.
    ///
    /// # Errors
    /// Returns [`BackupError::InUse`] if a process has the database open.
    pub fn put_back(self) -> Result<Vec<PathBuf>, BackupError> {
        let database = &self.database;
        // Held until the other file is in place: whoever opens the database meanwhile waits for it.
        let _alone = lock(database)?;
        if let Some(id) = &self.contents.id {
            let marked = Marker::of(database).made(id);
            marked.map_err(of(database))?;
        }
        let aside = keep_aside(database).map_err(of(database))?;
        self.file.persist(database).map_err(of(database))?;
        Ok(aside)
    }
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
