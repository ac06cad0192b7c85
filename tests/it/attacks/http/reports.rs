//! Genuine reports that cost much: of keys with long texts, and with answers that nobody reads.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_util::task::TaskTracker;

use super::bodies::{signed_delivery, signed_report};
use super::target::{MOST_MIB, PATIENCE, Target, connect_from, exchange};
use crate::api::harness::http_client;
use crate::support::http::Ask as _;

/// The whole of each key is not kept for each of its places, nor all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn a_report_of_keys_with_long_descriptions_in_many_places_fits() {
    let target = Target::start().await;
    let long = "\u{1f511}".repeat(1_000);
    let mut rows = Vec::new();
    for _ in 0..60 {
        let create = format!("keys create --user u --description {long}");
        let key = target.run(&create).ok().trim().to_owned();
        for place in 0..1_000 {
            let url = format!("https://example.com/{place}");
            rows.push(json!({"token": key, "type": "t", "url": url, "source": "commit"}));
        }
    }
    let (head, body) = signed_report(&target, serde_json::to_vec(&rows).unwrap());
    let stream = target.connect_from(Ipv4Addr::new(127, 9, 1, 1)).await;
    assert_eq!(exchange(stream, head, &body).await, Some(200));
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

/// The texts of a stored key may be a hundred times as long as the key in a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn messages_full_of_keys_with_long_texts_fit() {
    let target = Target::start().await;
    let token = target.token("admin");
    let keys = keys_with_long_texts(&target, &token, 1_400).await;
    let text = json!({"issue": {"body": keys.join(" ")}}).to_string();
    let mut senders = Vec::new();
    for number in 1..=16 {
        let (head, body) = signed_delivery(text.clone().into_bytes());
        let from = Ipv4Addr::new(127, 9, 4, number);
        let address = target.daemon.address;
        senders.push(TaskTracker::new().spawn(async move {
            let mut accepted = 0;
            let end = Instant::now() + Duration::from_mins(1);
            while accepted < 3 && Instant::now() < end {
                let stream = connect_from(from, address).await;
                match exchange(stream, head.clone(), &body).await {
                    Some(202) => accepted += 1,
                    other => assert_eq!(other, Some(503)),
                }
            }
            accepted
        }));
    }
    let key = target.mint();
    target.reports(&key).await;
    for sender in senders {
        assert!(sender.await.unwrap() > 0);
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

/// Creates keys with the longest texts that are taken.
async fn keys_with_long_texts(target: &Target, token: &str, count: usize) -> Vec<String> {
    let label = "b".repeat(60);
    let emails: Vec<_> = (0..20)
        .map(|n| format!("{}@{label}.{label}.{label}.{n:03}c", "a".repeat(60)))
        .collect();
    let body = json!({
        "user_id": "\u{1f511}".repeat(255), "description": "\u{1f511}".repeat(1_000),
        "expires_at_millis": null, "notify_emails": emails,
    });
    let mut keys = Vec::new();
    for _ in 0..count {
        let request = http_client()
            .post(format!(
                "http://{}/api/v1/user-api-keys",
                target.daemon.address
            ))
            .bearer_auth(token)
            .json(&body);
        let answer = request.ask().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let created: Value = answer.json().await.expect("JSON");
        keys.push(created["value"].as_str().expect("a value").to_owned());
    }
    keys
}

/// Answers may be much larger than short reports: whoever does not read them keeps no room from others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_keep_no_report_waiting() {
    let target = Target::start().await;
    let rows = format!("[{}{{}}]", "{},".repeat(15_000));
    let (head, body) = signed_report(&target, rows.into_bytes());
    let mut unread = Vec::new();
    for number in 0..40 {
        let mut stream = target.connect_from(Ipv4Addr::new(127, 9, 2, number)).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        unread.push(stream);
    }
    // Until then their answers are there.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 1..=3 {
        let began = Instant::now();
        let delivery = signed_delivery(json!({"comment": {"body": "nothing"}}).to_string().into());
        let stream = target.connect_from(Ipv4Addr::new(127, 9, 3, number)).await;
        let sent = exchange(stream, delivery.0, &delivery.1);
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        assert_eq!(sent, Ok(Some(202)), "{:?}", began.elapsed());
        let key = target.mint();
        target.reports(&key).await;
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
    drop(unread);
}
