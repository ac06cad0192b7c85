//! A connection to PostgreSQL that is cut without either end being told.

use std::pin::pin;
use std::time::{Duration, Instant};

use rescind::keyformat::{KeyValue, Sha256Digest};
use rescind::respond::Responder;
use rescind::store::{Lookup, Reason, Store, StoreError, StoreOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::proxy::Proxy;
use super::{PATIENCE, until};
use crate::cli::Binary;
use crate::serve::{Daemon, get};
use crate::store::{digest, import, new_key};
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;
use crate::support::responder::{issuer, request, responder, sighting};

/// A migrated database, and a proxy in front of it.
async fn behind_a_proxy() -> (TestDatabase, Proxy, Store) {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    let proxy = Proxy::before(&database.url).await;
    (database, proxy, store)
}

async fn open(url: String) -> Store {
    Store::open(StoreOptions::new(url)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frozen_look_up_holds_up_no_other_request_and_no_shutdown() {
    let (database, proxy, _) = behind_a_proxy().await;
    let binary = Binary::new().with("RESCIND__DATABASE__URL", &proxy.url(&database.url));
    let make = || {
        binary
            .run("tokens create --role admin")
            .ok()
            .trim()
            .to_owned()
    };
    let (healthy, unlucky) = (make(), make());
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let ask = "/api/v1/revocations";
    assert_eq!(daemon.get(ask, Some(&healthy)).0, 200);

    let address = daemon.address;
    proxy.set_trap(&Sha256Digest::of(unlucky.as_bytes()).0);
    let token = unlucky.clone();
    let frozen = std::thread::spawn(move || (get(address, ask, Some(&token)).0, Instant::now()));
    until("the trap", || proxy.caught(), |caught| *caught == 1);
    for _ in 0..5 {
        assert_eq!(daemon.get(ask, Some(&healthy)).0, 200);
        assert_eq!(daemon.get("/readyz", None).0, 200);
    }
    let others_done = Instant::now();
    let (status, answered) = frozen.join().unwrap();
    assert_eq!(status, 503);
    assert!(
        others_done < answered,
        "the others waited for the frozen one"
    );
    assert_eq!(daemon.get(ask, Some(&unlucky)).0, 200);

    // The end of the process does not wait for a database either that is frozen as a whole.
    proxy.freeze_all();
    let frozen = std::thread::spawn(move || get(address, ask, Some(&unlucky)));
    daemon.signal("TERM");
    daemon.wait_for("SIGTERM");
    let stopping = Instant::now();
    let ended = daemon.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let took = stopping.elapsed();
    assert!(took < Duration::from_secs(18), "{took:?}: {ended:?}");
    // Answered, or sent away with the process.
    drop(frozen.join());
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_network_was_cut_the_next_operation_works() {
    let (database, proxy, _) = behind_a_proxy().await;
    let store = open(proxy.url(&database.url)).await;
    import(&store, &[new_key(1)]).await;
    let (lookup, task) = Lookup::new(store.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run());
    // All connections lie idle when it happens.
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(store.begin().await.unwrap());
    }
    for tx in open {
        tx.rollback().await.unwrap();
    }
    proxy.freeze();
    let started = Instant::now();
    assert!(lookup.key("default", digest(1)).await.unwrap().is_some());
    store.check_working().await.unwrap();
    import(&store, &[new_key(2)]).await;
    assert!(started.elapsed() < PATIENCE);
    database.remove().await;
}

/// Both wait for deadlines that nobody can make shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_frozen_in_the_middle_fails_in_time() {
    tokio::join!(
        a_transaction_fails_and_lets_go_of_its_locks(),
        a_command_ends_with_an_error(),
    );
}

async fn a_transaction_fails_and_lets_go_of_its_locks() {
    let (database, proxy, direct) = behind_a_proxy().await;
    let store = open(proxy.url(&database.url)).await;
    let mut tx = store.begin().await.unwrap();
    tx.import_keys(&[new_key(1)]).await.unwrap();
    proxy.set_trap(&digest(2).0);
    let error = tx.import_keys(&[new_key(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    let error = tx.import_keys(&[new_key(3)]).await.unwrap_err();
    assert!(error.to_string().contains("failed before"), "{error}");
    assert!(tx.commit().await.is_err());
    // The same program goes on at once; the server lets go of the rows when it has missed its client.
    import(&store, &[new_key(3)]).await;
    eventually("the row is free", async || {
        let mut tx = direct.begin().await.unwrap();
        let imported = tx.import_keys(&[new_key(1)]).await;
        let imported = imported.inspect_err(|error| assert!(error.is_temporary(), "{error}"));
        imported?;
        tx.commit().await
    })
    .await;
    assert_eq!(direct.count_keys().await.unwrap(), 2);
    database.remove().await;
}

async fn a_command_ends_with_an_error() {
    let (database, proxy, _) = behind_a_proxy().await;
    proxy.freeze_all();
    let url = proxy.url(&database.url);
    // In a blocking thread: the other half has deadlines of its own meanwhile.
    let command = tokio::task::spawn_blocking(move || {
        let binary = Binary::new().with("RESCIND__DATABASE__URL", &url);
        binary.run("keys list").fails(
            3,
            &["cannot be reached", "no answer within", "database.url"],
        );
    });
    command.await.unwrap();
    database.remove().await;
}

/// Reports keys until each is answered, as partners do.
async fn report_all(responder: Responder, keys: Vec<KeyValue>) {
    for value in keys {
        eventually("the report is answered", async || {
            let seen = vec![sighting(&responder, &value, 1)];
            let reported = responder.report(seen, Reason::Leaked, "partner:test").await;
            reported.inspect_err(|error| assert!(error.is_temporary(), "{error}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_lost_under_reports_lose_no_revocation() {
    let (database, proxy, direct) = behind_a_proxy().await;
    let store = open(proxy.url(&database.url)).await;
    let (responder, _) = responder(&store);
    let mut reports = Vec::new();
    for _ in 0..4 {
        let mut keys = Vec::new();
        for _ in 0..25 {
            keys.push(issuer(&responder).issue(request("leaks")).await.unwrap().1);
        }
        reports.push(report_all(responder.clone(), keys));
    }
    let mut reports = pin!(futures_util::future::join_all(reports));
    let cut_every = Duration::from_millis(150);
    proxy.cut();
    while timeout(cut_every, &mut reports).await.is_err() {
        proxy.cut();
    }
    let verified = direct.verify_log().await.unwrap().unwrap();
    assert_eq!(verified.entries, 100, "one revocation for each key");
    assert_eq!(
        database
            .count("SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL")
            .await,
        0
    );
    database.remove().await;
}
