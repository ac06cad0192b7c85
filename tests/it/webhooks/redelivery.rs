//! Deliveries that failed are asked for again, within bounds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rescind::clock::{Clock as _, ManualClock, SharedClock, SystemClock};
use rescind::fetch::http_client;
use rescind::github::{AppAuth, Credential, Installation, InstallationId};
use rescind::keyformat::FormatSet;
use rescind::scan::{Encodings, Engine};
use rescind::source::{Hook, Redelivery, RedeliveryOptions, Source as _, SourceParts};
use rescind::store::{SourceState, Store};
use serde_json::{Value, json};
use tokio::sync::Notify;
use wiremock::matchers::{method, path, path_regex};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::cli::Binary;
use crate::source::{Rig, hex_keys};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::responder::responder;

const NAME: &str = "webhook:github:redelivery";
/// Made for these tests, and of no use anywhere else.
const PEM: &str = include_str!("../../../fixtures/github/app_test_key.pem");
const TOKEN: &str = "hooks-token";
const REPOSITORY: &str = "/repos/acme/shop/hooks/123/deliveries";

/// GitHub's list of deliveries: what a test puts there, newest first, two on a page.
struct GitHub {
    server: MockServer,
    deliveries: Arc<Mutex<Vec<Value>>>,
    answer: Arc<Mutex<ResponseTemplate>>,
    /// The only token that is accepted.
    token: Arc<Mutex<String>>,
}

/// Answers requests with the accepted token, and refuses all others.
fn authorized(
    token: Arc<Mutex<String>>,
    answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync,
) -> impl Fn(&Request) -> ResponseTemplate + Send + Sync {
    move |request| {
        let expected = format!("Bearer {}", token.lock().unwrap());
        match request.headers.get("authorization") {
            Some(given) if *given == *expected => answer(request),
            _ => ResponseTemplate::new(401),
        }
    }
}

impl GitHub {
    async fn start() -> Self {
        let server = MockServer::start().await;
        let token = Arc::new(Mutex::new(TOKEN.to_owned()));
        let deliveries = Arc::new(Mutex::new(Vec::<Value>::new()));
        let listed = Arc::clone(&deliveries);
        Mock::given(method("GET"))
            .and(path_regex(
                "^/(repos/acme/shop/hooks/123|orgs/acme/hooks/9)/deliveries$",
            ))
            .respond_with(authorized(Arc::clone(&token), move |request: &Request| {
                let mut pairs = request.url.query_pairs();
                let from = pairs.find(|(name, _)| name == "cursor");
                let from: usize = from.map_or(0, |(_, cursor)| cursor.parse().unwrap());
                let all = listed.lock().unwrap();
                let page: Vec<_> = all.iter().skip(from).take(2).collect();
                let answer = ResponseTemplate::new(200).set_body_json(page);
                if from + 2 >= all.len() {
                    return answer;
                }
                let next = format!(
                    "<https://api.github.com/x?cursor={}>; rel=\"next\"",
                    from + 2
                );
                answer.insert_header("link", next)
            }))
            .mount(&server)
            .await;
        let answer = Arc::new(Mutex::new(
            ResponseTemplate::new(202).set_body_json(json!({})),
        ));
        let attempts = Arc::clone(&answer);
        Mock::given(method("POST"))
            .and(path_regex("/deliveries/[0-9]+/attempts$"))
            .respond_with(authorized(Arc::clone(&token), move |_: &Request| {
                attempts.lock().unwrap().clone()
            }))
            .mount(&server)
            .await;
        Self {
            server,
            deliveries,
            answer,
            token,
        }
    }

    /// From now on accepts `token` only, which the installation 678 is given for an hour from `now`.
    async fn give_token(&self, token: &str, now: Timestamp) {
        token.clone_into(&mut self.token.lock().unwrap());
        let expires_at = now + SignedDuration::from_hours(1);
        let answer = json!({"token": token, "expires_at": expires_at});
        Mock::given(method("POST"))
            .and(path("/app/installations/678/access_tokens"))
            .respond_with(ResponseTemplate::new(201).set_body_json(answer))
            .up_to_n_times(1)
            .mount(&self.server)
            .await;
    }

