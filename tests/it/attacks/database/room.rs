//! A migration that would not fit.

use std::fs;
use std::path::Path;
use std::process::Command;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _, SqliteConnection};

use super::disk::Disk;
use crate::cli::Binary;

/// The schema of version 2, before tables with many rows were written anew.
const OLD: [&str; 2] = [
    include_str!("../../../../src/store/migrations/sqlite/0001_first.sql"),
    include_str!("../../../../src/store/migrations/sqlite/0002_sources.sql"),
];

/// A database of version 2 that is so many megabytes large.
async fn old_database(file: &Path, megabytes: usize) {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let migrations = OLD.into_iter().zip(["first", "sources"]).zip(1..);
    let migrations = migrations.map(|((sql, name), version)| {
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    migrator
        .run_direct(None, &mut connection, false)
        .await
        .unwrap();
    let ballast = format!(
        "CREATE TABLE ballast (x BLOB); INSERT INTO ballast VALUES (zeroblob({}))",
        megabytes << 20
    );
    connection.execute(AssertSqlSafe(ballast)).await.unwrap();
    connection.close().await.unwrap();
}

async fn version(file: &Path) -> i64 {
    let url = format!("sqlite://{}", file.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let version = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations");
    version.fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_migration_that_does_not_fit_is_refused_before_anything_is_changed() {
    let binary = Binary::new();
    let at = binary.path("disk");
    let disk = Disk::mount(&at);
    if !disk.is_mounted() {
        // What is compared with what is tested beside the code.
        return;
    }
    let file = at.join("rescind.db");
    old_database(&file, 2).await;
    let binary = binary.with(
        "RESCIND__DATABASE__URL",
        &format!("sqlite://{}", file.display()),
    );
    let size = fs::metadata(&file).unwrap().len();
    let needed = format!("needs {} bytes of free space", 2 * size);
    for command in ["migrate", "serve"] {
        let refused = binary.run(command);
        refused.fails(
            3,
            &[&needed, &file.display().to_string(), "free some space"],
        );
        assert_eq!(version(&file).await, 2);
        assert_eq!(fs::metadata(&file).unwrap().len(), size);
    }
    let grown = Command::new("mount")
        .args(["-o", "remount,size=16m"])
        .arg(&at)
        .status();
    assert!(grown.unwrap().success());
    binary.run("migrate").ok();
    assert!(version(&file).await > 2);
}

#[tokio::test]
async fn a_migration_that_fits_needs_nothing_said() {
    let binary = Binary::new();
    let file = binary.path("old.db");
    old_database(&file, 1).await;
    let url = format!("sqlite://{}", file.display());
    let binary = binary.with("RESCIND__DATABASE__URL", &url);
    binary.run("migrate").ok();
    assert!(version(&file).await > 2);
}
