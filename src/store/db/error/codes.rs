//! Codes of the databases, classified by what can be done about them.

use super::super::space as room;
use super::StoreError;

/// Primary result codes of SQLite for a malformed file, and for one that is no database.
const CORRUPT: i32 = 11;
const NOTADB: i32 = 26;

/// Error codes of PostgreSQL for a malformed page of a table, and for one of an index.
const DATA_CORRUPTED: &str = "XX001";
const INDEX_CORRUPTED: &str = "XX002";

/// Error code of PostgreSQL for a feature that it lacks. Of statements that it has run before it says so when a table was
/// changed meanwhile: "cached plan must not change result type".
pub(in crate::store) const STALE: &str = "0A000";

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
        "40001" | "40P01" | STALE => StoreError::Conflict { database, cause },
        "53300" => StoreError::Crowded { database, cause },
        "55P03" => StoreError::Busy { database, cause },
        // io_error, and undefined_file: the file of a table or an index is not there.
        "58030" | "58P01" => StoreError::Disk { database, cause },
        // insufficient_privilege, which is also what a policy of rows is reported as.
        "42501" => {
            let remedy = remedy(&database, &cause);
            StoreError::Forbidden {
                database,
                cause,
                remedy,
            }
        }
        // A prepared statement is not there, is there already, or takes other arguments: it is another client's.
        "26000" | "42P05" => StoreError::Pooled { database, cause },
        "08P01" if cause.contains("prepared statement") => StoreError::Pooled { database, cause },
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

/// Returns what gives the role the privilege that it lacks, as far as the server's message says which that is.
fn remedy(database: &str, cause: &str) -> String {
    let role = role(database);
    let object = |kind: &str| {
        cause
            .strip_prefix("permission denied for ")?
            .strip_prefix(kind)
    };
    if let Some(schema) = object("schema ") {
        format!(
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {role} (PostgreSQL 15 and newer give CREATE on public to nobody \
             else), or give rescind a schema of its own: CREATE SCHEMA AUTHORIZATION {role}"
        )
    } else if let Some(table) = object("table ").or_else(|| object("relation ")) {
        granted("SELECT, INSERT, UPDATE, DELETE", table, &role)
    } else if cause.contains("row-level security") {
        unhidden(&role)
    } else {
        format!("grant it to {role}, or name the owner of the tables in database.url")
    }
}

/// Returns the statement that grants privileges on a table.
pub(in crate::store) fn granted(privileges: &str, table: &str, role: &str) -> String {
    format!("GRANT {privileges} ON {table} TO {role}")
}

/// Returns the statement that has no policy hide rows.
pub(in crate::store) fn unhidden(role: &str) -> String {
    format!(
        "ALTER ROLE {role} BYPASSRLS, or ALTER TABLE … DISABLE ROW LEVEL SECURITY: a key that a policy hides is nobody's \
         when it leaks"
    )
}

/// Returns the quoted role of a URL without a password.
pub(in crate::store) fn role(database: &str) -> String {
    let user = database
        .split_once("://")
        .map_or(database, |(_, rest)| rest);
    let user = user.rsplit_once('@').map_or(user, |(user, _)| user);
    format!("\"{}\"", user.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_named_with_its_remedy() {
        for (said, remedy) in [
            (
                "permission denied for schema public",
                "GRANT USAGE, CREATE ON SCHEMA public TO \"u\" ",
            ),
            (
                "permission denied for table incidents",
                "; GRANT SELECT, INSERT, UPDATE, DELETE ON incidents TO \"u\"",
            ),
            (
                "query would be affected by row-level security policy for table \"keys\"",
                "ALTER ROLE \"u\" BYPASSRLS",
            ),
            ("must be owner of table keys", "name the owner"),
        ] {
            let url = "postgres://u@h:1/d".to_owned();
            let error = from_postgres(url, "42501", said.to_owned());
            assert!(error.is_temporary());
            let text = error.to_string();
            assert!(text.contains(said) && text.contains(remedy), "{text}");
        }
    }

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
            ("0A000", "Conflict"),
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
            ("42501", "Forbidden"),
            ("58P01", "Disk"),
            ("58030", "Disk"),
            ("26000", "Pooled"),
            ("42P05", "Pooled"),
            ("08P01", "Unavailable"),
            ("42601", "Other"),
        ] {
            let error = from_postgres("postgres://u@h:1/d".to_owned(), code, "said".to_owned());
            assert_eq!(kind(&error), expected, "{code}");
        }
    }
}
