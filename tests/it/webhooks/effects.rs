//! Effects of a delivery: work items and revocations, and nothing twice.

use std::time::Duration;

use reqwest::Url;
use rescind::forge::Forge;
use rescind::intake::webhook::{ClonePlaces, WebhookOptions};
use rescind::store::{NewWorkItem, Priority, SourceState, WorkItem, WorkKind};
use serde_json::{Value, json};

use super::sender::{all, options, send};
use crate::api::harness::{Setup, TestServer};
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;

const BEFORE: &str = "883efe034920928c47fe18598c01249d1a9fdabd";
const AFTER: &str = "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300";
const NULL: &str = "0000000000000000000000000000000000000000";

/// The state of a webhook's source, once it is as wanted.
pub(super) async fn state(
    server: &TestServer,
    name: &str,
    wanted: impl Fn(&SourceState) -> bool,
) -> SourceState {
    eventually(&format!("{name} is as wanted"), async || {
        let state = server.store.load_source(name).await.unwrap();
        match state {
            Some(state) if wanted(&state) => Ok(state),
            other => Err(other),
        }
    })
    .await
}

async fn items(server: &TestServer) -> Vec<WorkItem> {
    let lease = Duration::from_secs(1);
    let mut items = server.store.claim(1000, "test", lease).await.unwrap();
    items.sort_by(|a, b| a.range.ref_name.cmp(&b.range.ref_name));
    items
}

fn github_push(reference: &str, before: &str, after: &str) -> Value {
    json!({
        "ref": reference, "before": before, "after": after, "forced": false, "commits": [],
        "repository": {"id": 4711, "full_name": "acme/webshop", "name": "webshop",
            "html_url": "https://github.com/acme/webshop",
            "clone_url": "https://github.com/acme/webshop.git"},
    })
}

/// Returns the kind, host, id, name, URL, reference, before, and after of an item.
fn asked(item: &WorkItem) -> Vec<&str> {
    let NewWorkItem { kind, .. } = item.range;
    let range = &item.range;
    vec![
        match kind {
            WorkKind::Range => "range",
            WorkKind::References => "references",
        },
        &range.host,
        &range.repository_id,
        &range.repository,
        range.clone_url.as_deref().unwrap_or("-"),
        &range.ref_name,
        &range.before,
        &range.after,
    ]
}

