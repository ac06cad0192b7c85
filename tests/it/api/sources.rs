//! Sources over HTTP: how they are, and what was put aside.

use std::time::Duration;

use rescind::config::{Config, Environment};
use rescind::daemon::configured_sources;
use rescind::store::{
    NewWorkItem, Postponed, Priority, Role, SourceState, Store, WorkDone, WorkKind,
};
use serde_json::{Value, json};

use super::harness::{START, Setup, TestServer};
use crate::support::databases::on_both_databases;

fn setup() -> Setup {
    let text = r#"
        [webhooks.github]
        secrets = ["0123456789abcdef0123456789abcdef"]
        [[sources]]
        name = "feed"
        kind = "github_events"
        [[sources]]
        name = "new"
        kind = "github_events"
        scope = "org:acme"
    "#;
    let config = Config::parse("config.toml".as_ref(), text, &Environment::default()).unwrap();
    Setup {
        sources: configured_sources(&config),
        ..Setup::default()
    }
}

fn item(n: u64, source: &str) -> NewWorkItem {
    NewWorkItem {
        kind: WorkKind::Range,
        host: "github.com".to_owned(),
        repository_id: n.to_string(),
        repository: format!("acme/app-{n}"),
        clone_url: None,
        ref_name: "refs/heads/main".to_owned(),
        before: "0".repeat(40),
        after: "1".repeat(40),
        source: source.to_owned(),
        priority: Priority::Watched,
        event_at: START.parse().unwrap(),
    }
}

async fn save(store: &Store, state: SourceState) {
    let mut tx = store.begin().await.unwrap();
    tx.save_source(&state).await.unwrap();
    tx.commit().await.unwrap();
}

