//! Keys in Stack Auth's wire format.

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::store::Role;
use serde_json::{Value, json};

use super::harness::{Setup, TestServer, millis};
use crate::support::databases::on_both_databases;
use crate::support::http::Ask as _;

const USER: &str = "/api/v1/user-api-keys";
const TEAM: &str = "/api/v1/team-api-keys";

on_both_databases! {
    /// Create, see, list, change, revoke, check: the whole life of a key.
    async fn a_key_lives_as_stack_auth_writes_it(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let now = millis(server.clock.now());
        for (path, kind, owner) in [(USER, "user", "user_id"), (TEAM, "team", "team_id")] {
            let body = json!({owner: "o-1", "description": "CI", "expires_at_millis": null});
            let first = admin.post(path, body).await;
            assert_eq!(first.status, 200, "{}", first.text);
            let first = first.json();
            let value = first["value"].as_str().unwrap();
            assert!(value.starts_with("rsc_sk_"));
            let id = first["id"].as_str().unwrap();
            assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
            let mut expected = json!({
                "id": id, "type": kind, owner: "o-1", "description": "CI", "is_public": false,
                "created_at_millis": now, "value": value,
            });
            assert_eq!(first, expected);

            expected["value"] = json!({"last_four": &value[value.len() - 4..]});
            assert_eq!(admin.get(&format!("{path}/{id}")).await.json(), expected);
            let list = admin.get(&format!("{path}?{owner}=o-1")).await.json();
            let page = json!({"items": [expected], "is_paginated": true, "pagination": {"next_cursor": null}});
            assert_eq!(list, page);
            let check = |key: &str| json!({"api_key": key});
            assert_eq!(admin.post(&format!("{path}/check"), check(value)).await.json(), expected);

            let change = json!({"description": "CI 2", "expires_at_millis": now + 60_000});
            let changed = admin.patch(&format!("{path}/{id}"), change).await.json();
            expected["description"] = json!("CI 2");
            expected["expires_at_millis"] = json!(now + 60_000);
            assert_eq!(changed, expected);
            let never = admin.patch(&format!("{path}/{id}"), json!({"expires_at_millis": null})).await;
            expected.as_object_mut().unwrap().remove("expires_at_millis");
            assert_eq!(never.json(), expected);
            assert_eq!(admin.patch(&format!("{path}/{id}"), json!({})).await.json(), expected);

            let revoked_at = millis(server.clock.now());
            let revoked = admin.patch(&format!("{path}/{id}"), json!({"revoked": true})).await.json();
            expected["manually_revoked_at_millis"] = json!(revoked_at);
            assert_eq!(revoked, expected);
            server.clock.advance(SignedDuration::from_secs(5));
            let again = admin.patch(&format!("{path}/{id}"), json!({"revoked": true})).await.json();
            assert_eq!(again, expected);
            admin.post(&format!("{path}/check"), check(value)).await.error(401, "API_KEY_REVOKED");
            server.clock.advance(SignedDuration::from_secs(-5));
        }
        assert_eq!(server.store.log_head().await.unwrap().seq, 2);
        server.stop().await;
    }
}

#[tokio::test]
async fn checks_name_what_is_wrong() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let check = |path: &'static str, value: String| {
        let body = json!({"api_key": value});
        let admin = &admin;
        async move { admin.post(&format!("{path}/check"), body).await }
    };
    let value = key["value"].as_str().unwrap().to_owned();
    let unknown = server.mint().expose().to_owned();
    check(USER, unknown).await.error(404, "API_KEY_NOT_FOUND");
    check(USER, "ü".to_owned())
        .await
        .error(404, "API_KEY_NOT_FOUND");
    let wrong = check(TEAM, value.clone())
        .await
        .error(400, "WRONG_API_KEY_TYPE");
    assert_eq!(
        wrong["details"],
        json!({"expected_type": "team", "actual_type": "user"})
    );

    let past = millis(server.clock.now()) - 1;
    let expired = admin.create(json!({"expires_at_millis": past})).await;
    let expired_value = expired["value"].as_str().unwrap().to_owned();
    check(USER, expired_value.clone())
        .await
        .error(401, "API_KEY_EXPIRED");
    // As in Stack Auth: the type comes first, then revocation, then expiry.
    let path = format!("{USER}/{}", expired["id"].as_str().unwrap());
    assert_eq!(
        admin.patch(&path, json!({"revoked": true})).await.status,
        200
    );
    check(USER, expired_value.clone())
        .await
        .error(401, "API_KEY_REVOKED");
    check(TEAM, expired_value)
        .await
        .error(400, "WRONG_API_KEY_TYPE");

    let end = millis(server.clock.now()) + 1000;
    let short = admin.create(json!({"expires_at_millis": end})).await;
    let short = short["value"].as_str().unwrap().to_owned();
    assert_eq!(check(USER, short.clone()).await.status, 200);
    server.clock.advance(SignedDuration::from_secs(1));
    check(USER, short).await.error(401, "API_KEY_EXPIRED");
    assert_eq!(check(USER, value).await.status, 200);
}

