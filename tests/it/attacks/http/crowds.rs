//! Crowds: many addresses that each take a little, or a little too much, and a healthy sender among them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::bodies::signed_delivery;
use super::target::{MOST_MIB, PATIENCE, Target, exchange};

/// How many of them are sent at once. What is not optimized takes seconds for each.
const LARGE_ONES: u8 = if cfg!(debug_assertions) { 4 } else { 8 };

/// A delivery of so many bytes.
fn delivery(length: usize) -> (String, Vec<u8>) {
    let body = format!(
        r#"{{"comment":{{"body":"{}"}}}}"#,
        "nothing. ".repeat(length / 9)
    );
    signed_delivery(body.into_bytes())
}

/// Asserts that a delivery from this address is taken in time.
async fn is_taken(target: &Target, from: Ipv4Addr, length: usize) {
    let (head, body) = delivery(length);
    let began = Instant::now();
    let stream = target.connect_from(from).await;
    let status = exchange(stream, head, &body).await;
    let took = began.elapsed();
    assert_eq!(status, Some(202), "{length} bytes of {from} after {took:?}");
    assert!(took < PATIENCE, "{length} bytes of {from}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_bodies_of_a_crowd_keep_no_genuine_one_out() {
    let target = Target::start().await;
    let known = Ipv4Addr::new(127, 9, 9, 1);
    is_taken(&target, known, 1000).await;
    let forged: &'static [u8] = vec![b' '; 24 << 20].leak();
    let forgers = TaskTracker::new();
    let crowd = tokio_util::sync::CancellationToken::new();
    for number in 0..200 {
        let (address, ended) = (target.daemon.address, crowd.clone());
        let forging = async move {
            let head = format!(
                "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\n\
                 x-hub-signature-256: sha256={}\r\ncontent-length: {}\r\n\r\n",
                "0".repeat(64),
                forged.len()
            );
            loop {
                let from = Ipv4Addr::new(127, 1, 1, number);
                let stream = super::target::connect_from(from, address).await;
                exchange(stream, head.clone(), forged).await;
            }
        };
        forgers.spawn(async move { ended.run_until_cancelled(forging).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for round in 0..2 {
        for length in [1000, 1 << 20, 10 << 20] {
            let fresh = Ipv4Addr::new(127, 8, 8, round + 1);
            is_taken(&target, fresh, length).await;
            is_taken(&target, known, length).await;
        }
    }
    target.lives().await;
    crowd.cancel();
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_deliveries_wait_for_one_another() {
    let target = Target::start().await;
    let mut senders = Vec::new();
    let delivered: &'static (String, Vec<u8>) = Box::leak(Box::new(delivery(20 << 20)));
    for number in 1..=LARGE_ONES {
        let stream = target.connect_from(Ipv4Addr::new(127, 8, 8, number)).await;
        let (head, body) = delivered;
        senders.push(TaskTracker::new().spawn(exchange(stream, head.clone(), body)));
    }
    for sender in senders {
        assert_eq!(sender.await.unwrap(), Some(202));
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}