on_both_databases! {
    async fn a_push_becomes_a_work_item_once(database) {
        let server = TestServer::on(database, all()).await;
        let push = github_push("refs/heads/main", BEFORE, AFTER);
        // The same delivery twice, the same push in another delivery, and all of it at once.
        let sent = ["a", "a", "b", "c", "c"].map(|id| send(&server, Forge::GitHub, "push", id, &push));
        for reply in futures_util::future::join_all(sent).await {
            assert_eq!(reply.status, 202, "{}", reply.text);
        }
        let deleted = github_push("refs/heads/main", AFTER, NULL);
        let created = github_push("refs/heads/new", NULL, AFTER);
        let nothing = github_push("refs/heads/same", AFTER, AFTER);
        for (id, push) in [("d", deleted), ("e", created), ("f", nothing)] {
            assert_eq!(send(&server, Forge::GitHub, "push", id, &push).await.status, 202);
        }
        let items = items(&server).await;
        let here = ["github.com", "4711", "acme/webshop", "https://github.com/acme/webshop.git"];
        let expected = |reference, before, after| {
            [&["range"], &here[..], &[reference, before, after]].concat()
        };
        let asked: Vec<_> = items.iter().map(asked).collect();
        assert_eq!(asked, [
            expected("refs/heads/main", BEFORE, AFTER),
            expected("refs/heads/new", NULL, AFTER),
        ]);
        assert!(items.iter().all(|item| item.range.priority == Priority::Webhook));
        assert!(items.iter().all(|item| item.range.source == "webhook:github"));
        let state = state(&server, "webhook:github", |state| state.items >= 2).await;
        assert_eq!((state.items, state.error.as_deref()), (2, None));
        assert!(state.succeeded_at.is_some() && state.newest_event_at.is_some());
        server.stop().await;
    }

    /// Forges offer to send a delivery once more, after a token was mended or a server is well again.
    async fn a_repeated_delivery_brings_back_what_was_gone_or_dead(database) {
        let server = TestServer::on(database, all()).await;
        let push = github_push("refs/heads/main", BEFORE, AFTER);
        for (ended, again) in [
            ("'done', gone = TRUE", 1),
            ("'dead', gone = FALSE", 1),
            ("'done', gone = FALSE", 0),
        ] {
            let reply = send(&server, Forge::GitHub, "push", "the-same", &push).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            let ended = format!("UPDATE work_items SET leased_by = NULL, finished_at = 1, state = {ended}");
            database.run(&ended).await.unwrap();
            send(&server, Forge::GitHub, "push", "the-same", &push).await;
            assert_eq!(items(&server).await.len(), again, "{ended}");
        }
        server.stop().await;
    }

    async fn a_key_in_any_text_is_revoked_at_once_and_the_text_is_nowhere(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let value = key["value"].as_str().unwrap();
        let stranger = server.mint();
        let page = "https://github.com/acme/webshop/issues/7#issuecomment-1";
        let payload = json!({
            "action": "created",
            "comment": {"html_url": page, "body": format!("it fails with {value}, and {}", stranger.expose())},
            "repository": {"id": 4711, "full_name": "acme/webshop"},
        });
        for id in ["guid-1", "guid-1", "guid-2"] {
            let reply = send(&server, Forge::GitHub, "issue_comment", id, &payload).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            assert!(!reply.text.contains(value));
        }
        let log = admin.get("/api/v1/revocations").await.json();
        assert_eq!(log["items"].as_array().unwrap().len(), 1, "{log}");
        let entry = &log["items"][0];
        assert_eq!((&entry["key_id"], &entry["actor"]), (&key["id"], &json!("webhook:github")));
        let place = json!({"source": "webhook:github", "url": page, "repository": "acme/webshop"});
        assert_eq!(entry["occurrence"], place);
        // The repeated delivery counts for nothing, another one with the same text is another sighting.
        let incidents = admin.get("/api/v1/incidents").await.json();
        assert_eq!(incidents["items"][0]["sighting_count"], 2, "{incidents}");
        assert_eq!(database.count("SELECT COUNT(*) FROM webhook_deliveries").await, 2);
        assert_eq!(database.count("SELECT COUNT(*) FROM work_items").await, 0);
        server.stop().await;
    }

    /// However many candidates and long links others wrote into the same delivery, before it or after it.
    async fn strangers_in_a_delivery_hide_no_key(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        let commit = |n: usize, link: &str| json!({
            "id": AFTER, "url": format!("https://github.com/acme/webshop/commit/{n}{link}"),
            "message": server.mint().expose(),
        });
        let many: Vec<_> = (0..10_500).map(|n| commit(n, "")).collect();
        let wordy: Vec<_> = (0..800).map(|n| commit(n, &"some.words,".repeat(180))).collect();
        for (id, decoys) in [("many", many), ("wordy", wordy)] {
            for is_first in [true, false] {
                let key = admin.create(json!({})).await;
                let mut payload = github_push("refs/heads/main", BEFORE, AFTER);
                let mut commits = decoys.clone();
                let at = if is_first { 0 } else { commits.len() };
                commits.insert(at, json!({"message": key["value"]}));
                payload["commits"] = json!(commits);
                let reply = send(&server, Forge::GitHub, "push", &format!("{id} {is_first}"), &payload).await;
                assert_eq!(reply.status, 202, "{}", reply.text);
                let log = admin.get("/api/v1/revocations").await.json();
                assert_eq!(log["items"][0]["key_id"], key["id"], "{id} {is_first}: {log}");
            }
        }
        server.stop().await;
    }

    /// Nor do those in one text with it, of which more are looked up than are held, wherever ours stands.
    async fn strangers_in_a_text_hide_no_key_in_it(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(admin.create(json!({})).await);
        }
        let mut texts: Vec<String> = (0..20_500).map(|_| server.mint().expose().to_owned()).collect();
        for (at, key) in [0, 10_100, 20_502].into_iter().zip(&keys) {
            texts.insert(at, key["value"].as_str().unwrap().to_owned());
        }
        let page = "https://github.com/acme/webshop/issues/7#issuecomment-1";
        let link = json!({"html_url": page, "body": texts.join("\n")});
        let payload = json!({"comment": link, "repository": {"full_name": "acme/webshop"}});
        let reply = send(&server, Forge::GitHub, "issue_comment", "guid", &payload).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        let log = admin.get("/api/v1/revocations").await.json();
        for key in &keys {
            let entries = log["items"].as_array().unwrap();
            let entry = entries.iter().find(|entry| entry["key_id"] == key["id"]);
            assert_eq!(entry.unwrap()["occurrence"]["repository"], "acme/webshop", "{log}");
        }
        server.stop().await;
    }

    /// Its header is not signed: whoever has a secret can write any identifier into a delivery of his own.
    async fn the_identifier_of_another_delivery_uses_nothing_up(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        for forge in Forge::ALL {
            let [first, second] = [admin.create(json!({})).await, admin.create(json!({})).await];
            for key in [&first, &second] {
                let payload = json!({"comment": {"body": key["value"]}});
                let reply = send(&server, forge, "comment", "the-same", &payload).await;
                assert_eq!(reply.status, 202, "{}", reply.text);
                let log = admin.get("/api/v1/revocations").await.json();
                assert_eq!(log["items"][0]["key_id"], key["id"], "{forge:?}: {log}");
            }
        }
        server.stop().await;
    }

    async fn a_delivery_that_failed_can_be_repeated(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let mut payload = github_push("refs/heads/main", BEFORE, AFTER);
        payload["head_commit"] = json!({"message": key["value"]});
        database.run("ALTER TABLE occurrences RENAME TO gone").await.unwrap();
        let reply = send(&server, Forge::GitHub, "push", "guid", &payload).await;
        assert!(reply.status >= 500, "{}", reply.text);
        let untouched = "SELECT (SELECT COUNT(*) FROM work_items) + (SELECT COUNT(*) FROM webhook_deliveries)
            + (SELECT COUNT(*) FROM incidents)";
        assert_eq!(database.count(untouched).await, 0);
        database.run("ALTER TABLE gone RENAME TO occurrences").await.unwrap();
        let reply = send(&server, Forge::GitHub, "push", "guid", &payload).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(server.store.work_counts().await.unwrap().waiting, 1);
        assert_eq!(server.store.log_head().await.unwrap().seq, 1);
        server.stop().await;
    }

    async fn forgets_deliveries_after_a_while(database) {
        let store = database.store().await;
        let delivery = rescind::store::Delivery { source: "webhook:github".to_owned(), id: "1".to_owned() };
        let mut tx = store.begin().await.unwrap();
        let now = "2026-11-22T20:46:15Z".parse().unwrap();
        let twice = [delivery.clone(), delivery.clone()];
        assert_eq!(tx.record_deliveries(&twice, now).await.unwrap().len(), 1);
        assert_eq!(tx.record_deliveries(&twice, now).await.unwrap().len(), 0);
        tx.commit().await.unwrap();
        assert_eq!(store.forget_deliveries(Duration::from_hours(24 * 365 * 90)).await.unwrap(), 0);
        database.run("UPDATE webhook_deliveries SET received_at = 0").await.unwrap();
        assert_eq!(store.forget_deliveries(Duration::from_hours(1)).await.unwrap(), 1);
    }
}

