//! Polling a GitHub-shaped feed.

mod aside;
mod ids;

use std::time::Duration;

use rescind::github::GitHubError;
use rescind::keyformat::FormatSet;
use rescind::source::{GitHubEvents, PollError, PollOutcome, Scope, Source};
use rescind::store::{Priority, SourceState, WorkItem};
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Rig;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

const PAGE_2013: &str = include_str!("../../../fixtures/github/events_page_2013.json");
const PAGE_2026: &str = include_str!("../../../fixtures/github/events_page_2026.json");
const LEASE: Duration = Duration::from_mins(1);

fn hex(number: usize) -> String {
    format!("{number:040x}")
}

/// The push number `n`, with an id that tells it.
fn push(n: usize) -> Value {
    json!({
        "id": format!("{}", 40_000_000_000 + n), "type": "PushEvent",
        "actor": {"id": 1, "login": "octocat"},
        "repo": {"id": 1_296_269, "name": "octocat/Hello-World"},
        "payload": {"repository_id": 1_296_269, "push_id": n, "ref": "refs/heads/master",
            "head": hex(n + 1), "before": hex(n)},
        "public": true, "created_at": "2026-11-22T07:50:26Z",
    })
}

/// Pushes from `newest` down to `oldest`, as a page shows them.
fn pushes(newest: usize, oldest: usize) -> Vec<Value> {
    (oldest..=newest).rev().map(push).collect()
}

fn answer(events: &[Value]) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(events)
        .insert_header("x-poll-interval", "60")
}

fn page(number: &str) -> wiremock::MockBuilder {
    Mock::given(method("GET"))
        .and(path("/events"))
        .and(query_param("per_page", "100"))
        .and(query_param("page", number))
}

async fn feed(events: &[Value]) -> MockServer {
    let server = MockServer::start().await;
    page("1").respond_with(answer(events)).mount(&server).await;
    server
}

async fn swap(server: &MockServer, answers: &[(&str, ResponseTemplate)]) {
    server.reset().await;
    for (number, answer) in answers {
        page(number)
            .respond_with(answer.clone())
            .mount(server)
            .await;
    }
}

async fn poll(source: &GitHubEvents) -> PollOutcome {
    source.poll_once().await.unwrap()
}

impl Rig {
    async fn state(&self) -> SourceState {
        self.store.load_source("feed").await.unwrap().unwrap()
    }

