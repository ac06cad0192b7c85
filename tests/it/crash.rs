//! The daemon is killed again and again, at moments nobody chose, while keys leak by push and by report.
//! In the end each leaked key has exactly one revocation, the chain holds, and nothing else was touched.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;
use crate::support::world::{Daemon, Home, World};

/// Number of times the daemon is killed in the tests that always run.
const KILLS: usize = 12;
/// Number of keys that leak between two kills.
const KEYS_PER_ROUND: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_leak_is_revoked_once_whenever_the_daemon_is_killed_on_sqlite() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    survive_kills(&world, &home, KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leak_is_revoked_once_whenever_the_daemon_is_killed_on_postgres() {
    on_postgres(KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test.sh --long"]
async fn every_leak_is_revoked_once_after_150_kills_on_sqlite() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    survive_kills(&world, &home, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test.sh --long"]
async fn every_leak_is_revoked_once_after_120_kills_on_postgres() {
    on_postgres(120).await;
}

async fn on_postgres(kills: usize) {
    let world = World::new().await;
    let database = TestDatabase::new(Kind::Postgres).await;
    let home = Home::new(|_| world.config(&database.url));
    survive_kills(&world, &home, kills).await;
    database.remove().await;
}

pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) value: String,
}

async fn survive_kills(world: &World, home: &Home, kills: usize) {
    let client = rescind::fetch::http_client().expect("an HTTP client");
    let mut daemon = home.serve();
    let token = daemon
        .token
        .clone()
        .expect("the admin token of a first start");
    let mut leaked = Vec::new();
    let untouched = mint(&client, &daemon.url, &token, "stays secret", false).await;
    let public = mint(&client, &daemon.url, &token, "public", true).await;
    world.push(
        &[("public.js", public.value.clone().into_bytes())],
        "A public key",
    );
    let mut reports = Vec::new();

    for round in 0..kills {
        for number in 0..KEYS_PER_ROUND {
            let key = mint(&client, &daemon.url, &token, "leaks", false).await;
            if number == 0 {
                reports.push(key.value.clone());
            } else {
                let path = format!("leak-{round}-{number}.env");
                world.push(
                    &[(&path, format!("KEY={}\n", key.value).into_bytes())],
                    "Leak",
                );
            }
            leaked.push(key);
        }
        // From "still fetching" to "all done": the moment moves through the whole work of a round.
        let moment = Duration::from_millis(1500 * round as u64 / kills as u64);
        let url = daemon.url.clone();
        let reporting = report(&client, world, &url, &reports);
        let killing = async {
            tokio::time::sleep(moment).await;
            daemon.kill();
        };
        // The report may be cut off in the middle; the sender, like GitHub, sends it again.
        let _ = tokio::join!(reporting, killing);
        daemon = home.serve();
        assert!(
            daemon.token.is_none(),
            "a second start prints no admin token"
        );
    }

    assert!(
        report(&client, world, &daemon.url, &reports).await,
        "the report is taken in the end"
    );
    wait_until_revoked(&client, &daemon, &token, leaked.len()).await;
    for (key, expected) in [(&untouched, 200), (&public, 200), (&leaked[0], 401)] {
        let body = json!({ "api_key": key.value });
        let url = format!("{}/api/v1/user-api-keys/check", daemon.url);
        let request = client.post(url).bearer_auth(&token).json(&body);
        assert_eq!(request.ask().await.expect("an answer").status(), expected);
    }
    assert!(daemon.stop().success(), "the daemon ends well");

    let entries = export(home);
    let mut revoked: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry["action"] == "revoked") {
        *revoked
            .entry(entry["key_id"].as_str().expect("a key id"))
            .or_default() += 1;
    }
    for key in &leaked {
        assert_eq!(
            revoked.remove(key.id.as_str()),
            Some(1),
            "one revocation for each leaked key"
        );
    }
    assert!(revoked.is_empty(), "revoked without a leak: {revoked:?}");
    let verified = home.rescind(&["log", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

pub(crate) async fn mint(
    client: &Client,
    url: &str,
    token: &str,
    description: &str,
    public: bool,
) -> Minted {
    let body = json!({
        "user_id": "crash",
        "description": description,
        "expires_at_millis": null,
        "is_public": public,
    });
    let request = client
        .post(format!("{url}/api/v1/user-api-keys"))
        .bearer_auth(token)
        .json(&body);
    let answer: Value = request
        .ask()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    Minted {
        id: answer["id"].as_str().expect("an id").to_owned(),
        value: answer["value"].as_str().expect("a value").to_owned(),
    }
}

/// The body of a report of these keys, and its signature.
pub(crate) fn signed_report(world: &World, keys: &[String]) -> (Vec<u8>, String) {
    let rows: Vec<Value> = keys
        .iter()
        .map(|key| json!({ "token": key, "type": "rescind_secret", "url": "", "source": "commit" }))
        .collect();
    let body = serde_json::to_vec(&rows).expect("JSON");
    let signature = world.partner.sign(&body);
    (body, signature)
}

/// Sends all keys reported so far in one signed report; tells whether it was answered with 200.
pub(crate) async fn report(client: &Client, world: &World, url: &str, keys: &[String]) -> bool {
    let (body, signature) = signed_report(world, keys);
    let request = client
        .post(format!("{url}/webhooks/github/secret-scanning"))
        .header("github-public-key-identifier", world.partner.identifier())
        .header("github-public-key-signature", signature)
        .body(body);
    request
        .ask()
        .await
        .is_ok_and(|answer| answer.status() == 200)
}

async fn wait_until_revoked(client: &Client, daemon: &Daemon, token: &str, keys: usize) {
    // An item whose worker was killed is taken again when its lease has run out.
    let what = format!("{keys} keys are revoked");
    eventually(&what, async || {
        let url = format!("{}/api/v1/revocations?limit=1", daemon.url);
        let answer = client
            .get(url)
            .bearer_auth(token)
            .ask()
            .await
            .expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        // Entries are numbered without gaps, and nothing but revocations is logged here.
        let last = answer["items"][0]["seq"].as_u64().unwrap_or(0);
        (last >= keys as u64).then_some(()).ok_or(last)
    })
    .await;
}

pub(crate) fn export(home: &Home) -> Vec<Value> {
    let output = home.rescind(&["log", "export", "--format", "jsonl"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}