    fn deliver(&self, id: u64, guid: &str, code: u16, at: Timestamp) {
        let status = if code < 300 {
            "OK"
        } else {
            "Invalid HTTP Response: 503"
        };
        let delivery = json!({"id": id, "guid": guid, "delivered_at": at.to_string(), "redelivery": false,
            "duration": 0.1, "status": status, "status_code": code, "event": "push", "action": null});
        self.deliveries.lock().unwrap().insert(0, delivery);
    }

    fn answer_attempts(&self, answer: ResponseTemplate) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The deliveries that were asked for, and the number of pages that were read.
    async fn asked(&self) -> (Vec<String>, usize) {
        let requests = self.server.received_requests().await.unwrap();
        let (posts, gets): (Vec<_>, Vec<_>) = requests
            .iter()
            .partition(|request| request.method.as_str() == "POST");
        let posts = posts
            .iter()
            .filter(|request| request.url.path().ends_with("/attempts"));
        let paths = posts.map(|request| request.url.path().to_owned());
        (paths.collect(), gets.len())
    }
}

fn sweep(github: &GitHub, store: &Store, hooks: Vec<Hook>) -> (Redelivery, Arc<ManualClock>) {
    sweep_as(github, store, hooks, |_| Credential::Token(TOKEN.into()))
}

/// Authenticates as the installation 678 of an app.
fn sweep_as_app(github: &GitHub, store: &Store) -> (Redelivery, Arc<ManualClock>) {
    sweep_as(github, store, vec![repository()], |clock| {
        Credential::App(Arc::new(Installation::new(
            Arc::new(AppAuth::new(12345, &PEM.into()).unwrap()),
            InstallationId::Known(678),
            http_client().unwrap(),
            github.server.uri().parse().unwrap(),
            clock,
        )))
    })
}

fn sweep_as(
    github: &GitHub,
    store: &Store,
    hooks: Vec<Hook>,
    credential: impl FnOnce(SharedClock) -> Credential,
) -> (Redelivery, Arc<ManualClock>) {
    let (responder, clock) = responder(store);
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let parts = SourceParts {
        client: http_client().unwrap(),
        store: store.clone(),
        engine: Arc::new(Engine::new(&FormatSet::builtin(), Encodings::ALL)),
        responder,
        clock: Arc::clone(&shared),
        wake: Arc::new(Notify::new()),
        is_scheduled: false,
    };
    let options = RedeliveryOptions {
        name: NAME.to_owned(),
        hooks,
        api_url: github.server.uri().parse().unwrap(),
        credentials: vec![credential(shared)],
    };
    (Redelivery::new(options, parts).unwrap(), clock)
}

/// Returns the state of a sweep, as it is stored.
async fn stored(store: &Store) -> SourceState {
    store.load_source(NAME).await.unwrap().unwrap()
}

fn repository() -> Hook {
    Hook::Repository {
        owner: "acme".to_owned(),
        name: "shop".to_owned(),
        id: 123,
    }
}

