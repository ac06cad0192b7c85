//! Many deliveries at once, and a database that is slow, full of trouble or gone.

use std::time::{Duration, Instant};

use rescind::forge::Forge;
use serde_json::{Value, json};

use super::sender::{all, send};
use crate::api::harness::TestServer;
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;

fn push(reference: &str) -> Value {
    json!({
        "ref": reference, "before": "1".repeat(40), "after": "2".repeat(40),
        "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_amounts_to_nothing_does_not_wait_for_the_database() {
    let server = TestServer::start_with(all()).await;
    // Whoever wants to write waits for this transaction.
    let tx = server.store.begin().await.unwrap();
    let comment =
        json!({"comment": {"body": "a harmless text"}, "repository": {"full_name": "a/b"}});
    let began = Instant::now();
    for number in 0..50 {
        let id = format!("guid-{number}");
        let reply = send(&server, Forge::GitHub, "issue_comment", &id, &comment).await;
        assert_eq!(reply.status, 202);
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let waiting = send(
        &server,
        Forge::GitHub,
        "push",
        "guid",
        push("refs/heads/main"),
    );
    let waiting = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(waiting.is_err(), "answered before it was stored");
    tx.rollback().await.unwrap();
    // Nobody waits for the answer any more; the push is stored all the same.
    eventually("the push is stored", async || {
        server.store.work_counts().await.unwrap().waiting == 1
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pushes_at_once_are_all_stored_before_they_are_answered() {
    let server = TestServer::start_with(all()).await;
    let sent = (0..500).map(|number| {
        let server = &server;
        async move {
            let began = Instant::now();
            let reference = format!("refs/heads/{number}");
            let reply = send(server, Forge::GitHub, "push", &reference, push(&reference)).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            began.elapsed()
        }
    });
    let mut took = futures_util::future::join_all(sent).await;
    took.sort();
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 500);
    assert!(took[499] < Duration::from_secs(10), "{:?}", took[499]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_cannot_be_stored_takes_no_other_along() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, all()).await;
    let trigger =
        "CREATE TRIGGER poison BEFORE INSERT ON work_items WHEN NEW.ref_name = 'refs/heads/poison'
        BEGIN SELECT RAISE(ABORT, 'poison'); END";
    database.run(trigger).await.unwrap();
    // Held until all have arrived, so that they are one group.
    let tx = server.store.begin().await.unwrap();
    let names = ["a", "b", "poison", "c", "d"];
    let sent = names.map(|name| {
        send(
            &server,
            Forge::GitHub,
            "push",
            name,
            push(&format!("refs/heads/{name}")),
        )
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tx.rollback().await.unwrap();
    };
    let (replies, ()) = tokio::join!(futures_util::future::join_all(sent), release);
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [202, 202, 500, 202, 202]);
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 4);
    assert_eq!(
        database
            .count("SELECT COUNT(*) FROM webhook_deliveries")
            .await,
        4
    );
    server.stop().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_the_sender_is_told_to_come_again() {
    let server = TestServer::start_with(all()).await;
    let key = server.admin().await.create(json!({})).await;
    server.store.close().await;
    let comment = json!({"comment": {"body": key["value"]}});
    for (event, payload) in [
        ("push", push("refs/heads/main")),
        ("issue_comment", comment),
    ] {
        let reply = send(&server, Forge::GitHub, event, "guid", &payload).await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert!(reply.header("retry-after").is_some());
    }
    let harmless = send(&server, Forge::GitHub, "ping", "guid", json!({"zen": "x"})).await;
    assert_eq!(harmless.status, 202);
}
