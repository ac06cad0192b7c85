//! Deliveries with odd characters and values, and such as are no payload: none costs a leak.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rescind::forge::Forge;
use serde_json::{Value, json};

use super::effects::state;
use super::sender::{all, headers, post, send};
use crate::api::harness::{Client, TestServer};
use crate::source::work::noise;
use crate::support::databases::on_both_databases;

/// Returns the reason why the check of a key fails, or none.
async fn check(admin: &Client<'_>, key: &str) -> Option<String> {
    let reply = admin.post("/api/v1/user-api-keys/check", json!({"api_key": key}));
    let code = &reply.await.json()["code"];
    code.as_str().map(str::to_owned)
}

async fn new_key(admin: &Client<'_>) -> String {
    let key: Value = admin.create(json!({})).await;
    key["value"].as_str().unwrap().to_owned()
}

/// Bodies that are read all the same: what stands in front of the key's text, and behind it.
fn odd() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let deep = |levels: usize| format!("\"x\":{}{},", "[".repeat(levels), "]".repeat(levels));
    let many = "{\"a\":1,\"b\":2},".repeat(260_000);
    let topics = "\"a\",".repeat(110_000);
    let title = |odd: &[u8]| [b"\"title\":\"x ", odd, b"\","].concat();
    vec![
        ("a lone surrogate", title(br"\ud800"), vec![]),
        ("bytes that are no UTF-8", title(b"\xff\xe2\x82"), vec![]),
        ("a NUL", title(b"\0"), vec![]),
        ("a raw control character", title(b"\x01\n"), vec![]),
        ("an escape that is none", title(br"\q\u12g4"), vec![]),
        ("a number out of range", b"\"n\":-1e999,".to_vec(), vec![]),
        (
            "a field with two values",
            b"\"x\":1,\"x\":2,".to_vec(),
            vec![],
        ),
        ("nesting", deep(120).into_bytes(), vec![]),
        ("much nesting", deep(5_000).into_bytes(), vec![]),
        (
            "many fields",
            vec![],
            format!(",\"x\":[{many}0]").into_bytes(),
        ),
        (
            "many topics",
            vec![],
            format!(",\"repository\":{{\"topics\":[{topics}0],\"id\":1}}").into_bytes(),
        ),
    ]
}

/// Bodies of which nothing is understood, and what is not said of them: their texts are scanned.
fn broken(key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let wide: Vec<u8> = format!("{{\"body\":\"{key}\"}}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    vec![
        (
            "cut off",
            format!("{{\"body\":\"see\\n{key}\",\"x").into_bytes(),
        ),
        (
            "cut off after an escape",
            format!("{{\"body\":\"{}\"", key.replace('_', "\\u005f")).into_bytes(),
        ),
        (
            "two values",
            format!("{{}} {{\"body\":\"{key}\"}}").into_bytes(),
        ),
        ("no object", format!("[\"see\\n{key}\"]").into_bytes()),
        ("no JSON", format!("--- {key}").into_bytes()),
        ("UTF-16", wide),
    ]
}

