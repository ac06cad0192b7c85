//! Recovery of pushes that the feed did not show.

use std::time::Duration;

use rescind::source::{Scope, Source as _};
use serde_json::{Value, json};
use wiremock::matchers::{path, query_param};
use wiremock::{Mock, ResponseTemplate};

use super::{hex, json_of, poll, push, repository, rig, serve};
use crate::support::eventually::eventually;

fn activity(n: usize, at: &str) -> Value {
    json!({"id": n, "before": hex(n), "after": hex(n + 1), "ref": "refs/heads/main",
        "timestamp": at, "activity_type": "push", "actor": {"login": "octocat"}})
}

#[tokio::test]
async fn pushes_that_the_feed_missed_are_found_once() {
    let (_database, rig, server) = rig().await;
    let source = rig.with(&server, repository(), vec![]);
    serve(
        &server,
        "/repos/acme/shop/events",
        json_of(&json!([push(1)])),
    )
    .await;
    poll(&source).await;
    // A gap: 2, 3 and 4 were never shown.
    server.reset().await;
    let shop = json!({"id": 42, "full_name": "acme/shop", "pushed_at": "2026-05-28T20:09:00Z"});
    serve(&server, "/repos/acme/shop", json_of(&shop)).await;
    serve(
        &server,
        "/repos/acme/shop/events",
        json_of(&json!([push(6), push(5)])),
    )
    .await;
    let next = format!(
        "<{}/repos/acme/shop/activity?after=x>; rel=\"next\"",
        server.uri()
    );
    let recent: Vec<_> = [6, 5, 4]
        .map(|n| activity(n, "2026-05-28T20:05:00Z"))
        .to_vec();
    let older = json!([
        {"odd": true},
        activity(3, "2026-05-28T20:01:00Z"),
        activity(2, "2026-05-28T20:00:30Z"),
        activity(1, "2026-05-28T20:00:00Z"),
        activity(0, "2026-05-01T00:00:00Z"),
    ]);
    Mock::given(path("/repos/acme/shop/activity"))
        .and(query_param("after", "x"))
        .respond_with(json_of(&older))
        .expect(1)
        .with_priority(1)
        .mount(&server)
        .await;
    let first = json_of(&json!(recent)).insert_header("link", next.as_str());
    serve(&server, "/repos/acme/shop/activity", first).await;
    let outcome = poll(&source).await;
    assert!(outcome.gap);
    assert_eq!(outcome.items, 5);
    let state = rig.told().await;
    assert_eq!((state.repaired, state.gaps, state.malformed), (3, 1, 1));
    let unseen = state.unseen.unwrap();
    assert!(
        unseen.contains("between 2026-05-28T20:00:00Z and"),
        "{unseen}"
    );
    assert_eq!(rig.work().await.len(), 6);

    // The feed shows late what was found already.
    server.reset().await;
    let late = json!([push(6), push(4), push(3), push(2)]);
    serve(&server, "/repos/acme/shop/events", json_of(&late)).await;
    let outcome = poll(&source).await;
    assert_eq!((outcome.events, outcome.items, outcome.gap), (3, 0, false));
    assert!(rig.work().await.is_empty());
}

/// Else it is held for as long as a server trickles.
#[tokio::test]
async fn what_a_page_of_missed_pushes_brought_is_stored_before_the_next_one_is_there() {
    let (_database, rig, server) = rig().await;
    let source = rig.with(&server, repository(), vec![]);
    let events = "/repos/acme/shop/events";
    serve(&server, events, json_of(&json!([push(1)]))).await;
    poll(&source).await;
    server.reset().await;
    serve(&server, events, json_of(&json!([push(5)]))).await;
    let shop = json!({"id": 42, "full_name": "acme/shop", "pushed_at": "2026-05-28T20:09:00Z"});
    serve(&server, "/repos/acme/shop", json_of(&shop)).await;
    Mock::given(path("/repos/acme/shop/activity"))
        .and(query_param("after", "x"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_mins(10)))
        .with_priority(1)
        .mount(&server)
        .await;
    let next = format!(
        "<{}/repos/acme/shop/activity?after=x>; rel=\"next\"",
        server.uri()
    );
    let first = json_of(&json!([activity(3, "2026-05-28T20:05:00Z")]));
    let first = first.insert_header("link", next.as_str());
    serve(&server, "/repos/acme/shop/activity", first).await;
    let stored = eventually("the pushes are stored", async || {
        rig.store.work_counts().await.unwrap().waiting == 3
    });
    tokio::select! {
        outcome = source.poll_once() => panic!("the poll ended: {outcome:?}"),
        () = stored => {}
    }
}