on_both_databases! {
    async fn what_failed_is_asked_for_once_and_again_later(database) {
        let github = GitHub::start().await;
        let store = database.store().await;
        let (source, clock) = sweep(&github, &store, vec![repository()]);
        let now = clock.now();
        let ago = |hours: i64| now - SignedDuration::from_hours(hours);
        github.deliver(10, "00000000-0000-0000-0000-00000000000a", 500, ago(80));
        github.deliver(11, "00000000-0000-0000-0000-00000000000b", 503, ago(20));
        github.deliver(12, "00000000-0000-0000-0000-00000000000c", 202, ago(10));
        github.deliver(13, "00000000-0000-0000-0000-00000000000d", 502, ago(9));
        github.deliver(14, "00000000-0000-0000-0000-00000000000d", 202, ago(8));
        github.deliveries.lock().unwrap().insert(0, json!({"id": "odd"}));
        let outcome = source.poll_once().await.unwrap();
        assert_eq!((outcome.events, outcome.malformed), (4, 1));
        github.deliveries.lock().unwrap().remove(0);
        let attempts = |id: u64| format!("{REPOSITORY}/{id}/attempts");
        assert_eq!(github.asked().await, (vec![attempts(11)], 3), "six entries are three pages");
        // At once again: what was read is not read again, what was asked for not asked for again.
        source.poll_once().await.unwrap();
        assert_eq!(github.asked().await, (vec![attempts(11)], 4));
        // The new attempt failed, too: it is asked for later, under its own number.
        github.deliver(15, "00000000-0000-0000-0000-00000000000b", 503, clock.now());
        clock.advance(SignedDuration::from_mins(16));
        source.poll_once().await.unwrap();
        assert_eq!(github.asked().await.0, [attempts(11), attempts(15)]);
        // A restart forgets nothing; a success ends it.
        let (source, clock) = sweep(&github, &store, vec![repository()]);
        clock.advance(SignedDuration::from_hours(5));
        github.deliver(16, "00000000-0000-0000-0000-00000000000b", 202, clock.now());
        source.poll_once().await.unwrap();
        assert_eq!(github.asked().await.0.len(), 2);
        let state = store.load_source(NAME).await.unwrap().unwrap();
        assert_eq!((state.kind.as_str(), state.repaired, state.polls), ("github_redelivery", 2, 4));
        assert_eq!((state.events, state.malformed, state.error), (6, 1, None));
    }
}

/// It may be one of a format that consists of hexadecimal digits, and is found again by its digest.
#[tokio::test]
async fn no_key_is_kept_as_the_guid_of_a_delivery() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (guid, _, formats) = hex_keys();
    let rig = Rig::with_formats(&store, formats);
    let options = RedeliveryOptions {
        name: NAME.to_owned(),
        hooks: vec![repository()],
        api_url: github.server.uri().parse().unwrap(),
        credentials: vec![Credential::Token(TOKEN.into())],
    };
    let source = Redelivery::new(options, rig.parts()).unwrap();
    github.deliver(1, &guid, 503, rig.now());
    source.poll_once().await.unwrap();
    assert_eq!(github.asked().await.0, [format!("{REPOSITORY}/1/attempts")]);
    let cursor = stored(&store).await.cursor;
    assert!(cursor.contains("\"pending\":{\"") && !cursor.contains(&guid));
    github.deliver(2, &guid, 202, rig.now());
    source.poll_once().await.unwrap();
    assert!(stored(&store).await.cursor.contains("\"pending\":{}"));
    database.remove().await;
}

/// The list has an order, but no promise that an entry is there as soon as a later one is.
#[tokio::test]
async fn what_is_listed_late_is_asked_for() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    let now = clock.now();
    let guid = |n: u32| format!("00000000-0000-0000-0000-{n:012x}");
    let minutes = |ago: i64| now - SignedDuration::from_mins(ago);
    github.deliver(10, &guid(1), 202, minutes(3));
    github.deliver(12, &guid(3), 202, minutes(1));
    source.poll_once().await.unwrap();
    github.deliver(11, &guid(2), 503, minutes(2));
    github.deliveries.lock().unwrap().swap(0, 1);
    source.poll_once().await.unwrap();
    source.poll_once().await.unwrap();
    assert_eq!(
        github.asked().await.0,
        [format!("{REPOSITORY}/11/attempts")]
    );
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.events, state.malformed), (2, 0));
    database.remove().await;
}

#[tokio::test]
async fn a_delivery_that_never_succeeds_is_given_up() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    github.deliver(1, "00000000-0000-0000-0000-00000000000a", 503, clock.now());
    github.answer_attempts(ResponseTemplate::new(422));
    for _ in 0..200 {
        source.poll_once().await.unwrap();
        clock.advance(SignedDuration::from_mins(30));
    }
    assert_eq!(github.asked().await.0.len(), 8);
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.repaired, state.gaps), (0, 1));
    assert!(
        state
            .unseen
            .unwrap()
            .contains("1 deliveries could not be had again")
    );
    database.remove().await;
}

