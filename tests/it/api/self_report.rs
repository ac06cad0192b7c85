//! Whoever presents a key has it revoked.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use rescind::clock::Clock as _;
use rescind::server::{Limits, TrustedProxies};
use serde_json::json;
use sqlx::{Connection as _, Executor as _};

use super::harness::{Reply, Setup, TestServer, millis};
use crate::intake::signer::{Origin, Signer};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::http::Ask as _;

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";

on_both_databases! {
    /// Once or a hundred times: one revocation, one log entry, one incident.
    async fn a_presented_key_is_revoked_once(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let body = json!({"api_key": key["value"], "url": "https://paste.example/7"});
        let stranger = server.anonymous();
        let replies = futures_util::future::join_all((0..20).map(|_| stranger.post(REVOKE, body.clone()))).await;
        for reply in replies {
            assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
        }
        server.clock.advance(SignedDuration::from_secs(9));
        assert_eq!(stranger.post(REVOKE, body).await.status, 200);
        let log = admin.get("/api/v1/revocations").await.json();
        let entries = log["items"].as_array().unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((&entries[0]["reason"], &entries[0]["actor"]), (&json!("self_report"), &json!("self_report")));
        assert_eq!(entries[0]["occurrence"]["url"], "https://paste.example/7");
        let incidents = admin.get("/api/v1/incidents").await.json();
        assert_eq!(incidents["items"][0]["sighting_count"], 21);
        assert_eq!(incidents["items"][0]["occurrence_count"], 1);
        server.stop().await;
    }
}

/// Keeps a key's row, and on SQLite everything, from being changed.
enum Lock {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Lock {
    async fn take(database: &TestDatabase, key: &str) -> Self {
        match database.kind {
            Kind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&database.url)
                    .await
                    .unwrap();
                connection.execute("BEGIN IMMEDIATE").await.unwrap();
                Self::Sqlite(connection)
            }
            Kind::Postgres => {
                let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
                connection.execute("BEGIN").await.unwrap();
                let lock = format!("SELECT id FROM keys WHERE id = '{key}' FOR UPDATE");
                connection.execute(sqlx::AssertSqlSafe(lock)).await.unwrap();
                Self::Postgres(connection)
            }
        }
    }

    async fn give_back(self) {
        match self {
            Self::Sqlite(mut connection) => connection.execute("ROLLBACK").await.map(drop),
            Self::Postgres(mut connection) => connection.execute("ROLLBACK").await.map(drop),
        }
        .unwrap();
    }
}

on_both_databases! {
    /// Whoever has one key may report it as often as he likes, at the cost of eight transactions at a time.
    async fn one_key_reported_again_and_again_keeps_nobody_waiting(database) {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let server = TestServer::on(database, origin.setup()).await;
        let admin = server.admin().await;
        let key = admin.create(json!({})).await;
        let other = admin.create(json!({})).await;
        let lock = Lock::take(database, key["id"].as_str().unwrap()).await;
        let stranger = server.anonymous();
        let reports = futures_util::future::join_all((0..40).map(|_| {
            stranger.post(REVOKE, json!({"api_key": key["value"]}))
        }));
        let partner = async {
            // They are there first.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let body = json!([{"token": other["value"], "type": "x", "url": ""}]);
            // On SQLite there is one writer, and somebody else is it.
            if database.kind == Kind::Postgres {
                let started = Instant::now();
                let reply = signer.send(&server, body.to_string()).await;
                assert_eq!(reply.json()[0]["label"], "true_positive", "{}", reply.text);
                assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
            }
        };
        let (replies, ()) = tokio::join!(reports, partner);
        let put_off = replies.iter().filter(|reply| {
            reply.status == 503 && reply.text.contains("Too many keys are being reported at once")
        });
        let put_off: Vec<_> = put_off.collect();
        assert!((24..=32).contains(&put_off.len()), "{}", put_off.len());
        assert!(put_off.iter().all(|reply| reply.header("retry-after").is_some()));
        lock.give_back().await;
        assert_eq!(stranger.post(REVOKE, json!({"api_key": key["value"]})).await.status, 200);
        server.stop().await;
    }
}

