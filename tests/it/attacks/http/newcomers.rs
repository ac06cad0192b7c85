//! Idle connections that proved themselves, and newcomers whose request takes a moment to arrive.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::signed_delivery;
use super::target::{PATIENCE, Target, connect_from, exchange};

/// Number of the daemon's file descriptors, and of connections held, which is more than these are enough for.
const DESCRIPTORS: u32 = 700;
const HELD: u16 = 590;

/// Holds a connection that proves itself now and then, and opens another one soon after it was closed.
async fn hold(from: Ipv4Addr, address: SocketAddr, request: String) {
    loop {
        let mut stream = connect_from(from, address).await;
        let mut answer = [0; 4096];
        while stream.write_all(request.as_bytes()).await.is_ok()
            && stream.read(&mut answer).await.is_ok_and(|read| read > 0)
        {
            // Returns early if the connection is closed.
            let closed = stream.read(&mut answer);
            if tokio::time::timeout(Duration::from_secs(8), closed)
                .await
                .is_ok()
            {
                break;
            }
        }
        // At several thousand connections a second of senders that proved themselves, whoever has been served a moment
        // ago has all places.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Has a crowd of clients hold all places with connections that proved themselves.
async fn crowded(target: &Target, crowd: &CancellationToken) {
    let token = target.token("reporter");
    let holders = TaskTracker::new();
    for number in 0..HELD {
        let [high, low] = (number / 200 * 256 + number % 200 + 1).to_be_bytes();
        let request = format!(
            "GET /api/v1/formats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let holding = hold(
            Ipv4Addr::new(127, 66, high, low),
            target.daemon.address,
            request,
        );
        let ended = crowd.clone();
        holders.spawn(async move { ended.run_until_cancelled(holding).await });
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proved_connections_that_idle_keep_no_newcomer_out() {
    let target = Target::with_descriptors(DESCRIPTORS, DESCRIPTORS).await;
    let crowd = CancellationToken::new();
    crowded(&target, &crowd).await;
    for round in 1..=10 {
        let delay = Duration::from_millis(u64::from(round % 3) * 75);
        let (delivery, body) = signed_delivery(br#"{"zen":"Speak like a human."}"#.to_vec());
        let health = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
        for (head, body, expected) in [(delivery, body.as_slice(), 202), (health, b"", 200)] {
            let stream = target.connect_from(Ipv4Addr::new(127, 8, round, 1)).await;
            tokio::time::sleep(delay).await;
            let answered = tokio::time::timeout(PATIENCE, exchange(stream, head, body)).await;
            assert_eq!(answered, Ok(Some(expected)), "after {delay:?}");
        }
    }
    let key = target.mint();
    target.reports(&key).await;
    target.lives().await;
    crowd.cancel();
}

/// Opens many connections a second over which nothing comes.
async fn churn(address: SocketAddr) {
    let mut held = VecDeque::new();
    for number in 0_u16.. {
        let [high, low] = (number / 200 * 256 + number % 200 + 1).to_be_bytes();
        held.push_back(connect_from(Ipv4Addr::new(127, 67, high, low), address).await);
        if held.len() > 150 {
            held.pop_front();
        }
        tokio::time::sleep(Duration::from_millis(14)).await;
    }
}

/// Those that have had their answer go first, even if many others connect and say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_just_connected_is_waited_for_in_a_churn() {
    let target = Target::with_descriptors(DESCRIPTORS, DESCRIPTORS).await;
    let crowd = CancellationToken::new();
    crowded(&target, &crowd).await;
    let (ended, address) = (crowd.clone(), target.daemon.address);
    TaskTracker::new().spawn(async move { ended.run_until_cancelled(churn(address)).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut answers = Vec::new();
    for round in 1..=6 {
        let (head, body) = signed_delivery(br#"{"zen":"Speak like a human."}"#.to_vec());
        let stream = target.connect_from(Ipv4Addr::new(127, 8, round, 1)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answered = tokio::time::timeout(PATIENCE, exchange(stream, head, &body)).await;
        answers.push(answered.ok().flatten());
    }
    // One in six may have met a moment in which nobody idled.
    let served = answers.iter().filter(|answer| **answer == Some(202));
    assert!(served.count() >= 5, "{answers:?}");
    crowd.cancel();
}