    async fn items(&self) -> Vec<WorkItem> {
        self.store.claim(1000, "test", LEASE).await.unwrap()
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

on_both_databases! {
    async fn pages_of_2013_and_2026_become_work_items(database) {
        let rig = Rig::new(&database.store().await);
        let old: Vec<Value> = serde_json::from_str(PAGE_2013).unwrap();
        let new: Vec<Value> = serde_json::from_str(PAGE_2026).unwrap();
        let server = feed(&[new, old].concat()).await;
        let source = rig.source(&server.uri());
        let outcome = poll(&source).await;
        assert_eq!((outcome.events, outcome.items, outcome.malformed), (32, 17, 0));
        assert!(!outcome.gap);

        let items = rig.items().await;
        assert_eq!(items.len(), 17);
        let modern = items.iter().find(|item| item.range.repository_id == "1296269").unwrap();
        assert_eq!(modern.range.repository, "octocat/Hello-World");
        assert_eq!(modern.range.ref_name, "refs/heads/master");
        assert_eq!(modern.range.before, "883efe034920928c47fe18598c01249d1a9fdabd");
        assert_eq!(modern.range.after, "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300");
        assert_eq!(modern.range.event_at.to_string(), "2022-06-07T07:50:26Z");
        assert_eq!((modern.range.host.as_str(), modern.range.source.as_str()), ("git.example", "feed"));
        assert_eq!(modern.range.priority, Priority::Firehose);
        assert!(items.iter().any(|item| item.range.repository == "jathanism/trigger"));

        let state = rig.state().await;
        assert_eq!((state.polls, state.events, state.items, state.gaps), (1, 32, 17, 0));
        assert_eq!(state.newest_event_at.unwrap().to_string(), "2022-06-09T12:47:28Z");
        assert_eq!((state.polled_at, state.succeeded_at), (Some(rig.now()), Some(rig.now())));
    }

    async fn a_second_poll_adds_only_what_is_new(database) {
        let rig = Rig::new(&database.store().await);
        let server = feed(&pushes(5, 1)).await;
        let source = rig.source(&server.uri());
        assert_eq!(poll(&source).await.items, 5);
        swap(&server, &[("1", answer(&pushes(7, 3)))]).await;
        let outcome = poll(&source).await;
        assert_eq!((outcome.events, outcome.items, outcome.gap), (2, 2, false));
        assert_eq!(rig.items().await.len(), 7);
    }

    /// Decoys on the same page, however many, must not hide a leak.
    async fn decoys_on_a_page_hide_no_key(database) {
        let rig = Rig::new(&database.store().await);
        let (key, value) = rig.issue(false).await;
        let format = FormatSet::builtin().get("rescind_secret").unwrap().clone();
        let decoys = || -> Vec<String> {
            (0..1_400).map(|_| format.mint().unwrap().expose().to_owned()).collect()
        };
        let comment = |id: usize, body: &str| json!({
            "id": id.to_string(), "type": "IssueCommentEvent", "actor": {"id": 1, "login": "somebody"},
            "repo": {"id": 7, "name": "acme/app"}, "public": true, "created_at": "2026-11-22T07:50:26Z",
            "payload": {"action": "created", "issue": {"number": id}, "comment": {"body": body}},
        });
        // Different ones in each comment, more than are ever held.
        let noise = (0..12).map(|n| comment(n, &format!("{n}{}", decoys().join("\n"))));
        let mut events: Vec<Value> = noise.collect();
        events.push(comment(99, value.expose()));
        let server = feed(&events).await;
        assert_eq!(poll(&rig.source(&server.uri())).await.malformed, 0);
        assert!(rig.is_revoked(&key).await);
    }

    /// Nor do the links that go with it, whoever comes first and wherever a look-up is due.
    async fn long_links_of_others_hide_no_key(database) {
        let rig = Rig::new(&database.store().await);
        let format = FormatSet::builtin().get("rescind_secret").unwrap().clone();
        let long = "some.words,".repeat(180);
        let decoys = |event: usize, count: usize| -> Vec<Value> {
            let decoy = |n| json!({
                "html_url": format!("https://git.example/{event}/{n}/{long}"),
                "body": format.mint().unwrap().expose(),
            });
            (0..count).map(decoy).collect()
        };
        let event = |id: usize, texts: Vec<Value>| json!({
            "id": id.to_string(), "type": "IssueCommentEvent", "actor": {"id": 1, "login": "somebody"},
            "repo": {"id": 7, "name": "acme/app"}, "public": true, "created_at": "2026-11-22T07:50:26Z",
            "payload": {"action": "created", "texts": texts},
        });
        let mut events = Vec::new();
        let mut keys = Vec::new();
        // Just before there is no room, and when there is none.
        for (id, (before, beside)) in [(500, 200), (700, 0), (200, 600), (0, 0)].into_iter().enumerate() {
            let (key, value) = rig.issue(false).await;
            let mut ours = decoys(100 + id, beside);
            ours.push(json!(value.expose()));
            events.push(event(2 * id, decoys(id, before)));
            events.push(event(2 * id + 1, ours));
            keys.push(key);
        }
        let server = feed(&events).await;
        assert_eq!(poll(&rig.source(&server.uri())).await.malformed, 0);
        for key in &keys {
            assert!(rig.is_revoked(key).await);
        }
    }

    async fn no_odd_character_or_value_on_a_page_loses_its_keys(database) {
        let rig = Rig::new(&database.store().await);
        let (mut keys, mut events) = (Vec::new(), Vec::new());
        for (id, odd) in ["\"\\ud800\"", "\"\x01\0\\q\"", "1e999", &format!("{}{}", "[".repeat(300), "]".repeat(300))].iter().enumerate() {
            let (key, value) = rig.issue(false).await;
            keys.push(key);
            events.push(format!(
                "{{\"id\":\"{id}\",\"type\":\"IssuesEvent\",\"payload\":{{\"odd\":{odd},\"body\":\"{}\"}}}}",
                value.expose()
            ));
        }
        let body = format!("\u{feff}[{}]", events.join(","));
        let server = MockServer::start().await;
        let raw = ResponseTemplate::new(200).set_body_raw(body, "application/json");
        page("1").respond_with(raw).mount(&server).await;
        let outcome = poll(&rig.source(&server.uri())).await;
        assert_eq!(outcome.malformed, 0);
        for (at, key) in keys.iter().enumerate() {
            assert!(rig.is_revoked(key).await, "event {at}");
        }
    }

    async fn a_key_in_the_name_of_a_branch_is_revoked_and_not_kept(database) {
        let rig = Rig::new(&database.store().await);
        let (key, value) = rig.issue(false).await;
        let (in_name, name_value) = rig.issue(false).await;
        let mut branch = push(1);
        branch["payload"]["ref"] = json!(format!("refs/heads/{}", value.expose()));
        let mut repository = push(2);
        repository["repo"]["name"] = json!(format!("octocat/{}", name_value.expose()));
        let server = feed(&[branch, repository]).await;
        let outcome = poll(&rig.source(&server.uri())).await;
        assert_eq!((outcome.items, outcome.malformed), (1, 1));
        assert!(rig.is_revoked(&key).await && rig.is_revoked(&in_name).await);
        let items = rig.items().await;
        assert!(items[0].range.ref_name.starts_with("refs/heads/rsc_sk_…"), "{items:?}");
        let occurrences = rig.store.occurrences(in_name.id, 10).await.unwrap();
        assert!(!format!("{occurrences:?}").contains(name_value.expose()));
    }
}

/// Identifiers and entity tags are any text that a server likes, and are stored.
#[tokio::test]
async fn a_key_in_an_identifier_is_not_kept() {
    let (_database, rig) = sqlite().await;
    let (_, value) = rig.issue(false).await;
    let mut event = push(1);
    event["id"] = json!(value.expose());
    let mut repository = push(2);
    repository["repo"]["id"] = json!(value.expose());
    repository["payload"]["repository_id"].take();
    let mut payload = push(3);
    payload["payload"]["repository_id"] = json!(value.expose());
    let server = MockServer::start().await;
    let etag = format!("\"{}\"", value.expose());
    let tagged = answer(&[event, repository, payload]).insert_header("etag", etag.as_str());
    page("1").respond_with(tagged).mount(&server).await;
    let source = rig.source(&server.uri());
    assert_eq!(poll(&source).await.items, 3);
    let kept = format!("{:?} {:?}", rig.state().await, rig.items().await);
    let body = &value.expose()["rsc_sk_".len()..];
    assert!(!kept.contains(body), "{kept}");
    // What has no number is known again all the same.
    assert_eq!(poll(&source).await.events, 0);
}

#[tokio::test]
async fn an_unchanged_feed_costs_one_request_and_keeps_everything() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let tagged = answer(&pushes(5, 1)).insert_header("etag", "W/\"abc\"");
    page("1").respond_with(tagged).mount(&server).await;
    let source = rig.source(&server.uri());
    poll(&source).await;
    let cursor = rig.state().await.cursor;

    server.reset().await;
    let unchanged = ResponseTemplate::new(304).insert_header("x-poll-interval", "90");
    page("1")
        .and(header("if-none-match", "W/\"abc\""))
        .respond_with(unchanged)
        .expect(2)
        .mount(&server)
        .await;
    for _ in 0..2 {
        let outcome = poll(&source).await;
        assert_eq!(outcome.next_after, Duration::from_secs(90));
        assert_eq!((outcome.events, outcome.gap), (0, false));
    }
    assert_eq!(rig.state().await.cursor, cursor);
}

#[tokio::test]
async fn only_what_the_server_asks_for_is_longer_than_a_schedule() {
    let (_database, mut rig) = sqlite().await;
    for (is_scheduled, asked, wait) in [(true, None, 0), (true, Some("90"), 90), (false, None, 60)]
    {
        rig.is_scheduled = is_scheduled;
        let server = MockServer::start().await;
        let mut answer = ResponseTemplate::new(200).set_body_json(json!([]));
        if let Some(seconds) = asked {
            answer = answer.insert_header("x-poll-interval", seconds);
        }
        page("1").respond_with(answer).mount(&server).await;
        let outcome = poll(&rig.source(&server.uri())).await;
        assert_eq!(outcome.next_after.as_secs(), wait);
    }
}

#[tokio::test]
async fn reads_three_pages_and_no_more() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    // Events that come while the pages are read push others to the next page.
    let answers = [
        ("1", answer(&pushes(300, 201))),
        ("2", answer(&pushes(205, 106))),
        ("3", answer(&pushes(110, 11))),
    ];
    swap(&server, &answers).await;
    let outcome = poll(&rig.source(&server.uri())).await;
    assert_eq!((outcome.events, outcome.items), (290, 290));
    assert_eq!(server.received_requests().await.unwrap().len(), 3);
}