#[tokio::test]
async fn public_keys_are_minted_in_their_own_format() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let key = admin.create(json!({"is_public": true})).await;
    assert_eq!(key["is_public"], true);
    assert!(key["value"].as_str().unwrap().starts_with("rsc_pk_"));
}

#[tokio::test]
async fn rotation_gives_a_successor_and_an_end() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let old = admin.create(json!({"description": "deploy"})).await;
    let path = format!("{USER}/{}/rotate", old["id"].as_str().unwrap());
    let now = millis(server.clock.now());
    let new = admin.post(&path, json!({"overlap_seconds": 60})).await;
    assert_eq!(new.status, 200, "{}", new.text);
    assert_eq!(new.header("cache-control"), Some("no-store"));
    let new = new.json();
    assert_ne!(new["id"], old["id"]);
    assert_eq!(
        (&new["description"], &new["user_id"]),
        (&json!("deploy"), &json!("user-1"))
    );
    let values = [&old, &new].map(|key| key["value"].as_str().unwrap().to_owned());
    let shown = admin
        .get(&format!("{USER}/{}", old["id"].as_str().unwrap()))
        .await
        .json();
    assert_eq!(shown["expires_at_millis"], now + 60_000);

    for value in &values {
        let reply = admin
            .post(&format!("{USER}/check"), json!({"api_key": value}))
            .await;
        assert_eq!(reply.status, 200);
    }
    let twice = admin
        .post(&path, json!({"overlap_seconds": 60}))
        .await
        .error(409, "CONFLICT");
    assert_eq!(twice["details"]["replaced_by"], new["id"]);
    server.clock.advance(SignedDuration::from_secs(60));
    let checked = admin
        .post(&format!("{USER}/check"), json!({"api_key": values[0]}))
        .await;
    checked.error(401, "API_KEY_EXPIRED");
    let checked = admin
        .post(&format!("{USER}/check"), json!({"api_key": values[1]}))
        .await;
    assert_eq!(checked.status, 200);
    let log = admin.get("/api/v1/revocations").await.json();
    assert_eq!(log["items"][0]["action"], "rotated");

    admin
        .post(&path, json!({}))
        .await
        .error(400, "SCHEMA_ERROR");
    admin
        .post(&path, json!({"overlap_seconds": -1}))
        .await
        .error(400, "SCHEMA_ERROR");
    admin
        .post(&path, json!({"overlap_seconds": 1e9}))
        .await
        .error(400, "SCHEMA_ERROR");
    let gone = admin.create(json!({})).await;
    let gone = format!("{USER}/{}", gone["id"].as_str().unwrap());
    admin.patch(&gone, json!({"revoked": true})).await;
    let refused = admin
        .post(&format!("{gone}/rotate"), json!({"overlap_seconds": 0}))
        .await;
    refused.error(401, "API_KEY_REVOKED");
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, admin.create(json!({})).await["id"].clone());
        server.clock.advance(SignedDuration::from_secs(1));
    }
    admin.create(json!({"user_id": "somebody else"})).await;
    let mut seen: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin
            .get(&format!("{USER}?user_id=user-1&limit=2{cursor}"))
            .await
            .json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["id"].clone()),
        );
        match page["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    assert_eq!(
        admin.get(&format!("{USER}?user_id=user-1")).await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    for bad in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=1&limit=2",
        "cursor=x",
        "cursor=%00",
        "colour=red",
    ] {
        let reply = admin.get(&format!("{USER}?user_id=user-1&{bad}")).await;
        reply.error(400, "SCHEMA_ERROR");
    }
    let missing = admin.get(USER).await.error(400, "SCHEMA_ERROR");
    assert_eq!(missing["details"]["field"], "user_id");
    let missing = admin
        .get(&format!("{TEAM}?user_id=u"))
        .await
        .error(400, "SCHEMA_ERROR");
    assert_eq!(missing["details"]["field"], "team_id");
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let cases: &[(Value, &str)] = &[
        (json!({"user_id": null}), "user_id"),
        (json!({"user_id": ""}), "user_id"),
        (json!({"user_id": "x".repeat(256)}), "user_id"),
        (json!({"user_id": "a\u{0}b"}), "user_id"),
        (json!({"team_id": "t"}), "team_id"),
        (json!({"description": null}), "description"),
        (json!({"description": ""}), "description"),
        (json!({"description": "x".repeat(1001)}), "description"),
        (json!({"description": 7}), "description"),
        (json!({"expires_at_millis": "2026"}), "expires_at_millis"),
        (json!({"expires_at_millis": -1}), "expires_at_millis"),
        (json!({"expires_at_millis": 1.5}), "expires_at_millis"),
        (json!({"expires_at_millis": 1e300}), "expires_at_millis"),
        (json!({"expires_at_millis": u64::MAX}), "expires_at_millis"),
        (json!({"is_public": "yes"}), "is_public"),
        (json!({"is_public": null}), "is_public"),
        (json!({"policy": "grace:24h"}), "policy"),
        (json!({"policy": 1}), "policy"),
        (json!({"notify_emails": "a@example.com"}), "notify_emails"),
        (json!({"notify_emails": ["nobody"]}), "notify_emails"),
        (
            json!({"notify_emails": vec!["a@example.com"; 21]}),
            "notify_emails",
        ),
        (json!({"colour": "red"}), "colour"),
    ];
    for (wrong, field) in cases {
        let mut body = json!({"user_id": "u", "description": "d", "expires_at_millis": null});
        body.as_object_mut()
            .unwrap()
            .extend(wrong.as_object().unwrap().clone());
        let error = admin.post(USER, body).await.error(400, "SCHEMA_ERROR");
        assert_eq!(error["details"]["field"], *field, "{error}");
        assert_eq!(error["details"]["message"], error["error"]);
    }
    for field in ["user_id", "description", "expires_at_millis"] {
        let mut body = json!({"user_id": "u", "description": "d", "expires_at_millis": null});
        body.as_object_mut().unwrap().remove(field);
        let error = admin.post(USER, body).await.error(400, "SCHEMA_ERROR");
        assert_eq!(error["details"]["field"], field, "{error}");
    }
    let good = json!({
        "policy": "revoke", "notify_emails": ["a@example.com"], "description": "é\n\t".repeat(333),
        "expires_at_millis": 253_402_207_199_999_i64,
    });
    admin.create(good).await;
    let id = admin.create(json!({})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for wrong in [
        json!({"revoked": false}),
        json!({"revoked": null}),
        json!({"is_public": true}),
        json!({"description": null}),
    ] {
        let field = wrong.as_object().unwrap().keys().next().unwrap().clone();
        let error = admin
            .patch(&format!("{USER}/{id}"), wrong)
            .await
            .error(400, "SCHEMA_ERROR");
        assert_eq!(error["details"]["field"], json!(field));
    }
}