#[tokio::test]
async fn limits_and_refusals_are_respected() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let organization = Hook::Organization {
        name: "acme".to_owned(),
        id: 9,
    };
    let unknown = Hook::Organization {
        name: "acme".to_owned(),
        id: 404,
    };
    let (source, clock) = sweep(&github, &store, vec![unknown.clone(), organization]);
    for id in 1..=250_u64 {
        github.deliver(
            id,
            &format!("00000000-0000-0000-0000-{id:012x}"),
            503,
            clock.now(),
        );
    }
    // One hook that cannot be read does not keep the other from it; 50 pages, and 100 requests.
    source.poll_once().await.unwrap();
    let (asked, pages) = github.asked().await;
    assert_eq!((asked.len(), pages), (100, 51));
    let oldest = "/orgs/acme/hooks/9/deliveries/151/attempts";
    assert_eq!(asked[0], oldest);
    let state = store.load_source(NAME).await.unwrap().unwrap();
    let error = state.error.unwrap();
    assert!(
        error.contains("org:acme:404: HTTP 404") && error.contains("50 pages"),
        "{error}"
    );
    // The server asks to wait.
    github.answer_attempts(ResponseTemplate::new(403).insert_header("retry-after", "600"));
    github.deliver(
        300,
        "00000000-0000-0000-0000-0000000fffff",
        503,
        clock.now(),
    );
    let outcome = source.poll_once().await.unwrap();
    assert_eq!(outcome.next_after, Duration::from_mins(10));
    assert_eq!(github.asked().await.0.len(), 101);
    let due_in = source.due_in().await.unwrap();
    assert_eq!(due_in, Some(Duration::from_mins(10)));
    // A throttled request does not count as a try. The sweep before left it at that, this one goes on reading.
    github.answer_attempts(ResponseTemplate::new(202));
    clock.advance(SignedDuration::from_mins(10));
    source.poll_once().await.unwrap();
    assert_eq!(github.asked().await.0.len(), 201);
    let first = "/orgs/acme/hooks/9/deliveries/1/attempts".to_owned();
    assert!(github.asked().await.0.contains(&first));
    // No hook at all can be read: the sweep failed, and says why.
    let (source, _) = sweep(&github, &store, vec![unknown]);
    let failure = source.poll_once().await.unwrap_err();
    assert!(failure.to_string().contains("org:acme:404"), "{failure}");
    assert!(failure.next_after >= Duration::from_secs(15));
    database.remove().await;
}

#[tokio::test]
async fn an_outage_delays_no_delivery_beyond_its_end() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    for id in 1..=3_u64 {
        let guid = format!("00000000-0000-0000-0000-{id:012x}");
        github.deliver(id, &guid, 503, clock.now());
    }
    // The list can be read, but nothing can be asked for.
    github.answer_attempts(ResponseTemplate::new(502));
    for sweeps in 1..=3 {
        let outcome = source.poll_once().await.unwrap();
        assert_eq!(outcome.next_after, Duration::from_mins(1));
        assert_eq!(github.asked().await.0.len(), 3 * sweeps);
        let state = store.load_source(NAME).await.unwrap().unwrap();
        assert!(state.error.unwrap().contains("HTTP 502"));
        clock.advance(SignedDuration::from_mins(1));
    }
    // The API is away altogether.
    *github.token.lock().unwrap() = "none".to_owned();
    let list = Mock::given(method("GET")).respond_with(ResponseTemplate::new(503));
    list.with_priority(1)
        .up_to_n_times(10)
        .mount(&github.server)
        .await;
    for _ in 0..10 {
        let failure = source.poll_once().await.unwrap_err();
        assert!(failure.next_after <= Duration::from_secs(30), "{failure:?}");
        assert_eq!(source.due_in().await.unwrap(), None);
    }
    // It refuses the token, which may be another one after a restart.
    let refused = source.poll_once().await.unwrap_err();
    assert!(refused.to_string().contains("401"), "{refused}");
    assert_eq!(source.due_in().await.unwrap(), None);
    *github.token.lock().unwrap() = TOKEN.to_owned();
    github.answer_attempts(ResponseTemplate::new(202));
    source.poll_once().await.unwrap();
    assert_eq!(github.asked().await.0.len(), 12);
    database.remove().await;
}

