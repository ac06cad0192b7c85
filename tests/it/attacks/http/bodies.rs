//! Bodies that look genuine, and genuine ones that grow when they are processed.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio_util::task::TaskTracker;

use super::target::{MOST_MIB, SECRET, Target, exchange};
use crate::webhooks::sender::hmac;

const LARGEST: usize = 25 << 20;

/// Returns the largest body that repeats a piece between a head and a tail.
pub(in crate::attacks) fn filled(head: &str, piece: &str, tail: &str) -> Vec<u8> {
    let mut body = head.to_owned();
    while body.len() + piece.len() + tail.len() <= LARGEST {
        body.push_str(piece);
    }
    body.push_str(tail);
    body.into_bytes()
}

/// Sends all requests at once, with a healthy report beside them, and returns their statuses.
async fn attack(target: &Target, requests: Vec<(String, Vec<u8>)>) -> Vec<Option<u16>> {
    let key = target.mint();
    let mut senders = Vec::new();
    for (head, body) in requests {
        let stream = target.connect().await;
        senders.push(TaskTracker::new().spawn(async move { exchange(stream, head, &body).await }));
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    target.reports(&key).await;
    target.lives().await;
    let mut statuses = Vec::new();
    for sender in senders {
        statuses.push(sender.await.unwrap());
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB, {statuses:?}");
    statuses
}

pub(in crate::attacks) fn signed_report(target: &Target, body: Vec<u8>) -> (String, Vec<u8>) {
    (
        Target::report_head(&target.signer.sign(&body), body.len()),
        body,
    )
}

pub(in crate::attacks) fn signed_delivery(body: Vec<u8>) -> (String, Vec<u8>) {
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\nx-hub-signature-256: sha256={}\r\n\
         content-length: {}\r\n\r\n",
        hmac(SECRET.as_bytes(), &body),
        body.len()
    );
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_look_genuine_share_a_budget() {
    let target = Target::start().await;
    let wrong = target.signer.sign(b"something else");
    let requests = (0..11).map(|_| (Target::report_head(&wrong, LARGEST), vec![b' '; LARGEST]));
    for status in attack(&target, requests.collect()).await {
        assert!(matches!(status, Some(401 | 503)), "{status:?}");
    }
}

/// Deliveries of 25 MiB that a parser would make much of, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_delivery_of_many_small_values_does_not_become_a_larger_one() {
    let target = Target::start().await;
    for (body, expected) in [
        (filled("{\"x\":[", "{\"a\":1,\"\":2},", "0]}"), 202),
        (filled("{\"push\":{\"changes\":[", "0,", "0]}}"), 202),
        (filled("{\"repository\":[", "{\"\":[0]},", "0]}"), 202),
        (filled("{\"push\":{", "\"\":0,", "\"\":1}}"), 202),
        (filled("{\"push\":", "[", "}"), 400),
    ] {
        let begin = String::from_utf8_lossy(&body[..20]).into_owned();
        let (head, body) = signed_delivery(body);
        let stream = target.connect().await;
        let sent = tokio::time::timeout(Duration::from_mins(2), exchange(stream, head, &body));
        assert_eq!(sent.await, Ok(Some(expected)), "{begin}");
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_signed_report_does_not_become_a_large_one() {
    let target = Target::start().await;
    let rows = format!("[{}0]", "0,".repeat(99_999));
    let requests = (0..6).map(|_| signed_report(&target, rows.clone().into_bytes()));
    for status in attack(&target, requests.collect()).await {
        assert!(matches!(status, Some(200 | 503)), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn large_signed_bodies_do_not_become_larger_ones() {
    let target = Target::start().await;
    let mut reports = vec![
        filled(r#"[{"token":"x","type":"t","more":["#, "[],", "[]]}]"),
        filled(r#"[{"token":"x","url":""#, "u", r#""}]"#),
        filled("[", "{},", "{}]"),
        filled(r#"[{"token":""#, r"\u00e4", r#""}]"#),
    ];
    let mut wide = String::from("[");
    for row in 0..99_999 {
        let _ = write!(
            wide,
            r#"{{"token":"nobody's {row:0200}","type":"{:030}"}},"#,
            0
        );
    }
    wide.push_str("{}]");
    wide.truncate(wide.len().min(LARGEST));
    reports.push(wide.into_bytes());
    let mut not_utf8 = filled(r#"[{"token":"x","url":""#, "u", r#""}]"#);
    not_utf8[30..LARGEST - 10].fill(0xff);
    reports.push(not_utf8);
    let reports = reports.into_iter().map(|body| signed_report(&target, body));
    for status in attack(&target, reports.collect()).await {
        assert!(matches!(status, Some(200 | 400 | 413 | 503)), "{status:?}");
    }
    let deliveries = vec![
        filled(r#"{"repository":["#, "[],", "[]]}"),
        filled(r#"{"comment":["#, "[],", "[]]}"),
        filled(r#"{"comment":["#, "{},", "{}]}"),
        filled(r#"{"comment":""#, r"\u00e4", r#""}"#),
        filled(r#"{"ref":""#, "r", r#""}"#),
    ];
    let deliveries = deliveries.into_iter().map(signed_delivery);
    for status in attack(&target, deliveries.collect()).await {
        assert!(matches!(status, Some(202 | 400 | 503)), "{status:?}");
    }
}

/// Returns a chunked delivery, whose length is not declared.
fn in_pieces(length: usize) -> (String, Vec<u8>) {
    let body = format!(
        r#"{{"comment":{{"body":"{}"}}}}"#,
        "nothing. ".repeat(length / 9)
    );
    in_chunks(signed_delivery(body.into_bytes()))
}

/// Returns the same request in chunks, with no length declared.
pub(super) fn in_chunks((head, body): (String, Vec<u8>)) -> (String, Vec<u8>) {
    let (head, _) = head.split_once("content-length").unwrap();
    let mut pieces = Vec::new();
    for piece in body.chunks(10_000) {
        pieces.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        pieces.extend_from_slice(piece);
        pieces.extend_from_slice(b"\r\n");
    }
    pieces.extend_from_slice(b"0\r\n\r\n");
    (format!("{head}transfer-encoding: chunked\r\n\r\n"), pieces)
}

/// Each takes room as it comes, in several steps, and not all that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_unknown_length_are_read_side_by_side() {
    let target = Target::start().await;
    // Stops in the middle, and holds the room that it has.
    let (head, mut begun) = in_pieces(200_000);
    begun.truncate(100_000);
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut stream = target.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&begun).await.unwrap();
        stalled.push(stream);
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let requests = [1_000, 60_000, 70_000, 300_000, 600_000].map(in_pieces);
    for status in attack(&target, requests.into()).await {
        assert_eq!(status, Some(202));
    }
}