/// Pushes as each forge tells of them, in each of its ways.
fn pushes() -> Vec<(Forge, &'static str, Value)> {
    let gitlab = json!({
        "object_kind": "push", "before": BEFORE, "after": AFTER, "ref": "refs/heads/gitlab", "project_id": 15,
        "project": {"path_with_namespace": "group/sub/app", "git_http_url": "https://gitlab.example/group/sub/app.git"},
    });
    let mut system = gitlab.clone();
    system["object_kind"].take();
    system["event_name"] = json!("tag_push");
    system["ref"] = json!("refs/tags/gitlab");
    let updated = json!({
        "event_name": "repository_update", "project_id": 15, "project": gitlab["project"],
        "changes": [{"before": BEFORE, "after": AFTER, "ref": "refs/heads/gitlab"},
            {"before": BEFORE, "after": NULL, "ref": "refs/heads/gone"},
            {"before": NULL, "after": AFTER, "ref": "refs/heads/gitlab-2"}, 7],
    });
    let gitea = json!({
        "ref": "refs/heads/gitea", "before": BEFORE, "after": AFTER,
        "repository": {"id": 3, "full_name": "acme/app", "clone_url": "http://gitea.example:3000/acme/app.git"},
    });
    let branch =
        |name: &str, hash: &str| json!({"type": "branch", "name": name, "target": {"hash": hash}});
    let cloud = json!({
        "repository": {"uuid": "{673a6070-3421-46c9-9d48-90745f7bfe8e}", "full_name": "team/app",
            "links": {"html": {"href": "https://bitbucket.org/team/app"}}},
        "push": {"changes": [
            {"old": branch("cloud", BEFORE), "new": branch("cloud", AFTER), "truncated": true, "forced": true},
            {"old": null, "new": {"type": "tag", "name": "v1", "target": {"hash": AFTER}}},
            {"old": branch("gone", BEFORE), "new": null},
            {"old": null, "new": {"type": "bookmark", "name": "hg", "target": {"hash": AFTER}}},
            {"old": {"type": "branch", "name": "odd"}, "new": null},
        ]},
    });
    let data_center = json!({
        "repository": {"slug": "app", "id": 4, "project": {"key": "~JO"}, "links": {"clone": [
            {"href": "ssh://git@bb.example:7999/~jo/app.git", "name": "ssh"},
            {"href": "https://bb.example/scm/~jo/app.git", "name": "http"}]}},
        "changes": [{"ref": {"id": "refs/heads/server"}, "refId": "refs/heads/server",
            "fromHash": BEFORE, "toHash": AFTER, "type": "UPDATE"}],
    });
    vec![
        (Forge::GitLab, "Push Hook", gitlab.clone()),
        (Forge::GitLab, "System Hook", gitlab),
        (Forge::GitLab, "System Hook", system),
        (Forge::GitLab, "System Hook", updated),
        (Forge::Gitea, "push", gitea),
        (Forge::Bitbucket, "repo:push", cloud),
        (Forge::Bitbucket, "repo:refs_changed", data_center),
    ]
}