async fn add(store: &Store, items: &[NewWorkItem]) {
    let mut tx = store.begin().await.unwrap();
    let now = START.parse().unwrap();
    tx.add_work_items(items, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// Puts every waiting item aside.
async fn kill_all(database: &crate::support::databases::TestDatabase) {
    database
        .run(
            "UPDATE work_items SET state = 'dead', tries = 8, finished_at = created_at, \
             last_error = 'the pack is damaged' WHERE state = 'waiting'",
        )
        .await
        .unwrap();
}

fn by_name<'a>(list: &'a Value, name: &str) -> &'a Value {
    let items = list["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

on_both_databases! {
    async fn every_source_is_listed_with_how_it_is(database) {
        let server = TestServer::on(database, setup()).await;
        let viewer = server.client(Role::Viewer).await;
        let list = viewer.get("/api/v1/sources").await.json();
        assert_eq!(list["is_paginated"], true);
        let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
        assert_eq!(names, ["feed", "new", "webhook:github"]);
        for name in ["feed", "new", "webhook:github"] {
            let source = by_name(&list, name);
            assert_eq!(source["state"], "waiting", "{source}");
            assert!(source.get("last_poll_at").is_none(), "{source}");
            assert!(source.get("rate_limit").is_none(), "{source}");
        }

        let at = |text: &str| Some(text.parse().unwrap());
        save(&server.store, SourceState {
            name: "feed".to_owned(),
            kind: "github_events".to_owned(),
            cursor: "{\"etag\":\"secret-cursor\"}".to_owned(),
            polled_at: at("2026-11-22T20:46:00Z"),
            succeeded_at: at("2026-11-22T20:45:00Z"),
            next_poll_at: at("2026-11-22T20:47:00Z"),
            newest_event_at: at("2026-11-22T20:44:00Z"),
            error: Some("the server answers HTTP 500".to_owned()),
            unseen: Some("two repositories".to_owned()),
            polls: 7, events: 30, items: 5, gaps: 1, malformed: 2, texts: 3, unknown: 4, repaired: 6,
            rate_limit: Some(60), rate_remaining: Some(59), rate_resets_at: at("2026-11-22T21:00:00Z"),
        }).await;
        save(&server.store, SourceState {
            name: "gone".to_owned(),
            kind: "github_events".to_owned(),
            cursor: "{}".to_owned(),
            ..SourceState::default()
        }).await;
        add(&server.store, &[item(1, "feed"), item(2, "webhook:github")]).await;
        let mut tx = server.store.begin().await.unwrap();
        let done = WorkDone { scanned: 9, blobs: 8, known_blobs: 7, truncated: 1, gone: 2, oldest_event_at: at(START) };
        tx.add_work_done("feed", done).await.unwrap();
        tx.commit().await.unwrap();

        let list = viewer.get("/api/v1/sources").await.json();
        let feed = by_name(&list, "feed");
        assert_eq!(feed["state"], "failing");
        assert_eq!(feed["kind"], "github_events");
        assert_eq!(feed["last_poll_at"], "2026-11-22T20:46:00.000000Z");
        assert_eq!(feed["last_success_at"], "2026-11-22T20:45:00.000000Z");
        assert_eq!(feed["next_poll_at"], "2026-11-22T20:47:00.000000Z");
        assert_eq!(feed["newest_event_at"], "2026-11-22T20:44:00.000000Z");
        assert_eq!(feed["oldest_waiting_at"], START);
        assert!(feed["lag_seconds"].is_number() && feed["last_scan_at"].is_string(), "{feed}");
        assert_eq!(feed["counts"], json!({
            "polls": 7, "events": 30, "items": 5, "texts": 3, "unknown_types": 4, "malformed": 2, "gaps": 1,
            "repaired": 6, "scanned": 9, "blobs": 8, "known_blobs": 7, "truncated": 1, "gone": 2, "shed": 0,
            "refused": 0, "waiting": 1, "retrying": 0, "dead_letters": 0,
        }));
        assert_eq!(feed["rate_limit"], json!({
            "limit": 60, "remaining": 59, "reset_at": "2026-11-22T21:00:00.000000Z",
        }));
        assert_eq!(feed["last_error"], "the server answers HTTP 500");
        assert_eq!(feed["unseen"], "two repositories");
        assert!(!feed.to_string().contains("secret-cursor"));
        assert_eq!(by_name(&list, "gone")["state"], "removed");
        assert_eq!(by_name(&list, "webhook:github")["state"], "ok");
        assert!(feed.get("last_retry").is_none(), "{feed}");
        // One that its server denied waits, and is told with the reason.
        let held = server.store.claim(2, "w", Duration::from_mins(1)).await.unwrap();
        let held = held.iter().find(|item| item.range.source == "feed").unwrap();
        let why = "the server answers HTTP 404";
        let denied = Postponed { id: held.id, wait: Duration::from_secs(5), why, is_denial: true };
        server.store.postpone_all(&[denied], "w").await.unwrap();
        let list = viewer.get("/api/v1/sources").await.json();
        let feed = by_name(&list, "feed");
        assert_eq!((&feed["counts"]["waiting"], &feed["counts"]["retrying"]), (&json!(1), &json!(1)));
        let what = &feed["last_retry"]["what"];
        assert_eq!(*what, format!("acme/app-1, refs/heads/main, {why}"));
        assert!(feed["last_retry"]["at"].is_string(), "{feed}");
        let stats = viewer.get("/api/v1/stats").await.json();
        assert_eq!(stats["work"]["retrying"], 1);
        server.clock.advance(jiff::SignedDuration::from_mins(6));
        let list = viewer.get("/api/v1/sources").await.json();
        assert_eq!(by_name(&list, "webhook:github")["state"], "behind");
        assert_eq!(by_name(&list, "webhook:github")["counts"]["waiting"], 1);

        let mut names = Vec::new();
        let mut path = "/api/v1/sources?limit=3".to_owned();
        loop {
            let page = viewer.get(&path).await.json();
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["pagination"]["next_cursor"].as_str() else { break };
            path = format!("/api/v1/sources?limit=3&cursor={cursor}");
        }
        assert_eq!(names, ["feed", "gone", "new", "webhook:github"]);
        viewer.get("/api/v1/sources?x=1").await.error(400, "SCHEMA_ERROR");
        server.stop().await;
    }

    async fn what_was_put_aside_is_listed_and_put_back(database) {
        let server = TestServer::on(database, setup()).await;
        let operator = server.client(Role::Operator).await;
        let items: Vec<_> = (0..5).map(|n| item(n, "feed")).chain([item(9, "webhook:github")]).collect();
        add(&server.store, &items).await;
        kill_all(database).await;
        let path = "/api/v1/sources/feed/dead-letters";
        let list = operator.get(&format!("{path}?limit=2")).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        let dead = &list["items"][0];
        assert_eq!(dead["source"], "feed");
        assert_eq!(dead["ref"], "refs/heads/main");
        assert_eq!(dead["before"], "0".repeat(40));
        assert_eq!(dead["after"], "1".repeat(40));
        assert_eq!(dead["tries"], 8);
        assert_eq!(dead["error"], "the pack is damaged");
        assert_eq!(dead["died_at"], START);
        assert!(dead["repository"].as_str().unwrap().starts_with("acme/app-"));
        let cursor = list["pagination"]["next_cursor"].as_str().unwrap();
        let next = operator.get(&format!("{path}?limit=200&cursor={cursor}")).await.json();
        assert_eq!(next["items"].as_array().unwrap().len(), 3);
        let hook = operator.get("/api/v1/sources/webhook:github/dead-letters").await.json();
        assert_eq!(hook["items"].as_array().unwrap().len(), 1);
        let sources = operator.get("/api/v1/sources").await.json();
        assert_eq!(by_name(&sources, "feed")["counts"]["dead_letters"], 5);

        let requeue = format!("{path}/requeue");
        let id = dead["id"].clone();
        let of_hook = hook["items"][0]["id"].clone();
        operator.post(&requeue, json!({"id": of_hook})).await.error(404, "NOT_FOUND");
        operator.post(&requeue, json!({"id": uuid::Uuid::now_v7()})).await.error(404, "NOT_FOUND");
        operator.post(&requeue, json!({"id": "x"})).await.error(400, "SCHEMA_ERROR");
        operator.post(&requeue, json!({"ids": []})).await.error(400, "SCHEMA_ERROR");
        assert_eq!(operator.post(&requeue, json!({"id": id})).await.json(), json!({"requeued": 1}));
        operator.post(&requeue, json!({"id": id})).await.error(404, "NOT_FOUND");
        assert_eq!(operator.post(&requeue, json!({})).await.json(), json!({"requeued": 4}));
        assert_eq!(operator.post(&requeue, json!({})).await.json(), json!({"requeued": 0}));
        let claimed = server.store.claim(10, "w", Duration::from_mins(1)).await.unwrap();
        assert_eq!(claimed.len(), 5);
        assert!(claimed.iter().all(|item| item.tries == 1));
        server.stop().await;
    }

    async fn sources_belong_to_no_single_project(database) {
        let server = TestServer::on(database, setup()).await;
        let other = server.with_token(server.token_in(Role::Admin, "other").await);
        other.get("/api/v1/sources").await.error(403, "WRONG_PROJECT");
        other.get("/api/v1/sources/feed/dead-letters").await.error(403, "WRONG_PROJECT");
        other.post("/api/v1/sources/feed/dead-letters/requeue", json!({})).await.error(403, "WRONG_PROJECT");
        let admin = server.admin().await;
        let value = server.mint();
        for name in ["nobody", value.expose(), "%ff", "%00", "a%00b", "%1f"] {
            let reply = admin.get(&format!("/api/v1/sources/{name}/dead-letters")).await;
            reply.error(404, "NOT_FOUND");
            assert!(!reply.text.contains(value.expose()));
            let requeue = format!("/api/v1/sources/{name}/dead-letters/requeue");
            admin.post(&requeue, json!({})).await.error(404, "NOT_FOUND");
            for path in ["incidents", "user-api-keys", "team-api-keys"] {
                assert_eq!(admin.get(&format!("/api/v1/{path}/{name}")).await.status, 404, "{path}");
            }
        }
        server.stop().await;
    }
}
