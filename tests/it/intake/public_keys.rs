//! Public keys whose signatures are accepted, and behavior while they cannot be fetched.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use p256::ecdsa::Signature;
use rescind::clock::{ManualClock, SharedClock};
use rescind::intake::{NoKey, PublicKeyTimings, PublicKeys};
use serde::Deserialize;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use super::signer::{Origin, Signer, list, partnership, send};
use crate::api::harness::{Setup, TestServer, http_client};
use crate::support::eventually::eventually;

#[derive(Deserialize)]
struct Vectors {
    public_keys: Vec<Value>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    key_identifier: String,
    signature_b64: String,
    payload: String,
    expected_valid: bool,
}

/// GitHub's own signatures over GitHub's own bodies, one of them with spaces, one by a retired key.
#[tokio::test]
async fn published_reports_are_accepted_over_http() {
    let vectors = include_str!("../../../fixtures/vectors/github_partner.json");
    let vectors: Vectors = serde_json::from_str(vectors).unwrap();
    let origin = Origin::start(&vectors.public_keys).await;
    let server = TestServer::start_with(origin.setup()).await;
    for vector in vectors.vectors {
        let (key, signature) = (vector.key_identifier, vector.signature_b64);
        let body = vector.payload.clone();
        let reply = send(&server, Some(&key), Some(&signature), body).await;
        if vector.expected_valid {
            let token_hash = rescind::keyformat::Sha256Digest::of(b"some_token").to_hex();
            let row = json!({"token_hash": token_hash, "token_type": "some_type", "label": "false_positive"});
            assert_eq!(reply.json(), json!([row]), "{}", vector.id);
        } else {
            reply.error(401, "SIGNATURE_INVALID");
        }
        let changed = format!("{} ", vector.payload);
        let reply = send(&server, Some(&key), Some(&signature), changed).await;
        reply.error(401, "SIGNATURE_INVALID");
    }
    assert_eq!(origin.fetches().await, 1);
}

#[tokio::test]
async fn proof_is_needed_and_taken_strictly() {
    let (server, origin, signer) = partnership().await;
    let body = "[]";
    let good = signer.sign(body.as_bytes());
    for (identifier, signature) in [
        (None, None),
        (Some("k1"), None),
        (None, Some(good.as_str())),
        (Some(""), Some(&good)),
        (Some("k1"), Some("")),
    ] {
        send(&server, identifier, signature, body)
            .await
            .error(401, "SIGNATURE_INVALID");
    }
    let der = STANDARD.decode(&good).unwrap();
    let trailing = STANDARD.encode([&der[..], &[0]].concat());
    let long_form = STANDARD.encode([&[0x30, 0x81], &der[1..]].concat());
    let raw = STANDARD.encode(signer.raw_signature(body.as_bytes()).to_bytes());
    let cut = good
        .trim_end_matches('=')
        .get(..good.len() - 4)
        .unwrap()
        .to_owned();
    for bad in [
        trailing,
        long_form,
        raw,
        cut,
        "!".to_owned(),
        "A".repeat(6_000),
        hex::encode(&der),
    ] {
        send(&server, Some("k1"), Some(&bad), body)
            .await
            .error(401, "SIGNATURE_INVALID");
    }
    // None of that was worth asking the origin for.
    assert_eq!(origin.fetches().await, 0);
    let other_body = signer.sign(b"[ ]");
    send(&server, Some("k1"), Some(&other_body), body)
        .await
        .error(401, "SIGNATURE_INVALID");
    let reply = send(&server, Some("k1"), Some(&good), body).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, "[]"));
}

/// ECDSA signatures have two forms; neither is told from the other, and none is remembered.
#[tokio::test]
async fn both_forms_of_a_signature_are_one_report() {
    let (server, _origin, signer) = partnership().await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let body = json!([{"token": key["value"], "type": "t", "url": null}]).to_string();
    let one = signer.raw_signature(body.as_bytes());
    let (r, s) = one.split_scalars();
    let other = Signature::from_scalars(r, -s).unwrap();
    assert_ne!(one, other);
    for signature in [one, other, one] {
        let encoded = STANDARD.encode(signature.to_der());
        let reply = send(&server, Some("k1"), Some(&encoded), body.clone()).await;
        assert_eq!(reply.json()[0]["label"], "true_positive");
    }
    assert_eq!(server.store.log_head().await.unwrap().seq, 1);
}

#[tokio::test]
async fn only_p256_keys_of_the_list_count() {
    let signer = Signer::new("p256");
    let p384 = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEiRkzVKuXjWPHYkANUcw5Fs/haYR3N4eK\n\
        flNiYNvZwbb1Zw+IZvpFJXAvQMcsyq0G5I7Bi2nqZICdnLYOlZR1sRoD3+DoRCsb\n\
        4iJlZNgl2LfnPUm9eAOnNb6x3onKAOb1\n\
        -----END PUBLIC KEY-----\n";
    let mut retired = signer.listed();
    retired["is_current"] = json!(false);
    let origin = Origin::start(&[
        json!({"key_identifier": "p384", "key": p384, "is_current": true}),
        json!({"key_identifier": 7}),
        json!(null),
        retired,
    ])
    .await;
    let server = TestServer::start_with(origin.setup()).await;
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    send(&server, Some("p384"), Some(&signer.sign(b"[]")), "[]")
        .await
        .error(401, "SIGNATURE_INVALID");
}