#[tokio::test]
async fn every_forge_tells_of_pushes_in_its_own_way() {
    let server = TestServer::start_with(all()).await;
    for (forge, event, payload) in pushes() {
        let reply = send(&server, forge, event, "", payload).await;
        assert_eq!(reply.status, 202, "{event} {}", reply.text);
    }
    let items = items(&server).await;
    let asked: Vec<_> = items.iter().map(asked).collect();
    let uuid = "{673a6070-3421-46c9-9d48-90745f7bfe8e}";
    let gitlab = [
        "range",
        "gitlab.example",
        "15",
        "group/sub/app",
        "https://gitlab.example/group/sub/app.git",
    ];
    let cloud = [
        "range",
        "bitbucket.org",
        uuid,
        "team/app",
        "https://bitbucket.org/team/app.git",
    ];
    let of =
        |repository: [&'static str; 5], push: [&'static str; 3]| [&repository[..], &push].concat();
    assert_eq!(
        asked,
        [
            of(cloud, ["refs/heads/cloud", BEFORE, AFTER]),
            of(
                [
                    "range",
                    "gitea.example:3000",
                    "3",
                    "acme/app",
                    "http://gitea.example:3000/acme/app.git"
                ],
                ["refs/heads/gitea", BEFORE, AFTER]
            ),
            of(gitlab, ["refs/heads/gitlab", BEFORE, AFTER]),
            of(gitlab, ["refs/heads/gitlab-2", NULL, AFTER]),
            of(
                [
                    "range",
                    "bb.example",
                    "4",
                    "~JO/app",
                    "https://bb.example/scm/~jo/app.git"
                ],
                ["refs/heads/server", BEFORE, AFTER]
            ),
            of(gitlab, ["refs/tags/gitlab", BEFORE, AFTER]),
            of(cloud, ["refs/tags/v1", NULL, AFTER]),
        ]
    );
    let state = state(&server, "webhook:bitbucket", |state| state.events >= 2).await;
    assert_eq!((state.malformed, state.items), (1, 3));
    server.stop().await;
}

