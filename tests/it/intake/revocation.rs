//! GitLab's token revocation API, as a GitLab instance uses it.

use std::num::NonZeroU32;

use rescind::server::Limits;
use serde_json::{Value, json};

use crate::api::harness::{Reply, Setup, TestServer};

const TOKEN: &str = "MYSECRETTOKEN";

fn setup() -> Setup {
    Setup {
        revocation_tokens: vec!["Bearer retired", TOKEN],
        ..Setup::default()
    }
}

async fn revoke(server: &TestServer, token: &str, body: impl ToString) -> Reply {
    let request = server.http.post(server.url("/v1/revoke_tokens"));
    let request = request
        .header("authorization", token)
        .header("content-type", "application/json");
    Reply::of(request.body(body.to_string())).await
}

async fn types(server: &TestServer, token: &str) -> Reply {
    let request = server.http.get(server.url("/v1/revocable_token_types"));
    Reply::of(request.header("authorization", token)).await
}

#[tokio::test]
async fn tokens_are_revoked_by_what_they_are() {
    let server = TestServer::start_with(setup()).await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let public = admin.create(json!({"is_public": true})).await;
    let location =
        "https://gitlab.example/some/repo/-/blob/12345600b9cbe38a219f39a9941c9319b600c002/a.java";
    let body = json!([
        {"type": "aws_key_id", "token": key["value"], "location": location},
        {"type": "gitleaks_rule_id_rescind_secret", "token": "nobody's", "location": location},
        {"type": "rescind_public", "token": public["value"], "location": location},
        {"token": 7}, null,
    ]);
    for _ in 0..2 {
        let reply = revoke(&server, TOKEN, &body).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    }
    let log = admin.get("/api/v1/revocations").await.json();
    assert_eq!(log["items"].as_array().unwrap().len(), 1, "{log}");
    let entry = &log["items"][0];
    assert_eq!(
        (&entry["key_id"], &entry["actor"]),
        (&key["id"], &json!("partner:gitlab"))
    );
    assert_eq!(entry["occurrence"]["url"], location);
    assert_eq!(entry["occurrence"]["repository"], "some/repo");
    server.stop().await;
}

#[tokio::test]
async fn types_are_those_of_the_secret_formats() {
    let server = TestServer::start_with(setup()).await;
    for token in [
        TOKEN,
        "Bearer MYSECRETTOKEN",
        "bearer MYSECRETTOKEN",
        "Bearer retired",
    ] {
        let reply = types(&server, token).await;
        assert_eq!(reply.status, 200);
        let answer: Value = reply.json();
        let types: Vec<_> = answer["types"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(types.contains(&"rescind_secret"), "{types:?}");
        assert!(
            types.contains(&"gitleaks_rule_id_rescind_secret"),
            "{types:?}"
        );
        assert!(!types.contains(&"rescind_public"), "{types:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn only_the_agreed_token_is_admitted_and_only_lists_are_read() {
    let server = TestServer::start_with(setup()).await;
    for token in [
        "",
        "MYSECRETTOKE",
        "MYSECRETTOKEN1",
        "Basic MYSECRETTOKEN",
        "Bearer  MYSECRETTOKEN",
        "BearerMYSECRETTOKEN",
        "Bearer ",
        "retired",
    ] {
        revoke(&server, token, "[]")
            .await
            .error(401, "AUTHORIZATION_INVALID");
        types(&server, token)
            .await
            .error(401, "AUTHORIZATION_INVALID");
    }
    for body in ["", "{}", "null", "[", "[1,]"] {
        revoke(&server, TOKEN, body)
            .await
            .error(400, "SCHEMA_ERROR");
    }
    revoke(&server, TOKEN, " ".repeat((25 << 20) + 1))
        .await
        .error(413, "PAYLOAD_TOO_LARGE");
    server.stop().await;

    let bare = TestServer::start().await;
    assert_eq!(types(&bare, TOKEN).await.status, 404);
    assert_eq!(revoke(&bare, TOKEN, "[]").await.status, 404);
    bare.stop().await;
}

#[tokio::test]
async fn too_many_requests_are_429() {
    let limits = Limits {
        revocations_per_minute: NonZeroU32::new(3).unwrap(),
        ..Limits::default()
    };
    let server = TestServer::start_with(Setup { limits, ..setup() }).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(revoke(&server, TOKEN, "[]").await.status);
    }
    assert_eq!(statuses, [204, 204, 204, 429, 429]);
    let reply = types(&server, TOKEN).await;
    reply.error(429, "RATE_LIMITED");
    assert!(reply.header("retry-after").is_some());
    let other = revoke(&server, "Bearer retired", "[]").await;
    assert_eq!(other.status, 204, "each token has a share of its own");
    let reply = revoke(&server, "Bearer MYSECRETTOKEN", "[]").await;
    reply.error(429, "RATE_LIMITED");
    // Whoever has no token uses up nobody's share.
    revoke(&server, "x", "[]")
        .await
        .error(401, "AUTHORIZATION_INVALID");
    server.stop().await;
}

#[tokio::test]
async fn a_database_that_is_down_is_a_503_to_be_sent_again() {
    let server = TestServer::start_with(setup()).await;
    let key = server.admin().await.create(json!({})).await;
    server.store.close().await;
    let reply = revoke(&server, TOKEN, json!([{"token": key["value"]}])).await;
    reply.error(503, "SERVICE_UNAVAILABLE");
    assert!(reply.header("retry-after").is_some());
}