#[tokio::test]
async fn stops_at_the_page_that_was_seen_before() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let source = rig.source(&server.uri());
    swap(&server, &[("1", answer(&pushes(50, 1)))]).await;
    poll(&source).await;
    let answers = [
        ("1", answer(&pushes(240, 141))),
        ("2", answer(&pushes(140, 41))),
    ];
    swap(&server, &answers).await;
    let outcome = poll(&source).await;
    assert_eq!((outcome.events, outcome.gap), (190, false));
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_link_header_says_whether_there_is_more() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let next = "<https://api.example/events?page=2>; rel=\"next\"";
    let last = "<https://api.example/events?page=1>; rel=\"prev\"";
    let answers = [
        ("1", answer(&pushes(9, 5)).insert_header("link", next)),
        ("2", answer(&pushes(4, 1)).insert_header("link", last)),
    ];
    swap(&server, &answers).await;
    assert_eq!(poll(&rig.source(&server.uri())).await.items, 9);
}

#[tokio::test]
async fn polls_that_do_not_overlap_are_a_gap() {
    let (_database, rig) = sqlite().await;
    let server = feed(&pushes(5, 1)).await;
    let source = rig.source(&server.uri());
    assert!(!poll(&source).await.gap);
    swap(&server, &[("1", answer(&pushes(20, 11)))]).await;
    assert!(poll(&source).await.gap);
    swap(&server, &[("1", answer(&pushes(21, 12)))]).await;
    assert!(!poll(&source).await.gap);
    // An empty feed tells nothing.
    swap(&server, &[("1", answer(&[]))]).await;
    assert!(!poll(&source).await.gap);
    assert_eq!(rig.state().await.gaps, 1);
}

