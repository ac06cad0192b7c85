//! Keys and access tokens under a pepper that a process lacks, which has not found them.

use rescind::store::Role;
use serde_json::json;

use super::harness::{Reply, Setup, TestServer};
use crate::support::databases::on_both_databases;

const USER: &str = "/api/v1/user-api-keys";
const TEAM: &str = "/api/v1/team-api-keys";
const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";
const IMPORT: &str = "/api/v1/keys/import";

#[track_caller]
fn come_again(reply: &Reply) {
    let body = reply.error(503, "SERVICE_UNAVAILABLE");
    let text = body["error"].as_str().unwrap();
    assert!(text.contains("keys.peppers"), "{text}");
    assert_eq!(reply.header("retry-after"), Some("2"));
}

on_both_databases! {
    /// Who checks a key would turn a customer away, and who reports one would think that it is nobody's.
    async fn what_may_stand_under_a_pepper_that_is_lacking_is_not_unknown(database) {
        let other = database.store_with(&["the pepper of another process"]).await;
        let other = TestServer::over(other, Setup::default()).await;
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let mine = admin.create(json!({})).await;
        let check = async |path: &str, key: &serde_json::Value| {
            admin.post(&format!("{path}/check"), json!({"api_key": key})).await
        };
        let unknown = json!(server.mint().expose());
        check(USER, &unknown).await.error(404, "API_KEY_NOT_FOUND");
        server.with_token("no token").get("/api/v1/formats").await.error(401, "ACCESS_TOKEN_INVALID");

        let token = other.token(Role::Admin).await;
        let others = other.with_token(&*token).create(json!({})).await;
        for path in [USER, TEAM] {
            for key in [&others["value"], &unknown] {
                come_again(&check(path, key).await);
            }
        }
        come_again(&server.with_token(&*token).get("/api/v1/formats").await);
        come_again(&server.with_token("no token").get("/api/v1/formats").await);
        for key in [&others["value"], &json!(token), &unknown] {
            come_again(&server.anonymous().post(REVOKE, json!({"api_key": key})).await);
        }
        // A key that is another project's, too, may be this one's.
        let second = server.with_token(server.token_in(Role::Admin, "second").await);
        let path = format!("{USER}/check");
        come_again(&second.post(&path, json!({"api_key": mine["value"]})).await);
        // It may be there already.
        let row = json!({"sha256": "0".repeat(64), "owner_type": "user", "owner_id": "u"});
        let import = admin.request("POST", IMPORT).header("content-type", "application/x-ndjson");
        come_again(&Reply::of(import.body(row.to_string())).await);
        assert_eq!(database.count("SELECT COUNT(*) FROM keys").await, 2);

        // What is found is what it is.
        assert_eq!(check(USER, &mine["value"]).await.status, 200);
        let reported = server.anonymous().post(REVOKE, json!({"api_key": mine["value"]})).await;
        assert_eq!(reported.status, 200, "{}", reported.text);
        check(USER, &mine["value"]).await.error(401, "API_KEY_REVOKED");

        database.run("DELETE FROM peppers").await.unwrap();
        check(USER, &unknown).await.error(404, "API_KEY_NOT_FOUND");
        server.anonymous().post(REVOKE, json!({"api_key": unknown})).await.error(404, "API_KEY_NOT_FOUND");
        server.stop().await;
        other.stop().await;
    }
}
