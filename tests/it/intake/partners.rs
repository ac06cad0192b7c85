//! GitLab and deps.dev report as GitHub does, each with headers and keys of its own.

use rescind::intake::PartnerName;
use serde_json::json;

use super::signer::{Origin, Signer};
use crate::api::harness::{Reply, Setup, TestServer};
use crate::support::databases::on_both_databases;

/// The path of a partner's endpoint, and what the names of its headers begin with.
fn endpoint(partner: PartnerName) -> (&'static str, &'static str) {
    match partner {
        PartnerName::GitHub => ("/webhooks/github/secret-scanning", "Github"),
        PartnerName::GitLab => ("/webhooks/gitlab/secret-detection", "Gitlab"),
        PartnerName::DepsDev => ("/webhooks/depsdev/secret-scanning", "Gosst"),
    }
}

/// Sends a body to a partner's endpoint, with its headers, signed by anybody.
async fn send(server: &TestServer, to: PartnerName, signer: &Signer, body: &str) -> Reply {
    let (path, prefix) = endpoint(to);
    let signature = signer.sign(body.as_bytes());
    let request = server.http.post(server.url(path)).body(body.to_owned());
    let request = request.header(
        format!("{prefix}-Public-Key-Identifier"),
        &signer.identifier,
    );
    Reply::of(request.header(format!("{prefix}-Public-Key-Signature"), signature)).await
}

on_both_databases! {
    async fn each_partner_reports_in_its_own_name(database) {
        let mut setup = Setup::default();
        let mut origins = Vec::new();
        for name in PartnerName::ALL {
            let signer = Signer::new(&format!("key-of-{}", name.name()));
            let origin = Origin::start(&[signer.listed()]).await;
            if name == PartnerName::GitHub {
                setup.public_keys_url = Some(origin.url());
            } else {
                setup.partners.push((name, origin.url()));
            }
            origins.push((name, signer, origin));
        }
        let server = TestServer::on(database, setup).await;
        let admin = server.admin().await;
        let commit = "12345600b9cbe38a219f39a9941c9319b600c002";
        for (name, signer, _) in &origins {
            let key = admin.create(json!({})).await;
            let url = format!("https://gitlab.example/group/sub/app/-/raw/{commit}/a/b.env");
            let rows = json!([7, {"token": key["value"], "type": "their_word", "url": url}, {"token": "x"}]);
            for _ in 0..2 {
                let reply = send(&server, *name, signer, &rows.to_string()).await;
                assert_eq!(reply.status, 200, "{}", reply.text);
                let answer = reply.json();
                let labels: Vec<_> = answer.as_array().unwrap().iter().map(|row| row["label"].clone()).collect();
                assert_eq!(labels, ["false_positive", "true_positive", "false_positive"]);
                assert_eq!(answer[1]["token_type"], "their_word");
            }
            let log = admin.get("/api/v1/revocations").await.json();
            let entry = &log["items"][0];
            assert_eq!(entry["key_id"], key["id"]);
            assert_eq!(entry["actor"], name.source());
            let place = json!({"source": name.source(), "url": url, "repository": "group/sub/app",
                "commit": commit, "path": "a/b.env"});
            assert_eq!(entry["occurrence"], place);
        }
        let entries = server.store.log_head().await.unwrap().seq;
        assert_eq!(entries, PartnerName::ALL.len() as u64);
        server.stop().await;
    }
}