#[tokio::test]
async fn after_a_restart_an_organization_is_compared_with_its_repositories() {
    let (_database, rig, server) = rig().await;
    let org = || Scope::Organization("acme".to_owned());
    let events = json_of(&json!([push(1)]));
    serve(&server, "/orgs/acme/events", events.clone()).await;
    poll(&rig.with(&server, org(), vec![])).await;
    let repositories = json!([
        {"id": 42, "full_name": "acme/shop", "pushed_at": "2026-05-28T21:00:00Z"},
        {"id": 43, "full_name": "acme/closed", "pushed_at": "2026-05-28T20:30:00Z"},
        {"odd": 1},
        "odd",
        {"id": 45, "full_name": "acme/../odd", "pushed_at": "2026-05-28T20:30:00Z"},
        {"full_name": "acme/anonymous", "pushed_at": "2026-05-28T20:30:00Z"},
        {"id": 44, "full_name": "acme/old", "pushed_at": "2020-01-01T00:00:00Z"},
    ]);
    Mock::given(path("/orgs/acme/repos"))
        .and(query_param("sort", "pushed"))
        .respond_with(json_of(&repositories))
        .expect(1)
        .mount(&server)
        .await;
    let found = json!([
        activity(2, "2026-05-28T21:00:00Z"),
        activity(1, "2026-05-28T20:00:00Z")
    ]);
    serve(&server, "/repos/acme/shop/activity", json_of(&found)).await;
    serve(
        &server,
        "/repos/acme/closed/activity",
        ResponseTemplate::new(403),
    )
    .await;
    let again = rig.with(&server, org(), vec![]);
    assert_eq!(poll(&again).await.items, 1);
    let state = rig.told().await;
    assert_eq!((state.repaired, state.gaps, state.malformed), (1, 0, 4));
    let unseen = state.unseen.unwrap();
    assert!(
        unseen.contains("acme/closed (HTTP 403)") && !unseen.contains("old"),
        "{unseen}"
    );
    // What could not be read is counted, and named as far as it has a name.
    for told in [
        "acme/../odd (no name of a repository)",
        "acme/anonymous (without an identifier)",
        "3 entries in the list of repositories that cannot be read",
    ] {
        assert!(unseen.contains(told), "{unseen}");
    }
    // Once is enough.
    poll(&again).await;
}

#[tokio::test]
async fn an_event_from_the_future_hides_no_gap() {
    let (_database, rig, server) = rig().await;
    let source = rig.with(&server, repository(), vec![]);
    let mut ahead = push(2);
    ahead["created_at"] = json!("2099-01-01T00:00:00Z");
    let events = "/repos/acme/shop/events";
    serve(&server, events, json_of(&json!([ahead, push(1)]))).await;
    poll(&source).await;
    server.reset().await;
    let now = rig.now();
    let shop = json!({"id": 42, "full_name": "acme/shop", "pushed_at": now.to_string()});
    serve(&server, "/repos/acme/shop", json_of(&shop)).await;
    serve(&server, events, json_of(&json!([push(5)]))).await;
    let missed = json!([activity(3, &now.to_string())]);
    serve(&server, "/repos/acme/shop/activity", json_of(&missed)).await;
    let outcome = poll(&source).await;
    assert!(outcome.gap);
    assert_eq!(rig.told().await.repaired, 1);
    assert!(rig.told().await.newest_event_at <= Some(now));
}

#[tokio::test]
async fn a_repair_that_fails_goes_on_with_the_next_poll() {
    let (_database, rig, server) = rig().await;
    serve(
        &server,
        "/repos/acme/shop/events",
        json_of(&json!([push(1)])),
    )
    .await;
    poll(&rig.with(&server, repository(), vec![])).await;
    let again = rig.with(&server, repository(), vec![]);
    serve(&server, "/repos/acme/shop", ResponseTemplate::new(502)).await;
    assert_eq!(poll(&again).await.items, 0);
    server.reset().await;
    serve(
        &server,
        "/repos/acme/shop/events",
        json_of(&json!([push(1)])),
    )
    .await;
    serve(
        &server,
        "/repos/acme/shop",
        json_of(&json!({"id": 42, "full_name": "acme/shop"})),
    )
    .await;
    let found = json!([activity(2, "2026-05-28T21:00:00Z")]);
    serve(&server, "/repos/acme/shop/activity", json_of(&found)).await;
    assert_eq!(poll(&again).await.items, 1);
    assert_eq!(rig.told().await.repaired, 1);
}

#[tokio::test]
async fn gaps_of_the_public_feed_are_told_and_not_repaired() {
    let (_database, rig, server) = rig().await;
    let source = rig.source(&server.uri());
    for n in [1, 5, 9] {
        server.reset().await;
        serve(&server, "/events", json_of(&json!([push(n)]))).await;
        poll(&source).await;
    }
    let state = rig.told().await;
    assert_eq!((state.gaps, state.repaired), (2, 0));
    assert!(state.unseen.unwrap().ends_with("2 gaps so far"));
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}
