//! Somebody with access to the database changes what decides who sees what; and a damaged number is no
//! reason to show nothing.

use rescind::respond::Responder;
use rescind::store::{Key, NewWorkItem, Priority, Problem, Reason, Role, Store, StoreOptions};
use serde_json::{Value, json};

use super::locks::{add, made_up};
use crate::api::harness::{Setup, TestServer};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::responder::{issuer, request, responder, sighting};

/// A leaked key and a key revoked by hand, each with its entry.
async fn two_entries(store: &Store) -> (Responder, Key) {
    let (responder, _) = responder(store);
    let (leaked, value) = issuer(&responder).issue(request("leaked")).await.unwrap();
    let seen = vec![sighting(&responder, &value, 1)];
    responder
        .report(seen, Reason::Leaked, "test")
        .await
        .unwrap();
    let (by_hand, _) = issuer(&responder).issue(request("by hand")).await.unwrap();
    responder.revoke(by_hand.id, "cli").await.unwrap();
    let leaked = store.key(leaked.id).await.unwrap().unwrap();
    (responder, leaked)
}

/// The triggers that refuse what an attacker has to do first.
const GUARDS: [(&str, &str); 6] = [
    ("keys_keep_their_project", "keys"),
    ("keys_stay_revoked", "keys"),
    ("incidents_keep_their_key", "incidents"),
    ("occurrences_keep_their_key", "occurrences"),
    ("uses_keep_their_key", "uses_after_exposure"),
    ("tokens_keep_their_project", "tokens"),
];

async fn drop_guards(database: &TestDatabase) {
    let log = match database.kind {
        Kind::Sqlite => "revocation_log_is_not_changed",
        Kind::Postgres => "revocation_log_is_append_only",
    };
    for (guard, table) in GUARDS.into_iter().chain([(log, "revocation_log")]) {
        let drop = match database.kind {
            Kind::Sqlite => format!("DROP TRIGGER {guard}"),
            Kind::Postgres => format!("DROP TRIGGER {guard} ON {table}"),
        };
        database.run(&drop).await.unwrap();
    }
}

