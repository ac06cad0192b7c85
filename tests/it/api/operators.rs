//! Incidents, the revocation log, imports, formats.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::keyformat::{KeyValue, Sha256Digest};
use rescind::respond::Sighting;
use rescind::store::{Place, Reason, Role, verify_lines};
use serde_json::{Value, json};

use super::harness::{Reply, Setup, TestServer};
use crate::support::databases::on_both_databases;
use crate::support::snapshot::steady;

async fn leak(server: &TestServer, key: &Value, place: Place) {
    let sighting = Sighting {
        value: KeyValue::new(key["value"].as_str().unwrap()),
        place,
        detected_at: server.clock.now(),
    };
    server
        .responder
        .report(vec![sighting], Reason::Leaked, "source:test")
        .await
        .unwrap();
}

fn place(source: &str) -> Place {
    Place {
        source: source.to_owned(),
        url: Some("https://example.com/blob".to_owned()),
        repository: Some("acme/shop".to_owned()),
        commit: Some("12345600b9cbe38a219f39a9941c9319b600c002".to_owned()),
        path: Some("deploy/.env".to_owned()),
        line: Some(3),
    }
}

on_both_databases! {
    /// A leak becomes an incident; the log shows it, verifies, and is exported so that others can verify it.
    async fn a_leak_can_be_followed(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({"description": "CI, \"deploy\""})).await;
        server.clock.advance(SignedDuration::from_secs(1));
        leak(&server, &key, place("github-public")).await;
        server.clock.advance(SignedDuration::from_secs(1));
        leak(&server, &key, Place { line: Some(9), ..place("partner:github") }).await;

        let list = admin.get("/api/v1/incidents?status=open").await.json();
        let incident = list["items"][0].clone();
        assert_eq!(incident["key_id"], key["id"]);
        assert_eq!(incident["last_four"], key["value"].as_str().unwrap()[39..]);
        insta::assert_snapshot!("incidents", steady(&format!("{list:#}")));
        let detail = admin.get(&format!("/api/v1/incidents/{}", incident["id"].as_str().unwrap())).await.json();
        assert_eq!(detail["id"], incident["id"]);
        insta::assert_snapshot!("incident", steady(&format!("{detail:#}")));

        let log = admin.get("/api/v1/revocations").await.json();
        let entry = &log["items"][0];
        assert_eq!(entry["key_id"], key["id"]);
        insta::assert_snapshot!("revocations", steady(&format!("{log:#}")));
        let verified = admin.get("/api/v1/revocations/verify").await.json();
        assert_eq!(verified, json!({"valid": true, "entries": 1, "head": entry["hash"]}));

        let export = admin.get("/api/v1/revocations/export?format=jsonl").await;
        assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(verify_lines(export.text.as_bytes()).unwrap().entries, 1);
        let line: Value = serde_json::from_str(export.text.trim_end()).unwrap();
        assert_eq!(line, *entry);
        let csv = admin.get("/api/v1/revocations/export?format=csv").await;
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
        let mut rows = csv.text.lines();
        assert!(rows.next().unwrap().starts_with("seq,at,action,key_id"));
        assert!(rows.next().unwrap().contains("\"CI, \"\"deploy\"\"\""));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_long_log_is_exported_whole() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let keys: Vec<_> = (0..1200).map(|_| server.mint()).collect();
    let rows: Vec<_> = keys
        .iter()
        .map(|key| format!("{},user,u", key.sha256().to_hex()))
        .collect();
    let csv = format!("sha256,owner_type,owner_id\n{}", rows.join("\n"));
    let import = admin
        .request("POST", "/api/v1/keys/import")
        .header("content-type", "text/csv")
        .body(csv);
    assert_eq!(Reply::of(import).await.json()["imported"], 1200);
    let now = server.clock.now();
    let sightings = keys.into_iter().map(|value| Sighting {
        value,
        place: place("test"),
        detected_at: now,
    });
    server
        .responder
        .report(sightings.collect(), Reason::Leaked, "source:test")
        .await
        .unwrap();
    let export = admin.get("/api/v1/revocations/export").await;
    assert_eq!(verify_lines(export.text.as_bytes()).unwrap().entries, 1200);
    let csv = admin.get("/api/v1/revocations/export?format=csv").await;
    assert_eq!(csv.text.lines().count(), 1201);
    admin
        .get("/api/v1/revocations/export?format=xml")
        .await
        .error(400, "SCHEMA_ERROR");

    let mut seen = Vec::new();
    let mut cursor = String::new();
    while seen.len() < 1200 {
        let page = admin
            .get(&format!("/api/v1/revocations?limit=200{cursor}"))
            .await
            .json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["seq"].as_u64().unwrap()),
        );
        match page["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=1200).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn incidents_and_log_are_filtered() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let one = admin
        .create(json!({"user_id": "ann", "description": "Alpha"}))
        .await;
    let two = admin
        .create(json!({"user_id": "bob", "description": "Beta"}))
        .await;
    leak(&server, &one, place("github-public")).await;
    server.clock.advance(SignedDuration::from_secs(60));
    leak(
        &server,
        &two,
        Place {
            repository: Some("bob/site".to_owned()),
            ..place("partner:github")
        },
    )
    .await;
    let (one, two) = (one["id"].clone(), two["id"].clone());
    for (query, expected) in [
        ("", vec![&two, &one]),
        ("?owner=ann", vec![&one]),
        ("?source=partner:github", vec![&two]),
        ("?q=ALPHA", vec![&one]),
        ("?q=bob/site", vec![&two]),
        ("?q=100%25", vec![]),
        ("?format=rescind_secret", vec![&two, &one]),
        ("?format=other", vec![]),
        ("?since=2026-11-22T20:46:30Z", vec![&two]),
        ("?until=2026-11-22T20:46:30Z", vec![&one]),
        ("?status=resolved", vec![]),
        ("?limit=1", vec![&two]),
    ] {
        let list = admin.get(&format!("/api/v1/incidents{query}")).await.json();
        let keys: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|incident| &incident["key_id"])
            .collect();
        assert_eq!(keys, expected, "{query}");
    }
    for bad in [
        "status=nonsense",
        "since=yesterday",
        "until=1",
        "stauts=open",
        "q=a&q=b",
    ] {
        admin
            .get(&format!("/api/v1/incidents?{bad}"))
            .await
            .error(400, "SCHEMA_ERROR");
    }
    let of_one = format!(
        "/api/v1/revocations?key_id={}&action=revoked&reason=leaked",
        one.as_str().unwrap()
    );
    assert_eq!(
        admin.get(&of_one).await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for bad in ["key_id=x", "action=x", "reason=x"] {
        admin
            .get(&format!("/api/v1/revocations?{bad}"))
            .await
            .error(400, "SCHEMA_ERROR");
    }
    admin
        .get("/api/v1/incidents/x")
        .await
        .error(404, "NOT_FOUND");
    admin
        .get(&format!("/api/v1/incidents/{}", uuid::Uuid::now_v7()))
        .await
        .error(404, "NOT_FOUND");
}

