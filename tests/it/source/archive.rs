//! Archives of events, hour by hour.

mod broken;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::SignedDuration;
use reqwest::Url;
use rescind::fetch::http_client;
use rescind::keyformat::FormatSet;
use rescind::source::{
    BackfillOutcome, GhArchive, GhArchiveOptions, Period, PollError, PollOutcome, Source as _,
    SourceParts,
};
use rescind::store::{Key, Priority, SourceState};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Rig, shared};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

/// The hour that is the newest complete one by the clock of [`Rig`], 2026-05-28T20:26:40Z.
const NEWEST: &str = "2026-05-28-19";

impl Rig {
    fn archive(&self, base_url: &str) -> GhArchive {
        let mut options = GhArchiveOptions::new("past".to_owned(), Url::parse(base_url).unwrap());
        "git.example".clone_into(&mut options.host);
        options.retry_wait = Duration::from_millis(1);
        let parts = SourceParts {
            client: http_client().unwrap(),
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::clone(&self.engine),
            clock: shared(&self.clock),
            wake: Arc::clone(&self.wake),
            is_scheduled: self.is_scheduled,
        };
        GhArchive::new(options, parts).unwrap()
    }

    async fn past(&self) -> SourceState {
        self.store.load_source("past").await.unwrap().unwrap()
    }

    async fn waiting(&self) -> u64 {
        self.store.work_counts().await.unwrap().waiting
    }

    fn period(&self, from: &str, to: &str) -> Period {
        Period::parse(from, to, self.now()).unwrap()
    }

