//! Errors of the database, classified so that a caller can act on them and an operator can fix the cause.

mod codes;

pub(in crate::store) use codes::{STALE, damage, granted, role, unhidden};
use codes::{from_postgres, from_sqlite};

/// Error of a database operation. Nothing of the operation remains: every change is made in a transaction.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer at present. HTTP callers get 503 and try again.
    #[error(
        "the database {database} cannot be reached: {cause}; check that it is running and that database.url is right"
    )]
    Unavailable {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// The server of the database answers, but refuses this program.
    #[error(
        "the database {database} is refused by its server: {cause}; correct the user, the password or the name of the database in database.url, or make them on the server"
    )]
    Denied {
        /// URL without the password.
        database: String,
        /// Message of the server.
        cause: String,
    },
    /// All connections that the server of the database allows are taken. HTTP callers get 503 and try again.
    #[error(
        "the database {database} has no connection left for rescind: {cause}; raise max_connections on the server, or the limit of the role or the database, or have other programs take fewer (each daemon takes up to 16)"
    )]
    Crowded {
        /// URL without the password.
        database: String,
        /// Message of the server.
        cause: String,
    },
    /// Another client holds what the operation needs. The same operation may succeed right away.
    #[error("the database {database} is busy: {cause}; try again")]
    Busy {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// Too many operations like this one wait for each other. HTTP callers get 503 and try again.
    #[error("too much like this waits for the database {database}; try again")]
    PutOff {
        /// Path of the file, or URL without the password.
        database: String,
    },
    /// The database rolled back the transaction in favor of another one: after a deadlock, or because data that it had
    /// read has changed. [`retried`](super::super::retried) begins it again; a caller sees this error only if that was
    /// in vain.
    #[error(
        "the database {database} undid a transaction time after time to let others pass: {cause}; try again"
    )]
    Conflict {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// A newer binary has migrated this database.
    #[error(
        "the database {database} has schema version {found}, this program knows versions up to {known}: run the newer rescind that migrated it, or restore a backup from before (nothing was changed)"
    )]
    NewerDatabase {
        /// Path of the file, or URL without the password.
        database: String,
        /// Schema version of the database.
        found: i64,
        /// Newest schema version that this program knows.
        known: i64,
    },
    /// A PostgreSQL database that cannot store every character. One that it cannot store would undo the transaction
    /// that revokes a key, each time that its leak is reported.
    #[error(
        "database.url: the database {database} has the encoding {encoding}, and Rescind needs UTF8: make another one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 (nothing was changed)"
    )]
    Encoding {
        /// URL without the password.
        database: String,
        /// Name that the server gives the encoding.
        encoding: String,
    },
    /// The file does not exist, and was not to be created.
    #[error(
        "there is no database {database}: `rescind serve` or `rescind migrate` makes it, or name another one in database.url"
    )]
    Missing {
        /// Path of the file.
        database: String,
    },
    /// Migrations have not been applied.
    #[error(
        "the database {database} has schema version {found} and needs {known}: run `rescind migrate`"
    )]
    NotMigrated {
        /// Path of the file, or URL without the password.
        database: String,
        /// Schema version of the database. 0 if it is empty.
        found: i64,
        /// Schema version that this program needs.
        known: i64,
    },
    /// The database accepts no changes.
    #[error(
        "the database {database} is read-only: {cause}; give rescind write permission to the file and its folder, or name a primary server in database.url"
    )]
    ReadOnly {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// The server forbids this program something that it needs, or hides rows from it. Or the system does not let it look
    /// at the files.
    #[error("the database {database} forbids rescind what it needs: {cause}; {remedy}")]
    Forbidden {
        /// URL without the password.
        database: String,
        /// Message of the server or the system, or the privileges that are missing.
        cause: String,
        /// Statement that an administrator of the database has to run.
        remedy: String,
    },
    /// A pooler hands the statements of this program to sessions that others use, too: settings and prepared statements
    /// of a session are then another one's, which finds other rows, or none.
    #[error(
        "the database {database} is reached through a pooler that shares its sessions: {cause}; have it give each client a session of its own (PgBouncer: pool_mode = session), or name the server itself in database.url"
    )]
    Pooled {
        /// URL without the password.
        database: String,
        /// Description of what showed it.
        cause: String,
    },
    /// No space is left. Nothing was changed.
    #[error(
        "the disk of the database {database} is full: {cause}; free some space, or raise the quota, and try again, nothing was changed"
    )]
    Full {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// A file would exceed the limit on the size of files that this process has. Nothing was changed.
    #[error(
        "a file of the database {database} has reached the limit of {limit} bytes that this process has on the size of files: {cause}; raise it (`ulimit -f`, `LimitFSIZE=` of a service, `prlimit --fsize` of a running one) and try again, nothing was changed"
    )]
    TooLarge {
        /// Path of the file.
        database: String,
        /// Message of the driver.
        cause: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A migration would need more space than there is. Nothing was changed.
    #[error(
        "migrating the database {database} needs {needed} bytes of free space, and {free} are free: free some space, or move the file to a larger disk and name it in database.url (nothing was changed)"
    )]
    NoRoom {
        /// Path of the file.
        database: String,
        /// Number of bytes that have to be free.
        needed: u64,
        /// Number of bytes that are free.
        free: u64,
    },
    /// The file or its folder cannot be opened or created, or the disk fails.
    #[error(
        "the database {database} cannot be read or written: {cause}; check the folder, its permissions and the disk"
    )]
    Disk {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the operating system or the driver.
        cause: String,
    },
    /// Files of the database are missing, and to open what is left would lose what the others hold.
    #[error("the database {database} is not opened: {cause}")]
    Torn {
        /// Path of the file.
        database: String,
        /// Name of the missing file, and the remedy.
        cause: String,
    },
    /// There was a store that is missing, empty or another one now. Nothing was made in its place.
    #[error("no store is opened at {database}: {cause} (nothing was changed)")]
    Lost {
        /// Absolute path of the file.
        database: String,
        /// Description of what is missing, and the remedy.
        cause: String,
    },
    /// A file of the database was deleted or replaced while it was open, so writes would be lost.
    #[error(
        "the files of the database {database} are not those that were opened: {cause}; put the file itself back under its name (a copy does not do), or restart rescind with the files that it is to use; nothing is accepted until then"
    )]
    Gone {
        /// Path of the file.
        database: String,
        /// Name of the file, and what happened to it.
        cause: String,
    },
    /// The database contains something that this program does not write.
    #[error(
        "the database {database} holds something this program did not write: {cause}; restore a backup (of SQLite, remove `-wal` and `-shm` first, then put the backup there), or name another database in database.url"
    )]
    Corrupt {
        /// Path of the file, or URL without the password.
        database: String,
        /// Description of what was found.
        cause: String,
    },
    /// The database found that a file of its own is malformed. Remembered until the program is started anew: what can
    /// still be read may be wrong, and each change may damage more.
    #[error(
        "the database {database} is damaged: {cause}, restore a backup (docs/operations.md) and start rescind anew; nothing is accepted until then"
    )]
    Damaged {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// Tables of this program were removed, or made anew and are not complete yet.
    #[error(
        "the database {database} lacks tables that it had, or constraints and indexes of theirs: {cause}; restore a backup (docs/operations.md), or begin anew without keys: `rescind migrate` makes the tables of an empty database"
    )]
    Emptied {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
    /// Keys or access tokens stand under a pepper that is not configured: they would not be found, and their leaks would be
    /// nobody's.
    #[error(
        "the database {database} has what this configuration would not find: {peppers}, which keys.peppers lacks; add that pepper to keys.peppers as a retired one (after the current one), or back where it was (docs/configuration.md, nothing was changed)"
    )]
    UnknownPepper {
        /// Path of the file, or URL without the password.
        database: String,
        /// Identifier of each such pepper, and the number of keys and access tokens under it.
        peppers: String,
    },
    /// `database.url` cannot be parsed. The URL itself is not repeated, since it may contain a password.
    #[error(
        "database.url is not understood: {0}; use sqlite://path/to/file.db or postgres://user@host/database"
    )]
    Url(String),
    /// The `cursor` was not returned by this list.
    #[error(
        "the cursor is not one that this list gave out; leave it away to start at the first page"
    )]
    Cursor,
    /// A row with the same identity exists already.
    #[error("{0} exists already")]
    Exists(&'static str),
    /// Any other error reported by the driver, which is a defect of this program.
    #[error("the database {database} refused a statement: {cause}")]
    Other {
        /// Path of the file, or URL without the password.
        database: String,
        /// Message of the driver.
        cause: String,
    },
}

