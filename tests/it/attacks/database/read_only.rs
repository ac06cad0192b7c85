//! A database that takes no changes for a while: whatever was opened meanwhile is not kept.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rescind::store::StoreError;
use rustix::process::geteuid;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::PATIENCE;
use super::until;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::store::{import, new_key};
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;

/// Sets the mode of every file of the database.
fn set_mode(folder: &Path, mode: u32) {
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
    }
}

/// The daemon as somebody whom permissions hold back.
fn start(binary: &Binary) -> Daemon {
    if !geteuid().is_root() {
        return Daemon::start(binary, &["serve"]);
    }
    let inner = binary.command(["serve"]);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-dac_override,-dac_read_search"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(binary.folder())
        .env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Daemon::start_as(command)
}

fn works_again_when_permissions_do(killed: bool) {
    let binary = Binary::new();
    let folder = binary.path("data");
    let url = format!("sqlite://{}", folder.join("rescind.db").display());
    let binary = binary.with("RESCIND__DATABASE__URL", &url);
    let key = binary.run("keys create --user u --description x").ok();
    let report = format!(r#"{{"api_key":"{}"}}"#, key.trim());
    // The first start makes a token. After a crash the log and the shared memory stay.
    let daemon = start(&binary);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.signal(if killed { "KILL" } else { "TERM" });
    daemon.wait();
    set_mode(&folder, 0o400);
    let daemon = start(&binary);
    let revoke = || {
        let path = "/api/v1/integrations/credential-scanning/revoke";
        daemon.post(path, None, &report)
    };
    let ready = || daemon.get("/readyz", None).0;
    for _ in 0..3 {
        let refused = revoke();
        assert_eq!(refused.0, 503, "{}", refused.1);
        assert_eq!(ready(), 503);
    }
    set_mode(&folder, 0o600);
    until("a report", revoke, |(status, _)| *status == 200);
    until("readiness", ready, |status| *status == 200);
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    binary.run("log verify").ok();
}

#[test]
fn a_file_that_was_read_only_at_the_start_works_without_a_restart() {
    works_again_when_permissions_do(false);
}

#[test]
fn a_file_that_was_read_only_after_a_crash_works_without_a_restart() {
    works_again_when_permissions_do(true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_read_only_works_before_its_sessions_end() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    let (cluster, name) = database.url.rsplit_once('/').unwrap();
    let admin = format!("{cluster}/postgres");
    let mut admin = PgConnection::connect(&admin).await.unwrap();
    let read_only = format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    let read_only = sqlx::raw_sql(AssertSqlSafe(read_only));
    admin.execute(read_only).await.unwrap();
    // Several sessions, all of them opened now.
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(store.begin().await.unwrap());
    }
    for tx in open {
        tx.rollback().await.unwrap();
    }
    let write = async || {
        let mut tx = store.begin().await?;
        tx.import_keys(&[new_key(1)]).await?;
        tx.commit().await
    };
    let refused = write().await.unwrap_err();
    assert!(
        matches!(refused, StoreError::ReadOnly { .. }),
        "{refused:?}"
    );
    store.check_working().await.unwrap_err();

    let writable = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    admin.execute(AssertSqlSafe(writable)).await.unwrap();
    let mut refused = 0;
    let again = async {
        while write().await.is_err() {
            refused += 1;
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("in time");
    eventually("the store works", async || store.check_working().await).await;
    // One that is refused has all of them replaced.
    assert!(refused <= 3, "{refused} were refused");
    import(&store, &[new_key(2)]).await;
    database.remove().await;
}