on_both_databases! {
    async fn no_odd_character_or_value_of_a_delivery_loses_its_key_or_its_push(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        for (number, (name, before, after)) in odd().into_iter().enumerate() {
            let key = new_key(&admin).await;
            let issue = format!("\"body\":\"{key}\"}}");
            let body = [b"{\"action\":\"opened\",\"issue\":{", &before[..], issue.as_bytes(), &after, b"}"].concat();
            let headers = headers(Forge::GitHub, "issues", &format!("odd-{number}"), &body);
            let reply = post(&server, Forge::GitHub, &headers, body).await;
            assert_eq!(reply.status, 202, "{name}: {}", reply.text);
            assert_eq!(check(&admin, &key).await.as_deref(), Some("API_KEY_REVOKED"), "{name}");
        }
        let state = state(&server, "webhook:github", |state| state.events >= 11).await;
        assert_eq!((state.malformed, state.texts), (0, 11));
        let push = json!({
            "ref": "refs/heads/main", "before": "1".repeat(40), "after": "2".repeat(40),
            "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
        });
        let key = new_key(&admin).await;
        let odd = format!(",\"commits\":[{{\"message\":\"\\udfff {key}\",\"n\":[1e999,\"\x07\"]}}]}}");
        let mut body = b"\xef\xbb\xbf".to_vec();
        body.extend(push.to_string().strip_suffix('}').unwrap().bytes().chain(odd.bytes()));
        let headers = headers(Forge::GitHub, "push", "odd-push", &body);
        let reply = post(&server, Forge::GitHub, &headers, body).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(check(&admin, &key).await.as_deref(), Some("API_KEY_REVOKED"));
        assert_eq!(server.store.work_counts().await.unwrap().waiting, 1);
        server.stop().await;
    }

    async fn a_push_of_a_repository_without_an_identifier_is_read_by_its_name(database) {
        let server = TestServer::on(database, all()).await;
        let (before, after) = ("1".repeat(40), "2".repeat(40));
        let push = |host: &str| json!({
            "ref": "refs/heads/main", "before": before, "after": after,
            "repository": {"full_name": "acme/app", "clone_url": format!("https://{host}/acme/app.git")},
        });
        let gitlab = json!({
            "object_kind": "push", "ref": "refs/heads/main", "before": before, "after": after,
            "project": {"path_with_namespace": "acme/app", "git_http_url": "https://gitlab.example/acme/app.git"},
        });
        let bitbucket = json!({
            "repository": {"full_name": "acme/app"},
            "push": {"changes": [{
                "old": {"type": "branch", "name": "main", "target": {"hash": before}},
                "new": {"type": "branch", "name": "main", "target": {"hash": after}},
            }]},
        });
        for (forge, event, mut payload, id) in [
            (Forge::GitHub, "push", push("github.com"), "/repository"),
            (Forge::Gitea, "push", push("codeberg.org"), "/repository"),
            (Forge::GitLab, "Push Hook", gitlab, "/project"),
            (Forge::Bitbucket, "repo:push", bitbucket, "/repository"),
        ] {
            assert_eq!(send(&server, forge, event, "none", &payload).await.status, 202);
            // One that cannot be stored is as good as none.
            payload.pointer_mut(id).unwrap()["id"] = json!("no number");
            assert_eq!(send(&server, forge, event, "odd", &payload).await.status, 202);
            let state = state(&server, forge.source(), |state| state.events >= 2).await;
            assert_eq!((state.malformed, state.items), (0, 1), "{forge:?}");
        }
        let by_name = "SELECT COUNT(*) FROM work_items WHERE repository_id = 'path:acme/app'";
        assert_eq!(database.count(by_name).await, 4);
        server.stop().await;
    }

    async fn a_delivery_that_cannot_be_read_is_refused_and_its_keys_are_revoked(database) {
        let server = TestServer::on(database, all()).await;
        let admin = server.admin().await;
        for (number, forge) in Forge::ALL.into_iter().cycle().take(6).enumerate() {
            let key = new_key(&admin).await;
            let (name, body) = broken(&key).swap_remove(number);
            let signed = headers(forge, "push", "same", &body);
            let reply = post(&server, forge, &signed, body.clone()).await;
            reply.error(400, "BODY_PARSING_ERROR");
            assert_eq!(check(&admin, &key).await.as_deref(), Some("API_KEY_REVOKED"), "{name}");
            // A key comes to light even in what another forge sent.
            let key = new_key(&admin).await;
            let body = json!({"comment": {"body": format!("see\n{key}")}}).to_string();
            let unnamed = headers(forge, "", "same", body.as_bytes());
            post(&server, forge, &unnamed, body).await.error(400, "SCHEMA_ERROR");
            assert_eq!(check(&admin, &key).await.as_deref(), Some("API_KEY_REVOKED"), "{forge:?}");
        }
        // It may come again under the same identifier, as a whole.
        assert_eq!(database.count("SELECT COUNT(*) FROM webhook_deliveries").await, 0);
        server.stop().await;
    }

    async fn names_that_git_and_the_forges_allow_are_read(database) {
        let server = TestServer::on(database, all()).await;
        let (before, after) = ("1".repeat(40), "2".repeat(40));
        let push = |reference: &str| json!({
            "ref": reference, "before": before, "after": after,
            "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
        });
        // Both are longer than an index of PostgreSQL holds, and differ at the end only.
        let long = [0, 1].map(|end| {
            let part = |n: u32| URL_SAFE_NO_PAD.encode(noise(n, 180));
            let parts: Vec<_> = (0..14).map(part).collect();
            format!("refs/heads/{}/{end}", parts.join("/"))
        });
        let short = format!("refs/heads/{}", vec!["x".repeat(219); 5].join("/"));
        for (id, name) in ["refs/heads/a\u{85}b", &short, &long[0], &long[1]].iter().enumerate() {
            let id = format!("name-{id}");
            assert_eq!(send(&server, Forge::GitHub, "push", &id, &push(name)).await.status, 202);
        }
        let github = state(&server, "webhook:github", |state| state.events >= 4).await;
        assert_eq!((github.malformed, github.items), (0, 4));

        let path = format!("team/{}", "n".repeat(255));
        let address = format!("https://gitlab.example/{path}.git");
        let push = |after: &str| json!({
            "object_kind": "push", "before": before, "after": after, "ref": "refs/heads/main", "project_id": 15,
            "project": {"path_with_namespace": path, "git_http_url": address},
        });
        let edited = json!({
            "object_kind": "wiki_page", "project": {"id": 15, "path_with_namespace": path, "git_http_url": address},
        });
        let wide = "2".repeat(64);
        for (hook, id, payload) in [
            ("Push Hook", "long", push(&after)),
            ("Wiki Page Hook", "wiki", edited),
            ("Push Hook", "wide", push(&wide)),
        ] {
            assert_eq!(send(&server, Forge::GitLab, hook, id, &payload).await.status, 202);
        }
        let gitlab = state(&server, "webhook:gitlab", |state| state.events >= 3).await;
        assert_eq!((gitlab.malformed, gitlab.items), (0, 3));
        let wide = format!("SELECT COUNT(*) FROM work_items WHERE after_id = '{wide}' AND before_id = '{before}'");
        assert_eq!(database.count(&wide).await, 1);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_push_that_says_two_things_is_accepted_and_counted() {
    let server = TestServer::start_with(all()).await;
    let body = br#"{"ref":"refs/heads/a","ref":"refs/heads/b","repository":{"id":1}}"#;
    let signed = headers(Forge::GitHub, "push", "1", body);
    let reply = post(&server, Forge::GitHub, &signed, &body[..]).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    let state = state(&server, "webhook:github", |state| state.events >= 1).await;
    assert_eq!((state.malformed, state.items), (1, 0));
    server.stop().await;
}
