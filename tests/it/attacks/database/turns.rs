//! Much of few senders, or many of one, and little of others: what is little waits for hardly any of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rescind::forge::Forge;
use rescind::keyformat::KeyValue;
use rescind::respond::Responder;
use rescind::store::{Reason, Role, Store, Tx, Urgency};
use serde_json::json;

use crate::api::harness::TestServer;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::responder::{issuer, request, responder, sighting};
use crate::webhooks::sender::{all, send};

/// Time in which everybody begins to wait.
const SETTLING: Duration = Duration::from_secs(1);

/// Number of connections that can write at once.
fn places(kind: Kind) -> usize {
    match kind {
        Kind::Sqlite => 1,
        Kind::Postgres => 16,
    }
}

/// Takes all connections that can write, so that everybody has to wait.
async fn hold(store: &Store, kind: Kind) -> Vec<Tx> {
    let held = (0..places(kind)).map(|_| store.begin());
    futures_util::future::try_join_all(held).await.unwrap()
}

/// Lets the others have one connection.
async fn release_one(held: &mut Vec<Tx>) {
    held.pop().unwrap().rollback().await.unwrap();
}

async fn keys(responder: &Responder, count: usize) -> Vec<KeyValue> {
    let mut keys = Vec::new();
    for _ in 0..count {
        let (_, value) = issuer(responder).issue(request("leaks")).await.unwrap();
        keys.push(value);
    }
    keys
}

fn comment(owner: &str, keys: &[KeyValue]) -> serde_json::Value {
    let keys: Vec<&str> = keys.iter().map(KeyValue::expose).collect();
    json!({
        "action": "created",
        "comment": {"body": keys.join(" "), "html_url": format!("https://github.com/{owner}/r/issues/1")},
        "repository": {"id": owner.len(), "full_name": format!("{owner}/r")},
    })
}

/// Reports twice what a worker found. That takes some turns, one after the other.
async fn work(responder: &Responder, key: &KeyValue) {
    let responder = responder.at_most(Urgency::Work);
    for line in 0..2 {
        let seen = vec![sighting(&responder, key, line)];
        let reported = responder.report(seen, Reason::Leaked, "feed:test").await;
        assert!(reported.unwrap()[0].is_secret());
    }
}