    fn hours_pass(&self, hours: i64) {
        self.clock.advance(SignedDuration::from_hours(hours));
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

async fn backfill(archive: &GhArchive, period: Period) -> Result<BackfillOutcome, PollError> {
    archive.backfill(period, false, &mut |_| {}).await
}

async fn poll(archive: &GhArchive) -> PollOutcome {
    archive.poll_once().await.unwrap()
}

/// A push of the shape of 2025-10 and later.
fn push(n: usize) -> Value {
    json!({
        "id": format!("{}", 40_000_000_000 + n), "type": "PushEvent",
        "actor": {"id": 1, "login": "octocat"},
        "repo": {"id": 1_296_269, "name": "octocat/Hello-World"},
        "payload": {"repository_id": 1_296_269, "push_id": n, "ref": "refs/heads/master",
            "head": format!("{:040x}", n + 1), "before": format!("{n:040x}")},
        "public": true, "created_at": "2026-05-28T19:50:26Z",
    })
}

/// A push of the shape of before 2015, without an id and with the repository beside the payload.
fn old_push(n: usize, words: &str) -> Value {
    let head = format!("{n:040x}");
    json!({
        "type": "PushEvent", "created_at": "2012-04-01T05:00:03-07:00", "actor": "octocat",
        "repository": {"id": 5_000 + n, "name": "Old", "owner": "octocat"},
        "payload": {"shas": [[head, "mail", words, "name"]], "ref": "refs/heads/master", "head": head},
    })
}

fn comment(words: &str) -> Value {
    json!({
        "id": "7", "type": "IssueCommentEvent", "repo": {"id": 9, "name": "octocat/Hello-World"},
        "payload": {"comment": {"html_url": "https://git.example/octocat/Hello-World/issues/1#c7", "body": words}},
        "created_at": "2026-05-28T19:01:00Z",
    })
}

/// Comments of a stranger whose links are long.
fn long_links(count: usize) -> Value {
    let format = FormatSet::builtin().get("rescind_secret").unwrap().clone();
    let long = "some.words,".repeat(180);
    let texts = (0..count).map(|n| {
        json!({"html_url": format!("https://git.example/{n}/{long}"), "body": format.mint().unwrap().expose()})
    });
    json!({
        "id": "8", "type": "IssueCommentEvent", "repo": {"id": 9, "name": "octocat/Hello-World"},
        "payload": {"texts": texts.collect::<Vec<_>>()}, "created_at": "2026-05-28T19:01:00Z",
    })
}

fn lines(events: &[Value]) -> String {
    let mut lines: Vec<String> = events.iter().map(Value::to_string).collect();
    lines.push(String::new());
    lines.join("\n")
}

fn pushes(range: std::ops::Range<usize>) -> String {
    lines(&range.map(push).collect::<Vec<_>>())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

async fn mount(server: &MockServer, hour: &str, answer: ResponseTemplate) {
    Mock::given(method("GET"))
        .and(path(format!("/{hour}.json.gz")))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn file(bytes: Vec<u8>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(bytes, "application/gzip")
}

async fn hours(hours: &[(&str, Vec<u8>)]) -> MockServer {
    let server = MockServer::start().await;
    for (hour, bytes) in hours {
        mount(&server, hour, file(bytes.clone())).await;
    }
    server
}

/// Returns the number of requests for an hour.
async fn asked(server: &MockServer, hour: &str) -> usize {
    let path = format!("/{hour}.json.gz");
    let requests = server.received_requests().await.unwrap();
    requests
        .iter()
        .filter(|request| request.url.path() == path)
        .count()
}

on_both_databases! {
    async fn archive_of_both_shapes_becomes_work_items(database) {
        let rig = Rig::new(&database.store().await);
        let events = lines(&[push(1), old_push(2, "words"), push(3), json!({"type": "WatchEvent"})]);
        let server = hours(&[("2015-01-01-5", gzip(&events))]).await;
        let archive = rig.archive(&server.uri());
        let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T06:00:00Z");
        let mut seen = Vec::new();
        let outcome = archive
            .backfill(period, false, &mut |progress| seen.push(progress))
            .await
            .unwrap();
        assert_eq!((outcome.hours, outcome.events, outcome.items, outcome.malformed), (1, 4, 3, 0));
        assert!(!outcome.was_finished && outcome.missing.is_empty() && outcome.incomplete.is_empty());
        let last = seen.last().unwrap();
        assert_eq!((last.hours_done, last.hours, last.events, last.items), (1, 1, 4, 3));
        assert!(last.bytes > 100, "{last:?}");
        assert_eq!(seen[0].hour, "2015-01-01-5");

        let items = rig.store.claim(10, "test", Duration::from_mins(1)).await.unwrap();
        assert_eq!(items.len(), 3);
        assert!(items.iter().all(|item| item.range.priority == Priority::Backfill
            && item.range.host == "git.example" && item.range.source == "past"));
        let old = items.iter().find(|item| item.range.repository == "octocat/Old").unwrap();
        assert_eq!(old.range.event_at.to_string(), "2012-04-01T12:00:03Z");
        let state = rig.past().await;
        assert_eq!((state.kind.as_str(), state.events, state.items, state.texts), ("gharchive", 4, 3, 1));
        assert_eq!(state.newest_event_at.unwrap().to_string(), "2026-05-28T19:50:26Z");

        // A finished period is not read again unless that is wanted, and then nothing is added twice.
        let again = backfill(&archive, period).await.unwrap();
        assert!(again.was_finished);
        assert_eq!((again.events, again.items), (4, 3));
        assert_eq!(asked(&server, "2015-01-01-5").await, 1);
        let forced = archive.backfill(period, true, &mut |_| {}).await.unwrap();
        assert_eq!((forced.was_finished, forced.events, forced.items), (false, 4, 0));
        assert_eq!(asked(&server, "2015-01-01-5").await, 2);
    }

    async fn archive_backfill_goes_on_where_it_was_dropped(database) {
        let rig = Rig::new(&database.store().await);
        let server = hours(&[
            ("2015-01-01-0", gzip(&pushes(0..10))),
            ("2015-01-01-1", gzip(&pushes(10..20))),
            ("2015-01-01-2", gzip(&pushes(20..2_520))),
            ("2015-01-01-3", gzip(&pushes(2_520..2_525))),
        ]).await;
        let period = rig.period("2015-01-01", "2015-01-01T04:00:00Z");
        {
            let archive = rig.archive(&server.uri());
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let mut progress = |progress: rescind::source::Progress| {
                let in_the_middle = progress.hours_done == 2 && progress.events >= 1_020;
                if in_the_middle {
                    let _ = tell.send(());
                }
            };
            let reading = archive.backfill(period, false, &mut progress);
            tokio::select! {
                biased;
                Some(()) = told.recv() => {}
                outcome = reading => panic!("it ended: {outcome:?}"),
            }
        }
        let outcome = backfill(&rig.archive(&server.uri()), period).await.unwrap();
        assert_eq!((outcome.hours, outcome.events, outcome.malformed), (4, 2_525, 0));
        assert_eq!(rig.waiting().await, 2_525);
        let state = rig.past().await;
        assert_eq!((state.events, state.items), (2_525, 2_525));
        for (hour, count) in [("2015-01-01-0", 1), ("2015-01-01-1", 1), ("2015-01-01-2", 2), ("2015-01-01-3", 1)] {
            assert_eq!(asked(&server, hour).await, count, "{hour}");
        }
    }

    async fn archive_texts_give_keys_away_and_are_not_kept(database) {
        let rig = Rig::new(&database.store().await);
        let (key, value) = rig.issue(false).await;
        let (old_key, old_value) = rig.issue(false).await;
        let events = lines(&[
            comment(&format!("so I use {} and it fails", value.expose())),
            old_push(4, &format!("remove {}", old_value.expose())),
        ]);
        let server = hours(&[("2015-01-01-5", gzip(&events))]).await;
        let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T06:00:00Z");
        let archive = rig.archive(&server.uri());
        let outcome = backfill(&archive, period).await.unwrap();
        assert_eq!((outcome.events, outcome.items), (2, 1));
        assert!(rig.is_revoked(&key).await && rig.is_revoked(&old_key).await);
        archive.backfill(period, true, &mut |_| {}).await.unwrap();
        let occurrences = rig.store.occurrences(key.id, 10).await.unwrap();
        assert_eq!(occurrences.len(), 1);
        let place = &occurrences[0].place;
        assert_eq!(place.repository.as_deref(), Some("octocat/Hello-World"));
        assert!(place.url.as_deref().unwrap().ends_with("#c7"));
        let kept = format!("{occurrences:?} {:?}", rig.past().await);
        assert!(!kept.contains(value.expose()) && !kept.contains("and it fails"));
    }

    /// Else it waits for all of these, and so do all pushes.
    async fn archive_events_with_many_keys_are_written_after_the_rest_of_their_hour(database) {
        let rig = Rig::new(&database.store().await);
        let mut keys = Vec::new();
        for _ in 0..70 {
            keys.push(rig.issue(false).await);
        }
        let (leaked, value) = rig.issue(false).await;
        let words: Vec<&str> = keys.iter().map(|(_, value)| value.expose()).collect();
        let many = comment(&words.join(" "));
        let events = lines(&[many.clone(), many, push(1), comment(value.expose())]);
        let server = hours(&[("2015-01-01-5", gzip(&events)), ("2015-01-01-6", gzip(&pushes(2..3)))]).await;
        let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T07:00:00Z");
        let outcome = backfill(&rig.archive(&server.uri()), period).await.unwrap();
        assert_eq!((outcome.events, outcome.items, outcome.malformed), (5, 2, 0));
        assert_eq!((asked(&server, "2015-01-01-5").await, asked(&server, "2015-01-01-6").await), (2, 1));
        let logged = async |key: &Key| rig.store.log_of_key(key.id, 1).await.unwrap()[0].seq;
        let first = logged(&leaked).await;
        for (key, _) in &keys {
            assert!(logged(key).await > first);
        }
        let state = rig.past().await;
        assert_eq!((state.events, state.items, state.texts, state.malformed), (5, 2, 3, 0));
    }

    async fn archive_odd_characters_and_values_lose_no_keys(database) {
        let rig = Rig::new(&database.store().await);
        let (mut keys, mut events) = (Vec::new(), String::new());
        for odd in ["\"\\ud800\"", "\"\x01\0\\q\"", "1e999", &format!("{}{}", "[".repeat(300), "]".repeat(300))] {
            let (key, value) = rig.issue(false).await;
            keys.push(key);
            let event = comment(&format!("see {}", value.expose())).to_string();
            let event = event.replacen("\"payload\":{", &format!("\"payload\":{{\"odd\":{odd},"), 1);
            assert!(event.contains("odd"));
            events.extend([&event, "\n"]);
        }
        let server = hours(&[("2015-01-01-5", gzip(&events)), ("2015-01-01-6", format!("\u{feff}{}", push(1)).into_bytes())]).await;
        let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T07:00:00Z");
        let outcome = backfill(&rig.archive(&server.uri()), period).await.unwrap();
        // The byte order mark counts, and costs nothing.
        assert_eq!((outcome.events, outcome.malformed, outcome.items), (5, 1, 1));
        for (at, key) in keys.iter().enumerate() {
            assert!(rig.is_revoked(key).await, "event {at}");
        }
    }

    async fn archive_adds_no_push_that_the_feed_saw(database) {
        let rig = Rig::new(&database.store().await);
        let feed = MockServer::start().await;
        let page = ResponseTemplate::new(200).set_body_json([push(1), push(2)]);
        Mock::given(path("/events")).respond_with(page).mount(&feed).await;
        assert_eq!(rig.source(&feed.uri()).poll_once().await.unwrap().items, 2);
        let server = hours(&[(NEWEST, gzip(&pushes(1..5)))]).await;
        let outcome = poll(&rig.archive(&server.uri())).await;
        assert_eq!((outcome.events, outcome.items), (4, 2));
        assert_eq!(rig.waiting().await, 4);
    }
}

#[tokio::test]
async fn archive_follows_the_hours_as_they_come() {
    let (_database, rig) = sqlite().await;
    let server = hours(&[(NEWEST, gzip(&pushes(0..3)))]).await;
    let archive = rig.archive(&server.uri());
    let first = poll(&archive).await;
    assert_eq!((first.events, first.items, first.gap), (3, 3, false));
    // The hour of 20:00 is over at 21:00; five minutes later it is asked for.
    let until = SignedDuration::from_secs(33 * 60 + 20 + 5 * 60);
    assert_eq!(first.next_after, Duration::try_from(until).unwrap());
    assert_eq!(archive.due_in().await.unwrap(), Some(first.next_after));
    assert_eq!(poll(&archive).await.events, 0);

    // Several hours later, in another process, none of them is left out.
    rig.hours_pass(3);
    for hour in ["2026-05-28-20", "2026-05-28-21", "2026-05-28-22"] {
        mount(&server, hour, file(gzip(&pushes(5..7)))).await;
    }
    let archive = rig.archive(&server.uri());
    assert_eq!(archive.due_in().await.unwrap(), Some(Duration::ZERO));
    let more = poll(&archive).await;
    assert_eq!((more.events, more.items, more.gap), (6, 2, false));
    let state = rig.past().await;
    assert_eq!((state.polls, state.events, state.items), (3, 9, 5));
    assert_eq!((state.gaps, state.unseen, state.error), (0, None, None));
    assert_eq!(state.succeeded_at, Some(rig.now()));
    assert_eq!(asked(&server, "2026-05-28-23").await, 0);

    // Another archive under the same name starts anew.
    let other = hours(&[("2026-05-28-22", gzip(&pushes(8..9)))]).await;
    assert_eq!(poll(&rig.archive(&other.uri())).await.items, 1);
}

#[tokio::test]
async fn archive_waits_for_a_recent_hour_and_passes_over_an_old_one() {
    let (_database, rig) = sqlite().await;
    let server = hours(&[]).await;
    let archive = rig.archive(&server.uri());
    for _ in 0..2 {
        let outcome = poll(&archive).await;
        assert_eq!(
            (outcome.next_after, outcome.gap),
            (Duration::from_mins(10), false)
        );
    }
    assert_eq!(rig.past().await.unseen, None);

    rig.hours_pass(7);
    mount(&server, "2026-05-28-21", file(gzip(&pushes(0..1)))).await;
    let outcome = poll(&archive).await;
    assert_eq!((outcome.items, outcome.gap), (1, true));
    assert_eq!(outcome.next_after, Duration::from_mins(10));
    let state = rig.past().await;
    assert_eq!(state.gaps, 2);
    assert_eq!(
        state.unseen.as_deref(),
        Some("the archive does not have 2 hours (2026-05-28-19 to 2026-05-28-20)")
    );

    // A backfill that finds one of them takes the note back.
    mount(&server, NEWEST, file(gzip(&pushes(1..2)))).await;
    let period = rig.period("2026-05-28T19:00:00Z", "2026-05-28T21:00:00Z");
    let outcome = backfill(&archive, period).await.unwrap();
    assert_eq!((outcome.hours, outcome.items), (2, 1));
    assert_eq!(outcome.missing, ["2026-05-28-20"]);
    let unseen = rig.past().await.unseen;
    assert_eq!(
        unseen.as_deref(),
        Some("the archive does not have 1 hour (2026-05-28-20)")
    );

    // It does not pass over what may still come.
    let period = rig.period("2026-05-28T21:00:00Z", "2026-05-29T00:00:00Z");
    let outcome = backfill(&archive, period).await.unwrap();
    assert_eq!((outcome.hours, outcome.was_finished), (1, false));
    assert_eq!(outcome.waits_for.as_deref(), Some("2026-05-28-22"));
    assert!(outcome.missing.is_empty());
}

#[tokio::test]
async fn archive_reads_members_runs_and_junk() {
    let (_database, rig) = sqlite().await;
    let large = format!(
        "{{\"id\":\"1\",\"type\":\"WatchEvent\",\"payload\":\"{}\"}}",
        "x".repeat(33 << 20)
    );
    let run: String = (20..25).map(|n| push(n).to_string()).collect();
    let broken = push(30).to_string();
    let texts = [
        pushes(0..3),
        format!("{run}\n{}", push(25)),
        format!(
            "\n<html>\n{}\n{}\nnull\n[]\n{{\"type\":\"PushEvent\"}}\n{}\n",
            &broken[..80],
            push(31),
            push(32)
        ),
        format!("{large}\n{}\n{large}{}", push(40), push(41)),
    ];
    let members: Vec<u8> = texts.iter().flat_map(|text| gzip(text)).collect();
    let server = hours(&[(NEWEST, members)]).await;
    let outcome = poll(&rig.archive(&server.uri())).await;
    assert_eq!((outcome.items, outcome.events), (13, 13));
    // The page, the cut line, null, [], the push without anything, and what is too large, twice.
    assert_eq!(outcome.malformed, 7);
    let state = rig.past().await;
    assert_eq!((state.malformed, state.items), (7, 13));
}

#[tokio::test]
async fn archive_may_come_inflated_but_not_as_a_page() {
    let (_database, rig) = sqlite().await;
    let server = hours(&[
        ("2015-01-01-5", pushes(0..2).into_bytes()),
        ("2015-01-01-6", b"<html>".to_vec()),
        ("2015-01-01-7", Vec::new()),
        ("2015-01-01-8", gzip("")),
    ])
    .await;
    let encoded = file(gzip(&pushes(5..7))).insert_header("content-encoding", "gzip");
    mount(&server, "2015-01-01-9", encoded).await;
    let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T10:00:00Z");
    let outcome = backfill(&rig.archive(&server.uri()), period).await.unwrap();
    assert_eq!(
        (outcome.hours, outcome.events, outcome.malformed),
        (5, 4, 0)
    );
    assert_eq!(outcome.incomplete, ["2015-01-01-6", "2015-01-01-7"]);
}

#[tokio::test]
async fn archived_strangers_hide_no_key_of_another_event() {
    let (_database, rig) = sqlite().await;
    let (first, first_value) = rig.issue(false).await;
    let (last, last_value) = rig.issue(false).await;
    let events = [
        comment(first_value.expose()),
        long_links(700),
        comment(last_value.expose()),
        // More than there is room for at a time.
        long_links(1_500),
    ];
    let server = hours(&[(NEWEST, gzip(&lines(&events)))]).await;
    let archive = rig.archive(&server.uri());
    poll(&archive).await;
    let state = rig.past().await;
    assert_eq!((state.events, state.texts, state.malformed), (4, 4, 0));
    assert!(rig.is_revoked(&first).await && rig.is_revoked(&last).await);
}