#[tokio::test]
async fn answers_are_stack_auths() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let stranger = server.anonymous();
    let report = |value: &serde_json::Value| stranger.post(REVOKE, json!({"api_key": value}));
    report(&json!(server.mint().expose()))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    let public = admin.create(json!({"is_public": true})).await;
    report(&public["value"])
        .await
        .error(400, "PUBLIC_API_KEY_CANNOT_BE_REVOKED");
    let checked = admin
        .post(
            "/api/v1/user-api-keys/check",
            json!({"api_key": public["value"]}),
        )
        .await;
    assert_eq!(checked.status, 200);
    let end = millis(server.clock.now()) + 1000;
    let short = admin.create(json!({"expires_at_millis": end})).await;
    let revoked_then_expired = admin.create(json!({"expires_at_millis": end})).await;
    assert_eq!(report(&revoked_then_expired["value"]).await.status, 200);
    server.clock.advance(SignedDuration::from_secs(1));
    report(&short["value"]).await.error(401, "API_KEY_EXPIRED");
    assert_eq!(report(&revoked_then_expired["value"]).await.status, 200);
    let revoked = admin.create(json!({})).await;
    let path = format!("/api/v1/user-api-keys/{}", revoked["id"].as_str().unwrap());
    admin.patch(&path, json!({"revoked": true})).await;
    assert_eq!(report(&revoked["value"]).await.status, 200);
}

/// Whatever somebody writes about the place, the key has leaked.
#[tokio::test]
async fn a_url_that_cannot_be_kept_costs_no_revocation() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let stranger = server.anonymous();
    let too_long = format!("https://{}", "x".repeat(2048));
    for url in [
        json!("javascript:alert(1)"),
        json!("ftp://x"),
        json!(""),
        json!("x"),
        json!(too_long),
        json!("https://a b"),
        json!(7),
        json!(["https://a"]),
        json!({}),
        json!(null),
    ] {
        let key = admin.create(json!({})).await;
        let body = json!({"api_key": key["value"], "url": url});
        assert_eq!(stranger.post(REVOKE, body).await.status, 200, "{url}");
        let log = admin.get("/api/v1/revocations?limit=1").await.json();
        assert_eq!(log["items"][0]["key_id"], key["id"], "{url}");
        assert_eq!(log["items"][0]["occurrence"]["url"], json!(null), "{url}");
    }
    // Nor what an editor made of it, or a language that cuts texts in the middle of a character.
    for odd in [
        &br"https://a.example/\ud83d"[..],
        b"https://a.example/\xff",
        b"https://a.example/\x07",
    ] {
        let key = admin.create(json!({})).await;
        let value = key["value"].as_str().unwrap();
        let head = format!("\u{feff}{{\"api_key\":\"{value}\",\"url\":\"");
        let body = [head.as_bytes(), odd, b"\"}"].concat();
        let request = stranger.request("POST", REVOKE);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        assert_eq!(Reply::of(request).await.status, 200, "{odd:?}");
        let log = admin.get("/api/v1/revocations?limit=1").await.json();
        assert_eq!(log["items"][0]["key_id"], key["id"], "{odd:?}");
    }
}

#[tokio::test]
async fn a_report_without_a_key_is_refused_and_a_key_in_a_url_is_cleaned() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let stranger = server.anonymous();
    let key = admin.create(json!({})).await;
    let value = key["value"].as_str().unwrap();
    for body in [
        json!({"api_key": 7}),
        json!({}),
        json!({"api_key": ""}),
        json!({"api_key": value, "x": 1}),
    ] {
        stranger.post(REVOKE, body).await.error(400, "SCHEMA_ERROR");
    }
    assert_eq!(server.store.log_head().await.unwrap().seq, 0);
    let with_key = format!("https://paste.example/?key={value}");
    assert_eq!(
        stranger
            .post(REVOKE, json!({"api_key": value, "url": with_key}))
            .await
            .status,
        200
    );
    let log = admin.get("/api/v1/revocations").await;
    assert!(
        !log.text.contains(value) && log.text.contains("paste.example"),
        "{}",
        log.text
    );
}

