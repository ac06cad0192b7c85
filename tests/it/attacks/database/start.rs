//! Starts that take long: the database is not there yet, or its migration does not end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rescind::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{PATIENCE, until};
use crate::api::harness::http_client;
use crate::cli::Binary;
use crate::serve::{Daemon, Ended, free_address};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";

/// Much less than the time that is waited for a server, and for a migration.
const AT_ONCE: Duration = Duration::from_secs(20);

/// The daemon is up and says that it does not work yet, and why.
pub(super) async fn is_up_and_not_ready(daemon: &Daemon, why: &str) {
    let alive = || {
        let stream = std::net::TcpStream::connect(daemon.address);
        stream.is_ok() && daemon.get("/healthz", None).0 == 200
    };
    until("life", alive, |alive| *alive);
    let ready = http_client().get(format!("http://{}/readyz", daemon.address));
    let ready = ready.ask().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.headers().contains_key("retry-after"));
    let text = ready.text().await.unwrap();
    assert!(text.contains(why), "{text}");
    let report = daemon.post(REVOKE, None, r#"{"api_key":"rsc_sk_x"}"#);
    assert_eq!(report.0, 503, "{}", report.1);
    assert_eq!(daemon.get("/api/v1/revocations", None).0, 503);
    assert_eq!(daemon.get("/nowhere", None).0, 503);
}

/// Stops a daemon that is not ready yet: it ends well, and soon.
#[track_caller]
fn ends_at_once(daemon: Daemon) -> Ended {
    let stopping = Instant::now();
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(stopping.elapsed() < AT_ONCE, "{ended:?}");
    ended
}

/// Has a step of the migration from version 2 take for ever.
async fn make_endless(database: &TestDatabase) {
    database.migrate_to(2).await;
    let row = "INSERT INTO source_work (source, scanned, blobs, known_blobs, truncated, gone, shed)
        VALUES ('s', 0, 0, 0, 0, 0, -1)";
    database.run(row).await.unwrap();
    match database.kind {
        Kind::Sqlite => {
            let endless = "CREATE TRIGGER endless AFTER UPDATE ON source_work BEGIN
                SELECT COUNT(*) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n);
                END";
            database.run(endless).await.unwrap();
        }
        Kind::Postgres => {
            let function = "CREATE FUNCTION endless() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep(3000); RETURN NEW; END $$";
            database.run(function).await.unwrap();
            let endless = "CREATE TRIGGER endless AFTER UPDATE ON source_work
                FOR EACH ROW EXECUTE FUNCTION endless()";
            database.run(endless).await.unwrap();
        }
    }
}

/// The sessions of daemons in a PostgreSQL database.
async fn sessions(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sessions = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'rescind'";
    let sessions = sqlx::query_scalar(AssertSqlSafe(sessions));
    sessions.fetch_one(&mut connection).await.unwrap()
}

on_both_databases! {
    async fn a_migration_can_be_asked_after_and_stopped(database) {
        make_endless(database).await;
        let binary = Binary::new().with("RESCIND__DATABASE__URL", &database.url);
        let mut daemon = Daemon::begin(&binary);
        daemon.wait_for("is being migrated");
        is_up_and_not_ready(&daemon, "migrating").await;
        let ended = ends_at_once(daemon);
        assert_eq!(ended.stdout, "");
        // The server does not go on with it either.
        if database.kind == Kind::Postgres {
            let none = async || sessions(&database.url).await == 0;
            eventually("the server has stopped migrating", none).await;
        }
        // It was undone: the second of six steps is still the last.
        assert_eq!(database.count("SELECT MAX(version) FROM _sqlx_migrations").await, 2);
        assert_eq!(database.count("SELECT shed FROM source_work").await, -1);
        let ends = match database.kind {
            Kind::Sqlite => "DROP TRIGGER endless",
            Kind::Postgres => "DROP TRIGGER endless ON source_work",
        };
        database.run(ends).await.unwrap();
        let mut daemon = Daemon::begin(&binary);
        daemon.wait_until_it_listens();
        assert_eq!(daemon.get("/readyz", None).0, 200);
        assert_eq!(daemon.stop().code, Some(0));
    }
}

