//! Numbers of what there is.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::keyformat::{KeyValue, Sha256Digest};
use rescind::respond::Sighting;
use rescind::source::ConfiguredSource;
use rescind::store::{Place, Reason, Role};
use serde_json::{Value, json};

use super::harness::{Setup, TestServer};
use crate::support::databases::on_both_databases;

const PATH: &str = "/api/v1/stats";
const NEW: &str = "a new pepper, long enough";
const OLD: &str = "an old pepper, long enough";
const OLDEST: &str = "a pepper that nobody has any more";

/// Returns the groups of keys as `project format: valid/expired/revoked`, in their order.
fn groups(stats: &Value) -> Vec<String> {
    let groups = stats["keys"]["groups"].as_array().unwrap().iter();
    let groups = groups.map(|group| {
        let (project, format) = (&group["project"], &group["format"]);
        let (valid, expired, revoked) = (&group["valid"], &group["expired"], &group["revoked"]);
        let names = format!("{} {}", project.as_str().unwrap(), format.as_str().unwrap());
        format!("{names}: {valid}/{expired}/{revoked}")
    });
    groups.collect()
}

on_both_databases! {
    async fn keys_incidents_and_revocations_are_counted_by_what_they_are(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let nothing = admin.get(PATH).await.json();
        assert_eq!((&nothing["keys"]["total"], &nothing["incidents"]), (&json!(0), &json!([])));

        let leaked = admin.create(json!({})).await;
        let valid = admin.create(json!({})).await;
        let soon = server.clock.now().as_millisecond() + 1_000;
        admin.create(json!({"expires_at_millis": soon})).await;
        admin.create(json!({"is_public": true})).await;
        let other = server.with_token(server.token_in(Role::Admin, "other").await);
        other.create(json!({})).await;
        let revoked = other.create(json!({})).await;
        let path = format!("/api/v1/user-api-keys/{}", revoked["id"].as_str().unwrap());
        assert_eq!(other.patch(&path, json!({"revoked": true})).await.status, 200);
        let sighting = Sighting {
            value: KeyValue::new(leaked["value"].as_str().unwrap()),
            place: Place { source: "test".to_owned(), url: None, repository: None, commit: None, path: None, line: None },
            detected_at: server.clock.now(),
        };
        server.responder.report(vec![sighting], Reason::Leaked, "source:test").await.unwrap();
        server.clock.advance(SignedDuration::from_hours(1));
        let again = TestServer::on(database, Setup::default()).await;
        again.clock.advance(SignedDuration::from_hours(1));
        let stats = again.admin().await.get(PATH).await.json();
        assert_eq!((&stats["keys"]["total"], &stats["keys"]["others"]), (&json!(6), &json!(0)));
        assert_eq!(groups(&stats), [
            "default rescind_secret: 1/1/1",
            "other rescind_secret: 1/0/1",
            "default rescind_public: 1/0/0",
        ]);
        assert_eq!(stats["incidents"], json!([{"status": "open", "incidents": 1, "last_day": 1}]));
        assert_eq!(stats["revocations"], json!([{"action": "revoked", "entries": 2, "last_day": 2}]));
        assert!(!stats.to_string().contains(valid["value"].as_str().unwrap()));

        // A project sees what is its own.
        let token = again.token_in(Role::Viewer, "other").await;
        let own = again.with_token(token).get(PATH).await.json();
        assert_eq!((&own["project"], &own["keys"]["total"]), (&json!("other"), &json!(2)));
        assert_eq!(groups(&own), ["other rescind_secret: 1/0/1"]);
        assert_eq!(own["incidents"], json!([]));
        assert_eq!(own["revocations"], json!([{"action": "revoked", "entries": 1, "last_day": 1}]));
        for shared in ["peppers", "work", "sources"] {
            assert_eq!((own.get(shared), stats.get(shared).is_some()), (None, true), "{shared}");
        }

        // What is old is no longer of the last day.
        let later = TestServer::on(database, Setup::default()).await;
        later.clock.advance(SignedDuration::from_hours(26));
        let stats = later.admin().await.get(PATH).await.json();
        assert_eq!(stats["incidents"], json!([{"status": "open", "incidents": 1, "last_day": 0}]));
        let error = later.admin().await.get("/api/v1/stats?project=other").await;
        error.error(400, "SCHEMA_ERROR");
    }

    /// So that a retired one can be dropped.
    async fn it_is_told_how_many_keys_stand_under_each_pepper(database) {
        let plain = TestServer::on(database, Setup::default()).await;
        plain.admin().await.create(json!({})).await;
        let old = TestServer::over(database.store_with(&[OLD]).await, Setup::default()).await;
        let key = old.admin().await.create(json!({})).await;
        old.admin().await.create(json!({})).await;
        let sources = vec![ConfiguredSource {
            name: "feed".to_owned(),
            kind: "github_events".to_owned(),
            schedule: None,
        }];
        let setup = Setup { sources, ..Setup::default() };
        let store = database.store_with(&[NEW, OLD, OLDEST]).await;
        let server = TestServer::over(store, setup).await;
        let admin = server.admin().await;
        admin.create(json!({})).await;
        // Looked up, it stands under the current one.
        let check = json!({"api_key": key["value"]});
        assert_eq!(admin.post("/api/v1/user-api-keys/check", check).await.status, 200);

        let stats = admin.get(PATH).await.json();
        let peppers = stats["peppers"].as_array().unwrap();
        let told: Vec<(&str, Option<u64>, Option<u64>)> = peppers.iter()
            .map(|found| (found["standing"].as_str().unwrap(), found["position"].as_u64(), found["keys"].as_u64()))
            .collect();
        assert_eq!(told, [
            ("current", Some(1), Some(2)),
            ("retired", Some(2), Some(1)),
            ("retired", Some(3), Some(0)),
            ("none", None, Some(1)),
            ("unknown", None, Some(0)),
        ]);
        for found in &peppers[..3] {
            assert_eq!(found["id"].as_str().unwrap().len(), 16);
        }
        for secret in [NEW, OLD, OLDEST] {
            let digest = Sha256Digest::of(secret.as_bytes()).to_hex();
            let said = stats.to_string();
            assert!(!said.contains(secret) && !said.contains(&digest));
        }
        assert_eq!(stats["work"]["waiting"], 0);
        assert_eq!(stats["sources"], json!([{"state": "waiting", "names": ["feed"]}]));
    }
}
