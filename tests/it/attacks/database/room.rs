//! A migration that would not fit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rescind::store::{Store, StoreOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _, SqliteConnection};

use super::disk::Disk;
use super::start::is_up_and_not_ready;
use crate::cli::Binary;
use crate::serve::Daemon;

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
        // The comparison itself is tested beside the code.
        return;
    }
    let file = at.join("rescind.db");
    old_database(&file, 2).await;
    let binary = binary.with(
        "RESCIND__DATABASE__URL",
        &format!("sqlite://{}", file.display()),
    );
    let size = fs::metadata(&file).unwrap().len();
    let needed = format!("needs {} bytes of free space", 4 * size);
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

/// Containers have a small or read-only folder for temporary files, and the database on a volume.
#[tokio::test]
async fn what_a_migration_sorts_goes_beside_the_database() {
    let binary = Binary::new();
    let at = binary.path("temporary");
    let disk = Disk::mount(&at);
    if !disk.is_mounted() {
        // Nothing else keeps SQLite from its usual folders.
        return;
    }
    let file = binary.path("old.db");
    old_database(&file, 1).await;
    let url = format!("sqlite://{}", file.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    // More than is sorted in memory, and than there is room for in the folder.
    let keys = "INSERT INTO projects VALUES ('p', 1);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public, prefix,
            last_four, notify_emails, created_at)
        SELECT 'id' || i, 'p', randomblob(32), 'f', 'user', hex(randomblob(5000)), 'x', 0, 'p', '0000', '[]', 1 FROM n";
    connection.execute(keys).await.unwrap();
    connection.close().await.unwrap();
    let folder = at.display().to_string();
    let binary = binary
        .with("RESCIND__DATABASE__URL", &url)
        .with("SQLITE_TMPDIR", &folder);
    binary.run("migrate").ok();
    assert!(version(&file).await > 2);
}

/// The leftovers of a killed migration do not count toward the size of the database.
#[tokio::test]
async fn a_left_over_log_needs_no_room() {
    let binary = Binary::new();
    let file = binary.path("old.db");
    old_database(&file, 1).await;
    let url = format!("sqlite://{}", file.display());
    let log = file.with_extension("db-wal");
    let left = binary.path("left");
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let spilled = "PRAGMA cache_size = 10; BEGIN;
        CREATE TABLE more (x BLOB);
        INSERT INTO more VALUES (zeroblob(8000000)); INSERT INTO more VALUES (zeroblob(8000000))";
    connection.execute(spilled).await.unwrap();
    fs::copy(&log, &left).unwrap();
    connection.execute("ROLLBACK").await.unwrap();
    connection.close().await.unwrap();
    fs::copy(&left, &log).unwrap();
    assert!(fs::metadata(&log).unwrap().len() > 8_000_000);
    let store = Store::open(StoreOptions::new(url)).await.unwrap();
    let steps = store.migrate().await.unwrap();
    assert!(steps > 0);
    // The new log went on where the old one began.
    assert!(fs::metadata(&log).unwrap().len() < 8_000_000);
    store.close().await;
}

fn fill(at: &Path) -> std::path::PathBuf {
    let path = at.join("filler");
    let mut filler = fs::File::create(&path).unwrap();
    while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    path
}

/// A supervisor starts a program a few times, and then no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_says_so_and_waits_for_room() {
    for is_new in [false, true] {
        let binary = Binary::new();
        let at = binary.path("disk");
        let disk = Disk::mount(&at);
        if !disk.is_mounted() {
            return;
        }
        let file = at.join("rescind.db");
        let binary = binary.with("RESCIND__DATABASE__URL", "sqlite://disk/rescind.db");
        if !is_new {
            binary.run("tokens create --role admin").ok();
        }
        let filler = fill(&at);
        for command in ["migrate", "keys create --user u --description x"] {
            let refused = binary.run(command);
            refused.fails(3, &["is full", "free some space", "disk/rescind.db"]);
        }
        // One that is stopped meanwhile ends.
        let mut daemon = Daemon::begin(&binary);
        let line = daemon.wait_for("waiting for room");
        let folder = at.canonicalize().unwrap();
        let named = folder.join(file.file_name().unwrap()).display().to_string();
        assert!(
            line.contains(&named) && line.contains("free some space"),
            "{line}"
        );
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");

        let mut daemon = Daemon::begin(&binary);
        daemon.wait_for("waiting for room");
        is_up_and_not_ready(&daemon, "disk is full").await;
        // Tried more than once.
        std::thread::sleep(Duration::from_secs(5));
        is_up_and_not_ready(&daemon, "disk is full").await;
        fs::remove_file(filler).unwrap();
        daemon.wait_until_it_listens();
        assert_eq!(daemon.get("/readyz", None).0, 200);
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let told = |line: &String| line.contains("first access token");
        assert_eq!(ended.log.iter().any(told), is_new, "{ended:?}");
    }
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
