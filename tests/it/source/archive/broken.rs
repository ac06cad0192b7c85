//! Archives whose files break off, and servers in trouble.

use std::time::Duration;

use jiff::SignedDuration;
use rescind::github::GitHubError;
use rescind::source::{HourError, PollError, Source as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wiremock::{MockServer, ResponseTemplate};

use super::{
    NEWEST, Rig, asked, backfill, comment, file, gzip, hours, lines, mount, poll, push, pushes,
    sqlite,
};
use crate::support::databases::on_both_databases;

#[tokio::test]
async fn archive_keeps_what_was_read_of_a_broken_hour_and_tries_again() {
    let (_database, rig) = sqlite().await;
    let whole = gzip(&pushes(0..3_000));
    let server = hours(&[(NEWEST, whole[..whole.len() / 2].to_vec())]).await;
    let archive = rig.archive(&server.uri());
    let failure = archive.poll_once().await.unwrap_err();
    assert!(
        matches!(&failure.error, PollError::Hour { hour, error: HourError::Damaged(_) } if hour == NEWEST),
        "{failure}"
    );
    assert_eq!(failure.next_after, Duration::from_secs(15));
    let kept = rig.waiting().await;
    assert!(kept > 500 && kept < 3_000, "{kept}");
    assert!(rig.past().await.error.unwrap().contains("ends too early"));

    server.reset().await;
    mount(&server, NEWEST, file(whole)).await;
    let outcome = poll(&archive).await;
    assert_eq!(
        (outcome.events, outcome.items),
        (3_000 - kept, 3_000 - kept)
    );
    let state = rig.past().await;
    assert_eq!(
        (state.events, state.items, state.malformed),
        (3_000, 3_000, 0)
    );
    assert_eq!((state.error, state.unseen), (None, None));
}

/// Lines that were spliced, zeroed or cut, and events without what makes them one.
#[tokio::test]
async fn archive_lines_that_are_no_events_give_their_keys_away() {
    let (_database, rig) = sqlite().await;
    let mut keys = Vec::new();
    for _ in 0..8 {
        keys.push(rig.issue(false).await);
    }
    let value = |n: usize| keys[n].1.expose();
    let whole = |n: usize| comment(value(n)).to_string();
    let cut = |n: usize| {
        let whole = whole(n);
        whole[..whole.find(value(n)).unwrap() + value(n).len()].to_owned()
    };
    let large = format!("{{\"id\":\"1\",\"x\":\"{}", "x ".repeat((4 << 19) - 20));
    let lines = [
        // Another line begins in the middle of a text.
        format!("{}{}", cut(0), whole(1)),
        format!("\0\0\0{}\0\0", &cut(2)[20..]),
        format!("see {}", value(3)),
        format!("{{\"body\":\"{}\"}}", value(4).replace('_', "\\u005f")),
        format!("{{\"type\":\"IssuesEvent\",\"x\": nothing {}}}", value(5)),
        // The key stands across the largest event.
        format!("{large}{} \"}}", value(6)),
        cut(7),
    ];
    let server = hours(&[(NEWEST, gzip(&lines.join("\n")))]).await;
    let outcome = poll(&rig.archive(&server.uri())).await;
    // What was spliced may be two.
    assert!(outcome.events == 0 && outcome.malformed >= 7, "{outcome:?}");
    for (n, (key, _)) in keys.iter().enumerate() {
        assert!(rig.is_revoked(key).await, "{n}");
    }
    let work = rig.store.source_work().await.unwrap().remove(0);
    assert!(work.last_unread.is_some(), "{work:?}");
}

#[tokio::test]
async fn archive_passes_over_what_stays_broken_once_it_is_old() {
    let (_database, rig) = sqlite().await;
    let whole = gzip(&pushes(0..100));
    let cut = whole[..whole.len() - 4].to_vec();
    let server = hours(&[]).await;
    let archive = rig.archive(&server.uri());
    let outage = ResponseTemplate::new(503);
    server.reset().await;
    mount(&server, NEWEST, outage).await;
    for _ in 0..20 {
        let failure = archive.poll_once().await.unwrap_err();
        assert!(failure.next_after <= Duration::from_secs(30), "{failure:?}");
    }
    rig.hours_pass(6);
    // The server was away for a moment, which says nothing about the hour.
    archive.poll_once().await.unwrap_err();
    server.reset().await;
    mount(&server, NEWEST, file(cut)).await;
    archive.poll_once().await.unwrap_err();
    archive.poll_once().await.unwrap_err();
    let outcome = poll(&archive).await;
    assert!(outcome.gap && outcome.malformed == 0);
    let state = rig.past().await;
    let unseen = state.unseen.unwrap();
    assert!(
        unseen.contains("could not be read to the end: 1 hour (2026-05-28-19)"),
        "{unseen}"
    );
    assert_eq!((state.events, state.items), (100, 100));

    // A backfill tries a few times at once.
    let period = rig.period("2026-05-28T19:00:00Z", "2026-05-28T20:00:00Z");
    let before = asked(&server, NEWEST).await;
    let outcome = backfill(&archive, period).await.unwrap();
    assert_eq!(asked(&server, NEWEST).await - before, 5);
    assert_eq!((outcome.hours, outcome.events, outcome.items), (1, 100, 0));
    assert_eq!(outcome.incomplete, [NEWEST]);
}

#[tokio::test]
async fn archive_server_in_trouble_is_waited_for() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let archive = rig.archive(&server.uri());
    let period = rig.period("2015-01-01T05:00:00Z", "2015-01-01T07:00:00Z");
    let swap = async |status: u16, wait: Option<&str>| {
        server.reset().await;
        let mut answer = ResponseTemplate::new(status);
        if let Some(wait) = wait {
            answer = answer.insert_header("retry-after", wait);
        }
        for hour in [NEWEST, "2015-01-01-5", "2015-01-01-6"] {
            mount(&server, hour, answer.clone()).await;
        }
    };
    swap(429, Some("1800")).await;
    let failure = archive.poll_once().await.unwrap_err();
    assert_eq!(failure.next_after, Duration::from_mins(30));
    let error = backfill(&archive, period).await.unwrap_err();
    assert!(
        matches!(
            error,
            PollError::Api(GitHubError::RateLimited { status: 429, .. })
        ),
        "{error}"
    );
    assert_eq!(asked(&server, "2015-01-01-5").await, 1);

    swap(401, None).await;
    let failure = archive.poll_once().await.unwrap_err();
    assert!(failure.to_string().contains("base_url"), "{failure}");
    assert!(backfill(&archive, period).await.is_err());
    assert_eq!(asked(&server, "2015-01-01-5").await, 1);

    swap(429, Some("0")).await;
    assert!(backfill(&archive, period).await.is_err());
    assert_eq!(asked(&server, "2015-01-01-5").await, 5);

    swap(503, None).await;
    let outcome = backfill(&archive, period).await.unwrap();
    assert_eq!(outcome.incomplete, ["2015-01-01-5", "2015-01-01-6"]);

    // None of that lets an hour of the schedule be passed over.
    rig.hours_pass(24);
    for status in [429, 401, 401, 401, 401, 401, 401] {
        swap(status, None).await;
        archive.poll_once().await.unwrap_err();
    }
    assert_eq!(rig.past().await.gaps, 0);
}