#[tokio::test]
async fn one_malformed_event_never_loses_its_page() {
    let (_database, rig) = sqlite().await;
    let mut odd = vec![
        json!(null),
        json!(7),
        json!("x"),
        json!([]),
        json!({"id": "9", "type": "PushEvent"}),
    ];
    let mut leaked = Vec::new();
    for _ in 0..4 {
        leaked.push(rig.issue(false).await);
    }
    let value = |n: usize| leaked[n].1.expose();
    odd[2] = json!(value(0));
    odd[3] = json!([{"body": value(1)}]);
    odd[4]["payload"] = json!({"ref": value(2)});
    let mut bad_name = push(3);
    bad_name["repo"]["name"] = json!("../../etc/passwd");
    odd.extend([
        push(1),
        bad_name,
        push(2),
        json!({"id": "8", "type": "NewKindOfEvent", "payload": {}}),
    ]);
    let deep = format!(
        "{{\"id\":\"77\",\"type\":\"X\",\"payload\":{}\"{}\"{}}}",
        "[".repeat(50_000),
        value(3),
        "]".repeat(50_000)
    );
    let body = serde_json::to_string(&odd).unwrap();
    let body = format!("{},{deep}]", body.strip_suffix(']').unwrap());
    let server = MockServer::start().await;
    let raw = ResponseTemplate::new(200).set_body_raw(body, "application/json");
    page("1").respond_with(raw).mount(&server).await;
    let outcome = poll(&rig.source(&server.uri())).await;
    assert_eq!((outcome.items, outcome.malformed), (2, 6));
    let state = rig.state().await;
    assert_eq!((state.malformed, state.unknown), (6, 2));
    let work = rig.store.source_work().await.unwrap().remove(0);
    assert!(work.last_unread.is_some(), "{work:?}");
    for (n, (key, _)) in leaked.iter().enumerate() {
        assert!(rig.is_revoked(key).await, "{n}");
    }
}

#[tokio::test]
async fn what_is_no_list_fails_loudly_and_keeps_the_cursor() {
    let (_database, rig) = sqlite().await;
    let server = feed(&pushes(5, 1)).await;
    let source = rig.source(&server.uri());
    poll(&source).await;
    let before = rig.state().await;
    for body in [
        "{\"message\":\"x\"}",
        "<html>",
        "",
        "[{\"id\":1}, ",
        "\"[]\"",
    ] {
        let raw = ResponseTemplate::new(200).set_body_raw(body, "application/json");
        swap(&server, &[("1", raw)]).await;
        let failure = source.poll_once().await.unwrap_err();
        assert!(
            matches!(failure.error, PollError::NotAList(_)),
            "{body}: {failure}"
        );
        assert!(failure.next_after <= Duration::from_secs(30), "{failure:?}");
    }
    let after = rig.state().await;
    assert_eq!(after.cursor, before.cursor);
    assert_eq!((after.polls, after.events), (6, 5));
    assert!(after.error.unwrap().contains("api_url"));

    swap(&server, &[("1", answer(&pushes(6, 2)))]).await;
    assert_eq!(poll(&source).await.items, 1);
    assert_eq!(rig.state().await.error, None);
}