on_both_databases! {
    async fn a_changed_project_is_named_wherever_it_stands(database) {
        let store = database.store().await;
        let (_, leaked) = two_entries(&store).await;
        database.run("INSERT INTO projects (id, created_at) VALUES ('other', 0)").await.unwrap();
        drop_guards(database).await;
        store.verify_log().await.unwrap().unwrap();
        let id = leaked.id;
        let now = leaked.revoked_at.unwrap().as_microsecond();
        let differs = |column, from| Problem::Differs { column, from };
        for (change, back, position, problem) in [
            (
                "UPDATE revocation_log SET project = 'other' WHERE seq = 2".to_owned(),
                "UPDATE revocation_log SET project = 'default' WHERE seq = 2".to_owned(),
                2,
                differs("revocation_log.project", "keys.project"),
            ),
            (
                format!("UPDATE keys SET project = 'other' WHERE id = '{id}'"),
                format!("UPDATE keys SET project = 'default' WHERE id = '{id}'"),
                1,
                differs("revocation_log.project", "keys.project"),
            ),
            (
                "UPDATE incidents SET project = 'other'".to_owned(),
                "UPDATE incidents SET project = 'default'".to_owned(),
                1,
                differs("incidents.project", "keys.project"),
            ),
            (
                format!("UPDATE incidents SET key_id = (SELECT id FROM keys WHERE id <> '{id}')"),
                format!("UPDATE incidents SET key_id = '{id}'"),
                1,
                differs("incidents.key_id", "the entry"),
            ),
            (
                format!("UPDATE keys SET owner_id = 'user-2' WHERE id = '{id}'"),
                format!("UPDATE keys SET owner_id = 'user-1' WHERE id = '{id}'"),
                1,
                differs("keys.owner_id", "the entry"),
            ),
            (
                format!("UPDATE keys SET owner_type = 'team' WHERE id = '{id}'"),
                format!("UPDATE keys SET owner_type = 'user' WHERE id = '{id}'"),
                1,
                differs("keys.owner_type", "the entry"),
            ),
            (
                format!("UPDATE keys SET revoked_at = NULL WHERE id = '{id}'"),
                format!("UPDATE keys SET revoked_at = {now} WHERE id = '{id}'"),
                1,
                differs("keys.revoked_at", "the entry"),
            ),
        ] {
            database.run(&change).await.unwrap();
            let broken = store.verify_log().await.unwrap().unwrap_err();
            assert_eq!((broken.position, broken.seq, broken.problem), (position, Some(position), problem), "{change}");
            database.run(&back).await.unwrap();
            store.verify_log().await.unwrap().unwrap();
        }
    }

    async fn what_decides_who_sees_what_cannot_be_changed(database) {
        let store = database.store().await;
        let (responder, leaked) = two_entries(&store).await;
        store.record_use(leaked.id, responder.clock().now(), None).await.unwrap();
        let server = TestServer::on(database, Setup::default()).await;
        server.token(Role::Viewer).await;
        database.run("INSERT INTO projects (id, created_at) VALUES ('other', 0)").await.unwrap();
        for change in [
            "UPDATE keys SET project = 'other'",
            "UPDATE keys SET revoked_at = NULL",
            "UPDATE keys SET revoked_at = revoked_at + 1",
            "UPDATE incidents SET project = 'other'",
            "UPDATE incidents SET key_id = (SELECT k.id FROM keys k WHERE k.id <> key_id)",
            "UPDATE occurrences SET key_id = (SELECT k.id FROM keys k WHERE k.id <> key_id)",
            "UPDATE occurrences SET incident_id = NULL",
            "UPDATE uses_after_exposure SET key_id = (SELECT k.id FROM keys k WHERE k.id <> key_id)",
            "UPDATE tokens SET project = 'other'",
            "UPDATE tokens SET role = 'admin'",
        ] {
            let error = database.run(change).await.expect_err(change).to_string();
            assert!(error.contains("never"), "{change}: {error}");
        }
        // An incident belongs where its key does, whatever stands beside it.
        drop_guards(database).await;
        database.run("UPDATE incidents SET project = 'other'").await.unwrap();
        let mine = server.with_token(server.token(Role::Viewer).await);
        let others = server.with_token(server.token_in(Role::Viewer, "other").await);
        let count = |list: Value| list["items"].as_array().unwrap().len();
        assert_eq!(count(mine.get("/api/v1/incidents").await.json()), 1);
        assert_eq!(count(others.get("/api/v1/incidents").await.json()), 0);
        server.stop().await;
    }

    async fn a_damaged_number_takes_no_list_along(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let store = &server.store;
        let (responder, leaked) = two_entries(store).await;
        store.record_use(leaked.id, responder.clock().now(), None).await.unwrap();
        add(store, &made_up(Priority::Firehose)).await;
        let mut tx = store.begin().await.unwrap();
        let state = rescind::store::SourceState { name: "feed".to_owned(), ..Default::default() };
        tx.save_source(&state).await.unwrap();
        tx.add_work_done("feed", rescind::store::WorkDone::default()).await.unwrap();
        tx.commit().await.unwrap();
        let past = i64::MIN;
        for damage in [
            "UPDATE source_work SET scanned = -1, blobs = -2, known_blobs = -3, truncated = -4, gone = -5, shed = -6"
                .to_owned(),
            format!("UPDATE source_work SET lag = {past}, scanned_at = {past}"),
            "UPDATE sources SET polls = -1, events = -1, items = -1, gaps = -1, malformed = -1, texts = -1,
                unknown = -1, repaired = -1, rate_limit = -1, rate_remaining = -1".to_owned(),
            format!("UPDATE sources SET polled_at = {past}, newest_event_at = {}", i64::MAX),
            "UPDATE incidents SET sightings = -1, occurrences = -1, uses = -1".to_owned(),
            format!("UPDATE incidents SET last_seen_at = {}", i64::MAX),
            "UPDATE occurrences SET sightings = -1, line = -1".to_owned(),
            format!("UPDATE keys SET exposed_at = {past}"),
            "UPDATE work_items SET priority = 77, tries = -1".to_owned(),
        ] {
            database.run(&damage).await.unwrap();
        }
        let admin = server.admin().await;
        let incident = store.incident_of_key(leaked.id).await.unwrap().unwrap();
        for path in [
            "/api/v1/sources".to_owned(),
            "/api/v1/incidents".to_owned(),
            format!("/api/v1/incidents/{}", incident.id),
            "/api/v1/user-api-keys?user_id=user-1".to_owned(),
            "/api/v1/revocations".to_owned(),
            "/api/v1/sources/feed/dead-letters".to_owned(),
        ] {
            let reply = admin.get(&path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        }
        let sources = admin.get("/api/v1/sources").await.json();
        let feed = sources["items"].as_array().unwrap().iter().find(|source| source["name"] == "feed").unwrap();
        assert_eq!((&feed["counts"]["shed"], &feed["counts"]["polls"]), (&json!(0), &json!(0)));
        // And the item keeps no other from being taken.
        let whole = NewWorkItem { repository_id: "8".to_owned(), ..made_up(Priority::Webhook) };
        add(store, &whole).await;
        let claimed = store.claim(2, "w", std::time::Duration::from_mins(1)).await.unwrap();
        assert_eq!(claimed[0].range.priority, Priority::Webhook);
        assert!(claimed[1..].iter().all(|item| item.range.priority == Priority::Backfill));
        server.stop().await;
    }

    /// A database of the version before, with keys that refer to each other and are referred to.
    async fn keys_of_the_version_before_are_brought_up(database) {
        let old = Old::make(database).await;
        let store = Store::open(StoreOptions::new(database.url.clone())).await.unwrap();
        assert!(store.migrate().await.unwrap() > 0);
        store.check_statements().await.unwrap();
        assert_eq!(store.count_keys().await.unwrap(), 3);
        let (responder, _) = responder(&store);
        let key = store.find_key("default", &old.value.sha256()).await.unwrap().unwrap();
        assert_eq!((key.id.to_string(), key.replaced_by.unwrap().to_string()), (old.ids[0].clone(), old.ids[1].clone()));
        assert_eq!(store.occurrences(key.id, 10).await.unwrap().len(), 1);
        assert_eq!(store.uses_after_exposure(key.id, 10).await.unwrap().len(), 1);
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 1);
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        assert_eq!(incident.key, key);
        // Everything still refers to something, and what is kept still is.
        assert!(database.run("DELETE FROM keys").await.is_err());
        let stray = "INSERT INTO uses_after_exposure (id, key_id, at) VALUES ('x', 'nobody', 1)";
        assert!(run_with_foreign_keys(database, stray).await.is_err());
        // The same value may now stand in another project, once.
        for (project, works) in [("default", false), ("other", true), ("other", false)] {
            let copy = format!(
                "INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public,
                    prefix, last_four, notify_emails, created_at)
                SELECT '{}', '{project}', digest, format, owner_type, owner_id, description, is_public, prefix,
                    last_four, notify_emails, created_at FROM keys WHERE id = '{}'",
                uuid::Uuid::now_v7(), old.ids[0]
            );
            assert_eq!(database.run(&copy).await.is_ok(), works, "{project}");
        }
        let seen = vec![sighting(&responder, &old.value, 5)];
        let answers = responder.report(seen, Reason::Leaked, "test").await.unwrap();
        assert_eq!(answers[0].outcomes.len(), 2);
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 2);
        assert_eq!(database.count("SELECT MIN(shed) FROM source_work").await, 0);
    }
}