#[tokio::test]
async fn other_projects_see_their_own_and_no_more() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let other = server.with_token(server.token_in(Role::Admin, "other").await);
    let ours = admin.create(json!({})).await;
    let theirs = other.create(json!({})).await;
    leak(&server, &ours, place("test")).await;
    leak(&server, &theirs, place("test")).await;
    let keys = |list: Value| -> Vec<Value> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["key_id"].clone())
            .collect()
    };
    assert_eq!(
        keys(other.get("/api/v1/incidents").await.json()),
        [theirs["id"].clone()]
    );
    assert_eq!(
        keys(admin.get("/api/v1/incidents").await.json()),
        [ours["id"].clone()]
    );
    let incident = admin.get("/api/v1/incidents").await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    other
        .get(&format!("/api/v1/incidents/{incident}"))
        .await
        .error(404, "NOT_FOUND");
    // The log is one chain: the default project sees all of it, others what is about their keys.
    assert_eq!(
        keys(other.get("/api/v1/revocations").await.json()),
        [theirs["id"].clone()]
    );
    assert_eq!(keys(admin.get("/api/v1/revocations").await.json()).len(), 2);
    other
        .get("/api/v1/revocations/verify")
        .await
        .error(403, "WRONG_PROJECT");
    other
        .get("/api/v1/revocations/export")
        .await
        .error(403, "WRONG_PROJECT");
}

