//! Whatever arrives is accepted or refused in words, and nothing without a proof.

use std::fs;
use std::path::{Path, PathBuf};

use rescind::forge::Forge;
use serde_json::json;

use super::effects::state;
use super::sender::{SECRET, all, headers, hmac, options, post, send};
use crate::api::harness::{Setup, TestServer};
use crate::support::http::Ask as _;

fn payloads() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/webhooks");
    let folders = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    files.map(|entry| entry.unwrap().path()).collect()
}

/// Returns the forge of a payload, and the event name in the forge's header.
fn origin(path: &Path) -> Option<(Forge, String)> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let name = path.file_stem()?.to_str()?;
    let plain = name.trim_end_matches("-event");
    Some(match folder {
        "github" => (Forge::GitHub, name.replace('-', "_")),
        "gitea" | "gogs" => (Forge::Gitea, plain.replace('-', "_")),
        "gitlab" if name.starts_with("system") => (Forge::GitLab, "System Hook".to_owned()),
        "gitlab" => {
            let hook = match plain {
                "push" => "Push Hook",
                "tag" => "Tag Push Hook",
                "wikipage" => "Wiki Page Hook",
                _ => "Note Hook",
            };
            (Forge::GitLab, hook.to_owned())
        }
        "bitbucket" | "bitbucket-server" => {
            let event = match name {
                "repo-push" => "repo:push",
                "repo-refs-changed" => "repo:refs_changed",
                _ => "issue:created",
            };
            (Forge::Bitbucket, event.to_owned())
        }
        _ => return None,
    })
}