/// SQLite checks foreign keys on connections that ask for it.
async fn run_with_foreign_keys(database: &TestDatabase, sql: &str) -> Result<u64, sqlx::Error> {
    match database.kind {
        Kind::Sqlite => {
            database
                .run(&format!("PRAGMA foreign_keys = ON; {sql}"))
                .await
        }
        Kind::Postgres => database.run(sql).await,
    }
}

/// Contents of a database created by version 2.
struct Old {
    value: rescind::keyformat::KeyValue,
    ids: [String; 3],
}

impl Old {
    async fn make(database: &TestDatabase) -> Self {
        database.migrate_to(2).await;
        let value = rescind::keyformat::KeyValue::new("acme_1234567890_not_minted_here");
        let ids = [1, 2, 3].map(|n| format!("0198f000-0000-7000-8000-00000000000{n}"));
        let incident = "0198f000-0000-7000-8000-000000000009";
        let bytes = |hex: &str| match database.kind {
            Kind::Sqlite => format!("x'{hex}'"),
            Kind::Postgres => format!("'\\x{hex}'::bytea"),
        };
        let mut sql = vec![
            "INSERT INTO projects (id, created_at) VALUES ('default', 1), ('other', 1)".to_owned(),
        ];
        // The second is inserted after the first refers to it, so the references go both ways in time.
        for (n, id) in ids.iter().enumerate().rev() {
            let digest = match n {
                0 => value.sha256().to_hex(),
                _ => n.to_string().repeat(64),
            };
            let next = match n {
                0 => format!("'{}'", ids[1]),
                _ => "NULL".to_owned(),
            };
            let revoked = if n == 0 { "1790000000123456" } else { "NULL" };
            sql.push(format!(
                "INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public,
                    prefix, last_four, notify_emails, created_at, revoked_at, exposed_at, replaced_by)
                VALUES ('{id}', 'default', {}, 'imported', 'user', 'u', 'd', FALSE, '', 'here', '[]', {n},
                    {revoked}, {revoked}, {next})",
                bytes(&digest)
            ));
        }
        sql.push(format!(
            "INSERT INTO incidents (id, project, key_id, status, opened_at, last_seen_at, sightings, occurrences, uses)
            VALUES ('{incident}', 'default', '{}', 'open', 1, 1, 1, 1, 1)",
            ids[0]
        ));
        sql.push(format!(
            "INSERT INTO occurrences (id, fingerprint, key_id, incident_id, source, detected_at, last_seen_at, sightings)
            VALUES ('0198f000-0000-7000-8000-00000000000a', {}, '{}', '{incident}', 's', 1, 1, 1)",
            bytes(&"ab".repeat(32)), ids[0]
        ));
        sql.push(format!(
            "INSERT INTO uses_after_exposure (id, key_id, at) VALUES ('0198f000-0000-7000-8000-00000000000b', '{}', 1)",
            ids[0]
        ));
        sql.extend(logged(&ids[0], incident));
        sql.push(
            "INSERT INTO source_work (source, scanned, blobs, known_blobs, truncated, gone, shed)
            VALUES ('feed', 0, 0, 0, 0, 0, -1)"
                .to_owned(),
        );
        for statement in sql {
            database.run(&statement).await.expect(&statement);
        }
        Self { value, ids }
    }
}

/// The first entry of the log, hashed here.
fn logged(key: &str, incident: &str) -> [String; 2] {
    let at =
        rescind::store::log_time(jiff::Timestamp::from_microsecond(1_790_000_000_123_456).unwrap());
    let entry = json!({
        "seq": 1, "at": at, "action": "revoked", "key_id": key, "format": "imported", "owner_type": "user",
        "owner_id": "u", "last_four": "here", "description": "d", "reason": "leaked", "actor": "test",
        "incident_id": incident,
    });
    let text = rescind::store::canonical_json(&entry);
    let zeros = "0".repeat(64);
    let hash = rescind::keyformat::Sha256Digest::of(format!("{zeros}{text}").as_bytes()).to_hex();
    [
        format!(
            "INSERT INTO revocation_log (seq, project, at, action, reason, key_id, incident_id, prev_hash, hash, entry)
            VALUES (1, 'default', 1790000000123456, 'revoked', 'leaked', '{key}', '{incident}', '{zeros}', '{hash}',
                '{text}')"
        ),
        format!("UPDATE log_head SET seq = 1, hash = '{hash}'"),
    ]
}
