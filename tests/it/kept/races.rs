//! Everything that can change a key, at the same moment.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use serde_json::{Value, json};

use crate::api::harness::{Client, Reply, Setup, TestServer, millis};
use crate::support::databases::on_both_databases;

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";
const CHECK: &str = "/api/v1/user-api-keys/check";

on_both_databases! {
    /// However rotate, revoke, a report, an un-expiry and a check of one key interleave: it is invalid
    /// afterward for good, nothing is logged twice, and a key that took its place is valid.
    async fn whatever_happens_to_a_key_at_once_it_dies_once(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        for round in 0..24 {
            race(&server, &admin, round).await;
        }
        assert!(server.store.verify_log().await.unwrap().is_ok());
        server.stop().await;
    }
}

async fn race(server: &TestServer, admin: &Client<'_>, round: u64) {
    let end = server.clock.now() + SignedDuration::from_secs(60);
    let key = admin
        .create(json!({ "expires_at_millis": millis(end) }))
        .await;
    let path = format!("/api/v1/user-api-keys/{}", key["id"].as_str().unwrap());
    let value = json!({ "api_key": key["value"] });
    if round % 3 == 2 {
        // Expired before: what would revive it competes with what revokes it.
        server.clock.advance(SignedDuration::from_secs(61));
    }
    let stranger = server.anonymous();
    let rotate = format!("{path}/rotate");
    let overlap = json!({ "overlap_seconds": 60 * (round % 2) });
    let (rotated, revoked, reported, revived, checked) = tokio::join!(
        admin.post(&rotate, overlap),
        admin.patch(&path, json!({ "revoked": true })),
        stranger.post(REVOKE, value.clone()),
        admin.patch(&path, json!({ "expires_at_millis": null })),
        admin.post(CHECK, value.clone()),
    );
    for reply in [&rotated, &revoked, &reported, &revived, &checked] {
        assert!(reply.status < 500, "{}", reply.text);
    }
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    admin
        .patch(&path, json!({ "expires_at_millis": null }))
        .await;
    let after = admin.post(CHECK, value).await;
    after.error(401, "API_KEY_REVOKED");
    assert_logged_once(server, &key).await;
    if rotated.status == 200 {
        assert_valid(admin, &rotated).await;
    }
}

async fn assert_logged_once(server: &TestServer, key: &Value) {
    let id = key["id"].as_str().unwrap().parse().unwrap();
    let entries = server.store.log_of_key(id, 100).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.name()).collect();
    let count = |action: &str| actions.iter().filter(|found| **found == action).count();
    assert!(
        count("revoked") <= 1 && count("rotated") <= 1,
        "{actions:?}"
    );
    assert!(!actions.is_empty());
}

async fn assert_valid(admin: &Client<'_>, rotated: &Reply) {
    let successor = json!({ "api_key": rotated.json()["value"] });
    assert_eq!(admin.post(CHECK, successor).await.status, 200);
}