on_both_databases! {
    /// Else a genuine one waited for 14 s beside fifty of a thousand keys each, and was refused at first.
    async fn a_small_delivery_goes_before_many_large_ones_and_another_owners_large_one_among_them(database) {
        let server = TestServer::on(database, all()).await;
        let keys = keys(&server.responder, 100).await;
        let leaked = issuer(&server.responder).issue(request("leaked")).await.unwrap().1;
        let order = Mutex::new(Vec::new());
        let deliver = async |name: String, payload, after| {
            tokio::time::sleep(after).await;
            let reply = send(&server, Forge::GitHub, "issue_comment", &name, payload).await;
            order.lock().unwrap().push((name, reply.status));
        };
        let mut held = hold(&server.store, database.kind).await;
        let large = (0..40).map(|n| deliver(format!("large {n}"), comment("many", &keys), Duration::ZERO));
        let small = deliver("small".to_owned(), comment("shop", &[leaked]), SETTLING);
        let other = deliver("other".to_owned(), comment("others", &keys), SETTLING);
        let release = async {
            tokio::time::sleep(2 * SETTLING).await;
            release_one(&mut held).await;
        };
        tokio::join!(join_all(large), small, other, release);
        drop(held);
        let mut order = order.into_inner().unwrap();
        order.retain(|(_, status)| *status == 202);
        assert!(order.len() > 15, "{order:?}");
        let turn = |name: &str| order.iter().position(|(other, _)| other == name);
        assert!(turn("small").is_some_and(|turn| turn < 5), "{order:?}");
        assert!(turn("other").is_some_and(|turn| turn < 12), "{order:?}");
        // One that is repeated counts once, whatever its size.
        let sightings = "SELECT CAST(SUM(sightings) AS BIGINT) FROM occurrences WHERE repository = 'others/r'";
        let before = database.count(sightings).await;
        let again = send(&server, Forge::GitHub, "issue_comment", "other", comment("others", &keys)).await;
        assert_eq!((again.status, database.count(sightings).await), (202, before));
        server.stop().await;
    }

    /// An item takes several turns. Each of them waited for all that was large.
    async fn the_turns_of_a_worker_do_not_wait_for_all_large_reports(database) {
        let store = database.store().await;
        let (responder, _clock) = responder(&store);
        let keys = keys(&responder, 2).await;
        let written = AtomicUsize::new(0);
        let mut held = hold(&store, database.kind).await;
        let large = (0..18).map(async |_| {
            let seen = (0..300).map(|line| sighting(&responder, &keys[0], line)).collect();
            responder.report(seen, Reason::Leaked, "partner:test").await.unwrap();
            written.fetch_add(1, Ordering::SeqCst);
        });
        let work = async {
            tokio::time::sleep(SETTLING).await;
            work(&responder, &keys[1]).await;
            written.load(Ordering::SeqCst)
        };
        let release = async {
            tokio::time::sleep(2 * SETTLING).await;
            release_one(&mut held).await;
        };
        let (_, meanwhile, ()) = tokio::join!(join_all(large), work, release);
        assert!(meanwhile < 15, "{meanwhile} large reports went before");
        assert_eq!(written.into_inner(), 18);
    }

    /// Few of those that wait may hold what others need meanwhile, and whoever repeats a report waits for itself.
    async fn many_large_reports_of_one_owner_are_put_off_and_another_owners_is_not(database) {
        let store = database.store().await;
        let (responder, _clock) = responder(&store);
        let keys = keys(&responder, 2).await;
        let order = Mutex::new(Vec::new());
        let report = async |owner: &'static str, keys: &[KeyValue], lines: u64, after| {
            tokio::time::sleep(after).await;
            let seen = (0..lines).flat_map(|line| keys.iter().map(move |key| (key, line)));
            let seen = seen.map(|(key, line)| {
                let mut seen = sighting(&responder, key, line);
                seen.place.repository = Some(format!("{owner}/r"));
                seen
            });
            let reported = responder.report(seen.collect(), Reason::Leaked, "partner:test").await;
            order.lock().unwrap().push((owner, reported.is_ok()));
        };
        let mut held = hold(&store, database.kind).await;
        // Its sightings are more than one transaction takes.
        let long = report("long", &keys, 1_001, Duration::ZERO);
        let many = (0..60).map(|_| report("many", &keys[..1], 100, SETTLING / 2));
        let other = report("other", &keys[..1], 100, SETTLING);
        let release = async {
            tokio::time::sleep(4 * SETTLING).await;
            release_one(&mut held).await;
        };
        tokio::join!(long, join_all(many), other, release);
        let order = order.into_inner().unwrap();
        let (written, put_off): (Vec<_>, Vec<_>) = order.into_iter().partition(|(_, is_written)| *is_written);
        assert!(put_off.iter().all(|(owner, _)| *owner == "many"), "{put_off:?}");
        assert!(put_off.len() >= 20, "{written:?}");
        // The second of its transactions did not wait for all of the others.
        let turn = written.iter().position(|(owner, _)| *owner == "long");
        assert!(turn.is_some_and(|turn| turn < 10), "{written:?}");
    }

    async fn the_turns_of_a_worker_do_not_wait_for_all_keys_that_are_created(database) {
        let store = database.store().await;
        let (responder, _clock) = responder(&store);
        let key = keys(&responder, 1).await.remove(0);
        let issuer = issuer(&responder);
        let written = AtomicUsize::new(0);
        let mut held = hold(&store, database.kind).await;
        let created = (0..40).map(async |_| {
            issuer.issue(request("many")).await.unwrap();
            written.fetch_add(1, Ordering::SeqCst);
        });
        let work = async {
            tokio::time::sleep(SETTLING).await;
            work(&responder, &key).await;
            written.load(Ordering::SeqCst)
        };
        let release = async {
            tokio::time::sleep(2 * SETTLING).await;
            release_one(&mut held).await;
        };
        let (_, meanwhile, ()) = tokio::join!(join_all(created), work, release);
        assert!(meanwhile < 30, "{meanwhile} keys went before");
        assert_eq!(written.into_inner(), 40);
    }
}

/// A caller that creates keys on hundreds of connections waits for itself, and is put off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_created_in_turns_of_projects_and_not_all_wait() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, all()).await;
    let (one, other) = (
        server.token_in(Role::Issuer, "one").await,
        server.token_in(Role::Issuer, "other").await,
    );
    let order = Mutex::new(Vec::new());
    let create = async |token: &str, after| {
        tokio::time::sleep(after).await;
        let body = json!({"user_id": "u", "description": "d", "expires_at_millis": null});
        let client = server.with_token(token);
        let reply = client.post("/api/v1/user-api-keys", body).await;
        let is_other = token == other;
        if reply.status == 503 {
            assert!(reply.header("retry-after").is_some());
        }
        order.lock().unwrap().push((is_other, reply.status));
    };
    let mut held = hold(&server.store, database.kind).await;
    let many = (0..300).map(|_| create(&one, Duration::ZERO));
    let release = async {
        tokio::time::sleep(2 * SETTLING).await;
        release_one(&mut held).await;
    };
    tokio::join!(join_all(many), create(&other, SETTLING), release);
    let mut order = order.into_inner().unwrap();
    let refused = order.iter().filter(|(_, status)| *status == 503).count();
    assert!(refused >= 20, "{refused} were put off");
    order.retain(|(_, status)| *status == 200);
    let turn = order.iter().position(|(is_other, _)| *is_other);
    assert!(turn.is_some_and(|turn| turn < 20), "{turn:?}");
    server.stop().await;
    database.remove().await;
}