#[tokio::test]
async fn fifty_unknown_identifiers_are_one_fetch_then_a_pause() {
    let (server, origin, signer) = partnership().await;
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    server.clock.advance(SignedDuration::from_secs(60));
    origin.answer_with(
        ResponseTemplate::new(200)
            .set_body_json(json!({"public_keys": [signer.listed()]}))
            .set_delay(Duration::from_millis(200)),
    );
    let strangers: Vec<_> = (0..50)
        .map(|n| Signer::new(&format!("stranger-{n}")))
        .collect();
    let replies = strangers
        .iter()
        .map(|stranger| stranger.send(&server, "[]"));
    for reply in futures_util::future::join_all(replies).await {
        reply.error(401, "SIGNATURE_INVALID");
    }
    assert_eq!(origin.fetches().await, 2);
    // Within the pause nobody asks again, not even for a key that is published meanwhile.
    origin.publish(&[signer.listed(), strangers[0].listed()]);
    server.clock.advance(SignedDuration::from_secs(59));
    strangers[0]
        .send(&server, "[]")
        .await
        .error(401, "SIGNATURE_INVALID");
    assert_eq!(origin.fetches().await, 2);
    server.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(strangers[0].send(&server, "[]").await.status, 200);
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    assert_eq!(origin.fetches().await, 3);
}