#[tokio::test]
async fn every_published_payload_is_accepted_by_its_forge_and_understood_or_refused_by_others() {
    let server = TestServer::start_with(all()).await;
    let payloads = payloads();
    assert_eq!(payloads.len(), 154);
    for path in &payloads {
        let body = fs::read(path).unwrap();
        let origin = origin(path);
        for forge in Forge::ALL {
            let name = path.display();
            let own = origin.as_ref().filter(|(own, _)| *own == forge);
            // Under another forge's name, as that forge's push.
            let events = match (own, forge) {
                (Some((_, event)), _) => vec![event.as_str()],
                (None, Forge::GitLab) => vec!["Push Hook", "System Hook"],
                (None, Forge::Bitbucket) => vec!["repo:push", "repo:refs_changed"],
                (None, _) => vec!["push", "gollum", "public", "wiki"],
            };
            for event in events {
                let headers = headers(forge, event, "", &body);
                let reply = post(&server, forge, &headers, body.clone()).await;
                let fine = reply.status == 202 || (own.is_none() && reply.status == 400);
                assert!(
                    fine,
                    "{name} as {forge:?} {event}: {} {}",
                    reply.status, reply.text
                );
            }
        }
    }
    let counts = server.store.work_counts().await.unwrap();
    assert!(counts.waiting > 5, "{counts:?}");
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_read_without_a_proof() {
    let server = TestServer::start_with(all()).await;
    for forge in Forge::ALL {
        let body = br#"{"zen": "Keep it logically awesome."}"#;
        let good = headers(forge, "ping", "1", body);
        assert_eq!(post(&server, forge, &good, &body[..]).await.status, 202);
        let proof = good[0].0;
        let without: Vec<_> = good[1..].to_vec();
        let reply = post(&server, forge, &without, &body[..]).await;
        reply.error(401, "SIGNATURE_INVALID");
        let wrong = [
            String::new(),
            "x".to_owned(),
            format!("sha256={}", hmac(b"other", body)),
            hmac(b"other", body),
            format!("{}0", good[0].1),
        ];
        for wrong in wrong {
            let mut bad = good.clone();
            bad[0].1.clone_from(&wrong);
            let reply = post(&server, forge, &bad, &body[..]).await;
            let error = reply.error(401, "SIGNATURE_INVALID");
            assert!(error["error"].as_str().unwrap().contains('`'), "{error}");
            assert!(!reply.text.contains(SECRET));
        }
        // GitLab's token says nothing of the body, which is why GitLab signs now.
        if forge != Forge::GitLab {
            let reply = post(&server, forge, &good, "{}").await;
            reply.error(401, "SIGNATURE_INVALID");
        }
        let retired = headers(forge, "ping", "1", body);
        let retired: Vec<_> = retired
            .into_iter()
            .map(|(name, value)| match name == proof {
                true if forge == Forge::GitLab => (name, "retired".to_owned()),
                true => (
                    name,
                    value.replace(&hmac(SECRET.as_bytes(), body), &hmac(b"retired", body)),
                ),
                false => (name, value),
            })
            .collect();
        assert_eq!(post(&server, forge, &retired, &body[..]).await.status, 202);
    }
    let sha1 = [
        ("X-Hub-Signature", "sha1=aa".to_owned()),
        ("X-GitHub-Event", "ping".to_owned()),
    ];
    let reply = post(&server, Forge::GitHub, &sha1, "{}").await;
    reply.error(401, "SIGNATURE_INVALID");
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_configured_has_no_route() {
    let setup = Setup {
        webhooks: vec![options(Forge::GitLab)],
        ..Setup::default()
    };
    let server = TestServer::start_with(setup).await;
    for forge in Forge::ALL {
        let status = send(&server, forge, "push", "1", json!({})).await.status;
        let expected = if forge == Forge::GitLab { 202 } else { 404 };
        assert_eq!(status, expected, "{forge:?}");
    }
    let get = server.http.get(server.url("/webhooks/gitlab"));
    assert_eq!(get.ask().await.unwrap().status(), 405);
    server.stop().await;
}

#[tokio::test]
async fn another_forges_delivery_is_refused_by_the_name_of_its_header() {
    let server = TestServer::start_with(all()).await;
    for forge in Forge::ALL {
        let body = b"{}";
        let own = headers(forge, "push", "1", body);
        let named = |name: &str| name.to_ascii_lowercase().contains("-event");
        let without: Vec<_> = own
            .iter()
            .filter(|(name, _)| !named(name))
            .cloned()
            .collect();
        let reply = post(&server, forge, &without, &body[..]).await;
        let error = reply.error(400, "SCHEMA_ERROR");
        let (header, _) = own.iter().find(|(name, _)| named(name)).unwrap();
        assert!(error["error"].as_str().unwrap().contains(header), "{error}");
        for other in Forge::ALL.into_iter().filter(|other| *other != forge) {
            let mut mixed = without.clone();
            mixed.extend(
                headers(other, "push", "1", body)
                    .into_iter()
                    .filter(|(name, _)| named(name)),
            );
            let reply = post(&server, forge, &mixed, &body[..]).await;
            // A delivery of Gitea's has GitHub's header, too.
            if forge == Forge::GitHub || other != Forge::Gitea {
                let error = reply.error(400, "SCHEMA_ERROR");
                let place = format!("/webhooks/{}", other.name());
                assert!(
                    error["error"].as_str().unwrap().contains(&place),
                    "{forge:?} {error}"
                );
            }
        }
    }
    server.stop().await;
}

/// Bitbucket Data Center sends it when its settings are tried.
#[tokio::test]
async fn a_test_delivery_without_a_body_is_accepted() {
    let server = TestServer::start_with(all()).await;
    let headers = headers(Forge::Bitbucket, "diagnostics:ping", "1", b"");
    let reply = post(&server, Forge::Bitbucket, &headers, Vec::new()).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    let state = state(&server, "webhook:bitbucket", |state| state.events >= 1).await;
    assert_eq!((state.malformed, state.unknown, state.error), (0, 0, None));
    server.stop().await;
}

#[tokio::test]
async fn odd_bodies_are_4xx_in_words() {
    let server = TestServer::start_with(all()).await;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 10] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"7",
        b"\"push\"",
        b"{",
        b"{}{}",
        b"{\"ref\":\"x}",
        deep.as_bytes(),
    ];
    for forge in Forge::ALL {
        for body in bodies {
            let headers = headers(forge, "push", "1", body);
            let reply = post(&server, forge, &headers, body.to_vec()).await;
            let error = reply.error(400, "BODY_PARSING_ERROR");
            let words = error["error"].as_str().unwrap();
            assert!(
                words.contains("payload") || words.contains("body"),
                "{words}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn odd_fields_of_a_push_are_counted_and_harmless() {
    let server = TestServer::start_with(all()).await;
    let good = json!({
        "ref": "refs/heads/main", "before": "1".repeat(40), "after": "2".repeat(40),
        "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
    });
    let mut odd = 0;
    for (pointer, value) in [
        ("/ref", json!(null)),
        ("/ref", json!("refs/heads/\u{0}")),
        ("/ref", json!("refs/heads/a b\n")),
        ("/ref", json!("main")),
        ("/ref", json!("refs/heads/".repeat(400))),
        ("/before", json!("zz")),
        ("/after", json!(7)),
        ("/after", json!("a".repeat(63))),
        ("/repository", json!("acme/app")),
        ("/repository/full_name", json!("../../etc")),
        ("/repository/clone_url", json!("file:///etc/passwd")),
        (
            "/repository/clone_url",
            json!("https://u:p@github.com/acme/app.git"),
        ),
        (
            "/repository/clone_url",
            json!("ssh://git@github.com/acme/app.git"),
        ),
    ] {
        let mut payload = good.clone();
        *payload.pointer_mut(pointer).unwrap() = value;
        odd += 1;
        let id = format!("odd-{odd}");
        let reply = send(&server, Forge::GitHub, "push", &id, &payload).await;
        assert_eq!(reply.status, 202, "{payload}: {}", reply.text);
    }
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 0);
    let state = super::effects::state(&server, "webhook:github", |state| state.events >= odd).await;
    assert_eq!((state.malformed, state.items), (odd, 0));
    // A repository is known by its name then.
    for id in [json!(-1), json!(1e300)] {
        let mut payload = good.clone();
        payload["repository"]["id"] = id;
        odd += 1;
        let id = format!("odd-{odd}");
        let reply = send(&server, Forge::GitHub, "push", &id, &payload).await;
        assert_eq!(reply.status, 202, "{payload}: {}", reply.text);
    }
    let state = super::effects::state(&server, "webhook:github", |state| state.events >= odd).await;
    assert_eq!(state.malformed, odd - 2);
    // What could not be used stays known when the next push is good.
    let work = server.store.source_work().await.unwrap();
    let work = work.iter().find(|work| work.source == "webhook:github");
    let (unread, _) = work.unwrap().last_unread.as_ref().unwrap();
    assert!(
        unread.contains("address") || unread.contains("URL"),
        "{unread}"
    );
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 1);
    assert_eq!(state.kind, "webhook");
    server.stop().await;
}

#[tokio::test]
async fn forms_carry_the_payload_in_a_field() {
    let server = TestServer::start_with(all()).await;
    let form = (
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8".to_owned(),
    );
    let payload = json!({"ref": "refs/heads/main", "before": "1".repeat(40), "after": "2".repeat(40),
        "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
        "head_commit": {"message": "ä & = +"}});
    let body = reqwest::Url::parse_with_params("http://x", [("payload", payload.to_string())]);
    let body = body.unwrap().query().unwrap().to_owned();
    let mut github = headers(Forge::GitHub, "push", "1", body.as_bytes());
    github.push(form.clone());
    let reply = post(&server, Forge::GitHub, &github, body.clone()).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 1);
    // Gitea signs what is in the form.
    let mut gitea = headers(Forge::Gitea, "push", "1", payload.to_string().as_bytes());
    gitea.push(form.clone());
    let reply = post(&server, Forge::Gitea, &gitea, body).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    for body in ["", "payload", "payload=%zz", "other={}"] {
        let mut headers = headers(Forge::GitHub, "push", "2", body.as_bytes());
        headers.push(form.clone());
        let reply = post(&server, Forge::GitHub, &headers, body).await;
        reply.error(400, "BODY_PARSING_ERROR");
    }
    server.stop().await;
}

#[tokio::test]
async fn more_than_25_mib_is_413() {
    let server = TestServer::start_with(all()).await;
    let body = format!("{{\"x\":\"{}\"}}", " ".repeat(25 << 20));
    let reply = send(&server, Forge::GitHub, "push", "1", &body).await;
    reply.error(413, "PAYLOAD_TOO_LARGE");
    let body = format!("{{\"x\":\"{}\"}}", " ".repeat((25 << 20) - 8));
    let reply = send(&server, Forge::GitHub, "push", "1", &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    server.stop().await;
}
