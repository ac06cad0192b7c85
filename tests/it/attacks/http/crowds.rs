//! Crowds: many addresses that each take a little, or a little too much, and a healthy sender among them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

use super::bodies::signed_delivery;
use super::target::{MOST_MIB, PATIENCE, Target, exchange};

/// Size of a large delivery, in bytes. An unoptimized build takes seconds for each MiB.
const LARGE: usize = if cfg!(debug_assertions) {
    3 << 20
} else {
    10 << 20
};

/// Returns a delivery of `length` bytes.
fn delivery(length: usize) -> (String, Vec<u8>) {
    let body = format!(
        r#"{{"comment":{{"body":"{}"}}}}"#,
        "nothing. ".repeat(length / 9)
    );
    signed_delivery(body.into_bytes())
}

/// Returns the head of a delivery that looks genuine.
pub(super) fn forged_head(length: usize) -> String {
    format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\n\
         x-hub-signature-256: sha256={}\r\ncontent-length: {length}\r\n\r\n",
        "0".repeat(64)
    )
}

/// Asserts that a delivery from this address is accepted in time.
pub(super) async fn is_taken(target: &Target, from: Ipv4Addr, length: usize) {
    let status = deliver(target, from, length).await;
    assert_eq!(status, Ok(Some(202)), "{length} bytes of {from}");
}

/// Returns the status of a delivery from this address, if it is answered in time.
pub(super) async fn deliver(
    target: &Target,
    from: Ipv4Addr,
    length: usize,
) -> Result<Option<u16>, tokio::time::error::Elapsed> {
    let (head, body) = delivery(length);
    let delivered = async {
        let stream = target.connect_from(from).await;
        exchange(stream, head, &body).await
    };
    tokio::time::timeout(PATIENCE, delivered).await
}

/// Pace at which a body that looks genuine is sent.
#[derive(Clone, Copy)]
pub(super) struct Drip {
    pub(super) length: usize,
    pub(super) piece: usize,
    pub(super) every: Duration,
}

/// Most of a body: fast enough for a large one, slow for its size.
const BEGUN: Drip = Drip {
    length: 200_000,
    piece: 200_000 / 7,
    every: Duration::from_millis(600),
};

/// Many connections that begin to send bodies that look genuine, each time from the next address.
pub(super) struct Crowd {
    crowd: tokio_util::sync::CancellationToken,
}

impl Crowd {
    /// Starts a crowd that sends each time from a new address of another network.
    pub(super) fn ever_new(connections: u32, drip: Drip, address: SocketAddr) -> Self {
        Self::start(connections, drip, address, |number| {
            let [_, high, low, range] = (number / 200 * 256 + number % 200).to_be_bytes();
            Ipv4Addr::new(127, 10 + range, low, 1 + high)
        })
    }

    pub(super) fn start(
        connections: u32,
        drip: Drip,
        address: SocketAddr,
        from: fn(u32) -> Ipv4Addr,
    ) -> Self {
        let crowd = tokio_util::sync::CancellationToken::new();
        let next = Arc::new(AtomicU32::new(0));
        let forgers = TaskTracker::new();
        for _ in 0..connections {
            let (next, ended) = (Arc::clone(&next), crowd.clone());
            let forging = async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    begin_to_send(from(number), drip, address).await;
                }
            };
            forgers.spawn(async move { ended.run_until_cancelled(forging).await });
        }
        Self { crowd }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.crowd.cancel();
    }
}

