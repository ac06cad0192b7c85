//! Too much waits already: the sender learns it, and nobody else.

use std::time::{Duration, Instant};

use rescind::forge::Forge;
use rescind::store::NewWorkItem;
use serde_json::{Value, json};

use super::effects::state;
use super::sender::{all, send};
use crate::api::harness::TestServer;
use crate::store::turns::{add, fill, push};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

fn payload(repository: &str, id: u32, after: u32, text: &Value) -> Value {
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": format!("{after:040x}"), "commits": [],
        "head_commit": {"message": text},
        "repository": {"id": id, "full_name": repository, "html_url": format!("https://github.com/{repository}"),
            "clone_url": format!("https://github.com/{repository}.git")},
    })
}

on_both_databases! {
    async fn what_finds_no_room_is_503_and_can_be_sent_again(database) {
        let server = TestServer::on(database, all()).await;
        let store = &server.store;
        let key = server.admin().await.create(json!({})).await;
        fill(database, store, 50_000, 10_000).await;
        // As the payloads name them: with their addresses.
        database.run("UPDATE work_items SET owner = '/' || owner").await.unwrap();
        let busy = (0..16).map(|n| NewWorkItem {
            repository_id: "7".to_owned(),
            clone_url: Some("https://github.com/o1/busy.git".to_owned()),
            ..push("o1/busy", n)
        });
        assert_eq!(add(store, &busy.collect::<Vec<_>>()).await, 16);
        let full = payload("o1/busy", 7, 100, &key["value"]);
        let healthy = payload("acme/shop", 8, 100, &Value::Null);
        // Held until all have arrived, so that they are one group.
        let tx = store.begin().await.unwrap();
        let sent = [("full", &full), ("good", &healthy), ("full", &full), ("other", &full)]
            .map(|(id, payload)| send(&server, Forge::GitHub, "push", id, payload));
        let release = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tx.rollback().await.unwrap();
        };
        let (replies, ()) = tokio::join!(futures_util::future::join_all(sent), release);
        let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [503, 202, 503, 503]);
        replies[0].error(503, "SERVICE_UNAVAILABLE");
        assert_eq!(replies[0].header("retry-after"), Some("60"));
        let remembered = "SELECT COUNT(*) FROM webhook_deliveries";
        assert_eq!(database.count(remembered).await, 1);
        let stored = "SELECT COUNT(*) FROM work_items WHERE after_id LIKE '%0064'";
        assert_eq!(database.count(stored).await, 1);
        // Keys in the delivery itself need no room.
        assert_eq!(store.log_head().await.unwrap().seq, 1);
        let told = |refused: &str| refused.contains("not stored, to be sent again (503)");
        state(&server, "webhook:github", |state| state.unseen.as_deref().is_some_and(told)).await;

        database.run("UPDATE work_items SET state = 'done', finished_at = 1 WHERE repository_id LIKE 'r%'").await.unwrap();
        let reply = send(&server, Forge::GitHub, "push", "full", &full).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(database.count(stored).await, 2);
        assert_eq!(store.log_head().await.unwrap().seq, 1);
        server.stop().await;
    }

    /// Its contents could not be read without keeping the key, which stands in every address of them.
    async fn a_key_in_the_name_of_a_repository_is_revoked_and_the_repository_is_counted(database) {
        let server = TestServer::on(database, all()).await;
        let key = server.admin().await.create(json!({})).await;
        let name = format!("acme/{}", key["value"].as_str().unwrap());
        let named = payload(&name, 9, 100, &Value::Null);
        let reply = send(&server, Forge::GitHub, "push", "named", &named).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(server.store.log_head().await.unwrap().seq, 1);
        assert_eq!(server.store.work_counts().await.unwrap().waiting, 0);
        state(&server, "webhook:github", |state| state.malformed == 1).await;
        server.stop().await;
    }
}

/// The first of two has its own deadline, in which the second waits. Both are told in time.
#[tokio::test]
async fn a_database_that_takes_too_long_is_503_before_the_forge_gives_up() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, all()).await;
    let healthy = payload("acme/shop", 8, 100, &Value::Null);
    let tx = server.store.begin().await.unwrap();
    let began = Instant::now();
    let first = send(&server, Forge::GitHub, "push", "first", &healthy);
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let reply = send(&server, Forge::GitHub, "push", "second", &healthy).await;
        (reply, began.elapsed())
    };
    let release = async {
        tokio::time::sleep(Duration::from_millis(11_500)).await;
        tx.rollback().await.unwrap();
    };
    let (first, (second, waited), ()) = tokio::join!(first, second, release);
    assert_eq!(first.status, 503, "{}", first.text);
    second.error(503, "SERVICE_UNAVAILABLE");
    assert!(second.header("retry-after").is_some());
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    // Whether or not it was stored after that, it counts once.
    let again = send(&server, Forge::GitHub, "push", "second", &healthy).await;
    assert_eq!(again.status, 202, "{}", again.text);
    let stored = "SELECT COUNT(*) FROM work_items WHERE after_id LIKE '%0064'";
    assert_eq!(database.count(stored).await, 1);
    database.remove().await;
}