#[tokio::test]
async fn a_failing_later_page_keeps_the_first_one() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let first = answer(&pushes(200, 101)).insert_header("etag", "\"one\"");
    swap(&server, &[("1", first), ("2", ResponseTemplate::new(502))]).await;
    let source = rig.source(&server.uri());
    assert_eq!(poll(&source).await.items, 100);
    let state = rig.state().await;
    assert!(state.error.unwrap().contains("502"));
    // The first page is asked for again even if it did not change, and the others are read behind it.
    let first = answer(&pushes(200, 101)).insert_header("etag", "\"one\"");
    swap(
        &server,
        &[
            ("1", first),
            ("2", answer(&pushes(100, 1))),
            ("3", answer(&[])),
        ],
    )
    .await;
    let outcome = poll(&source).await;
    assert_eq!(
        (outcome.events, outcome.items, outcome.gap),
        (100, 100, false)
    );
    let requests = server.received_requests().await.unwrap();
    assert!(
        requests
            .iter()
            .all(|request| !request.headers.contains_key("if-none-match"))
    );
    assert_eq!(rig.state().await.error, None);
}

#[tokio::test]
async fn waits_as_the_server_says() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let source = rig.source(&server.uri());
    let fail = async |answer: ResponseTemplate| {
        let next = Duration::from_hours(1).try_into().unwrap();
        rig.clock.advance(next);
        swap(&server, &[("1", answer)]).await;
        source.poll_once().await.unwrap_err()
    };
    let told = fail(ResponseTemplate::new(429).insert_header("retry-after", "1800")).await;
    assert_eq!(told.next_after, Duration::from_mins(30));
    assert!(matches!(
        told.error,
        PollError::Api(GitHubError::RateLimited { status: 429, .. })
    ));
    let used_up = ResponseTemplate::new(403)
        .insert_header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .insert_header("x-ratelimit-remaining", "0")
        .insert_header("x-ratelimit-reset", "784112977");
    assert_eq!(fail(used_up).await.next_after, Duration::from_mins(20));
    let untold = fail(ResponseTemplate::new(403)).await;
    assert!(untold.next_after >= Duration::from_mins(1));
    assert!(matches!(
        untold.error,
        PollError::Api(GitHubError::Refused { status: 403 })
    ));
    let trouble = fail(ResponseTemplate::new(500)).await;
    assert!(matches!(
        trouble.error,
        PollError::Api(GitHubError::Server { status: 500 })
    ));
}

#[tokio::test]
async fn slows_down_before_the_quota_is_used_up() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let resets_at = rig.now().as_second() + 600;
    let nearly = answer(&pushes(2, 1))
        .insert_header("x-ratelimit-limit", "60")
        .insert_header("x-ratelimit-remaining", "2")
        .insert_header("x-ratelimit-reset", resets_at.to_string().as_str());
    swap(&server, &[("1", nearly)]).await;
    let source = rig.source(&server.uri());
    assert_eq!(poll(&source).await.next_after, Duration::from_mins(10));
    let state = rig.state().await;
    assert_eq!(
        (state.rate_limit, state.rate_remaining),
        (Some(60), Some(2))
    );
    assert_eq!(state.rate_resets_at.unwrap().as_second(), resets_at);
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_and_not_too_soon() {
    let (_database, rig) = sqlite().await;
    let server = feed(&pushes(5, 1)).await;
    poll(&rig.source(&server.uri())).await;
    let again = rig.source(&server.uri());
    assert_eq!(again.due_in().await.unwrap(), Some(Duration::from_mins(1)));
    rig.clock
        .advance(Duration::from_mins(2).try_into().unwrap());
    assert_eq!(again.due_in().await.unwrap(), Some(Duration::ZERO));
    swap(&server, &[("1", answer(&pushes(6, 1)))]).await;
    let outcome = poll(&again).await;
    assert_eq!((outcome.events, outcome.items, outcome.gap), (1, 1, false));
}