#[tokio::test]
async fn wikis_and_published_repositories_are_announced() {
    let server = TestServer::start_with(all()).await;
    let push = github_push("refs/heads/main", BEFORE, AFTER);
    let repository = &push["repository"];
    let public = json!({"repository": repository});
    let pages = json!({"pages": [{"sha": AFTER, "page_name": "Home"}], "repository": repository});
    let gitlab = json!({
        "object_kind": "wiki_page", "project": {"id": 9, "path_with_namespace": "g/app",
            "git_http_url": "https://gitlab.example/g/app.git"},
        "object_attributes": {"content": "text"},
    });
    let create = json!({"ref": "new", "ref_type": "branch", "repository": repository});
    for (forge, event, id, payload) in [
        (Forge::GitHub, "public", "guid-1", &public),
        (Forge::GitHub, "gollum", "guid-2", &pages),
        (Forge::GitHub, "gollum", "guid-3", &pages),
        (Forge::GitHub, "create", "guid-4", &create),
        (Forge::Gitea, "wiki", "guid-5", &public),
        (Forge::GitLab, "Wiki Page Hook", "guid-6", &gitlab),
    ] {
        assert_eq!(send(&server, forge, event, id, payload).await.status, 202);
    }
    let mut items = items(&server).await;
    items.sort_by(|a, b| a.range.after.cmp(&b.range.after));
    // The digest of the body follows the forge's identifier.
    for item in &mut items {
        let end = item.range.after.find(':');
        item.range.after.truncate(end.unwrap_or(usize::MAX));
    }
    let asked: Vec<_> = items.iter().map(asked).collect();
    let github = "https://github.com/acme/webshop";
    let (page, wiki) = (format!("{github}.git"), format!("{github}.wiki.git"));
    let wiki = |after| {
        vec![
            "references",
            "github.com",
            "4711.wiki",
            "acme/webshop.wiki",
            &wiki,
            "",
            "",
            after,
        ]
    };
    assert_eq!(
        asked,
        [
            wiki(AFTER),
            vec![
                "references",
                "github.com",
                "4711",
                "acme/webshop",
                &page,
                "",
                "",
                "guid-1"
            ],
            wiki("guid-5"),
            vec![
                "references",
                "gitlab.example",
                "9.wiki",
                "g/app.wiki",
                "https://gitlab.example/g/app.wiki.git",
                "",
                "",
                "guid-6"
            ],
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_configured_clone_url_names_the_host_as_the_feed_does() {
    let base: Url = "https://github.com".parse().unwrap();
    let known: Url = "https://gitea.example/git".parse().unwrap();
    let setup = Setup {
        webhooks: vec![
            WebhookOptions {
                places: ClonePlaces {
                    base: Some(base),
                    ..ClonePlaces::default()
                },
                ..options(Forge::GitHub)
            },
            WebhookOptions {
                places: ClonePlaces {
                    known: vec![known],
                    ..ClonePlaces::default()
                },
                ..options(Forge::Gitea)
            },
        ],
        ..Setup::default()
    };
    let server = TestServer::start_with(setup).await;
    // As the feed would have it, of the same push.
    let feed = NewWorkItem {
        kind: WorkKind::Range,
        host: "github.com".to_owned(),
        repository_id: "4711".to_owned(),
        repository: "acme/webshop".to_owned(),
        clone_url: None,
        ref_name: "refs/heads/main".to_owned(),
        before: BEFORE.to_owned(),
        after: AFTER.to_owned(),
        source: "github-public".to_owned(),
        priority: Priority::Firehose,
        event_at: "2026-11-22T20:46:15Z".parse().unwrap(),
    };
    let mut tx = server.store.begin().await.unwrap();
    tx.add_work_items(&[feed], "2026-11-22T20:46:15Z".parse().unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let push = github_push("refs/heads/main", BEFORE, AFTER);
    assert_eq!(
        send(&server, Forge::GitHub, "push", "1", &push)
            .await
            .status,
        202
    );
    let mut here = github_push("refs/heads/here", BEFORE, AFTER);
    here["repository"]["clone_url"] = json!("https://gitea.example/git/acme/webshop.git");
    let mut there = github_push("refs/heads/there", BEFORE, AFTER);
    there["repository"]["clone_url"] = json!("https://gitea.example/other/acme/webshop.git");
    for push in [&here, &there] {
        assert_eq!(
            send(&server, Forge::Gitea, "push", "", push).await.status,
            202
        );
    }
    let items = items(&server).await;
    let places: Vec<_> = items
        .iter()
        .map(|item| (item.range.host.as_str(), item.range.clone_url.as_deref()))
        .collect();
    assert_eq!(
        places,
        [
            ("gitea.example", None),
            ("github.com", None),
            (
                "gitea.example",
                Some("https://gitea.example/other/acme/webshop.git")
            ),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn unknown_events_and_refusals_are_counted_for_operators() {
    let server = TestServer::start_with(all()).await;
    for event in ["ping", "issues", "brand_new_event"] {
        let reply = send(&server, Forge::GitHub, event, "", json!({"zen": "x"})).await;
        assert_eq!(reply.status, 202);
    }
    let bad = [("X-Hub-Signature-256", "sha256=00".to_owned())];
    super::sender::post(&server, Forge::GitHub, &bad, "{}")
        .await
        .error(401, "SIGNATURE_INVALID");
    let state = state(&server, "webhook:github", |state| {
        state.events >= 3 && state.unseen.is_some()
    })
    .await;
    assert_eq!((state.events, state.texts, state.unknown), (3, 3, 1));
    assert!(
        state
            .unseen
            .unwrap()
            .contains("1 without a valid signature (401)")
    );
    assert!(state.error.unwrap().contains("compare the forge's secret"));
    server.stop().await;
}