#[tokio::test]
async fn one_client_cannot_try_without_end() {
    let limits = Limits {
        self_reports_per_minute: NonZeroU32::new(5).unwrap(),
        ..Limits::default()
    };
    let server = TestServer::start_with(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let stranger = server.anonymous();
    let body = json!({"api_key": server.mint().expose()});
    for _ in 0..5 {
        stranger
            .post(REVOKE, body.clone())
            .await
            .error(404, "API_KEY_NOT_FOUND");
    }
    let refused = stranger.post(REVOKE, body.clone()).await;
    refused.error(429, "RATE_LIMITED");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    // A header that anybody can set makes nobody another client.
    let request = stranger
        .request("POST", REVOKE)
        .header("x-forwarded-for", "192.0.2.1")
        .json(&body);
    assert_eq!(request.ask().await.unwrap().status(), 429);
}

fn few_self_reports() -> Setup {
    Setup {
        limits: Limits {
            self_reports_per_minute: NonZeroU32::new(3).unwrap(),
            ..Limits::default()
        },
        ..Setup::default()
    }
}

/// Only what somebody made up to look like a key, and nobody holds, uses the limit up; and even a client that has
/// used it up can have a key revoked.
#[tokio::test]
async fn junk_shuts_nobody_off() {
    let server = TestServer::start_with(few_self_reports()).await;
    let admin = server.admin().await;
    let stranger = server.anonymous();
    let known = admin.create(json!({})).await;
    let public = admin.create(json!({"is_public": true})).await;
    let late = admin.create(json!({})).await;
    let report = |value: serde_json::Value| stranger.post(REVOKE, json!({"api_key": value}));
    let mut wrong_checksum = server.mint().expose().to_owned();
    let last = wrong_checksum.pop();
    wrong_checksum.push(if last == Some('0') { '1' } else { '0' });
    for _ in 0..5 {
        for junk in ["x", "rsc_sk_", &wrong_checksum] {
            report(json!(junk)).await.error(404, "API_KEY_NOT_FOUND");
        }
        report(json!(7)).await.error(400, "SCHEMA_ERROR");
        let no_json = stranger
            .request("POST", REVOKE)
            .header("content-type", "application/json")
            .body("{");
        super::harness::Reply::of(no_json)
            .await
            .error(400, "BODY_PARSING_ERROR");
        assert_eq!(report(known["value"].clone()).await.status, 200);
        report(public["value"].clone())
            .await
            .error(400, "PUBLIC_API_KEY_CANNOT_BE_REVOKED");
    }
    for _ in 0..3 {
        report(json!(server.mint().expose()))
            .await
            .error(404, "API_KEY_NOT_FOUND");
    }
    report(json!(server.mint().expose()))
        .await
        .error(429, "RATE_LIMITED");
    assert_eq!(report(late["value"].clone()).await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let mut setup = few_self_reports();
    setup.connections.proxies = TrustedProxies::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let server = TestServer::start_with(setup).await;
    let stranger = server.anonymous();
    let report = async |header: &str, client: &str| {
        let body = json!({"api_key": server.mint().expose()});
        let request = stranger.request("POST", REVOKE).header(header, client);
        request.json(&body).ask().await.unwrap().status().as_u16()
    };
    let xff = "x-forwarded-for";
    for _ in 0..3 {
        assert_eq!(report(xff, "198.51.100.1").await, 404);
    }
    assert_eq!(report(xff, "198.51.100.1").await, 429);
    // The proxy appends; what the client wrote stands before that.
    assert_eq!(report(xff, "192.0.2.7, 198.51.100.1").await, 429);
    assert_eq!(report("forwarded", "for=\"198.51.100.1:80\"").await, 429);
    assert_eq!(report(xff, "198.51.100.2").await, 404);
    assert_eq!(
        report("forwarded", "for=198.51.100.3;proto=https").await,
        404
    );
    // One network of IPv6 is one subscriber.
    for host in 1..=3 {
        assert_eq!(report(xff, &format!("2001:db8::{host}")).await, 404);
    }
    assert_eq!(report(xff, "2001:db8::4").await, 429);
    // Whoever is unclear uses up nothing that is the proxy's own.
    for _ in 0..3 {
        assert_eq!(report(xff, "bogus").await, 404);
    }
    assert_eq!(report("forwarded", "for=unknown").await, 429);
    assert_eq!(report(xff, "127.0.0.1").await, 404);
}