on_both_databases! {
    /// Digests of keys from elsewhere become keys; wrong rows are named and cost no other.
    async fn digests_are_imported(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let secret = server.mint();
        let foreign = KeyValue::new("acme-0123456789-foreign");
        let body = format!(
            "owner_type,owner_id,sha256,description,format,last_four,created_at,expires_at\n\
             user,u1,{},Old one,acme,eign,2025-01-02T03:04:05Z,never\n\
             robot,u1,{},,,,,\n\
             team,t1,{},,rescind_secret,,,2027-01-01T00:00:00Z\n\
             user,u1,{},again,,,,\n",
            foreign.sha256().to_hex(), Sha256Digest::of(b"x").to_hex(), secret.sha256().to_hex(), foreign.sha256().to_hex(),
        );
        let send = async |body: String| {
            let request = admin.request("POST", "/api/v1/keys/import").header("content-type", "text/csv; charset=utf-8");
            Reply::of(request.body(body)).await
        };
        let reply = send(body.clone()).await;
        let expected = json!({"imported": 2, "duplicates": 1, "failed": 1, "errors": [
            {"line": 3, "field": "owner_type", "error": "line 3: `owner_type` has to be `user` or `team`"}]});
        assert_eq!(reply.json(), expected, "{}", reply.text);
        assert_eq!(send(body).await.json()["duplicates"], 3);
        let checked = admin.post("/api/v1/user-api-keys/check", json!({"api_key": foreign.expose()})).await.json();
        assert_eq!(checked["description"], "Old one");
        assert_eq!(checked["created_at_millis"], 1_735_787_045_000_i64);
        assert_eq!(checked["value"], json!({"last_four": "eign"}));
        let checked = admin.post("/api/v1/team-api-keys/check", json!({"api_key": secret.expose()})).await.json();
        assert_eq!(checked["expires_at_millis"], 1_798_761_600_000_i64);

        let lines = format!("{{\"sha256\":\"{}\",\"owner_type\":\"user\",\"owner_id\":\"u2\"}}\n[]\n", Sha256Digest::of(b"y").to_hex());
        let request = admin.request("POST", "/api/v1/keys/import").header("content-type", "application/x-ndjson").body(lines);
        let reply = Reply::of(request).await.json();
        assert_eq!((&reply["imported"], &reply["failed"]), (&json!(1), &json!(1)));
        admin.post("/api/v1/keys/import", json!({})).await.error(415, "UNSUPPORTED_MEDIA_TYPE");
        server.stop().await;
    }
}

#[tokio::test]
async fn formats_are_listed() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let all = admin.get("/api/v1/formats").await.json();
    let ids: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|format| format["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ids,
        server
            .formats
            .iter()
            .map(|format| format.id().to_owned())
            .collect::<Vec<_>>()
    );
    assert_eq!(all["items"][0]["prefix"], "rsc_sk_");
    let first = admin.get("/api/v1/formats?limit=1").await.json();
    let next = first["pagination"]["next_cursor"].as_str().unwrap();
    let second = admin
        .get(&format!("/api/v1/formats?limit=1&cursor={next}"))
        .await
        .json();
    assert_eq!(second["items"][0]["id"], ids[1].as_str());
    admin
        .get("/api/v1/formats?cursor=x")
        .await
        .error(400, "SCHEMA_ERROR");
}