/// Fifty pages are 100 deliveries here.
#[tokio::test]
async fn what_is_beyond_the_pages_of_one_sweep_is_read_by_the_next_ones() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    let guid = |n: u64| format!("00000000-0000-0000-0000-{n:012x}");
    for id in 1..=260 {
        // The oldest failed, and one of which a later attempt, on the first pages, succeeded.
        let code = if id == 1 || id == 2 { 503 } else { 202 };
        github.deliver(id, &guid(id), code, clock.now());
    }
    github.deliver(261, &guid(2), 202, clock.now());
    github.deliveries.lock().unwrap()[0]["redelivery"] = json!(true);
    let error = async || store.load_source(NAME).await.unwrap().unwrap().error;
    for poll in 1..=3 {
        assert_eq!(github.asked().await.0.len(), 0, "{poll}");
        // More comes meanwhile, and more than there are pages for once.
        let more = if poll == 2 { 120 } else { 3 };
        for id in poll * 1_000..poll * 1_000 + more {
            github.deliver(id, &guid(id), 202, clock.now());
        }
        clock.advance(SignedDuration::from_mins(1));
        source.poll_once().await.unwrap();
        assert!(
            error().await.unwrap().contains("more than 50 pages"),
            "{poll}"
        );
    }
    // The places in this list move with each new delivery, so that some are read twice.
    for _ in 0..4 {
        clock.advance(SignedDuration::from_mins(1));
        source.poll_once().await.unwrap();
    }
    let attempt = format!("{REPOSITORY}/1/attempts");
    assert_eq!(github.asked().await.0, [attempt]);
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.error, state.gaps, state.unseen), (None, 0, None));
    database.remove().await;
}

/// A page that is never answered is given up after ten sweeps, which is told, and delays nothing meanwhile.
#[tokio::test]
async fn a_page_that_cannot_be_read_keeps_nothing_else_from_being_asked_for() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    let guid = |n: u64| format!("00000000-0000-0000-0000-{n:012x}");
    for id in 1..=110 {
        github.deliver(id, &guid(id), 202, clock.now());
    }
    source.poll_once().await.unwrap();
    let is_further =
        |request: &Request| request.url.query().is_some_and(|of| of.contains("cursor"));
    let broken = Mock::given(method("GET")).and(is_further);
    let broken = broken.respond_with(ResponseTemplate::new(500));
    broken.with_priority(1).mount(&github.server).await;
    for poll in 1..=10_u64 {
        let id = 1_000 + poll;
        github.deliver(id, &guid(id), 503, clock.now());
        clock.advance(SignedDuration::from_mins(1));
        let outcome = source.poll_once().await.unwrap();
        assert_eq!(outcome.gap, poll == 10, "{poll}");
        let attempt = format!("{REPOSITORY}/{id}/attempts");
        assert!(github.asked().await.0.contains(&attempt), "{poll}");
        let state = store.load_source(NAME).await.unwrap().unwrap();
        assert!(state.error.unwrap().contains("HTTP 500"), "{poll}");
    }
    clock.advance(SignedDuration::from_mins(1));
    source.poll_once().await.unwrap();
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.error, state.gaps), (None, 1));
    database.remove().await;
}

/// Deliveries that come faster than they are read are given up at some point, which is told.
#[tokio::test]
async fn what_cannot_be_read_for_too_long_is_given_up_and_told() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    for poll in 1..=18_u64 {
        for id in poll * 1_000..poll * 1_000 + 110 {
            github.deliver(id, &format!("{id:032x}"), 202, clock.now());
        }
        clock.advance(SignedDuration::from_mins(1));
        let outcome = source.poll_once().await.unwrap();
        assert_eq!(outcome.gap, poll > 16, "{poll}");
    }
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!(state.gaps, 2);
    let unseen = state.unseen.unwrap();
    assert!(unseen.contains("1 parts of the list"), "{unseen}");
    database.remove().await;
}

