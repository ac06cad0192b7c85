//! Access tokens of Rescind itself leak, too.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::store::Role;
use serde_json::{Value, json};

use super::signer::{Origin, Signer};
use crate::api::harness::{Setup, TestServer};
use crate::support::databases::on_both_databases;
use crate::support::http::Ask as _;

const SELF_REPORT: &str = "/api/v1/integrations/credential-scanning/revoke";

async fn status_with(server: &TestServer, token: &str) -> u16 {
    let client = server.with_token(token);
    client.get("/api/v1/formats").await.status
}

on_both_databases! {
    async fn a_reported_access_token_is_revoked_with_the_keys(database) {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let server = TestServer::on(database, origin.setup()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let (leaked, other) = (server.token(Role::Issuer).await, server.token(Role::Issuer).await);
        let end = server.clock.now() + SignedDuration::from_secs(1);
        let expired = server.token_until(Role::Viewer, "default", Some(end)).await;
        server.clock.advance(SignedDuration::from_secs(1));
        assert_eq!(status_with(&server, &leaked).await, 200);
        let url = format!("https://paste.example/{leaked}");
        let body = json!([
            {"token": leaked, "type": "rescind_secret", "url": url},
            {"token": key["value"]}, {"token": expired}, {"token": leaked}, {"token": "x"},
        ]).to_string();
        for _ in 0..2 {
            let replies = (0..5).map(|_| signer.send(&server, body.clone()));
            for reply in futures_util::future::join_all(replies).await {
                let answer = reply.json();
                let labels: Vec<&Value> = answer.as_array().unwrap().iter().map(|row| &row["label"]).collect();
                let (yes, no) = ("true_positive", "false_positive");
                assert_eq!(labels, [yes, yes, yes, yes, no], "{}", reply.text);
            }
        }
        assert_eq!(status_with(&server, &leaked).await, 401);
        assert_eq!(status_with(&server, &other).await, 200);
        // The chain is about keys.
        assert_eq!(server.store.log_head().await.unwrap().seq, 1);
        let digest = rescind::keyformat::Sha256Digest::of(leaked.as_bytes());
        let token = server.store.find_token(&digest).await.unwrap().unwrap();
        assert_eq!(token.revoked_at, Some(server.clock.now()));
        server.stop().await;
    }

    async fn a_presented_access_token_is_revoked(database) {
        let setup = Setup { revocation_tokens: vec!["s"], ..Setup::default() };
        let server = TestServer::on(database, setup).await;
        let stranger = server.anonymous();
        let leaked = server.token(Role::Admin).await;
        for _ in 0..2 {
            let reply = stranger.post(SELF_REPORT, json!({"api_key": leaked})).await;
            assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
            assert_eq!(status_with(&server, &leaked).await, 401);
        }
        let end = server.clock.now() + SignedDuration::from_secs(1);
        let expired = server.token_until(Role::Viewer, "default", Some(end)).await;
        server.clock.advance(SignedDuration::from_secs(1));
        let reply = stranger.post(SELF_REPORT, json!({"api_key": expired})).await;
        reply.error(401, "API_KEY_EXPIRED");

        let found = server.token(Role::Operator).await;
        let request = server.http.post(server.url("/v1/revoke_tokens")).header("authorization", "s");
        let body = json!([{"type": "aws", "token": found, "location": "https://gitlab.example/a"}]);
        assert_eq!(request.json(&body).ask().await.unwrap().status(), 204);
        assert_eq!(status_with(&server, &found).await, 401);
        assert_eq!(server.store.log_head().await.unwrap().seq, 0);
        server.stop().await;
    }
}

/// With the database gone nothing is half-done: the same report works when it is back.
#[tokio::test]
async fn a_report_that_fails_revokes_no_token() {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    let kind = crate::support::databases::Kind::Sqlite;
    let database = crate::support::databases::TestDatabase::new(kind).await;
    let server = TestServer::on(&database, origin.setup()).await;
    let leaked = server.token(Role::Issuer).await;
    let body = json!([{"token": leaked}]).to_string();
    server.store.close().await;
    signer
        .send(&server, body.clone())
        .await
        .error(503, "SERVICE_UNAVAILABLE");
    let server = TestServer::on(&database, origin.setup()).await;
    assert_eq!(status_with(&server, &leaked).await, 200);
    let reply = signer.send(&server, body).await;
    assert_eq!(reply.json()[0]["label"], "true_positive");
    assert_eq!(status_with(&server, &leaked).await, 401);
}
