//! Files of SQLite that are removed or replaced under a running daemon.

use std::fs;
use std::path::{Path, PathBuf};

use rescind::store::StoreError;
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::until;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::store::{import, new_key};
use crate::support::databases::{Kind, TestDatabase};

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";

struct Rig {
    binary: Binary,
    file: PathBuf,
    report: String,
}

/// A database with a key that nobody reported yet.
fn rig() -> Rig {
    let binary = Binary::new();
    let file = binary.path("data/rescind.db");
    let url = format!("sqlite://{}", file.display());
    let binary = binary.with("RESCIND__DATABASE__URL", &url);
    let key = binary.run("keys create --user u --description x").ok();
    let report = format!(r#"{{"api_key":"{}"}}"#, key.trim());
    Rig {
        binary,
        file,
        report,
    }
}

fn revocations(binary: &Binary) -> usize {
    binary.run("log list --json").ok().lines().count()
}

/// Nothing is accepted, and everybody is told why.
fn refuses(daemon: &mut Daemon, report: &str, file: &Path) {
    let ready = until(
        "readiness",
        || daemon.get("/readyz", None),
        |(status, _)| *status == 503,
    );
    assert!(ready.1.contains("removed or replaced"), "{}", ready.1);
    let refused = daemon.post(REVOKE, None, report);
    assert_eq!(refused.0, 503, "{}", refused.1);
    assert_eq!(daemon.get("/healthz", None).0, 200);
    let line = daemon.wait_for("nothing is accepted");
    for said in [
        &file.display().to_string(),
        "put the file itself back",
        "restart",
    ] {
        assert!(line.contains(said), "{said} is not in {line}");
    }
}

#[test]
fn a_file_that_is_moved_away_takes_nothing_until_it_is_back() {
    let Rig {
        binary,
        file,
        report,
    } = rig();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    let away = binary.path("away.db");
    fs::rename(&file, &away).unwrap();
    refuses(&mut daemon, &report, &file);
    // A copy is another file.
    fs::copy(&away, &file).unwrap();
    assert_eq!(daemon.post(REVOKE, None, &report).0, 503);
    fs::rename(&away, &file).unwrap();
    let accepted = daemon.post(REVOKE, None, &report);
    assert_eq!(accepted.0, 200, "{}", accepted.1);
    until(
        "readiness",
        || daemon.get("/readyz", None).0,
        |status| *status == 200,
    );
    daemon.wait_for("are back");
    daemon.signal("KILL");
    daemon.wait();
    assert_eq!(revocations(&binary), 1);
}

/// A backup is restored without stopping the daemon. The old program does not touch it.
#[test]
fn a_file_that_is_replaced_is_used_after_a_restart() {
    let Rig {
        binary,
        file,
        report,
    } = rig();
    let backup = binary.path("backup.db");
    fs::copy(&file, &backup).unwrap();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    fs::rename(&backup, &file).unwrap();
    refuses(&mut daemon, &report, &file);
    let before = fs::read(&file).unwrap();
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(fs::read(&file).unwrap() == before, "the backup was changed");
    assert_eq!(revocations(&binary), 0);
    let daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!(daemon.post(REVOKE, None, &report).0, 200);
    assert_eq!(revocations(&binary), 1);
}

/// Files that SQLite keeps beside the database: if they are gone, another program would create new ones, and both
/// would write.
#[test]
fn files_beside_the_database_that_are_removed_take_nothing() {
    for end in ["-wal", "-shm"] {
        let Rig {
            binary,
            file,
            report,
        } = rig();
        let mut daemon = Daemon::start(&binary, &["serve"]);
        let other = binary.path("data/rescind.db").display().to_string() + end;
        fs::remove_file(&other).unwrap();
        refuses(&mut daemon, &report, &file);
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let tokens = binary.run("tokens list --json").ok();
        assert_eq!(tokens.lines().count(), 1, "what it held is in the file");
        let daemon = Daemon::start(&binary, &["serve"]);
        let accepted = daemon.post(REVOKE, None, &report);
        assert_eq!(accepted.0, 200, "{end}: {}", accepted.1);
    }
}

/// A connection that is given up for another one, which would make a new log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_gone_are_missed_by_the_next_connection_too() {
    for end in ["-wal", "-shm"] {
        let database = TestDatabase::new(Kind::Sqlite).await;
        let store = database.store().await;
        import(&store, &[new_key(1)]).await;
        let opened = SqliteConnection::connect(&database.url).await;
        let mut other = opened.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let beside = database.folder().join(format!("rescind.db{end}"));
        {
            let waiting = std::pin::pin!(store.begin());
            assert!(futures_util::poll!(waiting).is_pending());
            fs::remove_file(&beside).unwrap();
            // Given up, after which its connection is closed.
        }
        other.execute("ROLLBACK").await.unwrap();
        let refused = store.begin().await.unwrap_err();
        assert!(matches!(refused, StoreError::Gone { .. }), "{refused:?}");
        store.close().await;
        assert!(!beside.exists(), "{end} was made anew");
    }
}
