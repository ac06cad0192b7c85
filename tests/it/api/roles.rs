//! Permissions of each role.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::server::Permission;
use rescind::store::Role;
use serde_json::{Value, json};

use super::harness::{Reply, TestServer};

/// Every endpoint that needs a token, and what it takes to use it.
pub(crate) fn endpoints(id: &str) -> Vec<(&'static str, String, Option<Value>, Permission)> {
    use Permission::{
        CheckKeys, ReadFormats, ReadIncidents, ReadKeys, ReadLog, ReadSources, ReadStats,
        RequeueWork, RevokeKeys, WriteKeys,
    };
    let mut all = Vec::new();
    for kind in ["user", "team"] {
        let path = format!("/api/v1/{kind}-api-keys");
        let owner = format!("{kind}_id");
        let new = json!({owner.as_str(): "o", "description": "d", "expires_at_millis": null});
        all.extend([
            ("POST", path.clone(), Some(new), WriteKeys),
            ("GET", format!("{path}?{owner}=o"), None, ReadKeys),
            ("GET", format!("{path}/{id}"), None, ReadKeys),
            (
                "POST",
                format!("{path}/check"),
                Some(json!({"api_key": "x"})),
                CheckKeys,
            ),
            (
                "PATCH",
                format!("{path}/{id}"),
                Some(json!({"description": "d"})),
                WriteKeys,
            ),
            (
                "PATCH",
                format!("{path}/{id}"),
                Some(json!({"revoked": true})),
                RevokeKeys,
            ),
            (
                "POST",
                format!("{path}/{id}/rotate"),
                Some(json!({"overlap_seconds": 0})),
                WriteKeys,
            ),
        ]);
    }
    all.extend([
        ("GET", "/api/v1/incidents".to_owned(), None, ReadIncidents),
        (
            "GET",
            format!("/api/v1/incidents/{id}"),
            None,
            ReadIncidents,
        ),
        ("GET", "/api/v1/revocations".to_owned(), None, ReadLog),
        (
            "GET",
            "/api/v1/revocations/verify".to_owned(),
            None,
            ReadLog,
        ),
        (
            "GET",
            "/api/v1/revocations/export".to_owned(),
            None,
            ReadLog,
        ),
        ("GET", "/api/v1/formats".to_owned(), None, ReadFormats),
        ("GET", "/api/v1/stats".to_owned(), None, ReadStats),
        ("GET", "/api/v1/sources".to_owned(), None, ReadSources),
        (
            "GET",
            "/api/v1/sources/nobody/dead-letters".to_owned(),
            None,
            ReadSources,
        ),
        (
            "POST",
            "/api/v1/sources/nobody/dead-letters/requeue".to_owned(),
            Some(json!({})),
            RequeueWork,
        ),
    ]);
    all
}

async fn send(
    server: &TestServer,
    token: Option<&str>,
    endpoint: &(&str, String, Option<Value>, Permission),
) -> Reply {
    let (method, path, body, _) = endpoint;
    let client = match token {
        Some(token) => server.with_token(token),
        None => server.anonymous(),
    };
    let request = client.request(method, path);
    Reply::of(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn every_role_may_do_what_the_table_says() {
    let server = TestServer::start().await;
    let nothing = uuid::Uuid::now_v7().to_string();
    for role in Role::ALL {
        let token = server.token(role).await;
        for endpoint in endpoints(&nothing) {
            let reply = send(&server, Some(&token), &endpoint).await;
            let what = format!(
                "{} {} {}: {}",
                role.name(),
                endpoint.0,
                endpoint.1,
                reply.text
            );
            if endpoint.3.roles().contains(&role) {
                assert!(reply.status == 200 || reply.status == 404, "{what}");
            } else {
                let error = reply.error(403, "INSUFFICIENT_ROLE");
                assert_eq!(error["details"]["role"], role.name(), "{what}");
            }
        }
        let import = server
            .with_token(&token)
            .request("POST", "/api/v1/keys/import")
            .header("content-type", "text/csv")
            .body("sha256,owner_type,owner_id\n");
        let imported = Reply::of(import).await.status == 200;
        assert_eq!(imported, Permission::ImportKeys.roles().contains(&role));
    }
}

#[tokio::test]
async fn an_operator_may_revoke_but_not_rewrite() {
    let server = TestServer::start().await;
    let key = server.admin().await.create(json!({})).await;
    let path = format!("/api/v1/user-api-keys/{}", key["id"].as_str().unwrap());
    let operator = server.client(Role::Operator).await;
    let both = json!({"revoked": true, "description": "gone"});
    operator
        .patch(&path, both)
        .await
        .error(403, "INSUFFICIENT_ROLE");
    assert!(
        operator
            .get(&path)
            .await
            .json()
            .get("manually_revoked_at_millis")
            .is_none()
    );
    assert_eq!(
        operator.patch(&path, json!({"revoked": true})).await.status,
        200
    );
    let log = operator.get("/api/v1/revocations").await.json();
    assert_eq!(log["items"][0]["reason"], "manual");
    assert!(
        log["items"][0]["actor"]
            .as_str()
            .unwrap()
            .starts_with("token:")
    );
}

#[tokio::test]
async fn nothing_is_done_without_a_valid_token() {
    let server = TestServer::start().await;
    let nothing = uuid::Uuid::now_v7().to_string();
    let end = server.clock.now() + SignedDuration::from_secs(60);
    let expired = server.token_until(Role::Admin, "default", Some(end)).await;
    server.clock.advance(SignedDuration::from_secs(60));
    let revoked = server.token(Role::Admin).await;
    let page = rescind::store::PageRequest::first();
    let id = server.store.list_tokens(None, &page).await.unwrap().items[0].id;
    let mut tx = server.store.begin().await.unwrap();
    tx.revoke_token(id, server.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    for endpoint in endpoints(&nothing) {
        let reply = send(&server, None, &endpoint).await;
        reply.error(401, "ACCESS_TOKEN_REQUIRED");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        for token in [
            expired.as_str(),
            &revoked,
            "nonsense",
            server.mint().expose(),
        ] {
            let reply = send(&server, Some(token), &endpoint).await;
            reply.error(401, "ACCESS_TOKEN_INVALID");
            assert!(!reply.text.contains(token));
        }
    }
}

#[tokio::test]
async fn a_token_is_taken_from_any_of_three_headers() {
    let server = TestServer::start().await;
    let token = server.token(Role::Viewer).await;
    let url = server.url("/api/v1/formats");
    let status = async |headers: &[(&str, &str)]| {
        let mut request = server.http.get(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request).await.status
    };
    assert_eq!(
        status(&[("authorization", &format!("Bearer {token}"))]).await,
        200
    );
    assert_eq!(
        status(&[("authorization", &format!("bearer  {token} "))]).await,
        200
    );
    assert_eq!(status(&[("x-stack-secret-server-key", &token)]).await, 200);
    assert_eq!(
        status(&[("x-hexclave-secret-server-key", &token)]).await,
        200
    );
    assert_eq!(
        status(&[
            ("authorization", "Basic eDp5"),
            ("x-stack-secret-server-key", &token)
        ])
        .await,
        200
    );
    assert_eq!(status(&[("authorization", "Bearer")]).await, 401);
    assert_eq!(status(&[("authorization", "Bearer ")]).await, 401);
    assert_eq!(status(&[("authorization", &token)]).await, 401);
    assert_eq!(
        status(&[("x-stack-secret-server-key", &"x".repeat(2000))]).await,
        401
    );
}
