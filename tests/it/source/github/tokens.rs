//! Several tokens, and the tokens of GitHub Apps.

use std::sync::Arc;
use std::time::Duration;

use rescind::github::{AppAuth, Credential, Installation};
use rescind::source::{Scope, Source as _};
use secrecy::ExposeSecret as _;
use serde_json::json;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{json_of, poll, push, repository, rig, serve, token};
use crate::source::{Rig, shared};

/// Made for these tests, and of no use anywhere else.
const PEM: &str = include_str!("../../../../fixtures/github/app_test_key.pem");

#[tokio::test]
async fn each_token_has_its_own_etag_and_account() {
    let (_database, rig, server) = rig().await;
    let source = rig.with(
        &server,
        Scope::Public,
        vec![token("first"), token("second")],
    );
    let mount = async |name: &str, left: u64, answer: ResponseTemplate| {
        let answer = answer
            .insert_header("x-ratelimit-limit", "5000")
            .insert_header("x-ratelimit-remaining", left.to_string().as_str())
            .insert_header(
                "x-ratelimit-reset",
                (rig.now().as_second() + 900).to_string().as_str(),
            );
        Mock::given(header("authorization", format!("Bearer {name}").as_str()))
            .respond_with(answer)
            .mount(&server)
            .await;
    };
    let page = json_of(&json!([push(1)]));
    mount("first", 10, page.clone().insert_header("etag", "\"a\"")).await;
    mount("second", 4000, page.insert_header("etag", "\"b\"")).await;
    for _ in 0..3 {
        poll(&source).await;
    }
    let requests = server.received_requests().await.unwrap();
    let asked: Vec<_> = requests
        .iter()
        .map(|request| {
            let text = |name: &str| {
                request
                    .headers
                    .get(name)
                    .map(|value| value.to_str().unwrap())
            };
            (text("authorization").unwrap(), text("if-none-match"))
        })
        .collect();
    let expected = [
        ("Bearer first", None),
        ("Bearer second", None),
        ("Bearer second", Some("\"b\"")),
    ];
    assert_eq!(asked, expected);
    let state = rig.told().await;
    assert_eq!(
        (state.rate_limit, state.rate_remaining),
        (Some(10_000), Some(4010))
    );
}

#[tokio::test]
async fn a_refused_token_is_set_aside_and_the_others_go_on() {
    let (_database, rig, server) = rig().await;
    let credentials = vec![token("sesame-shut"), token("sesame-open")];
    let source = rig.with(&server, Scope::Public, credentials);
    Mock::given(header("authorization", "Bearer sesame-shut"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(header("authorization", "Bearer sesame-open"))
        .respond_with(json_of(&json!([push(1)])))
        .expect(2)
        .mount(&server)
        .await;
    assert_eq!(poll(&source).await.items, 1);
    poll(&source).await;
    let error = rig.told().await.error.unwrap();
    assert!(
        error.contains("access token 1 of 2") && !error.contains("sesame"),
        "{error}"
    );
}

#[tokio::test]
async fn a_limited_token_makes_way_for_the_next() {
    let (_database, rig, server) = rig().await;
    let source = rig.with(
        &server,
        Scope::Public,
        vec![token("first"), token("second")],
    );
    let slow = ResponseTemplate::new(429).insert_header("retry-after", "600");
    for (name, answer) in [
        ("first", slow.clone()),
        ("second", json_of(&json!([push(1)]))),
    ] {
        Mock::given(header("authorization", format!("Bearer {name}").as_str()))
            .respond_with(answer)
            .mount(&server)
            .await;
    }
    assert_eq!(poll(&source).await.items, 1);
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
    server.reset().await;
    serve(&server, "/events", slow).await;
    let failure = source.poll_once().await.unwrap_err();
    assert_eq!(failure.next_after, Duration::from_mins(10));
    // While both have to wait nothing is asked.
    assert!(source.poll_once().await.is_err());
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

fn installation(rig: &Rig, server: &MockServer, scope: &Scope) -> Arc<Installation> {
    let auth = AppAuth::new(12345, &PEM.into()).unwrap();
    Arc::new(Installation::new(
        Arc::new(auth),
        scope.installation().unwrap(),
        rescind::fetch::http_client().unwrap(),
        server.uri().parse().unwrap(),
        shared(&rig.clock),
    ))
}

async fn give_token(server: &MockServer, rig: &Rig, value: &str) {
    let expires_at = rig.now() + jiff::SignedDuration::from_hours(1);
    let answer = json!({"token": value, "expires_at": expires_at});
    Mock::given(method("POST"))
        .and(path("/app/installations/678/access_tokens"))
        .respond_with(ResponseTemplate::new(201).set_body_json(answer))
        .expect(1)
        .mount(server)
        .await;
}

#[tokio::test]
async fn an_apps_token_is_found_kept_and_renewed() {
    let (_database, rig, server) = rig().await;
    serve(
        &server,
        "/repos/acme/shop/installation",
        json_of(&json!({"id": 678})),
    )
    .await;
    give_token(&server, &rig, "ghs_one").await;
    let app = installation(&rig, &server, &repository());
    for _ in 0..2 {
        assert_eq!(app.token().await.unwrap().expose_secret(), "ghs_one");
        rig.later(Duration::from_mins(27));
    }
    let requests = server.received_requests().await.unwrap();
    let bearer = requests[0].headers["authorization"].to_str().unwrap();
    assert_eq!(bearer.split('.').count(), 3);
    assert!(!format!("{app:?}").contains("ghs_"));
    // Less than five minutes are left after another two.
    rig.later(Duration::from_mins(2));
    server.reset().await;
    serve(
        &server,
        "/repos/acme/shop/installation",
        json_of(&json!({"id": 678})),
    )
    .await;
    give_token(&server, &rig, "ghs_two").await;
    assert_eq!(app.token().await.unwrap().expose_secret(), "ghs_two");
}

#[tokio::test]
async fn an_apps_token_that_was_revoked_is_replaced() {
    let (_database, rig, server) = rig().await;
    serve(
        &server,
        "/repos/acme/shop/installation",
        json_of(&json!({"id": 678})),
    )
    .await;
    give_token(&server, &rig, "ghs_one").await;
    let app = installation(&rig, &server, &repository());
    app.token().await.unwrap();
    server.reset().await;
    serve(
        &server,
        "/repos/acme/shop/installation",
        json_of(&json!({"id": 678})),
    )
    .await;
    give_token(&server, &rig, "ghs_two").await;
    for (value, answer) in [
        ("ghs_one", ResponseTemplate::new(401)),
        ("ghs_two", json_of(&json!([push(1)]))),
    ] {
        Mock::given(path("/repos/acme/shop/events"))
            .and(header("authorization", format!("Bearer {value}").as_str()))
            .respond_with(answer)
            .expect(1)
            .mount(&server)
            .await;
    }
    let source = rig.with(&server, repository(), vec![Credential::App(app)]);
    assert_eq!(poll(&source).await.items, 1);
    assert_eq!(rig.told().await.error, None);
}
