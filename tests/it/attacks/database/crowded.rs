//! A PostgreSQL server that gives this program few connections: other programs have taken the others.

use std::time::{Duration, Instant};

use rescind::store::{Store, StoreError, StoreOptions, Urgency};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::cli::Binary;
use crate::serve::{Daemon, post};
use crate::store::{import, new_key};
use crate::support::eventually::eventually;
use crate::support::role::WithRole;

/// As many as write at the same time. More than there are connections, and no more than the pool has places.
const WRITERS: u64 = 16;

/// Longer than any write takes here, and about what a partner waits.
const IN_TIME: Duration = Duration::from_secs(10);

/// Creates a database of a role that may have so many connections.
async fn crowded(connections: u32) -> WithRole {
    WithRole::owning(&format!("CONNECTION LIMIT {connections}")).await
}

async fn limit(crowded: &WithRole, connections: u32) {
    let role = &crowded.role;
    let limited = format!("ALTER ROLE {role} CONNECTION LIMIT {connections}");
    crowded.run(&limited).await;
}

/// Writes as all workers and requests do at once; gives how long the slowest took.
async fn write_at_once(store: &Store, first: u64) -> Duration {
    let mut writers = JoinSet::new();
    for n in first..first + WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let begun = Instant::now();
            import(&store, &[new_key(n)]).await;
            begun.elapsed()
        });
    }
    writers
        .join_all()
        .await
        .into_iter()
        .max()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_connections_serve_everybody() {
    for connections in [1, 2] {
        let crowded = crowded(connections).await;
        let store = crowded.store().await;
        for round in 0..3 {
            let slowest = write_at_once(&store, 1 + round * WRITERS).await;
            assert!(slowest < IN_TIME, "{slowest:?}");
        }
        store.check_working().await.unwrap();
        assert_eq!(store.count_keys().await.unwrap(), 3 * WRITERS);
        store.close().await;
        crowded.remove().await;
    }
}

/// Long before its own patience with the server ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_that_is_there_is_taken_when_it_comes_back() {
    let crowded = crowded(1).await;
    let store = crowded.store().await;
    let held = store.begin().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let reading = store.with_urgency(Urgency::Work);
    tasks.spawn(async move { reading.count_keys().await });
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(tasks.try_join_next().is_none());
    let back = Instant::now();
    held.rollback().await.unwrap();
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), 0);
    assert!(back.elapsed() < IN_TIME / 2, "{:?}", back.elapsed());
    store.close().await;
    crowded.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_at_all_is_named_with_its_remedy() {
    let crowded = crowded(2).await;
    let store = crowded.store().await;
    store.close().await;
    let others = [
        PgConnection::connect(&crowded.url).await.unwrap(),
        PgConnection::connect(&crowded.url).await.unwrap(),
    ];
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &crowded.url);
    let ran = tokio::task::spawn_blocking(move || binary.run("keys list"));
    ran.await.unwrap().fails(
        3,
        &[
            "too many connections",
            "raise max_connections",
            &crowded.role,
        ],
    );
    let options = StoreOptions::new(crowded.url.clone());
    let error = Store::open(options).await.unwrap_err();
    assert!(matches!(error, StoreError::Crowded { .. }), "{error:?}");
    for other in others {
        other.close().await.unwrap();
    }
    crowded.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_goes_on_with_what_it_has_and_says_so_once() {
    let crowded = crowded(2).await;
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &crowded.url);
    let token = binary.run("tokens create --role admin").ok();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let address = daemon.address;
    let body = r#"{"user_id":"u","description":"x","expires_at_millis":null}"#;
    for _ in 0..3 {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let token = token.trim().to_owned();
                std::thread::spawn(move || {
                    let begun = Instant::now();
                    let path = "/api/v1/user-api-keys";
                    (post(address, path, Some(&token), body).0, begun.elapsed())
                })
            })
            .collect();
        for writer in writers {
            let (status, took) = writer.join().unwrap();
            assert_eq!(status, 200);
            assert!(took < IN_TIME, "{took:?}");
        }
    }
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.wait_for("gives no further connection");
    // There is room again, and it is used.
    limit(&crowded, 8).await;
    let more = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename LIKE 'role_%'";
    eventually("more connections are made", async || {
        let writers = (0..WRITERS).map(|_| {
            let token = token.trim().to_owned();
            std::thread::spawn(move || post(address, "/api/v1/user-api-keys", Some(&token), body).0)
        });
        for writer in writers.collect::<Vec<_>>() {
            assert_eq!(writer.join().unwrap(), 200);
        }
        crowded.database.count(more).await > 2
    })
    .await;
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let log = ended.log.join("\n");
    let (before, _) = log.split_once("connections again").expect("said");
    let said = before.matches("gives no further connection").count();
    assert_eq!(said, 1, "{log}");
    assert!(before.contains("raise max_connections"), "{log}");
    crowded.remove().await;
}
