//! Migrations of the schema, and its version in the database.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _, SqliteConnection};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::StoreError;
use super::connect::{CONNECTION_WAIT, Db, MIGRATION_LOCK_WAIT};
use super::gate::Urgency;
use super::sql::Dialect;

/// Maximum time for migrations. Some of them rewrite a large table.
const MIGRATION: Duration = Duration::from_hours(1);

macro_rules! migrations {
    ($folder:literal) => {
        migrations!(
            $folder,
            (1, "first", "0001_first"),
            (2, "sources", "0002_sources"),
            (3, "records", "0003_records"),
            (4, "lanes", "0004_lanes"),
            (5, "turns", "0005_turns"),
            (6, "medium", "0006_medium"),
            (7, "senders", "0007_senders"),
            (8, "remotes", "0008_remotes"),
            (9, "waits", "0009_waits"),
            (10, "parts", "0010_parts"),
            (11, "peppers", "0011_peppers"),
            (12, "rests", "0012_rests"),
            (13, "identity", "0013_identity"),
            (14, "requests", "0014_requests"),
            (15, "unread", "0015_unread"),
            (16, "examples", "0016_examples"),
            (17, "counts", "0017_counts"),
            (18, "definitions", "0018_definitions")
        )
    };
    ($folder:literal, $(($version:literal, $name:literal, $file:literal)),+) => {
        &[$((
            $version,
            $name,
            include_str!(concat!("../migrations/", $folder, "/", $file, ".sql")),
        )),+]
    };
}

const SQLITE: &[(i64, &str, &str)] = migrations!("sqlite");
const POSTGRES: &[(i64, &str, &str)] = migrations!("postgres");

/// Returns the newest schema version that this program knows.
pub(in crate::store) fn known_version() -> i64 {
    SQLITE.last().map_or(0, |(version, ..)| *version)
}

/// Returns whether any migration after `version` rewrites a table.
pub(in crate::store) fn writes_anew_after(version: i64) -> bool {
    let missing = SQLITE.iter().filter(|(number, ..)| *number > version);
    missing
        .into_iter()
        .any(|(.., sql)| sql.contains("DROP TABLE") || sql.contains("DROP COLUMN"))
}

fn migrator(dialect: Dialect) -> Migrator {
    let migrations = match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let mut migrator = Migrator::with_migrations(
        migrations
            .iter()
            .map(|(version, name, sql)| {
                let sql = sql.into_sql_str();
                Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
            })
            .collect(),
    );
    // The transaction around it is the lock: on PostgreSQL, a session's lock would outlive a failure.
    migrator.set_locking(false);
    migrator
}

/// Applies missing migrations, all or none of them, one process at a time.
pub(in crate::store) async fn migrate(db: &Db, name: &str) -> Result<(), StoreError> {
    let until = Instant::now() + MIGRATION_LOCK_WAIT;
    loop {
        match migrate_once(db, name).await {
            // Another process is migrating.
            Err(StoreError::Busy { .. }) if Instant::now() < until => {}
            outcome => return outcome,
        }
    }
}

