//! Floods of large bodies: slow ones of strangers, equal ones at once, and copies of a genuine one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::{signed_delivery, signed_report};
use super::crowds::{Crowd, Drip, deliver, is_taken};
use super::target::{MOST_MIB, PATIENCE, Target, connect_from, exchange};

/// Returns whether an optimized build is tested, as `./test.sh --long` does. Others read and hash so slowly that they
/// take prompt senders for slow ones in attacks that are close to what a machine can do.
fn is_optimized() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("RESCIND_TEST_BINARY").is_some()
}

/// Fast enough not to be refused for that alone, slow for its size.
const SLOW: Drip = Drip {
    length: 400_000,
    piece: 28_000,
    every: Duration::from_millis(500),
};

/// Never quite late with the first part of its room.
const STEADY: Drip = Drip {
    length: 400_000,
    piece: 9_000,
    every: Duration::from_millis(100),
};

/// Returns an address of a range from which the crowd does not send.
fn stranger(range: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 225 + range, number, 1)
}

async fn strangers_are_taken_beside(drip: Drip) {
    let lengths: &[usize] = if is_optimized() {
        &[3_000, 60_000, 100_000, 400_000, 1_000_000]
    } else {
        &[3_000, 60_000, 100_000]
    };
    let target = Target::start().await;
    let _crowd = Crowd::ever_new(900, drip, target.daemon.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 1..=3 {
        for (range, length) in (0..).zip(lengths.iter().copied()) {
            match deliver(&target, stranger(range, number), length).await {
                // Repeats the delivery, as any sender does.
                Ok(Some(503)) => is_taken(&target, stranger(range, number), length).await,
                answer => assert_eq!(answer, Ok(Some(202)), "{length} bytes"),
            }
        }
        let key = target.mint();
        target.reports(&key).await;
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_slow_bodies_of_ever_new_addresses_keep_no_stranger_out() {
    strangers_are_taken_beside(SLOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn large_steady_bodies_of_ever_new_addresses_keep_no_stranger_out() {
    assert!(
        is_optimized(),
        "RESCIND_TEST_BINARY has to name an optimized build"
    );
    strangers_are_taken_beside(STEADY).await;
}

/// Each of them waits for its turn, and none is told to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn equal_bodies_are_all_taken_beside_slow_ones() {
    const EACH: usize = 5 << 20;
    assert!(
        is_optimized(),
        "RESCIND_TEST_BINARY has to name an optimized build"
    );
    let target = Target::start().await;
    let _crowd = Crowd::ever_new(300, SLOW, target.daemon.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let body = format!(
        r#"{{"comment":{{"body":"{}"}}}}"#,
        "nothing. ".repeat(EACH / 9)
    );
    let delivered: &'static (String, Vec<u8>) =
        Box::leak(Box::new(signed_delivery(body.into_bytes())));
    let senders = TaskTracker::new();
    let senders: Vec<_> = (1..=60)
        .map(|number| {
            let address = target.daemon.address;
            senders.spawn(async move {
                let began = Instant::now();
                let from = stranger(number % 20, number);
                let stream = connect_from(from, address).await;
                let (head, body) = delivered;
                (exchange(stream, head.clone(), body).await, began.elapsed())
            })
        })
        .collect();
    let mut answers = Vec::new();
    for sender in senders {
        answers.push(sender.await.unwrap());
    }
    let taken = answers.iter().filter(|(status, _)| *status == Some(202));
    assert_eq!(taken.count(), answers.len(), "{answers:?}");
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

/// Sends the same report again and again, and reads its answer.
async fn replay(from: Ipv4Addr, address: SocketAddr, (head, body): &'static (String, Vec<u8>)) {
    loop {
        let mut stream = connect_from(from, address).await;
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            let mut answer = vec![0; 64 << 10];
            while stream.read(&mut answer).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = sent.await;
    }
}

/// Whoever repeats a large report waits for its own copies, and others do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_large_report_keep_nobody_elses_waiting() {
    let target = Target::start().await;
    let mut rows = Vec::new();
    for number in 0..6_000 {
        rows.push(json!({
            "token": format!("nobody's {number:060}"),
            "type": "a type",
            "url": format!("https://example.com/{number:050}"),
            "source": "commit",
        }));
    }
    let report = signed_report(&target, serde_json::to_vec(&rows).unwrap());
    let report: &'static (String, Vec<u8>) = Box::leak(Box::new(report));
    assert!(report.1.len() > 1_000_000);
    let replayers = TaskTracker::new();
    let ended = CancellationToken::new();
    for number in 0..60 {
        let from = Ipv4Addr::new(127, 66, 1, 1 + number % 3);
        let replaying = replay(from, target.daemon.address, report);
        let ended = ended.clone();
        replayers.spawn(async move { ended.run_until_cancelled(replaying).await });
    }
    let _end = ended.drop_guard();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 1..=6 {
        let key = target.mint();
        let body = json!([{"token": key, "type": "t", "url": "", "source": "commit"}]).to_string();
        let (head, body) = signed_report(&target, body.into_bytes());
        let began = Instant::now();
        let stream = target.connect_from(stranger(20, number)).await;
        let sent = tokio::time::timeout(PATIENCE, exchange(stream, head, &body)).await;
        assert_eq!(sent, Ok(Some(200)), "{number} after {:?}", began.elapsed());
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}
