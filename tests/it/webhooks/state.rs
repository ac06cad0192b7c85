//! A webhook whose pushes are lost says so.

use rescind::forge::Forge;
use rescind::source::ConfiguredSource;
use rescind::store::NewWorkItem;
use serde_json::{Value, json};

use super::effects::state;
use super::sender::{all, send};
use crate::api::harness::{Setup, TestServer};
use crate::store::turns::{add, fill, push};
use crate::support::databases::{TestDatabase, on_both_databases};
use crate::support::eventually::eventually;

const NAME: &str = "webhook:github";

fn payload(server: &str, id: u32, after: u32) -> Value {
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": format!("{after:040x}"), "commits": [],
        "repository": {"id": id, "full_name": "o1/busy", "html_url": format!("{server}/o1/busy"),
            "clone_url": format!("{server}/o1/busy.git")},
    })
}

async fn server(database: &TestDatabase) -> TestServer {
    let webhook = ConfiguredSource {
        name: NAME.to_owned(),
        kind: "webhook".to_owned(),
        schedule: None,
    };
    let sources = vec![webhook];
    TestServer::on(database, Setup { sources, ..all() }).await
}

/// Waits until the webhook is like this; gives what the API says of it.
async fn shown(server: &TestServer, is: &str) -> Value {
    let admin = server.admin().await;
    eventually(&format!("it is {is}"), async || {
        let reply = admin.get("/api/v1/sources").await;
        let all: Value = serde_json::from_str(&reply.text).unwrap();
        let items = all["items"].as_array().unwrap();
        let found = items.iter().find(|source| source["name"] == NAME).cloned();
        let found = found.unwrap_or_default();
        if found["state"] == is {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await
}

async fn is_failing(server: &TestServer, said: &[&str]) {
    let source = shown(server, "failing").await;
    let error = source["last_error"].as_str().unwrap();
    for said in said {
        assert!(error.contains(said), "{said} is not in {error}");
    }
}

on_both_databases! {
    async fn pushes_that_are_lost_are_no_good_state(database) {
        let server = server(database).await;
        let allowed = "https://github.com";
        shown(&server, "waiting").await;
        let good = async |after| {
            let good = payload(allowed, 1, after);
            assert_eq!(send(&server, Forge::GitHub, "push", &format!("good-{after}"), &good).await.status, 202);
            shown(&server, "ok").await;
        };
        good(1).await;

        for n in 0..2 {
            let strange = payload("https://elsewhere.example", 2, n);
            assert_eq!(send(&server, Forge::GitHub, "push", &format!("strange-{n}"), &strange).await.status, 202);
        }
        is_failing(&server, &["2 deliveries", "https://elsewhere.example", "webhooks.github.clone_hosts"]).await;
        // An event that is not a push says nothing about pushes, nor does a forged push.
        let star = json!({"repository": {"id": 2, "full_name": "o1/busy"}});
        assert_eq!(send(&server, Forge::GitHub, "star", "star", &star).await.status, 202);
        state(&server, NAME, |state| state.events == 4).await;
        is_failing(&server, &["2 deliveries"]).await;
        good(2).await;

        let array = json!([]);
        assert_eq!(send(&server, Forge::GitHub, "push", "array", &array).await.status, 400);
        is_failing(&server, &["1 deliveries", "(400)"]).await;
        good(3).await;
        server.stop().await;
    }

    async fn a_push_that_finds_no_room_is_no_good_state(database) {
        let server = server(database).await;
        fill(database, &server.store, 50_000, 10_000).await;
        // As the payloads name them: with their addresses.
        database.run("UPDATE work_items SET owner = '/' || owner").await.unwrap();
        let busy = (0..16).map(|n| NewWorkItem {
            repository_id: "9".to_owned(),
            clone_url: Some("https://github.com/o1/busy.git".to_owned()),
            ..push("o1/busy", n)
        });
        add(&server.store, &busy.collect::<Vec<_>>()).await;
        let full = payload("https://github.com", 9, 900);
        assert_eq!(send(&server, Forge::GitHub, "push", "full", &full).await.status, 503);
        is_failing(&server, &["1 deliveries", "waits to be read", "send them again"]).await;
        server.stop().await;
    }

    async fn what_is_put_aside_last_is_no_good_state(database) {
        let server = server(database).await;
        let pushed = payload("https://github.com", 1, 1);
        assert_eq!(send(&server, Forge::GitHub, "push", "id", &pushed).await.status, 202);
        shown(&server, "ok").await;
        database.run("UPDATE work_items SET state = 'dead', finished_at = 5, last_error = 'HTTP 500 from it'").await.unwrap();
        is_failing(&server, &["1 items", "HTTP 500 from it", "rescind sources requeue --all webhook:github"]).await;
        database.run("UPDATE work_items SET state = 'waiting', finished_at = NULL").await.unwrap();
        shown(&server, "ok").await;
        server.stop().await;
    }

    async fn what_was_lost_is_known_after_a_restart_until_a_push_is_taken(database) {
        let before = server(database).await;
        let strange = payload("https://elsewhere.example", 2, 1);
        assert_eq!(send(&before, Forge::GitHub, "push", "strange", &strange).await.status, 202);
        is_failing(&before, &["1 deliveries"]).await;
        before.stop().await;
        let after = server(database).await;
        // The counts of the new start are written every two seconds.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        is_failing(&after, &["1 deliveries", "elsewhere.example"]).await;
        let good = payload("https://github.com", 1, 1);
        assert_eq!(send(&after, Forge::GitHub, "push", "good", &good).await.status, 202);
        shown(&after, "ok").await;
        after.stop().await;
    }
}