impl StoreError {
    /// Returns whether the operation may succeed later without any change of the request. HTTP callers get 503 in that
    /// case, and a work item goes back to the queue.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Denied { .. }
                | Self::Crowded { .. }
                | Self::Busy { .. }
                | Self::PutOff { .. }
                | Self::Conflict { .. }
                | Self::Full { .. }
                | Self::TooLarge { .. }
                | Self::ReadOnly { .. }
                | Self::Forbidden { .. }
                | Self::Pooled { .. }
                | Self::Disk { .. }
                | Self::Torn { .. }
                | Self::Lost { .. }
                | Self::Gone { .. }
                | Self::Damaged { .. }
                | Self::Emptied { .. }
                | Self::NotMigrated { .. }
                | Self::UnknownPepper { .. }
        )
    }

    /// Creates the error for a row that cannot be decoded. [`StoreError::in_database`] adds the name of the database.
    pub(in crate::store) fn row(cause: String) -> Self {
        Self::Corrupt {
            database: String::new(),
            cause,
        }
    }

    pub(in crate::store) fn in_database(mut self, name: &str) -> Self {
        if let Self::Corrupt { database, .. } = &mut self
            && database.is_empty()
        {
            name.clone_into(database);
        }
        self
    }

    /// Classifies an error of a driver by what can be done about it.
    pub(in crate::store) fn from_driver(database: &str, error: &sqlx::Error) -> Self {
        let database = database.to_owned();
        let cause = error.to_string();
        match error {
            sqlx::Error::Database(reported) => {
                let code = reported.code().unwrap_or_default().into_owned();
                let cause = reported.message().to_owned();
                match reported.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
                    Some(_) => from_sqlite(database, &code, cause),
                    None => from_postgres(database, &code, cause),
                }
            }
            sqlx::Error::PoolTimedOut => Self::Busy {
                database,
                cause: "other operations kept it busy for too long".to_owned(),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable { database, cause },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Corrupt { database, cause }
            }
            _ => Self::Other { database, cause },
        }
    }
}