/// GitHub allows an address 60 requests an hour without a token, which sources share.
#[tokio::test]
async fn unknown_identifiers_have_the_list_fetched_ever_more_rarely() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let origin = Origin::start(&[old.listed()]).await;
    let (clock, keys) = keys_of(&origin);
    assert!(keys.find("old").await.is_ok());
    let mut waits = Vec::new();
    for fetch in 2..9 {
        assert_eq!(keys.find("new").await.unwrap_err(), NoKey::Unknown);
        assert_eq!(origin.fetches().await, fetch);
        let minute = Duration::from_mins(1);
        clock.advance(SignedDuration::from_secs(59));
        assert_eq!(keys.find("new").await.unwrap_err(), NoKey::Unknown);
        clock.advance(SignedDuration::from_secs(1));
        // Until the next fetch it may be a new one, so its sender is told to come again.
        let wait = match keys.refusal("new") {
            None => Duration::ZERO,
            Some(NoKey::Unavailable { retry_after }) => retry_after,
            Some(other) => panic!("{other}"),
        };
        waits.push((wait + minute).as_secs() / 60);
        clock.advance(SignedDuration::try_from(wait).unwrap());
        assert_eq!(origin.fetches().await, fetch);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
    origin.publish(&[old.listed(), new.listed()]);
    assert!(keys.find("new").await.is_ok());
    // A new list begins anew.
    clock.advance(SignedDuration::from_mins(1));
    assert_eq!(keys.refusal("newer"), None);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_a_503_until_they_can() {
    let (server, origin, signer) = partnership().await;
    for answer in [
        ResponseTemplate::new(500),
        ResponseTemplate::new(403),
        ResponseTemplate::new(200).set_body_string("<html>"),
        ResponseTemplate::new(200).set_body_json(json!({"public_keys": []})),
        ResponseTemplate::new(200).set_body_bytes(vec![b' '; 2 << 20]),
    ] {
        origin.answer_with(answer);
        let reply = signer.send(&server, "[]").await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert_eq!(reply.header("retry-after"), Some("10"));
        server.clock.advance(SignedDuration::from_secs(10));
    }
    assert_eq!(origin.fetches().await, 5);
    origin.answer_with(ResponseTemplate::new(500));
    server.clock.advance(SignedDuration::from_secs(-4));
    let reply = signer.send(&server, "[]").await;
    assert_eq!(reply.header("retry-after"), Some("4"));
    assert_eq!(origin.fetches().await, 5);
    origin.publish(&[signer.listed()]);
    server.clock.advance(SignedDuration::from_secs(4));
    assert_eq!(signer.send(&server, "[]").await.status, 200);
}

#[tokio::test]
async fn a_list_that_cannot_be_refreshed_stays_in_use() {
    let (server, origin, signer) = partnership().await;
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    origin.answer_with(ResponseTemplate::new(500));
    server.clock.advance(SignedDuration::from_hours(1));
    for _ in 0..3 {
        assert_eq!(signer.send(&server, "[]").await.status, 200);
    }
    assert_eq!(origin.fetches().await, 2);
    // An identifier that is not in it may be a new one: nobody can say, so the sender tries again.
    let reply = Signer::new("new").send(&server, "[]").await;
    reply.error(503, "SERVICE_UNAVAILABLE");
    server.clock.advance(SignedDuration::from_secs(10));
    origin.publish(&[Signer::new("new").listed()]);
    // After the refresh the old key is gone from the list, and from ours.
    signer
        .send(&server, "[]")
        .await
        .error(401, "SIGNATURE_INVALID");
    assert_eq!(origin.fetches().await, 3);
}

#[tokio::test]
async fn a_fresh_list_is_not_fetched_again() {
    let (server, origin, signer) = partnership().await;
    for _ in 0..10 {
        assert_eq!(signer.send(&server, "[]").await.status, 200);
        server.clock.advance(SignedDuration::from_secs(300));
    }
    assert_eq!(origin.fetches().await, 1);
    server.clock.advance(SignedDuration::from_secs(600));
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    assert_eq!(origin.fetches().await, 2);
}

#[tokio::test]
async fn an_origin_that_stalls_is_given_up() {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    origin.answer_with(ResponseTemplate::new(200).set_delay(Duration::from_mins(10)));
    let timings = PublicKeyTimings {
        timeout: Duration::from_millis(50),
        ..PublicKeyTimings::default()
    };
    let setup = Setup {
        timings,
        ..origin.setup()
    };
    let server = TestServer::start_with(setup).await;
    signer
        .send(&server, "[]")
        .await
        .error(503, "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_a_503() {
    let setup = Setup {
        public_keys_url: Some("http://127.0.0.1:1/".to_owned()),
        ..Setup::default()
    };
    let server = TestServer::start_with(setup).await;
    Signer::new("k1")
        .send(&server, "[]")
        .await
        .error(503, "SERVICE_UNAVAILABLE");
}

/// Returns the keys that `origin` publishes, and the clock by which they are fetched.
fn keys_of(origin: &Origin) -> (Arc<ManualClock>, PublicKeys) {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let keys = PublicKeys::new(
        origin.url().parse().unwrap(),
        http_client(),
        shared,
        PublicKeyTimings::default(),
    );
    (clock, keys)
}

/// Whatever strangers did to the cool-down meanwhile, and whether or not the origin can be asked when it is needed.
#[tokio::test]
async fn keys_that_were_published_in_advance_are_known_when_they_sign() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let origin = Origin::start(&[old.listed()]).await;
    let (clock, keys) = keys_of(&origin);
    let hour = SignedDuration::from_hours(1);

    // Nothing is asked before there was a report, nor while the list is fresh.
    keys.refresh().await;
    assert_eq!(origin.fetches().await, 0);
    assert!(keys.find("old").await.is_ok());
    keys.refresh().await;
    assert_eq!(origin.fetches().await, 1);

    clock.advance(hour);
    let listed = list(&[old.listed(), new.listed()]);
    origin.answer_with(listed.insert_header("etag", "\"2\""));
    keys.refresh().await;
    assert_eq!(origin.fetches().await, 2);
    origin.answer_with(ResponseTemplate::new(500));
    assert!(keys.find("new").await.is_ok());
    assert_eq!(origin.fetches().await, 2);

    // One that fails takes nothing away, and is not repeated at once.
    clock.advance(hour);
    keys.refresh().await;
    keys.refresh().await;
    assert_eq!(origin.fetches().await, 3);
    assert!(keys.find("new").await.is_ok());
    assert_eq!(origin.fetches().await, 4, "that of the report");

    // A list that did not change counts as fetched.
    clock.advance(hour);
    origin.answer_with(ResponseTemplate::new(304));
    keys.refresh().await;
    assert_eq!(
        origin.last_request().await.headers["if-none-match"],
        "\"2\""
    );
    assert!(keys.find("new").await.is_ok());
    assert_eq!(origin.fetches().await, 5);

    // Nor does it take the place of what a report leads to.
    origin.publish(&[Signer::new("newest").listed()]);
    assert!(keys.find("newest").await.is_ok());
    assert_eq!(keys.find("none").await.unwrap_err(), NoKey::Unknown);
    assert_eq!(origin.fetches().await, 6);
}

/// The answer to the hourly refresh comes late, and is from before the key was published.
#[tokio::test]
async fn a_list_never_takes_the_place_of_one_that_was_asked_for_later() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let origin = Origin::start(&[old.listed()]).await;
    let (clock, keys) = keys_of(&origin);
    assert!(keys.find("old").await.is_ok());
    clock.advance(SignedDuration::from_hours(1));
    origin.answer_with(list(&[old.listed()]).set_delay(Duration::from_secs(2)));
    let meanwhile = async {
        eventually("the refresh has begun", async || {
            origin.fetches().await == 2
        })
        .await;
        origin.publish(&[old.listed(), new.listed()]);
        assert!(keys.find("new").await.is_ok());
    };
    tokio::join!(keys.refresh(), meanwhile);
    assert!(keys.find("new").await.is_ok());
    assert_eq!(origin.fetches().await, 3);
}
