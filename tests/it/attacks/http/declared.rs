//! Crowds that declare much and send little of it, and a healthy sender of a large body among them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bodies::{in_chunks, signed_report};
use super::crowds::{Crowd, Drip};
use super::target::{MOST_MIB, PATIENCE, Target, exchange};

/// Much is declared, and it comes at 1,500 bytes per second.
const DECLARED: Drip = Drip {
    length: 5_000_000,
    piece: 750,
    every: Duration::from_millis(500),
};

/// Returns a report of some 400 kB that names this key.
fn large_report(target: &Target, key: &str) -> (String, Vec<u8>) {
    let url = format!("https://example.com/{}", "path/".repeat(2_000));
    let mut rows = vec![json!({"token": key, "type": "t", "url": "", "source": "commit"})];
    rows.extend((0..40).map(|_| json!({"token": "nobody's", "type": "t", "url": url})));
    signed_report(target, json!(rows).to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_that_declare_much_keep_nobody_waiting() {
    let target = Target::start().await;
    let _crowd = Crowd::ever_new(300, DECLARED, target.daemon.address);
    // Longer than a large body lets smaller ones pass.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for number in 1..=2 {
        let declared = large_report(&target, &target.mint());
        let unknown = in_chunks(large_report(&target, &target.mint()));
        for (range, (head, body)) in (240..).zip([declared, unknown]) {
            let from = Ipv4Addr::new(127, range, number, 1);
            let began = Instant::now();
            let stream = target.connect_from(from).await;
            let reported = tokio::time::timeout(PATIENCE, exchange(stream, head, &body)).await;
            assert_eq!(reported, Ok(Some(200)), "{from}, {:?}", began.elapsed());
        }
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}
