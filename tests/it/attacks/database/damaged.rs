//! Databases with pages that are no pages, and databases without their tables.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rescind::store::StoreError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use super::until;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::cluster::Cluster;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";
const PAGE: usize = 4096;

/// Writes over the first pages of the table of keys and of all its indexes.
fn damage(file: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let pages: Vec<i64> = runtime.unwrap().block_on(async {
        let options = SqliteConnectOptions::new().filename(file);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let roots = "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'keys' AND rootpage > 0";
        let rows = sqlx::query(roots).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    });
    assert!(!pages.is_empty());
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    for page in pages {
        let at = (u64::try_from(page).unwrap() - 1) * PAGE as u64;
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[0xa5; PAGE]).unwrap();
    }
}

/// A binary with this database, and two keys that nobody reported yet.
fn with_keys(binary: Binary, url: &str) -> (Binary, [String; 2]) {
    let binary = binary.with("RESCIND__DATABASE__URL", url);
    let create = || binary.run("keys create --user u --description x").ok();
    let keys = [create(), create()];
    (binary, keys)
}

#[test]
fn a_damaged_database_takes_nothing_and_is_not_ready() {
    let binary = Binary::new();
    let file = binary.path("data/rescind.db");
    let (binary, keys) = with_keys(binary, &format!("sqlite://{}", file.display()));
    damage(&file);
    takes_nothing(&binary, &keys, &file.display().to_string(), "malformed");
}

#[test]
fn doctor_names_the_backup_where_the_file_is_no_database() {
    let binary = Binary::new();
    let file = binary.path("data/rescind.db");
    let (binary, _) = with_keys(binary, &format!("sqlite://{}", file.display()));
    fs::write(&file, [0xa5; 3 * PAGE]).unwrap();
    let doctor = binary.run("doctor");
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.stdout.contains("is damaged"), "{doctor:?}");
    assert!(doctor.stdout.contains("restore a backup"), "{doctor:?}");
    assert!(!doctor.stdout.contains("permissions"), "{doctor:?}");
}

/// The pages of a table that are no pages, and indexes that begin with an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_or_index_of_postgres_takes_nothing_and_is_not_ready() {
    for (relations, byte, said) in [
        ("'keys'::regclass", 0xa5, "invalid page"),
        (
            "ANY (SELECT indexrelid FROM pg_index WHERE indrelid = 'keys'::regclass)",
            0,
            "index",
        ),
    ] {
        let cluster = Cluster::start();
        let (binary, keys) = with_keys(Binary::new(), &cluster.url());
        let files =
            format!("SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid = {relations}");
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        connection.execute("CHECKPOINT").await.unwrap();
        let files = sqlx::query_scalar(AssertSqlSafe(files));
        let files: Vec<String> = files.fetch_all(&mut connection).await.unwrap();
        assert!(!files.is_empty());
        for file in files {
            let file = Path::new(&cluster.data()).join(file);
            let file = fs::OpenOptions::new().write(true).open(file).unwrap();
            file.write_all_at(&[byte; 2 * PAGE], 0).unwrap();
        }
        // It has the pages in memory.
        cluster.restart();
        let name = cluster.url();
        tokio::task::block_in_place(|| takes_nothing(&binary, &keys, &name, said));
    }
}

/// Checks that nothing is accepted, and that everybody is told why.
fn takes_nothing(binary: &Binary, keys: &[String], named: &str, cause: &str) {
    let mut daemon = Daemon::start(binary, &["serve"]);
    for key in keys {
        let report = format!(r#"{{"api_key":"{}"}}"#, key.trim());
        let refused = daemon.post(REVOKE, None, &report);
        assert_eq!(refused.0, 503, "{}", refused.1);
        for said in ["is damaged", "restore a backup"] {
            assert!(refused.1.contains(said), "{}", refused.1);
        }
    }
    let line = daemon.wait_for("nothing is accepted");
    for said in [
        named,
        "is damaged: ",
        cause,
        "restore a backup (docs/operations.md)",
    ] {
        assert!(line.contains(said), "{said} is not in {line}");
    }
    // An answer may be as old as a second.
    let ready = || daemon.get("/readyz", None);
    let ready = until("readiness", ready, |(status, _)| *status == 503);
    let said = "The database is damaged: restore a backup (docs/operations.md)";
    assert!(ready.1.contains(said), "{}", ready.1);
    assert!(!ready.1.contains(named), "{}", ready.1);
    assert_eq!(daemon.get("/healthz", None).0, 200);
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let doctor = binary.run("doctor");
    assert_ne!(doctor.code, 0, "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_database_takes_nothing_and_is_not_ready() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let (binary, keys) = with_keys(Binary::new(), &database.url);
    let daemon = Daemon::start(&binary, &["serve"]);
    for sql in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        database.run(sql).await.unwrap();
    }
    let report = format!(r#"{{"api_key":"{}"}}"#, keys[0].trim());
    let refused = daemon.post(REVOKE, None, &report);
    let ready = || daemon.get("/readyz", None);
    let ready = until("readiness", ready, |(status, _)| *status == 503);
    for answer in [refused, ready] {
        assert_eq!(answer.0, 503, "{}", answer.1);
        for said in ["lacks tables", "restore a backup (docs/operations.md)"] {
            assert!(answer.1.contains(said), "{}", answer.1);
        }
    }
    assert_eq!(daemon.get("/healthz", None).0, 200);
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    database.remove().await;
}

on_both_databases! {
    async fn a_database_that_lacks_a_table_is_not_ready_until_it_is_back(database) {
        let store = database.store().await;
        for table in ["keys", "_sqlx_migrations"] {
            store.check_working().await.unwrap();
            database.run(&format!("ALTER TABLE {table} RENAME TO away")).await.unwrap();
            if table == "keys" {
                let error = store.count_keys().await.unwrap_err();
                assert!(matches!(error, StoreError::Emptied { .. }), "{error:?}");
                assert!(error.is_temporary());
            }
            // An answer may be as old as a second.
            let ready = async || store.check_working().await;
            let error = eventually("it is not ready", async || ready().await.err()).await;
            assert!(matches!(error, StoreError::Emptied { .. }), "{error:?}");
            assert!(error.to_string().contains("restore a backup"), "{error}");
            database.run(&format!("ALTER TABLE away RENAME TO {table}")).await.unwrap();
            eventually("it is ready", async || ready().await).await;
        }
    }
}