#[tokio::test]
async fn archive_connection_that_is_cut_is_no_whole_hour() {
    let (_database, rig) = sqlite().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // Whole for the gzip decoder, yet less than was announced.
    let body = gzip(&pushes(0..10));
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        body.len() + 100
    );
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = socket.read(&mut request).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
    };
    let archive = rig.archive(&address);
    let (polled, ()) = tokio::join!(archive.poll_once(), serve);
    let failure = polled.unwrap_err();
    assert!(
        matches!(
            &failure.error,
            PollError::Hour {
                error: HourError::Cut(_),
                ..
            }
        ),
        "{failure}"
    );
    assert_eq!(rig.waiting().await, 10);
    drop(listener);
    let failure = archive.poll_once().await.unwrap_err();
    assert!(
        matches!(
            &failure.error,
            PollError::Hour {
                error: HourError::Unreachable(_),
                ..
            }
        ),
        "{failure}"
    );
}

/// Answers every request for an hour with a file that breaks off. There are no others.
async fn cut_every_time(listener: TcpListener, body: Vec<u8>) {
    let missing = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len() + 100
    );
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let length = socket.read(&mut request).await.unwrap();
        let line = format!("GET /{NEWEST}.json.gz ");
        if request[..length].starts_with(line.as_bytes()) {
            let _ = socket.write_all(head.as_bytes()).await;
            let _ = socket.write_all(&body).await;
        } else {
            let _ = socket.write_all(missing).await;
        }
    }
}

on_both_databases! {
    /// They wait for the end of the hour, which may never be read.
    async fn archive_events_with_many_keys_are_written_though_their_hour_is_cut_every_time(database) {
        let rig = Rig::new(&database.store().await);
        let mut keys = Vec::new();
        for _ in 0..70 {
            keys.push(rig.issue(false).await);
        }
        let words: Vec<&str> = keys.iter().map(|(_, value)| value.expose()).collect();
        let many = comment(&words.join(" "));
        let events = [push(0), many.clone(), push(1), many, push(2)];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let archive = rig.archive(&format!("http://{}", listener.local_addr().unwrap()));
        let mut server = tokio::task::JoinSet::new();
        server.spawn(cut_every_time(listener, gzip(&lines(&events))));
        let mut seen = 0;
        for tries in 1..=5 {
            let polled = archive.poll_once().await;
            for (key, _) in &keys {
                assert!(rig.is_revoked(key).await);
            }
            // What is written down is not written again whenever the hour is tried again.
            let sightings = database.count("SELECT CAST(SUM(sightings) AS BIGINT) FROM incidents").await;
            assert!(seen == 0 || seen == sightings, "{sightings} after {seen}");
            seen = sightings;
            let gaps = rig.past().await.gaps;
            assert_eq!((polled.is_ok(), gaps), (tries == 5, u64::from(tries == 5)), "{tries}");
            let wait = if tries == 1 { 5 * 60 } else { 16 };
            rig.clock.advance(SignedDuration::from_mins(wait));
        }
        let state = rig.past().await;
        let unseen = state.unseen.unwrap();
        assert!(unseen.contains("could not be read to the end: 1 hour (2026-05-28-19)"), "{unseen}");
        assert_eq!((state.events, state.items, state.malformed), (5, 3, 0));
        server.abort_all();
    }
}
