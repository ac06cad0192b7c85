//! Each request takes effect completely or not at all.

use rescind::store::Role;
use serde_json::json;

use crate::api::harness::{Setup, TestServer};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

on_both_databases! {
    async fn a_change_and_a_revocation_are_one(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let issuer = server.client(Role::Issuer).await;
        let paths = ["/api/v1/user-api-keys", "/api/v1/team-api-keys"];
        let mut made = Vec::new();
        for (path, owner) in paths.into_iter().zip(["user_id", "team_id"]) {
            let body = json!({ owner: "x", "description": "before", "expires_at_millis": null });
            let key = issuer.post(path, body).await.json();
            made.push(format!("{path}/{}", key["id"].as_str().unwrap()));
        }
        let both = json!({ "description": "after", "expires_at_millis": 2_000_000_000_000_i64, "revoked": true });
        for path in &made {
            break_the_log(database).await;
            assert_eq!(issuer.patch(path, both.clone()).await.status, 500);
            let key = issuer.get(path).await.json();
            assert_eq!(key["description"], "before");
            assert!(key["expires_at_millis"].is_null() && key["manually_revoked_at_millis"].is_null(), "{key}");
            mend_the_log(database).await;

            let entries = server.store.log_head().await.unwrap().seq;
            let changed = issuer.patch(path, both.clone()).await.json();
            assert_eq!(changed["description"], "after");
            assert_eq!(changed["expires_at_millis"], 2_000_000_000_000_i64);
            assert!(changed["manually_revoked_at_millis"].is_number(), "{changed}");
            assert_eq!(server.store.log_head().await.unwrap().seq, entries + 1);
            let entry = server.store.log_entry(entries + 1).await.unwrap().unwrap();
            assert_eq!(entry.description, "after");
            let twice = issuer.patch(path, json!({ "description": "later", "revoked": true })).await.json();
            assert_eq!(twice["manually_revoked_at_millis"], changed["manually_revoked_at_millis"]);
            assert_eq!(server.store.log_head().await.unwrap().seq, entries + 1);
        }
        // A change that is refused takes the revocation along: the replaced key may not live longer.
        let body = json!({ "user_id": "x", "description": "before", "expires_at_millis": null });
        let key = issuer.post(paths[0], body).await.json();
        let path = format!("{}/{}", paths[0], key["id"].as_str().unwrap());
        issuer.post(&format!("{path}/rotate"), json!({ "overlap_seconds": 60 })).await;
        let reply = issuer.patch(&path, json!({ "expires_at_millis": null, "revoked": true })).await;
        assert!((400..500).contains(&reply.status), "{}", reply.text);
        assert!(issuer.get(&path).await.json()["manually_revoked_at_millis"].is_null());
        server.stop().await;
    }
}

/// Lets appending to the log fail, as a fault in the middle of a request would.
async fn break_the_log(database: &TestDatabase) {
    let parts: &[&str] = match database.kind {
        Kind::Sqlite => &["CREATE TRIGGER broken BEFORE INSERT ON revocation_log
            BEGIN SELECT RAISE(ABORT, 'broken'); END"],
        Kind::Postgres => &[
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'broken'; END $$",
            "CREATE TRIGGER broken BEFORE INSERT ON revocation_log EXECUTE FUNCTION broken()",
        ],
    };
    for part in parts {
        database.run(part).await.unwrap();
    }
}

async fn mend_the_log(database: &TestDatabase) {
    let parts: &[&str] = match database.kind {
        Kind::Sqlite => &["DROP TRIGGER broken"],
        Kind::Postgres => &[
            "DROP TRIGGER broken ON revocation_log",
            "DROP FUNCTION broken",
        ],
    };
    for part in parts {
        database.run(part).await.unwrap();
    }
}