/// SQLite runs in a thread of its own, which continues and holds the write lock unless interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_given_up_lets_the_write_lock_go() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    make_endless(&database).await;
    let store = Store::open(StoreOptions::new(database.url.clone()))
        .await
        .unwrap();
    let mut migrating = JoinSet::new();
    let migrated = store.clone();
    migrating.spawn(async move { migrated.migrate().await });
    let lock = "BEGIN IMMEDIATE; ROLLBACK";
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    other.execute("PRAGMA busy_timeout = 0").await.unwrap();
    eventually("the migration has begun", async || {
        other.execute(lock).await.is_err()
    })
    .await;
    store.hurry();
    let ended = migrating.join_next().await.unwrap();
    ended.unwrap().unwrap_err();
    eventually("the write lock is free", async || {
        other.execute(lock).await.is_ok()
    })
    .await;
    assert_eq!(
        database
            .count("SELECT MAX(version) FROM _sqlx_migrations")
            .await,
        2
    );
}

/// As one that holds a table for a backup, or a forgotten shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_a_migration_waits_for_holds_up_no_stop() {
    let database = TestDatabase::new(Kind::Postgres).await;
    database.migrate_to(2).await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let mut holding = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE keys IN ACCESS SHARE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &database.url);
    let mut daemon = Daemon::begin(&binary);
    daemon.wait_for("is being migrated");
    is_up_and_not_ready(&daemon, "migrating").await;
    ends_at_once(daemon);
    // Whoever is let in at last is served on the connections that are there.
    let mut daemon = Daemon::begin(&binary);
    daemon.wait_for("is being migrated");
    holding.rollback().await.unwrap();
    daemon.wait_until_it_listens();
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.stop();
    database.remove().await;
}

/// Passes everything on from an address to a server, from now on.
async fn open_port(address: SocketAddr, server: String) -> JoinSet<()> {
    let listener = TcpListener::bind(address).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            connections.spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    tasks
}

/// The server's part of a URL, and the database.
fn parts(url: &str) -> (&str, &str) {
    let (_, rest) = url.split_once('@').unwrap();
    rest.split_once('/').unwrap()
}

/// In containers both start together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let (server, name) = parts(&database.url);
    let port = free_address();
    let url = format!("postgres://postgres:hunter2@{port}/{name}");
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &url);
    // One that is stopped meanwhile ends.
    let mut daemon = Daemon::begin(&binary);
    let line = daemon.wait_for("waiting for the database");
    assert!(line.contains(&port.to_string()), "{line}");
    ends_at_once(daemon);

    let mut daemon = Daemon::begin(&binary);
    daemon.wait_for("waiting for the database");
    is_up_and_not_ready(&daemon, "waits for its database").await;
    // More than once.
    daemon.wait_for("waiting for the database");
    daemon.wait_for("waiting for the database");
    let _port = open_port(port, server.to_owned()).await;
    daemon.wait_until_it_listens();
    until(
        "readiness",
        || daemon.get("/readyz", None).0,
        |status| *status == 200,
    );
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = |line: &String| line.contains("first access token");
    assert!(ended.log.iter().any(told), "{ended:?}");
    let log = ended.log.join("\n");
    assert!(!log.contains("hunter2"), "{log}");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_not_waited_for() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let (server, name) = parts(&database.url);
    for (url, said) in [
        (
            format!("postgres://postgres:hunter2@{server}/{name}_missing"),
            "does not exist",
        ),
        (
            format!("postgres://nobody_{name}:hunter2@{server}/{name}"),
            "role",
        ),
    ] {
        let binary = Binary::new().with("RESCIND__DATABASE__URL", &url);
        let started = Instant::now();
        let refused = Daemon::begin(&binary).wait();
        assert!(started.elapsed() < AT_ONCE, "{refused:?}");
        assert_eq!(refused.code, Some(3), "{refused:?}");
        let log = refused.log.join("\n");
        assert!(
            log.contains(said) && log.contains("correct the user, the password or the name"),
            "{log}"
        );
        assert!(!log.contains("hunter2"), "{log}");
    }
    // Commands run by hand report it instead of waiting.
    let url = format!("postgres://postgres@{}/x", free_address());
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &url);
    for command in ["keys list", "migrate"] {
        let started = Instant::now();
        binary.run(command).fails(3, &["cannot be reached"]);
        assert!(started.elapsed() < AT_ONCE);
    }
    database.remove().await;
}

#[test]
#[ignore = "long: ./test.sh --long"]
fn a_server_that_does_not_come_is_given_up() {
    let url = format!("postgres://postgres@{}/x", free_address());
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &url);
    let mut daemon = Daemon::begin(&binary);
    let started = Instant::now();
    // Each line comes within a minute of the one before.
    while started.elapsed() < PATIENCE / 2 {
        daemon.wait_for("waiting for the database");
    }
    let ended = daemon.wait();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let log = ended.log.join("\n");
    assert!(log.contains("cannot be reached"), "{log}");
}
