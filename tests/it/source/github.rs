//! GitHub events: their interpretation, several tokens, apps, and the recovery of missed events.

mod repair;
mod tokens;

use std::time::Duration;

use rescind::github::{Credential, GitHubError};
use rescind::source::{GitHubEvents, PollError, PollOutcome, Scope, Source};
use rescind::store::{Priority, SourceState, WorkItem, WorkKind};
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Rig;
use crate::support::databases::{Kind, TestDatabase};

/// A type of event, and its payload with a text somewhere in it.
type Wording = (&'static str, fn(&str) -> Value);

fn hex(number: usize) -> String {
    format!("{number:040x}")
}

fn event(id: usize, kind: &str, payload: &Value) -> Value {
    json!({
        "id": format!("{}", 40_000_000_000_usize + id), "type": kind,
        "actor": {"id": 1, "login": "octocat"},
        "repo": {"id": 42, "name": "acme/shop"},
        "payload": payload, "public": true, "created_at": "2026-05-28T20:00:00Z",
    })
}

fn push(n: usize) -> Value {
    let payload = json!({"repository_id": 42, "push_id": n, "ref": "refs/heads/main",
        "head": hex(n + 1), "before": hex(n)});
    event(n, "PushEvent", &payload)
}

fn json_of(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

async fn serve(server: &MockServer, at: &str, answer: ResponseTemplate) {
    Mock::given(method("GET"))
        .and(path(at))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn repository() -> Scope {
    Scope::Repository {
        owner: "acme".to_owned(),
        name: "shop".to_owned(),
    }
}

fn token(value: &str) -> Credential {
    Credential::Token(value.into())
}

impl Rig {
    fn with(
        &self,
        server: &MockServer,
        scope: Scope,
        credentials: Vec<Credential>,
    ) -> GitHubEvents {
        self.source_with(&server.uri(), scope, credentials)
    }

    async fn told(&self) -> SourceState {
        self.store.load_source("feed").await.unwrap().unwrap()
    }

    async fn work(&self) -> Vec<WorkItem> {
        let lease = Duration::from_mins(1);
        self.store.claim(1000, "test", lease).await.unwrap()
    }

    fn later(&self, wait: Duration) {
        self.clock.advance(wait.try_into().unwrap());
    }
}

async fn rig() -> (TestDatabase, Rig, MockServer) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig, MockServer::start().await)
}

async fn poll(source: &GitHubEvents) -> PollOutcome {
    source.poll_once().await.unwrap()
}

/// Returns whether any file of a SQLite database contains a text.
fn keeps(database: &TestDatabase, text: &str) -> bool {
    let file = database.url.trim_start_matches("sqlite://").to_owned();
    let mut files = ["", "-wal", "-shm"]
        .map(|end| format!("{file}{end}"))
        .into_iter();
    files.any(|file| {
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

/// A proxy that changed something says so by its status (RFC 9110, section 15.3.4).
#[tokio::test]
async fn a_page_that_a_proxy_changed_is_a_page() {
    let (_database, rig, server) = rig().await;
    let page = ResponseTemplate::new(203).set_body_json(json!([push(1)]));
    serve(&server, "/events", page).await;
    let outcome = poll(&rig.source(&server.uri())).await;
    assert_eq!((outcome.events, outcome.items), (1, 1));
}

#[tokio::test]
async fn keys_in_texts_are_revoked_and_the_texts_are_not_kept() {
    let (database, rig, server) = rig().await;
    let marker = "the words around the key are nobody's business";
    let kinds: [Wording; 9] = [
        (
            "IssueCommentEvent",
            |body| json!({"comment": {"body": body, "html_url": "https://git.example/i/1"}}),
        ),
        (
            "IssuesEvent",
            |body| json!({"issue": {"title": "x", "body": body}}),
        ),
        (
            "PullRequestEvent",
            |body| json!({"pull_request": {"body": body}}),
        ),
        (
            "PullRequestReviewEvent",
            |body| json!({"review": {"body": body}}),
        ),
        (
            "PullRequestReviewCommentEvent",
            |body| json!({"comment": {"body": body}}),
        ),
        ("ReleaseEvent", |body| json!({"release": {"body": body}})),
        (
            "CommitCommentEvent",
            |body| json!({"comment": {"body": body}}),
        ),
        ("EventOfTheFuture", |body| json!([{"deep": [body]}])),
        ("PushEvent", |body| {
            json!({"ref": "refs/heads/main", "head": hex(2), "before": hex(1),
            "commits": [{"sha": hex(2), "message": body}]})
        }),
    ];
    let mut events = Vec::new();
    let mut keys = Vec::new();
    for (n, (kind, payload)) in kinds.iter().enumerate() {
        let (key, value) = rig.issue(false).await;
        events.push(event(
            n,
            kind,
            &payload(&format!("{marker}: {}", value.expose())),
        ));
        keys.push((key, value));
    }
    serve(&server, "/events", json_of(&json!(events))).await;
    let outcome = poll(&rig.source(&server.uri())).await;
    assert_eq!(
        (outcome.events, outcome.malformed, outcome.items),
        (9, 0, 1)
    );
    for ((key, value), (kind, _)) in keys.iter().zip(kinds) {
        assert!(rig.is_revoked(key).await, "{kind}");
        assert!(!keeps(&database, value.expose()), "{kind}");
    }
    assert!(!keeps(&database, marker));
    let state = rig.told().await;
    assert_eq!((state.texts, state.unknown), (9, 1));
    let seen = rig.store.occurrences(keys[0].0.id, 10).await.unwrap();
    assert!(format!("{seen:?}").contains("https://git.example/i/1"));
}

#[tokio::test]
async fn what_is_new_is_announced_and_forks_only_where_one_watches() {
    let (_database, rig, server) = rig().await;
    let events = json!([
        event(
            1,
            "CreateEvent",
            &json!({"ref": "dev", "ref_type": "branch"})
        ),
        event(
            2,
            "CreateEvent",
            &json!({"ref": null, "ref_type": "repository"})
        ),
        event(3, "PublicEvent", &json!({})),
        event(4, "GollumEvent", &json!({"pages": [{"sha": hex(7)}]})),
        event(
            5,
            "ForkEvent",
            &json!({"forkee": {"id": 77, "full_name": "hubot/shop"}})
        ),
        event(
            6,
            "DeleteEvent",
            &json!({"ref": "old", "ref_type": "branch"})
        ),
    ]);
    serve(&server, "/events", json_of(&events)).await;
    assert_eq!(poll(&rig.source(&server.uri())).await.items, 3);
    let items = rig.work().await;
    assert!(
        items
            .iter()
            .all(|item| item.range.kind == WorkKind::References)
    );
    let names: Vec<_> = items
        .iter()
        .map(|item| (&*item.range.repository, &*item.range.ref_name))
        .collect();
    for expected in [
        ("acme/shop", "refs/heads/dev"),
        ("acme/shop", ""),
        ("acme/shop.wiki", ""),
    ] {
        assert!(names.contains(&expected), "{names:?}");
    }
    serve(&server, "/orgs/acme/events", json_of(&events)).await;
    let org = Scope::Organization("acme".to_owned());
    assert_eq!(poll(&rig.with(&server, org, vec![])).await.items, 1);
    let fork = rig.work().await.remove(0).range;
    assert_eq!(
        (&*fork.repository, fork.priority),
        ("hubot/shop", Priority::Backfill)
    );
}

#[tokio::test]
async fn a_refusal_without_any_header_is_known_by_its_words() {
    let (_database, rig, server) = rig().await;
    for (body, limited) in [
        (
            "You have exceeded a secondary rate limit. Please wait.",
            true,
        ),
        ("You have triggered an abuse detection mechanism.", true),
        ("Resource not accessible by integration", false),
    ] {
        server.reset().await;
        let source = rig.source(&server.uri());
        let refused = ResponseTemplate::new(403).set_body_json(json!({"message": body}));
        serve(&server, "/events", refused).await;
        let mut waits = Vec::new();
        for _ in 0..3 {
            let failure = source.poll_once().await.unwrap_err();
            let is_limit = matches!(
                failure.error,
                PollError::Api(GitHubError::RateLimited { .. })
            );
            assert_eq!(is_limit, limited, "{body}: {failure}");
            waits.push(failure.next_after.as_secs());
            rig.later(failure.next_after);
        }
        assert_eq!(waits, [60, 120, 240], "{body}");
    }
}

#[tokio::test]
async fn of_a_limit_that_throttles_nothing_is_left() {
    let (_database, rig, server) = rig().await;
    let source = rig.source(&server.uri());
    let told = |remaining: &str| {
        json_of(&json!([]))
            .insert_header("x-ratelimit-limit", "5000")
            .insert_header("x-ratelimit-remaining", remaining)
    };
    serve(&server, "/events", told("4321")).await;
    poll(&source).await;
    assert_eq!(rig.told().await.rate_remaining, Some(4321));
    server.reset().await;
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "600");
    serve(&server, "/events", limited).await;
    source.poll_once().await.unwrap_err();
    let state = rig.told().await;
    assert_eq!(
        (state.rate_remaining, state.rate_limit),
        (Some(0), Some(5000))
    );
    let end = rig.now() + jiff::SignedDuration::from_mins(10);
    assert_eq!(state.rate_resets_at, Some(end));
    // After a restart, and before an answer, that is still what is known.
    server.reset().await;
    serve(&server, "/events", ResponseTemplate::new(502)).await;
    let anew = rig.source(&server.uri());
    anew.poll_once().await.unwrap_err();
    assert_eq!(rig.told().await.rate_remaining, Some(0));
    server.reset().await;
    rig.later(std::time::Duration::from_mins(10));
    serve(&server, "/events", told("4999")).await;
    poll(&source).await;
    assert_eq!(rig.told().await.rate_remaining, Some(4999));
}

#[tokio::test]
async fn refusals_name_the_status_and_say_what_to_do() {
    let (_database, rig, server) = rig().await;
    for (status, word) in [
        (401, "expired"),
        (403, "permissions"),
        (404, "no such"),
        (410, "gone"),
        (422, "api_url"),
        (451, "legal"),
    ] {
        server.reset().await;
        serve(&server, "/events", ResponseTemplate::new(status)).await;
        let failure = rig.source(&server.uri()).poll_once().await.unwrap_err();
        let words = failure.to_string();
        assert!(
            matches!(failure.error, PollError::Api(GitHubError::Refused { status: told }) if told == status)
        );
        assert!(
            words.contains(word) && words.contains(&status.to_string()),
            "{words}"
        );
        assert!(rig.told().await.error.unwrap().contains(word));
    }
}

#[tokio::test]
async fn a_gigantic_or_odd_page_fails_alone() {
    let (_database, rig, server) = rig().await;
    let source = rig.source(&server.uri());
    for body in [
        vec![b' '; (32 << 20) + 1],
        format!("[{}0]", "0,".repeat(5000)).into_bytes(),
    ] {
        server.reset().await;
        serve(
            &server,
            "/events",
            ResponseTemplate::new(200).set_body_bytes(body),
        )
        .await;
        let failure = source.poll_once().await.unwrap_err();
        assert!(matches!(failure.error, PollError::TooMuch(_)), "{failure}");
    }
    server.reset().await;
    let mut body = serde_json::to_vec(&json!([push(1), push(2)])).unwrap();
    body.truncate(body.len() - 1);
    body.extend(b",{\"id\":\"9\",\"type\":\"WatchEvent\",\"payload\":\"\xff\xfe\"}]");
    serve(
        &server,
        "/events",
        ResponseTemplate::new(200).set_body_bytes(body),
    )
    .await;
    assert_eq!(poll(&source).await.items, 2);
}

#[tokio::test]
async fn a_network_that_is_gone_for_an_hour_is_waited_for() {
    let (_database, rig, server) = rig().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let source = rig.source(&format!("http://{nowhere}"));
    let start = rig.now();
    let mut tries = 0;
    while rig.now().duration_since(start).as_secs() < 3600 {
        let failure = source.poll_once().await.unwrap_err();
        // However long it lasts, what leaks when it is over is found that soon, and at once by whoever is restarted.
        assert!(failure.next_after <= Duration::from_secs(30));
        assert!(failure.next_after >= Duration::from_secs(15));
        assert_eq!(source.due_in().await.unwrap(), None);
        rig.later(failure.next_after);
        tries += 1;
    }
    assert!((120..=240).contains(&tries), "{tries}");
    // The server is back at the same address.
    let listener = std::net::TcpListener::bind(nowhere).unwrap();
    let back = MockServer::builder().listener(listener).start().await;
    serve(&back, "/events", json_of(&json!([push(1)]))).await;
    assert_eq!(poll(&source).await.items, 1);
    assert_eq!(rig.told().await.error, None);
    drop(server);
}

#[tokio::test]
async fn a_feed_that_repeats_and_goes_backwards_adds_nothing_twice() {
    let (_database, rig, server) = rig().await;
    let source = rig.source(&server.uri());
    let newest = json!([push(9), push(9), push(8), push(8), push(7)]);
    for (page, items) in [
        (newest, 3),
        (json!([push(6), push(5)]), 2),
        (json!([push(9), push(8)]), 0),
        (json!([push(6), push(9), push(10)]), 1),
    ] {
        server.reset().await;
        serve(&server, "/events", json_of(&page)).await;
        assert_eq!(poll(&source).await.items, items, "{page}");
    }
}

/// GitHub's feed is up to six hours late, and in the order of the events: what comes late may be behind a page that was
/// read.
#[tokio::test]
async fn what_the_feed_shows_late_is_found_on_any_page() {
    let (database, rig, server) = rig().await;
    let page = |number: &str, events: Vec<Value>| {
        let next = "<https://api.example/events?page=2>; rel=\"next\"";
        let mut answer = ResponseTemplate::new(200).set_body_json(events);
        if number != "3" {
            answer = answer.insert_header("link", next);
        }
        Mock::given(method("GET"))
            .and(path("/repos/acme/shop/events"))
            .and(query_param("page", number))
            .respond_with(answer)
    };
    page("1", vec![push(9), push(8)]).mount(&server).await;
    page("2", vec![push(7)]).mount(&server).await;
    page("3", vec![push(4)]).mount(&server).await;
    let source = rig.with(&server, repository(), vec![]);
    assert_eq!(poll(&source).await.items, 4);
    server.reset().await;
    page("1", vec![push(9), push(8)]).mount(&server).await;
    page("2", vec![push(7), push(5)]).mount(&server).await;
    page("3", vec![push(4)]).mount(&server).await;
    rig.later(Duration::from_mins(1));
    assert_eq!(poll(&source).await.items, 0, "not each poll reads all");
    rig.later(Duration::from_mins(10));
    let outcome = poll(&source).await;
    assert_eq!((outcome.items, outcome.gap), (1, false));
    database.remove().await;
}
