//! A SQLite database with pages that are no pages.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::until;
use crate::cli::Binary;
use crate::serve::Daemon;

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

#[test]
fn a_damaged_database_takes_nothing_and_is_not_ready() {
    let binary = Binary::new();
    let file = binary.path("data/rescind.db");
    let binary = binary.with(
        "RESCIND__DATABASE__URL",
        &format!("sqlite://{}", file.display()),
    );
    let create = || binary.run("keys create --user u --description x").ok();
    let keys = [create(), create()];
    damage(&file);
    let mut daemon = Daemon::start(&binary, &["serve"]);
    for key in &keys {
        let report = format!(r#"{{"api_key":"{}"}}"#, key.trim());
        let refused = daemon.post(REVOKE, None, &report);
        assert_eq!(refused.0, 503, "{}", refused.1);
        for said in ["is damaged", "restore a backup"] {
            assert!(refused.1.contains(said), "{}", refused.1);
        }
    }
    let line = daemon.wait_for("nothing is accepted");
    let named = file.display().to_string();
    for said in [
        named.as_str(),
        "is damaged: ",
        "malformed",
        "restore a backup (docs/operations.md)",
    ] {
        assert!(line.contains(said), "{said} is not in {line}");
    }
    // An answer may be as old as a second.
    let ready = || daemon.get("/readyz", None);
    let ready = until("readiness", ready, |(status, _)| *status == 503);
    let said =
        "The database is damaged: its file is malformed, restore a backup (docs/operations.md)";
    assert!(ready.1.contains(said), "{}", ready.1);
    assert!(!ready.1.contains(&named), "{}", ready.1);
    assert_eq!(daemon.get("/healthz", None).0, 200);
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let doctor = binary.run("doctor");
    assert_ne!(doctor.code, 0, "{doctor:?}");
}
