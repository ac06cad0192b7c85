//! Codes of the databases, classified by what can be done about them.

use super::super::space as room;
use super::StoreError;

/// Primary result codes of SQLite for a malformed file, and for one that is no database.
const CORRUPT: i32 = 11;
const NOTADB: i32 = 26;

/// Error codes of PostgreSQL for a malformed page of a table, and for one of an index.
const DATA_CORRUPTED: &str = "XX001";
const INDEX_CORRUPTED: &str = "XX002";

/// Returns the database's message if the error says that a file is damaged.
pub(in crate::store) fn damage(error: &sqlx::Error) -> Option<&str> {
    let reported = error.as_database_error()?;
    let code = reported.code()?;
    let sqlite = reported.try_downcast_ref::<sqlx::sqlite::SqliteError>();
    let says_so = match sqlite.map(|_| code.parse::<i32>()) {
        None => [DATA_CORRUPTED, INDEX_CORRUPTED].contains(&&*code),
        Some(code) => code.is_ok_and(|code| matches!(code & 0xff, CORRUPT | NOTADB)),
    };
    says_so.then(|| reported.message())
}

/// Classifies a result code of SQLite: <https://sqlite.org/rescode.html>.
pub(super) fn from_sqlite(database: String, code: &str, cause: String) -> StoreError {
    let code = code.parse::<i32>().unwrap_or(0);
    match code & 0xff {
        // SQLITE_BUSY_SNAPSHOT, which SQLite does not wait for: another process has written since this one read.
        _ if code == 517 => StoreError::Conflict { database, cause },
        5 | 6 => StoreError::Busy { database, cause },
        8 => StoreError::ReadOnly { database, cause },
        // Out of memory: nothing was changed, and there may be enough later.
        7 => StoreError::Unavailable { database, cause },
        13 => StoreError::Full { database, cause },
        // SQLite does not report a full disk for the files beside the database, nor a quota, nor a limit.
        10 | 14 if room::is_full(&database) => StoreError::Full { database, cause },
        3 | 10 | 14 | 22 | 23 => match room::limit_reached(&database) {
            Some(limit) => StoreError::TooLarge {
                database,
                cause,
                limit,
            },
            None => StoreError::Disk { database, cause },
        },
        CORRUPT | NOTADB => StoreError::Damaged { database, cause },
        1 if cause.starts_with("no such table") => StoreError::Emptied { database, cause },
        _ => StoreError::Other { database, cause },
    }
}

/// Classifies an error code of PostgreSQL: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn from_postgres(database: String, code: &str, cause: String) -> StoreError {
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
        DATA_CORRUPTED | INDEX_CORRUPTED => StoreError::Damaged { database, cause },
        // undefined_table
        "42P01" => StoreError::Emptied { database, cause },
        // The server ended a transaction whose next statement, or whose end, was long in coming. Nothing of it is kept.
        "25P03" | "25P04" => StoreError::Unavailable { database, cause },
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
            ("11", "Damaged"),
            ("779", "Damaged"),
            ("26", "Damaged"),
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
            ("25P03", "Unavailable"),
            ("25P04", "Unavailable"),
            ("28P01", "Denied"),
            ("3D000", "Denied"),
            ("08006", "Unavailable"),
            ("XX001", "Damaged"),
            ("XX002", "Damaged"),
            ("42P01", "Emptied"),
            ("42601", "Other"),
        ] {
            let error = from_postgres("postgres://u@h:1/d".to_owned(), code, "said".to_owned());
            assert_eq!(kind(&error), expected, "{code}");
        }
    }
}
