//! A PostgreSQL that answers, and lets no report through: privileges, files and locks that are missing for some tables
//! only.

use std::fs;
use std::path::Path;

use rescind::store::{Store, StoreError, StoreOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::until;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::cluster::Cluster;
use crate::support::databases::{Kind, TestDatabase};
use crate::support::role::WithRole;

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";

/// Keys that nobody reported yet, and who takes reports of them.
pub(super) struct Reports {
    binary: Binary,
    keys: Vec<String>,
}

impl Reports {
    /// Creates keys as one user. The daemon is another one.
    pub(super) fn new(creator: &str, user: &str, keys: usize) -> Self {
        let creating = Binary::new().with("RESCIND__DATABASE__URL", creator);
        let create = |_| {
            let key = creating.run("keys create --user u --description x").ok();
            key.trim().to_owned()
        };
        Self {
            keys: (0..keys).map(create).collect(),
            binary: Binary::new().with("RESCIND__DATABASE__URL", user),
        }
    }

    pub(super) fn daemon(&self) -> Daemon {
        Daemon::start(&self.binary, &["serve"])
    }

    /// Reports a key. Returns the status and the body of the answer.
    pub(super) fn report(&self, daemon: &Daemon, key: usize) -> (u16, String) {
        let report = format!(r#"{{"api_key":"{}"}}"#, self.keys[key]);
        daemon.post(REVOKE, None, &report)
    }

    /// Checks that the first key is reported in vain, that the daemon is not ready for as long as that is so, and that
    /// `doctor` names the remedy.
    pub(super) fn are_refused(&self, daemon: &Daemon, remedy: &str) {
        let refused = self.report(daemon, 0);
        assert_eq!(refused.0, 503, "{}", refused.1);
        // An answer may be as old as a second.
        let ready = || daemon.get("/readyz", None);
        until("readiness", ready, |(status, _)| *status == 503);
        assert_eq!(daemon.get("/healthz", None).0, 200);
        let doctor = self.binary.run("doctor");
        assert_eq!(doctor.code, 1, "{doctor:?}");
        assert!(doctor.stdout.contains(remedy), "{doctor:?}");
        assert!(!doctor.stdout.contains("by hand"), "{doctor:?}");
    }

    /// Checks that the first key can be reported, and that the daemon is ready, without a restart.
    pub(super) fn are_taken(&self, daemon: &Daemon) {
        let report = || self.report(daemon, 0);
        let taken = until("a report", report, |(status, _)| *status == 200);
        assert!(taken.1.contains("true"), "{}", taken.1);
        let ready = || daemon.get("/readyz", None);
        until("readiness", ready, |(status, _)| *status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privilege_that_is_missing_is_named_and_nothing_is_green() {
    let owner = WithRole::owning("").await;
    let reports = Reports::new(&owner.url, &owner.url, 1);
    let daemon = reports.daemon();
    let role = &owner.role;
    for table in ["incidents", "keys", "revocation_log"] {
        let revoked = format!("REVOKE INSERT, UPDATE ON {table} FROM {role}");
        owner.run(&revoked).await;
        let remedy = format!("ON {table} TO \"{role}\"");
        tokio::task::block_in_place(|| reports.are_refused(&daemon, &remedy));
        let granted = format!("GRANT ALL ON {table} TO {role}");
        owner.run(&granted).await;
        let ready = || daemon.get("/readyz", None).0;
        tokio::task::block_in_place(|| until("readiness", ready, |status| *status == 200));
    }
    tokio::task::block_in_place(|| reports.are_taken(&daemon));
    assert_eq!(daemon.stop().code, Some(0));
    owner.remove().await;
}

/// PostgreSQL 15 and newer let nobody but the owner of the database make tables in `public`.
#[tokio::test]
async fn a_schema_in_which_no_table_may_be_made_is_named_with_what_to_grant() {
    let stranger = WithRole::new("").await;
    stranger
        .run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await;
    let store = Store::open(StoreOptions::new(stranger.url.clone()))
        .await
        .unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Forbidden { .. }), "{error:?}");
    let remedy = format!(
        "GRANT USAGE, CREATE ON SCHEMA public TO \"{}\"",
        stranger.role
    );
    assert!(error.to_string().contains(&remedy), "{error}");
    store.close().await;
    stranger.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_its_file_makes_nothing_green() {
    let cluster = Cluster::start();
    let reports = Reports::new(&cluster.url(), &cluster.url(), 1);
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    connection.execute("CHECKPOINT").await.unwrap();
    let file = sqlx::query_scalar("SELECT pg_relation_filepath('incidents')");
    let file: String = file.fetch_one(&mut connection).await.unwrap();
    let file = Path::new(&cluster.data()).join(file);
    let away = file.with_extension("away");
    // Nobody has it open then.
    cluster.restart();
    fs::rename(&file, &away).unwrap();
    tokio::task::block_in_place(|| {
        let daemon = reports.daemon();
        reports.are_refused(&daemon, "cannot be read or written");
        fs::rename(&away, &file).unwrap();
        reports.are_taken(&daemon);
        assert_eq!(daemon.stop().code, Some(0));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_somebody_else_is_not_ready_and_doctor_names_who_has_it() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let reports = Reports::new(&database.url, &database.url, 1);
    let daemon = reports.daemon();
    for lock in [
        "SELECT * FROM log_head FOR UPDATE",
        "LOCK TABLE incidents IN SHARE MODE",
        "LOCK TABLE keys IN ACCESS EXCLUSIVE MODE",
    ] {
        let mut other = PgConnection::connect(&database.url).await.unwrap();
        other.execute("BEGIN").await.unwrap();
        other.execute(lock).await.unwrap();
        tokio::task::block_in_place(|| {
            let ready = || daemon.get("/readyz", None);
            until("readiness", ready, |(status, _)| *status == 503);
            let doctor = reports.binary.run("doctor");
            assert_eq!(doctor.code, 1, "{doctor:?}");
            for said in ["it is locked by process ", lock] {
                assert!(doctor.stdout.contains(said), "{said}: {doctor:?}");
            }
            assert!(!doctor.stdout.contains("restore it"), "{doctor:?}");
        });
        other.execute("ROLLBACK").await.unwrap();
        other.close().await.unwrap();
        let ready = || daemon.get("/readyz", None);
        tokio::task::block_in_place(|| until("readiness", ready, |(status, _)| *status == 200));
    }
    tokio::task::block_in_place(|| reports.are_taken(&daemon));
    assert_eq!(daemon.stop().code, Some(0));
    database.remove().await;
}