/// A type is sent back, so it must not hold a key; and an odd character in a row costs no other row.
#[tokio::test]
async fn types_are_sent_back_without_keys_whatever_else_is_in_the_report() {
    let (server, _origin, signer) = super::signer::partnership().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let value = key["value"].as_str().unwrap();
    let hex = hex::encode(value);
    let odd = "{\"token\":\"x\",\"type\":\"t\",\"url\":\"\x01\0\n\\q\\ud800\"}";
    let row = |kind: &str| json!({"token": value, "type": kind}).to_string();
    let rows = [
        row(value),
        row(&format!("their {hex}")),
        odd.to_owned(),
        row(value),
        row("their_word"),
    ];
    let body = format!("\u{feff}[{}]", rows.join(","));
    let reply = send(&server, PartnerName::GitHub, &signer, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(
        !reply.text.contains(value) && !reply.text.contains(&hex),
        "{}",
        reply.text
    );
    let answer = reply.json();
    for (at, label) in [
        (0, "true_positive"),
        (1, "true_positive"),
        (2, "false_positive"),
        (3, "true_positive"),
    ] {
        assert_eq!(answer[at]["label"], label);
    }
    let shown = answer[0]["token_type"].as_str().unwrap();
    assert!(shown.starts_with("rsc_sk_…"), "{shown}");
    assert_eq!(
        (&answer[3]["token_type"], &answer[4]["token_type"]),
        (&json!(shown), &json!("their_word"))
    );
    server.stop().await;
}

#[tokio::test]
async fn one_partners_key_never_verifies_anothers_report() {
    let mut setup = Setup::default();
    let mut origins = Vec::new();
    for name in PartnerName::ALL {
        // Under the same identifier, so that nothing but the key itself tells them apart.
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        if name == PartnerName::GitHub {
            setup.public_keys_url = Some(origin.url());
        } else {
            setup.partners.push((name, origin.url()));
        }
        origins.push((name, signer, origin));
    }
    let server = TestServer::start_with(setup).await;
    for (name, signer, _) in &origins {
        for other in PartnerName::ALL {
            let reply = send(&server, other, signer, "[]").await;
            if other == *name {
                assert_eq!((reply.status, reply.text.as_str()), (200, "[]"));
            } else {
                reply.error(401, "SIGNATURE_INVALID");
            }
        }
    }
    // GitHub's headers are none at GitLab's endpoint.
    let (_, github, _) = &origins[0];
    let request = server
        .http
        .post(server.url("/webhooks/gitlab/secret-detection"));
    let request = request.header("Github-Public-Key-Identifier", "k1");
    let request = request.header("Github-Public-Key-Signature", github.sign(b"[]"));
    let error = Reply::of(request.body("[]"))
        .await
        .error(401, "SIGNATURE_INVALID");
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("Gitlab-Public-Key-Identifier")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_partner_whose_keys_cannot_be_fetched_is_told_to_come_again() {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    origin.answer_with(wiremock::ResponseTemplate::new(500));
    let setup = Setup {
        partners: [PartnerName::GitLab, PartnerName::DepsDev]
            .map(|name| (name, origin.url()))
            .to_vec(),
        ..Setup::default()
    };
    let server = TestServer::start_with(setup).await;
    for partner in [PartnerName::GitLab, PartnerName::DepsDev] {
        let reply = send(&server, partner, &signer, "[]").await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert!(reply.header("retry-after").is_some());
    }
    // GitHub's reports are not taken here.
    assert_eq!(
        send(&server, PartnerName::GitHub, &signer, "[]")
            .await
            .status,
        404
    );
    let large = " ".repeat((25 << 20) + 1);
    send(&server, PartnerName::GitLab, &signer, &large)
        .await
        .error(413, "PAYLOAD_TOO_LARGE");
    server.stop().await;
}

/// The rules of GitHub's keys hold for the others': retired keys count, unknown ones are asked for once.
#[tokio::test]
async fn keys_of_every_partner_are_treated_alike() {
    for name in [PartnerName::GitLab, PartnerName::DepsDev] {
        let (signer, stranger) = (Signer::new("retired"), Signer::new("stranger"));
        let mut listed = signer.listed();
        listed["is_current"] = json!(false);
        let origin = Origin::start(&[listed]).await;
        let setup = Setup {
            partners: vec![(name, origin.url())],
            ..Setup::default()
        };
        let server = TestServer::start_with(setup).await;
        assert_eq!(send(&server, name, &signer, "[]").await.status, 200);
        let replies = (0..20).map(|_| send(&server, name, &stranger, "[]"));
        for reply in futures_util::future::join_all(replies).await {
            reply.error(401, "SIGNATURE_INVALID");
        }
        assert_eq!(origin.fetches().await, 2);
        let rows: Vec<_> = (0..10_000)
            .map(|n| json!({"token": format!("nobody's {n}"), "type": "t", "url": ""}))
            .collect();
        let reply = send(&server, name, &signer, &json!(rows).to_string()).await;
        assert_eq!(reply.json().as_array().unwrap().len(), 10_000);
        server.stop().await;
    }
}
