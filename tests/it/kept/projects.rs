//! A project's tokens, shown at every endpoint with what belongs to another project.

use rescind::store::Role;
use serde_json::json;

use crate::api::harness::{Reply, TestServer};
use crate::api::roles::endpoints;

/// Strings that no response to another project may contain.
const MARKS: [&str; 3] = ["owner-of-a", "description-of-a", "place-of-a"];

#[tokio::test]
async fn nothing_of_a_project_is_told_to_another() {
    let server = TestServer::start().await;
    let issuer = server.with_token(server.token_in(Role::Issuer, "a").await);
    let key = issuer
        .create(json!({ "user_id": MARKS[0], "description": MARKS[1] }))
        .await;
    let id = key["id"].as_str().unwrap();
    let report = json!({ "api_key": key["value"], "url": format!("https://{}.example", MARKS[2]) });
    let revoke = "/api/v1/integrations/credential-scanning/revoke";
    assert_eq!(server.anonymous().post(revoke, report).await.status, 200);
    let own = server.with_token(server.token_in(Role::Viewer, "a").await);
    let incidents = own.get("/api/v1/incidents").await.json();
    let incident = incidents["items"][0]["id"]
        .as_str()
        .expect("an incident")
        .to_owned();

    let mut calls = 0;
    for role in Role::ALL {
        let stranger = server.with_token(server.token_in(role, "b").await);
        let mut replies = Vec::new();
        for id in [id, incident.as_str()] {
            for (method, path, body, _) in endpoints(id) {
                let request = stranger.request(method, &path);
                let request = match &body {
                    Some(body) => request.json(body),
                    None => request,
                };
                let reply = Reply::of(request).await;
                if path.contains(id) {
                    assert!(
                        matches!(reply.status, 403 | 404),
                        "{method} {path}: {}",
                        reply.text
                    );
                }
                replies.push(reply);
            }
        }
        for path in [
            format!("/api/v1/user-api-keys?user_id={}", MARKS[0]),
            format!("/api/v1/team-api-keys?team_id={}", MARKS[0]),
            format!("/api/v1/incidents?owner={}", MARKS[0]),
            format!("/api/v1/incidents?q={}", MARKS[1]),
        ] {
            let reply = stranger.get(&path).await;
            if reply.status == 200 {
                assert_eq!(reply.json()["items"], json!([]), "{path}");
            }
            replies.push(reply);
        }
        let check = json!({ "api_key": key["value"] });
        let checked = stranger.post("/api/v1/user-api-keys/check", check).await;
        assert!(matches!(checked.status, 403 | 404), "{}", checked.text);
        replies.push(checked);
        for reply in &replies {
            for mark in MARKS {
                assert!(!reply.text.contains(mark), "{mark} in {}", reply.text);
            }
        }
        calls += replies.len();
    }
    assert!(calls >= 40, "{calls} calls");
    let unchanged = own.get(&format!("/api/v1/user-api-keys/{id}")).await.json();
    assert_eq!(unchanged["description"], MARKS[1]);
}