#[tokio::test]
async fn keys_of_another_project_or_kind_do_not_exist() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let id = key["id"].as_str().unwrap();
    let other = server.with_token(server.token_in(Role::Admin, "other").await);
    other
        .get(&format!("{USER}/{id}"))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    other
        .patch(&format!("{USER}/{id}"), json!({"revoked": true}))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    other
        .post(
            &format!("{USER}/{id}/rotate"),
            json!({"overlap_seconds": 0}),
        )
        .await
        .error(404, "API_KEY_NOT_FOUND");
    other
        .post(&format!("{USER}/check"), json!({"api_key": key["value"]}))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    let list = other.get(&format!("{USER}?user_id=user-1")).await.json();
    assert_eq!(list["items"], json!([]));
    admin
        .get(&format!("{TEAM}/{id}"))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    admin
        .patch(&format!("{TEAM}/{id}"), json!({"revoked": true}))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    for no_id in [
        "x",
        "00000000-0000-0000-0000-000000000000",
        "%ff",
        key["value"].as_str().unwrap(),
    ] {
        admin
            .get(&format!("{USER}/{no_id}"))
            .await
            .error(404, "API_KEY_NOT_FOUND");
    }
    assert_eq!(
        admin
            .get(&format!("{USER}/{id}"))
            .await
            .json()
            .get("manually_revoked_at_millis"),
        None
    );
}

