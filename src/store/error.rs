//! What can go wrong with the database, named so that a caller can act and a person can mend.

use super::room;

/// A database operation failed. Nothing of it remains: every change happens in a transaction.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer now. HTTP callers get 503 and try again.
    #[error(
        "the database {database} cannot be reached: {cause}; check that it is running and that database.url is right"
    )]
    Unavailable {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
    /// The server of the database answers, and will have nothing to do with this program.
    #[error(
        "the database {database} is refused by its server: {cause}; correct the user, the password or the name of the database in database.url, or make them on the server"
    )]
    Denied {
        /// URL without password.
        database: String,
        /// What the server said.
        cause: String,
    },
    /// All the connections that the server of the database gives are taken. HTTP callers get 503 and try again.
    #[error(
        "the database {database} has no connection left for rescind: {cause}; raise max_connections on the server, or the limit of the role or the database, or have other programs take fewer (each daemon takes up to 16)"
    )]
    Crowded {
        /// URL without password.
        database: String,
        /// What the server said.
        cause: String,
    },
    /// Somebody else holds what the operation needs; the same operation may succeed right away.
    #[error("the database {database} is busy: {cause}; try again")]
    Busy {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
    /// The database undid the transaction to let another one pass: a deadlock, or something that was read has
    /// changed. [`retried`](super::retried) begins it again; a caller sees this only when that was in vain.
    #[error(
        "the database {database} undid a transaction time after time to let others pass: {cause}; try again"
    )]
    Conflict {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
    /// A newer binary has migrated this database.
    #[error(
        "the database {database} has schema version {found}, this program knows versions up to {known}: run the newer rescind that migrated it, or restore a backup from before (nothing was changed)"
    )]
    NewerDatabase {
        /// File path or URL without password.
        database: String,
        /// The version the database has.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// There is no such file, and it was not to be created.
    #[error(
        "there is no database {database}: `rescind serve` or `rescind migrate` makes it, or name another one in database.url"
    )]
    Missing {
        /// File path.
        database: String,
    },
    /// Migrations are missing.
    #[error(
        "the database {database} has schema version {found} and needs {known}: run `rescind migrate`"
    )]
    NotMigrated {
        /// File path or URL without password.
        database: String,
        /// The version the database has; 0 for an empty one.
        found: i64,
        /// The version this program needs.
        known: i64,
    },
    /// The database accepts no changes.
    #[error(
        "the database {database} is read-only: {cause}; give rescind write permission to the file and its folder, or name a primary server in database.url"
    )]
    ReadOnly {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
    /// No space is left. Nothing was changed.
    #[error(
        "the disk of the database {database} is full: {cause}; free some space and try again, nothing was changed"
    )]
    Full {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
    /// A migration would need more space than there is. Nothing was changed.
    #[error(
        "migrating the database {database} needs {needed} bytes of free space, and {free} are free: free some space, or move the file to a larger disk and name it in database.url (nothing was changed)"
    )]
    NoRoom {
        /// File path.
        database: String,
        /// How many bytes have to be free.
        needed: u64,
        /// How many are.
        free: u64,
    },
    /// The file or its folder cannot be opened or created, or the disk fails.
    #[error(
        "the database {database} cannot be read or written: {cause}; check the folder, its permissions and the disk"
    )]
    Disk {
        /// File path or URL without password.
        database: String,
        /// What the operating system or the driver said.
        cause: String,
    },
    /// A file of the database was removed or replaced while it was open: what is written would be lost.
    #[error(
        "the files of the database {database} are not those that were opened: {cause}; put the file itself back under its name (a copy does not do), or restart rescind with the files that it is to use; nothing is accepted until then"
    )]
    Gone {
        /// File path.
        database: String,
        /// Which file, and what became of it.
        cause: String,
    },
    /// The database's contents are not what this program writes.
    #[error(
        "the database {database} holds something this program did not write: {cause}; restore a backup, or name another database in database.url"
    )]
    Corrupt {
        /// File path or URL without password.
        database: String,
        /// What was found.
        cause: String,
    },
    /// `database.url` is not one that is understood. The URL itself is not repeated: it may hold a password.
    #[error(
        "database.url is not understood: {0}; use sqlite://path/to/file.db or postgres://user@host/database"
    )]
    Url(String),
    /// A `cursor` that no list gave out.
    #[error(
        "the cursor is not one that this list gave out; leave it away to start at the first page"
    )]
    Cursor,
    /// A row with the same identity exists already.
    #[error("{0} exists already")]
    Exists(&'static str),
    /// The change is refused because of the state of the thing it would change.
    #[error("{0}")]
    Refused(&'static str),
    /// Anything else the driver reports: a defect of this program.
    #[error("the database {database} refused a statement: {cause}")]
    Other {
        /// File path or URL without password.
        database: String,
        /// What the driver said.
        cause: String,
    },
}

impl StoreError {
    /// Whether the operation may succeed when the caller tries again later, without any change of
    /// the request: HTTP answers 503 then, and a work item goes back to the queue.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Denied { .. }
                | Self::Crowded { .. }
                | Self::Busy { .. }
                | Self::Conflict { .. }
                | Self::Full { .. }
                | Self::ReadOnly { .. }
                | Self::Disk { .. }
                | Self::Gone { .. }
                | Self::NotMigrated { .. }
        )
    }

    /// A row that does not decode. The database's name is added by [`StoreError::in_database`].
    pub(super) fn row(cause: String) -> Self {
        Self::Corrupt {
            database: String::new(),
            cause,
        }
    }

    pub(super) fn in_database(mut self, name: &str) -> Self {
        if let Self::Corrupt { database, .. } = &mut self
            && database.is_empty()
        {
            name.clone_into(database);
        }
        self
    }

    /// Sorts a driver's error by what can be done about it.
    pub(super) fn from_driver(database: &str, error: &sqlx::Error) -> Self {
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

/// SQLite's primary result codes: <https://sqlite.org/rescode.html>.
fn from_sqlite(database: String, code: &str, cause: String) -> StoreError {
    let code = code.parse::<i32>().unwrap_or(0);
    match code & 0xff {
        // SQLITE_BUSY_SNAPSHOT, which is not waited for: another process has written since this one read.
        _ if code == 517 => StoreError::Conflict { database, cause },
        5 | 6 => StoreError::Busy { database, cause },
        8 => StoreError::ReadOnly { database, cause },
        // Out of memory: nothing was changed, and there may be some again.
        7 => StoreError::Unavailable { database, cause },
        13 => StoreError::Full { database, cause },
        // It does not say so of the files beside the database.
        10 | 14 if room::is_full(&database) => StoreError::Full { database, cause },
        3 | 10 | 14 | 22 | 23 => StoreError::Disk { database, cause },
        11 | 26 => StoreError::Corrupt { database, cause },
        _ => StoreError::Other { database, cause },
    }
}

/// PostgreSQL's error codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn from_postgres(database: String, code: &str, cause: String) -> StoreError {
    match code {
        "53100" => StoreError::Full { database, cause },
        "25006" => StoreError::ReadOnly { database, cause },
        "40001" | "40P01" => StoreError::Conflict { database, cause },
        "53300" => StoreError::Crowded { database, cause },
        "55P03" => StoreError::Busy { database, cause },
        "58030" => StoreError::Disk { database, cause },
        _ if code.starts_with("28") || code.starts_with("3D") => {
            StoreError::Denied { database, cause }
        }
        "XX001" | "XX002" => StoreError::Corrupt { database, cause },
        _ if ["08", "53", "57"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            StoreError::Unavailable { database, cause }
        }
        _ => StoreError::Other { database, cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_codes_are_sorted_by_what_can_be_done() {
        let kind = |error: &StoreError| {
            let text = format!("{error:?}");
            text.split(' ').next().unwrap_or_default().to_owned()
        };
        for (code, expected) in [
            ("5", "Busy"),
            ("517", "Conflict"),
            ("8", "ReadOnly"),
            ("1032", "ReadOnly"),
            ("13", "Full"),
            ("778", "Disk"),
            ("4874", "Disk"),
            ("14", "Disk"),
            ("11", "Corrupt"),
            ("26", "Corrupt"),
            ("7", "Unavailable"),
            ("1", "Other"),
        ] {
            let error = from_sqlite("x.db".to_owned(), code, "said".to_owned());
            assert_eq!(kind(&error), expected, "{code}");
            let text = error.to_string();
            assert!(text.contains("x.db") && text.contains("said"), "{text}");
        }
        for (code, expected) in [
            ("53100", "Full"),
            ("25006", "ReadOnly"),
            ("40P01", "Conflict"),
            ("40001", "Conflict"),
            ("55P03", "Busy"),
            ("53300", "Crowded"),
            ("53200", "Unavailable"),
            ("57P01", "Unavailable"),
            ("28P01", "Denied"),
            ("3D000", "Denied"),
            ("08006", "Unavailable"),
            ("42P01", "Other"),
        ] {
            let error = from_postgres("postgres://u@h:1/d".to_owned(), code, "said".to_owned());
            assert_eq!(kind(&error), expected, "{code}");
        }
    }
}
