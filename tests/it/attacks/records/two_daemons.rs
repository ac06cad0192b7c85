//! Two real daemons on one PostgreSQL, and more senders than either can serve at once.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use reqwest::{Client, RequestBuilder};
use rescind::forge::Forge;
use rescind::keyformat::KeyValue;
use serde_json::{Value, json};

use super::locks::part;
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;
use crate::support::world::{Daemon, Home, World};
use crate::webhooks::sender::{SECRET, headers};

const KEYS: usize = 1_200;
const REPORTS: usize = 900;
/// Requests in flight at a time.
const SENDERS: usize = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn two_daemons_take_everything_at_once_and_miss_nothing() {
    let world = World::new().await;
    let database = TestDatabase::new(Kind::Postgres).await;
    let homes = [home(&world, &database), home(&world, &database)];
    let first = homes[0].serve();
    let token = first
        .token
        .clone()
        .expect("the admin token of a first start");
    // Only a first start tells a token; the other one need not be waited for.
    std::fs::write(
        homes[1].folder.path().join("serve.log"),
        "not the first start\n",
    )
    .unwrap();
    let daemons = [first, homes[1].serve()];
    let client = crate::api::harness::http_client();
    let minting = (0..KEYS).map(|n| mint(&client, &daemons[n % 2], &token));
    let values: Vec<KeyValue> = stream::iter(minting)
        .buffer_unordered(SENDERS)
        .collect()
        .await;
    let values = Arc::new(values);

    for push in 0..20 {
        let files: Vec<_> = part(&values, push).into_iter().enumerate().collect();
        let names: Vec<String> = files
            .iter()
            .map(|(n, _)| format!("{push}/{n}.env"))
            .collect();
        let files = names.iter().zip(&files);
        let files: Vec<_> = files
            .map(|(name, (_, value))| (name.as_str(), value.expose().as_bytes().to_vec()))
            .collect();
        world.push(&files, "Leak");
    }
    let sent = (0..REPORTS).map(|round| {
        let request = request(&client, &world, &daemons[round % 2], &values, round);
        async move { (round, request.ask().await.unwrap().status().as_u16()) }
    });
    let statuses: Vec<_> = stream::iter(sent).buffer_unordered(SENDERS).collect().await;
    let refused: Vec<_> = statuses
        .into_iter()
        .filter(|(_, status)| ![200, 202].contains(status))
        .collect();
    assert!(refused.is_empty(), "of {REPORTS} requests: {refused:?}");

    let revoked = "SELECT COUNT(*) FROM keys WHERE revoked_at IS NOT NULL";
    assert_eq!(
        database.count(revoked).await,
        i64::try_from(KEYS).unwrap(),
        "what was accepted was done"
    );
    let waiting = "SELECT COUNT(*) FROM work_items WHERE state = 'waiting'";
    eventually("no item waits", async || database.count(waiting).await == 0).await;
    for daemon in daemons {
        assert!(daemon.stop().success(), "the daemon ends well");
    }
    let doubled = "SELECT COUNT(*) FROM (SELECT key_id FROM revocation_log GROUP BY key_id
        HAVING COUNT(*) > 1) AS doubled";
    assert_eq!(database.count(doubled).await, 0);
    assert_eq!(
        database.count("SELECT COUNT(*) FROM revocation_log").await,
        i64::try_from(KEYS).unwrap()
    );
    assert_eq!(
        database
            .count("SELECT COUNT(*) FROM work_items WHERE state = 'dead'")
            .await,
        0
    );
    let verified = homes[0].rescind(&["log", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    database.remove().await;
}

fn home(world: &World, database: &TestDatabase) -> Home {
    let hooks =
        Forge::ALL.map(|forge| format!("[webhooks.{}]\nsecrets = [\"{SECRET}\"]", forge.name()));
    let hooks = hooks.join("\n");
    Home::new(|_| format!("{}\n{hooks}", world.config(&database.url)))
}

async fn mint(client: &Client, daemon: &Daemon, token: &str) -> KeyValue {
    let body = json!({ "user_id": "u", "description": "fresh", "expires_at_millis": null });
    let url = format!("{}/api/v1/user-api-keys", daemon.url);
    let request = client.post(url).bearer_auth(token).json(&body);
    let answer: Value = request.ask().await.unwrap().json().await.unwrap();
    KeyValue::new(answer["value"].as_str().expect("a value"))
}

/// A signed report or a signed delivery, with another part of the keys each.
fn request(
    client: &Client,
    world: &World,
    daemon: &Daemon,
    values: &[KeyValue],
    round: usize,
) -> RequestBuilder {
    let part = part(values, round);
    if round.is_multiple_of(3) {
        let rows: Vec<Value> = part
            .iter()
            .map(|value| json!({ "token": value.expose(), "type": "rescind_secret", "url": "", "source": "commit" }))
            .collect();
        let body = serde_json::to_vec(&rows).unwrap();
        return client
            .post(format!("{}/webhooks/github/secret-scanning", daemon.url))
            .header("github-public-key-identifier", world.partner.identifier())
            .header("github-public-key-signature", world.partner.sign(&body))
            .body(body);
    }
    let forge = Forge::ALL[round % Forge::ALL.len()];
    let texts: Vec<&str> = part.iter().map(KeyValue::expose).collect();
    let body = json!({ "comment": { "body": texts.join("\n") } }).to_string();
    let mut request = client
        .post(format!("{}/webhooks/{}", daemon.url, forge.name()))
        .header("content-type", "application/json");
    let id = format!("delivery-{round}");
    for (name, value) in headers(forge, "issue_comment", &id, body.as_bytes()) {
        request = request.header(name, value);
    }
    request.body(body)
}