#[tokio::test]
async fn a_key_in_a_text_is_refused_and_not_repeated() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let value = server.mint();
    let value = value.expose();
    let id = admin.create(json!({})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let text = format!("key {value}.");
    for body in [
        json!({"description": text}),
        json!({"user_id": text}),
        json!({"notify_emails": [text]}),
        json!({value: "x"}),
        json!({"policy": value}),
    ] {
        let mut whole = json!({"user_id": "u", "description": "d", "expires_at_millis": null});
        whole
            .as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        let refused = admin.post(USER, whole).await;
        refused.error(400, "SCHEMA_ERROR");
        assert!(!refused.text.contains(value), "{}", refused.text);
    }
    let refused = admin
        .patch(&format!("{USER}/{id}"), json!({"description": text}))
        .await;
    refused.error(400, "SCHEMA_ERROR");
    for query in [
        format!("user_id={value}"),
        format!("user_id=u&{value}=1"),
        format!("user_id=u&cursor={value}"),
    ] {
        let refused = admin.get(&format!("{USER}?{query}")).await;
        refused.error(400, "SCHEMA_ERROR");
        assert!(!refused.text.contains(value), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_leaked_key_that_is_checked_is_recorded_with_its_client() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let value = key["value"].as_str().unwrap();
    let check = |client: Option<&'static str>| {
        let request = admin
            .request("POST", &format!("{USER}/check"))
            .json(&json!({"api_key": value}));
        match client {
            Some(client) => request.header("x-forwarded-for", client),
            None => request,
        }
    };
    assert_eq!(check(Some("192.0.2.1")).ask().await.unwrap().status(), 200);
    let report = admin.post(
        "/api/v1/integrations/credential-scanning/revoke",
        json!({"api_key": value}),
    );
    assert_eq!(report.await.status, 200);
    for client in [Some("203.0.113.9, 10.0.0.1"), Some("not an address"), None] {
        assert_eq!(check(client).ask().await.unwrap().status(), 401);
        server.clock.advance(SignedDuration::from_secs(1));
    }
    let incidents = admin.get("/api/v1/incidents").await.json();
    assert_eq!(incidents["items"][0]["use_count"], 3);
    let id = incidents["items"][0]["id"].as_str().unwrap();
    let incident = admin.get(&format!("/api/v1/incidents/{id}")).await.json();
    let uses = incident["uses_after_exposure"].as_array().unwrap();
    let clients: Vec<_> = uses
        .iter()
        .map(|used| used.get("client_address").cloned())
        .collect();
    assert_eq!(clients, [Some(json!("203.0.113.9")), None, None]);
    let events: Vec<_> = incident["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(
        events,
        ["issued", "seen", "revoked", "used", "used", "used"]
    );
}

on_both_databases! {
    /// `9999-12-31T23:59:59Z`, and whatever is later, is how programs without a null write it.
    async fn a_far_end_is_never_and_a_blank_description_none(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let last = 253_370_764_800_000_i64 - 1;
        let kept = admin.create(json!({"expires_at_millis": last})).await;
        assert_eq!(kept["expires_at_millis"], last);
        let path = format!("{USER}/{}", kept["id"].as_str().unwrap());
        for far in [last + 1, 253_402_300_799_000, 8_640_000_000_000_000, 9_007_199_254_740_991, i64::MAX] {
            let key = admin.create(json!({"expires_at_millis": far})).await;
            assert!(key.get("expires_at_millis").is_none(), "{key}");
            let changed = admin.patch(&path, json!({"expires_at_millis": far})).await.json();
            assert!(changed.get("expires_at_millis").is_none(), "{changed}");
        }
        for blank in ["", " ", "\t\n", "\u{a0}\u{200b}"] {
            let body = json!({"user_id": "u", "description": blank, "expires_at_millis": null});
            admin.post(USER, body).await.error(400, "SCHEMA_ERROR");
            admin.patch(&path, json!({"description": blank})).await.error(400, "SCHEMA_ERROR");
            let body = json!({"user_id": blank, "description": "x", "expires_at_millis": null});
            admin.post(USER, body).await.error(400, "SCHEMA_ERROR");
        }
        let entries = admin.get("/api/v1/revocations?until=9999-12-31T23:59:59Z").await;
        assert_eq!(entries.status, 200, "{}", entries.text);
        server.stop().await;
    }
}