async fn migrate_once(db: &Db, name: &str) -> Result<(), StoreError> {
    // A generic function over both databases cannot be proven to be `Send`.
    macro_rules! apply {
        ($pool:ident, $held:ident, $dialect:expr, $begin:literal, $opening:expr) => {{
            let connection = $held.raw()?;
            let applying = async {
                let mut tx = connection.begin_with($begin).await?;
                tx.execute(sqlx::raw_sql(AssertSqlSafe($opening))).await?;
                migrator($dialect).run_direct(None, &mut *tx, false).await?;
                tx.commit().await?;
                Ok::<(), MigrateError>(())
            };
            // After any error the connection is closed, and the transaction ends with it.
            let applied: Result<(), MigrateError> = $pool.within(MIGRATION, applying).await;
            applied.map(|()| $held.settle())
        }};
    }
    let until = Instant::now() + CONNECTION_WAIT;
    let applied = async {
        match db {
            Db::Sqlite { write, .. } => {
                let mut held = write.acquire(Urgency::Awaited, until).await?;
                // Sorting needs disk space, and the usual folders may have none or be read-only, so it happens in the
                // folder whose free space was checked. If SQLite refuses the setting, a lack of space shows later.
                let _ = held.run(CONNECTION_WAIT, temporary_files(name)).await;
                interrupt_in_a_hurry(held.raw()?, write.hurries()).await?;
                held.settle();
                let applied = apply!(
                    write,
                    held,
                    Dialect::Sqlite,
                    "BEGIN IMMEDIATE",
                    String::new()
                );
                if applied.is_ok() {
                    held.raw()?.lock_handle().await?.remove_progress_handler();
                    held.settle();
                    let usual = "PRAGMA temp_store_directory = ''";
                    held.run(CONNECTION_WAIT, usual).await?;
                }
                applied
            }
            Db::Postgres(pool) => {
                let mut held = pool.acquire(Urgency::Awaited, until).await?;
                // Any constant will do, as long as every version of this program uses the same.
                let opening = format!(
                    "SELECT pg_advisory_xact_lock(7234615531); SET LOCAL statement_timeout = {}",
                    MIGRATION.as_millis()
                );
                apply!(pool, held, Dialect::Postgres, "BEGIN", opening)
            }
        }
    };
    let applied: Result<(), MigrateError> = applied.await;
    applied.map_err(|error| migration_failed(name, error))
}

/// Number of SQLite's virtual machine steps between two checks for a shutdown. A step takes some tens of nanoseconds.
const STEPS: i32 = 100_000;

/// Makes the statements of this connection abort, and be rolled back, once the program shuts down.
async fn interrupt_in_a_hurry(
    connection: &mut SqliteConnection,
    hurry: CancellationToken,
) -> Result<(), sqlx::Error> {
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(STEPS, move || !hurry.is_cancelled());
    Ok(())
}

/// Returns the statement that moves SQLite's temporary files to the folder of the database. They have no name, and
/// disappear with the process.
fn temporary_files(name: &str) -> String {
    let file = Path::new(name).canonicalize().unwrap_or_default();
    let folder = file.parent().unwrap_or(Path::new(""));
    let folder = folder.display().to_string().replace('\'', "''");
    format!("PRAGMA temp_store_directory = '{folder}'")
}

fn migration_failed(name: &str, error: MigrateError) -> StoreError {
    let database = name.to_owned();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            StoreError::from_driver(name, &error)
        }
        MigrateError::VersionMissing(found) => StoreError::NewerDatabase {
            database,
            found,
            known: known_version(),
        },
        other => StoreError::Corrupt {
            database,
            cause: other.to_string(),
        },
    }
}

/// Returns the schema version of the database, or 0 if it is empty.
pub(in crate::store) async fn version(
    db: &Db,
    name: &str,
    urgency: Urgency,
    limit: Duration,
) -> Result<i64, StoreError> {
    const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
    let until = Instant::now() + CONNECTION_WAIT;
    let version = async {
        match db {
            Db::Sqlite { read, .. } => {
                let exists =
                    "SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = '_sqlx_migrations'";
                let mut held = read.acquire(urgency, until).await?;
                if !held.value::<bool>(limit, exists).await? {
                    return Ok(0);
                }
                held.value(limit, VERSION).await
            }
            Db::Postgres(pool) => {
                let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
                let mut held = pool.acquire(urgency, until).await?;
                if !held.value::<bool>(limit, exists).await? {
                    return Ok(0);
                }
                held.value(limit, VERSION).await
            }
        }
    };
    let version: Result<i64, sqlx::Error> = version.await;
    version.map_err(|error| StoreError::from_driver(name, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is not listed would be applied nowhere.
    #[test]
    fn every_file_of_the_folders_is_a_migration() {
        for (folder, listed) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let folder = format!(
                "{}/src/store/migrations/{folder}",
                env!("CARGO_MANIFEST_DIR")
            );
            let files = std::fs::read_dir(&folder).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            let listed = listed.iter();
            let listed: Vec<String> = listed
                .map(|(version, name, _)| format!("{version:04}_{name}.sql"))
                .collect();
            assert_eq!(names, listed, "{folder}");
        }
    }
}
