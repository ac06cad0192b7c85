//! Effects of a genuine report, row by row.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::keyformat::Sha256Digest;
use serde_json::{Value, json};

use tokio::io::AsyncWriteExt as _;

use super::signer::{ENDPOINT, IDENTIFIER, Origin, SIGNATURE, Signer, partnership, send};
use crate::api::harness::{TestServer, millis};
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;

fn labels(reply: &crate::api::harness::Reply) -> Vec<String> {
    let rows = reply.json();
    rows.as_array()
        .unwrap_or_else(|| panic!("{}", reply.text))
        .iter()
        .map(|row| row["label"].as_str().unwrap().to_owned())
        .collect()
}

const TRUE: &str = "true_positive";
const FALSE: &str = "false_positive";

on_both_databases! {
    /// The keys of ours in a report are revoked, whatever the sender calls them; every row is answered.
    async fn ours_are_revoked_and_every_row_answered(database) {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let server = TestServer::on(database, origin.setup()).await;
        let admin = server.admin().await;
        let secret = admin.create(json!({})).await;
        let public = admin.create(json!({"is_public": true})).await;
        let expired = admin.create(json!({"expires_at_millis": millis(server.clock.now()) - 1})).await;
        let revoked = admin.create(json!({})).await;
        let path = format!("/api/v1/user-api-keys/{}", revoked["id"].as_str().unwrap());
        admin.patch(&path, json!({"revoked": true})).await;
        let rotated = admin.create(json!({})).await;
        let path = format!("/api/v1/user-api-keys/{}/rotate", rotated["id"].as_str().unwrap());
        admin.post(&path, json!({"overlap_seconds": 0})).await;
        let stranger = server.mint();
        let url = "https://github.com/octocat/Hello-World/blob/12345600b9cbe38a219f39a9941c9319b600c002/foo/bar.txt";
        let body = json!([
            {"token": secret["value"], "type": "SWAPPED_public_Type", "url": url, "source": "Pull_Request_Comment"},
            {"token": public["value"], "type": "rescind_secret", "url": "", "source": "content"},
            {"token": expired["value"], "type": "", "url": null},
            {"token": revoked["value"], "type": "x"},
            {"token": rotated["value"]},
            {"token": stranger.expose(), "type": "rescind_secret", "url": url, "source": "commit"},
            {"token": secret["value"], "type": "again", "url": url, "source": "Pull_Request_Comment"},
        ]);
        let reply = signer.send(&server, body.to_string()).await;
        assert_eq!(labels(&reply), [TRUE, FALSE, TRUE, TRUE, TRUE, FALSE, TRUE], "{}", reply.text);
        let rows = reply.json();
        for (row, sent) in rows.as_array().unwrap().iter().zip(body.as_array().unwrap()) {
            let hash = Sha256Digest::of(sent["token"].as_str().unwrap().as_bytes()).to_hex();
            assert_eq!(row["token_hash"], hash);
            let kind = sent["type"].as_str().filter(|kind| !kind.is_empty()).unwrap_or("unknown");
            assert_eq!(row["token_type"], kind);
            assert_eq!(row.as_object().unwrap().len(), 3);
        }
        let log = admin.get("/api/v1/revocations?reason=leaked").await.json();
        let entries = log["items"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{log}");
        assert_eq!(entries[0]["key_id"], secret["id"]);
        assert_eq!(entries[0]["actor"], "partner:github");
        let expected = json!({
            "source": "partner:github:pull_request_comment", "url": url,
            "repository": "octocat/Hello-World", "commit": "12345600b9cbe38a219f39a9941c9319b600c002",
            "path": "foo/bar.txt",
        });
        assert_eq!(entries[0]["occurrence"], expected);
        let check = admin.post("/api/v1/user-api-keys/check", json!({"api_key": public["value"]})).await;
        assert_eq!(check.status, 200);

        // The same delivery again: the same answer, and nothing more is done.
        server.clock.advance(SignedDuration::from_secs(60));
        let again = signer.send(&server, body.to_string()).await;
        assert_eq!(labels(&again), [TRUE, FALSE, TRUE, TRUE, TRUE, FALSE, TRUE]);
        let log = admin.get("/api/v1/revocations?reason=leaked").await.json();
        assert_eq!(log["items"].as_array().unwrap().len(), 1);
        server.stop().await;
    }

    /// The same report many times at once: one revocation.
    async fn concurrent_deliveries_are_one_revocation(database) {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let server = TestServer::on(database, origin.setup()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let body = json!([{"token": key["value"], "url": "https://example.com/1"}]).to_string();
        let replies = (0..20).map(|_| signer.send(&server, body.clone()));
        for reply in futures_util::future::join_all(replies).await {
            assert_eq!(labels(&reply), [TRUE]);
        }
        assert_eq!(server.store.log_head().await.unwrap().seq, 1);
        let incidents = admin.get("/api/v1/incidents").await.json();
        assert_eq!(incidents["items"][0]["sighting_count"], 20);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_malformed_row_never_fails_its_batch() {
    let (server, _origin, signer) = partnership().await;
    let key = server.admin().await.create(json!({})).await;
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let rows = [
        "null".to_owned(),
        "7".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"type":"named"}"#.to_owned(),
        r#"{"token":5,"type":"named"}"#.to_owned(),
        r#"{"token":"\ud800"}"#.to_owned(),
        format!(r#"{{"token":"x","url":{deep}}}"#),
        format!(
            r#"{{"token":{},"type":5,"url":[],"source":{{}}}}"#,
            key["value"]
        ),
    ];
    let reply = signer.send(&server, format!("[{}]", rows.join(","))).await;
    let mut expected = vec![FALSE; 8];
    expected.push(TRUE);
    assert_eq!(labels(&reply), expected);
    let answered = reply.json();
    let empty = Sha256Digest::of(b"").to_hex();
    for (at, row) in answered.as_array().unwrap().iter().take(8).enumerate() {
        // A URL that cannot be read decides nothing.
        let hash = if at == 7 {
            Sha256Digest::of(b"x").to_hex()
        } else {
            empty.clone()
        };
        assert_eq!(row["token_hash"], hash, "row {at}");
        let kind = if [4, 5].contains(&at) {
            "named"
        } else {
            "unknown"
        };
        assert_eq!(row["token_type"], kind, "row {at}");
    }
    assert_eq!(answered[8]["token_type"], "unknown");
    // Bytes that are no UTF-8 stay in their row, too.
    let other = server.admin().await.create(json!({})).await;
    let mut body = b"[{\"token\":\"\xff\"},{\"token\":".to_vec();
    body.extend_from_slice(other["value"].to_string().as_bytes());
    body.extend_from_slice(b"}]");
    assert_eq!(labels(&signer.send(&server, body).await), [FALSE, TRUE]);
}

#[tokio::test]
async fn what_is_no_report_is_refused_as_a_whole() {
    let (server, _origin, signer) = partnership().await;
    let cases: [&[u8]; 7] = [
        b"",
        b"{}",
        b"null",
        b"[",
        b"[1,]",
        b"\xff\xfe{\0}\0",
        b"[{\"token\":\"rsc_sk_x",
    ];
    for body in cases {
        let reply = signer.send(&server, body).await;
        reply.error(400, "SCHEMA_ERROR");
        assert!(!reply.text.contains("rsc_sk_"), "{}", reply.text);
    }
    let long = format!("[{}]", vec!["0"; rescind::intake::MAX_ROWS + 1].join(","));
    signer
        .send(&server, long)
        .await
        .error(413, "PAYLOAD_TOO_LARGE");
    let deep = "[".repeat(1_000_000);
    signer.send(&server, deep).await.error(400, "SCHEMA_ERROR");
}

#[tokio::test]
async fn more_than_25_mib_is_a_413_before_any_verification() {
    let (server, origin, signer) = partnership().await;
    let largest = 25 << 20;
    let body = |size: usize| {
        let mut body = vec![b' '; size];
        body[0] = b'[';
        body[size - 1] = b']';
        body
    };
    let too_large = body(largest + 1);
    send(&server, Some("k1"), Some("x"), too_large.clone())
        .await
        .error(413, "PAYLOAD_TOO_LARGE");
    let chunks: Vec<_> = too_large
        .chunks(1 << 16)
        .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
        .collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    // Whatever looks as if it might be genuine is read up to there.
    let signature = signer.sign(b"something else");
    send(&server, Some("k1"), Some(&signature), stream)
        .await
        .error(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(origin.fetches().await, 0);
    let reply = signer.send(&server, body(largest)).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, "[]"));
}

#[tokio::test]
async fn keys_with_a_foreign_format_are_found_by_their_digest() {
    let (server, _origin, signer) = partnership().await;
    let admin = server.admin().await;
    let csv = format!(
        "sha256,owner_type,owner_id\n{},user,u\n",
        Sha256Digest::of(b"acme-foreign-key").to_hex()
    );
    let import = admin
        .request("POST", "/api/v1/keys/import")
        .header("content-type", "text/csv")
        .body(csv);
    assert_eq!(import.ask().await.unwrap().status(), 200);
    let body =
        json!([{"token": "acme-foreign-key", "url": "https://x.example/?k=acme-foreign-key"}]);
    assert_eq!(
        labels(&signer.send(&server, body.to_string()).await),
        [TRUE]
    );
    let log = admin.get("/api/v1/revocations").await;
    assert!(!log.text.contains("acme-foreign-key"), "{}", log.text);
    assert_eq!(
        log.json()["items"][0]["occurrence"]["url"],
        "https://x.example/?k=…"
    );
}

#[tokio::test]
async fn ten_thousand_rows_are_one_batch() {
    let (server, _origin, signer) = partnership().await;
    let admin = server.admin().await;
    let mut rows: Vec<Value> = (0..9_990).map(|n| json!({"token": format!("nobody's {n}"), "type": "t", "url": "", "source": "commit"})).collect();
    for n in 0..10 {
        let key = admin.create(json!({})).await;
        rows.insert(n * 1000, json!({"token": key["value"], "type": "t", "url": "https://example.com", "source": "commit"}));
    }
    let reply = signer.send(&server, Value::from(rows).to_string()).await;
    let labels = labels(&reply);
    assert_eq!(labels.len(), 10_000);
    let ours: Vec<_> = labels
        .iter()
        .enumerate()
        .filter(|(_, label)| *label == TRUE)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(ours, (0..10).map(|n| n * 1000).collect::<Vec<_>>());
    assert_eq!(server.store.log_head().await.unwrap().seq, 10);
}

#[tokio::test]
async fn a_database_that_is_down_is_a_503_and_nothing_is_lost() {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    let database =
        crate::support::databases::TestDatabase::new(crate::support::databases::Kind::Sqlite).await;
    let server = TestServer::on(&database, origin.setup()).await;
    let key = server.admin().await.create(json!({})).await;
    let body = json!([{"token": key["value"]}]).to_string();
    server.store.close().await;
    let reply = signer.send(&server, body.clone()).await;
    reply.error(503, "SERVICE_UNAVAILABLE");
    assert!(reply.header("retry-after").is_some());
    let server = TestServer::on(&database, origin.setup()).await;
    assert_eq!(server.store.log_head().await.unwrap().seq, 0);
    assert_eq!(labels(&signer.send(&server, body).await), [TRUE]);
    assert_eq!(server.store.log_head().await.unwrap().seq, 1);
}

/// A sender that hangs up before it was answered has reported all the same.
#[tokio::test]
async fn a_sender_without_patience_prevents_nothing() {
    let (server, origin, signer) = partnership().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let body = json!([{"token": key["value"]}]).to_string();
    let list = json!({"public_keys": [signer.listed()]});
    let slow = wiremock::ResponseTemplate::new(200).set_body_json(list);
    origin.answer_with(slow.set_delay(std::time::Duration::from_millis(300)));
    let request = format!(
        "POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\n{IDENTIFIER}: k1\r\n{SIGNATURE}: {}\r\ncontent-length: {}\r\n\r\n{body}",
        signer.sign(body.as_bytes()),
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    // Once the keys are being fetched, the report is being worked on.
    eventually("the keys are fetched", async || origin.fetches().await > 0).await;
    drop(stream);
    let check = json!({"api_key": key["value"]});
    eventually("the key is revoked", async || {
        let answer = admin.post("/api/v1/user-api-keys/check", check.clone());
        answer.await.status != 200
    })
    .await;
    server.stop().await;
}