#[tokio::test]
async fn an_apps_token_looks_for_deliveries_and_is_renewed() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep_as_app(&github, &store);
    let guid = |n: u64| format!("00000000-0000-0000-0000-{n:012x}");
    github.give_token("ghs_one", clock.now()).await;
    github.deliver(1, &guid(1), 503, clock.now());
    source.poll_once().await.unwrap();
    // Before it expires.
    clock.advance(SignedDuration::from_mins(56));
    github.give_token("ghs_two", clock.now()).await;
    github.deliver(2, &guid(2), 503, clock.now());
    source.poll_once().await.unwrap();
    // When it is no longer accepted.
    github.give_token("ghs_three", clock.now()).await;
    github.deliver(3, &guid(3), 503, clock.now());
    source.poll_once().await.unwrap();
    let attempt = |id: u64| format!("{REPOSITORY}/{id}/attempts");
    let (mut asked, _) = github.asked().await;
    asked.sort();
    // The first one was due again after 15 minutes.
    assert_eq!(asked, [attempt(1), attempt(1), attempt(2), attempt(3)]);
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.repaired, state.error), (4, None));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_installation_of_a_configured_app_is_looked_up_by_the_hooks() {
    let github = GitHub::start().await;
    let now = SystemClock.now();
    Mock::given(path("/repos/acme/shop/installation"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"id": 678})))
        .mount(&github.server)
        .await;
    github.give_token("ghs_one", now).await;
    github.deliver(1, "00000000-0000-0000-0000-00000000000a", 503, now);
    let binary = Binary::new();
    binary.write("app.pem", PEM);
    binary.write(
        "config.toml",
        format!(
            "[webhooks.github]\nsecrets = [\"0123456789abcdef\"]\n\
             [webhooks.github.redelivery]\nhooks = [\"repo:acme/shop:123\"]\napi_url = \"{}\"\n\
             [webhooks.github.redelivery.app]\nid = 12345\nprivate_key = {{ file = \"app.pem\" }}\n",
            github.server.uri()
        ),
    );
    binary.run("migrate").ok();
    binary.run(&format!("sources poll {NAME}")).ok();
    assert_eq!(github.asked().await.0, [format!("{REPOSITORY}/1/attempts")]);
}

#[tokio::test]
async fn a_secondary_limit_without_any_header_pauses_the_sweep_and_costs_no_tries() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let github = GitHub::start().await;
    let (source, clock) = sweep(&github, &store, vec![repository()]);
    for id in 1..=3_u64 {
        let guid = format!("00000000-0000-0000-0000-{id:012x}");
        github.deliver(id, &guid, 503, clock.now());
    }
    let words = "You have exceeded a secondary rate limit. Please wait a few minutes.";
    let limited = ResponseTemplate::new(403).set_body_json(json!({"message": words}));
    github.answer_attempts(limited);
    // More often than a delivery is asked for.
    for sweep in 1..=10 {
        let outcome = source.poll_once().await.unwrap();
        let (asked, _) = github.asked().await;
        assert_eq!(asked.len(), sweep);
        assert_eq!(outcome.next_after, Duration::from_mins(5), "{sweep}");
        clock.advance(SignedDuration::from_mins(5));
    }
    github.answer_attempts(ResponseTemplate::new(202));
    source.poll_once().await.unwrap();
    let (asked, _) = github.asked().await;
    let attempts = [1, 2, 3].map(|id| format!("{REPOSITORY}/{id}/attempts"));
    assert_eq!(asked[10..], attempts);
    let state = store.load_source(NAME).await.unwrap().unwrap();
    assert_eq!((state.repaired, state.gaps, state.error), (3, 0, None));
    database.remove().await;
}