#[tokio::test]
async fn another_scope_under_the_same_name_starts_anew() {
    let (_database, rig) = sqlite().await;
    let server = feed(&pushes(5, 1)).await;
    poll(&rig.source(&server.uri())).await;
    let repository = Scope::Repository {
        owner: "octocat".to_owned(),
        name: "Hello-World".to_owned(),
    };
    for (scope, at) in [
        (repository, "/repos/octocat/Hello-World/events"),
        (Scope::Organization("acme".to_owned()), "/orgs/acme/events"),
        (Scope::User("octocat".to_owned()), "/users/octocat/events"),
    ] {
        server.reset().await;
        Mock::given(path(at))
            .respond_with(answer(&pushes(9, 6)))
            .mount(&server)
            .await;
        let outcome = poll(&rig.source_of(&server.uri(), scope, None)).await;
        assert_eq!((outcome.events, outcome.gap), (4, false), "{at}");
    }
    let items = rig.items().await;
    assert!(
        items
            .iter()
            .any(|item| item.range.priority == Priority::Watched)
    );
}

#[tokio::test]
async fn the_token_goes_to_the_server_and_nowhere_else() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    page("1")
        .and(header("authorization", "Bearer sesame-open"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    let source = rig.source_of(&server.uri(), Scope::Public, Some("sesame-open"));
    let failure = source.poll_once().await.unwrap_err();
    assert!(
        matches!(
            failure.error,
            PollError::Api(GitHubError::Refused { status: 401 })
        ),
        "{failure}"
    );
    let state = rig.state().await;
    assert!(!format!("{failure:?} {state:?} {source:?}").contains("sesame-open"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let (_database, rig) = sqlite().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failure = rig.source(&address).poll_once().await.unwrap_err();
    assert!(
        matches!(failure.error, PollError::Connection(_)),
        "{failure}"
    );
    assert!(rig.state().await.error.unwrap().contains("connection"));
}

#[tokio::test]
async fn a_page_that_is_too_long_is_read_in_parts() {
    let (database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let long = format!("[\"{}\"]", "x".repeat(17 << 20));
    let long = ResponseTemplate::new(200).set_body_raw(long, "application/json");
    page("1").respond_with(long).mount(&server).await;
    for (number, events) in [("1", pushes(20, 11)), ("2", pushes(10, 6))] {
        Mock::given(method("GET"))
            .and(path("/events"))
            .and(query_param("per_page", "10"))
            .and(query_param("page", number))
            .respond_with(answer(&events))
            .mount(&server)
            .await;
    }
    let outcome = poll(&rig.source(&server.uri())).await;
    assert_eq!(
        (outcome.events, outcome.items, outcome.malformed),
        (15, 15, 0)
    );
    database.remove().await;
}

/// Whoever polls next finds nothing new in it.
#[tokio::test]
async fn what_a_failed_poll_has_committed_is_counted() {
    let (database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let long = format!("[\"{}\"]", "x".repeat(17 << 20));
    let long = ResponseTemplate::new(200).set_body_raw(long, "application/json");
    page("1").respond_with(long).mount(&server).await;
    let part = |number: &str| {
        Mock::given(method("GET"))
            .and(path("/events"))
            .and(query_param("per_page", "10"))
            .and(query_param("page", number))
    };
    let first = answer(&pushes(20, 11));
    part("1").respond_with(first).mount(&server).await;
    let failing = ResponseTemplate::new(502);
    part("2")
        .respond_with(failing)
        .up_to_n_times(2)
        .mount(&server)
        .await;
    let source = rig.source(&server.uri());
    for polls in 1..=2 {
        source.poll_once().await.unwrap_err();
        let state = rig.state().await;
        assert_eq!((state.polls, state.items, state.events), (polls, 10, 0));
        let items = database.count("SELECT COUNT(*) FROM work_items").await;
        assert_eq!(items, 10);
    }
    let second = answer(&pushes(10, 6));
    part("2").respond_with(second).mount(&server).await;
    let outcome = poll(&source).await;
    assert_eq!((outcome.events, outcome.items), (15, 5));
    let state = rig.state().await;
    assert_eq!(
        (state.items, state.events, state.kind),
        (15, 15, "github_events".to_owned())
    );
    database.remove().await;
}