/// Sends a piece at a time until there is an answer, or until all but the last piece of the body has been sent.
async fn begin_to_send(from: Ipv4Addr, drip: Drip, address: SocketAddr) {
    static BLANK: [u8; 32 << 10] = [b' '; 32 << 10];
    let mut stream = super::target::connect_from(from, address).await;
    let head = forged_head(drip.length);
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    for _ in 1..drip.length / drip.piece {
        let mut answer = [0; 12];
        tokio::select! {
            _ = stream.read(&mut answer) => return,
            () = tokio::time::sleep(drip.every) => {}
        }
        if stream.write_all(&BLANK[..drip.piece]).await.is_err() {
            return;
        }
    }
    let _ = stream.read_u8().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ever_new_addresses_keep_no_stranger_out() {
    let target = Target::start().await;
    let _crowd = Crowd::ever_new(350, BEGUN, target.daemon.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 1..=6 {
        let from = Ipv4Addr::new(127, 240, number, 1);
        match deliver(&target, from, 100_000).await {
            // Repeats the delivery, as any sender does.
            Ok(Some(503)) => is_taken(&target, from, 100_000).await,
            answer => assert_eq!(answer, Ok(Some(202)), "{from}"),
        }
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

/// Slow bodies take all the room there is, and more of them wait for it than can be evicted in a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_ever_new_addresses_keep_nobody_waiting() {
    for (length, healthy) in [(65_000, [3_000, 60_000]), (8_000, [3_000, 7_000])] {
        let target = Target::start().await;
        let drip = Drip {
            length,
            piece: 600,
            every: Duration::from_millis(500),
        };
        let _crowd = Crowd::ever_new(900, drip, target.daemon.address);
        tokio::time::sleep(Duration::from_secs(3)).await;
        for number in 1..=3 {
            for (range, length) in (240..).zip(healthy) {
                let from = Ipv4Addr::new(127, range, number, 1);
                is_taken(&target, from, length).await;
            }
            let key = target.mint();
            let stream = target
                .connect_from(Ipv4Addr::new(127, 243, number, 1))
                .await;
            let reported = tokio::time::timeout(PATIENCE, exchange(stream, self_report(&key), b""));
            assert_eq!(reported.await, Ok(Some(200)));
        }
        target.lives().await;
        let peak = target.peak();
        assert!(peak <= MOST_MIB, "{peak} MiB");
    }
}

/// Its network has become suspect, so that as a stranger it would come last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_makes_no_stranger_of_a_known_sender() {
    let target = Target::start().await;
    let known = Ipv4Addr::new(127, 240, 1, 1);
    is_taken(&target, known, 1000).await;
    let target = target.restarted();
    // From here on the address has proved nothing itself, and its neighbors forge.
    for number in 100..120 {
        let from = Ipv4Addr::new(127, 240, 1, number);
        let stream = target.connect_from(from).await;
        let status = exchange(stream, forged_head(1000), &[b' '; 1000]).await;
        assert_eq!(status, Some(401));
    }
    let _crowd = Crowd::ever_new(350, BEGUN, target.daemon.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..3 {
        is_taken(&target, known, 100_000).await;
    }
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
            let head = forged_head(forged.len());
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
        for length in [1000, 1 << 20, LARGE] {
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

/// Asserts that `count` deliveries of `length` bytes each are all accepted when sent at once.
async fn are_all_taken(count: u8, length: usize) {
    let target = Target::start().await;
    let mut senders = Vec::new();
    let delivered: &'static (String, Vec<u8>) = Box::leak(Box::new(delivery(length)));
    for number in 1..=count {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_deliveries_wait_for_one_another() {
    // More than there is room for: none could finish if all began.
    are_all_taken(4, 11 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn many_large_deliveries_wait_for_one_another() {
    are_all_taken(
        8,
        if cfg!(debug_assertions) {
            8 << 20
        } else {
            20 << 20
        },
    )
    .await;
}

/// Checks the daemon's health again and again, over as few connections as the daemon allows.
async fn ask_again_and_again(from: Ipv4Addr, address: SocketAddr) {
    loop {
        let mut stream = super::target::connect_from(from, address).await;
        let mut answer = [0; 2048];
        while stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .is_ok()
            && stream.read(&mut answer).await.is_ok_and(|read| read > 0)
        {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_requests_of_a_crowd_keep_nobody_out() {
    // Some 270 places, including momentary ones.
    let target = Target::with_descriptors(380, 380).await;
    let askers = TaskTracker::new();
    let crowd = tokio_util::sync::CancellationToken::new();
    for number in 0..340_u16 {
        let (address, ended) = (target.daemon.address, crowd.clone());
        let from = Ipv4Addr::new(127, 1, 1, u8::try_from(number / 2).unwrap());
        askers.spawn(async move {
            ended
                .run_until_cancelled(ask_again_and_again(from, address))
                .await
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for round in 1..=10 {
        is_taken(&target, Ipv4Addr::new(127, 8, 8, round), 1000).await;
        is_taken(&target, Ipv4Addr::new(127, 8, 9, round), 100_000).await;
        let key = target.mint();
        target.reports(&key).await;
        target.lives().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    crowd.cancel();
}

/// Reports a key that nobody holds, again and again.
async fn report_again_and_again(from: Ipv4Addr, address: SocketAddr) {
    loop {
        let stream = super::target::connect_from(from, address).await;
        exchange(stream, self_report("x".repeat(20).as_str()), b"").await;
    }
}

/// Returns a request that reports a key.
pub(super) fn self_report(key: &str) -> String {
    let body = format!(r#"{{"api_key":"{key}"}}"#);
    format!(
        "POST /api/v1/integrations/credential-scanning/revoke HTTP/1.1\r\nhost: x\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn self_reports_of_one_client_keep_nobody_elses_waiting() {
    let target = Target::start().await;
    let keys: Vec<String> = (0..10).map(|_| target.mint()).collect();
    let reporters = TaskTracker::new();
    let crowd = tokio_util::sync::CancellationToken::new();
    for _ in 0..400 {
        let reporting = report_again_and_again(Ipv4Addr::new(127, 1, 1, 1), target.daemon.address);
        let ended = crowd.clone();
        reporters.spawn(async move { ended.run_until_cancelled(reporting).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (number, key) in (1..).zip(&keys) {
        let stream = target.connect_from(Ipv4Addr::new(127, 8, number, 1)).await;
        let reported = exchange(stream, self_report(key), b"");
        let reported = tokio::time::timeout(PATIENCE, reported).await;
        assert_eq!(reported, Ok(Some(200)));
    }
    crowd.cancel();
}
