//! Crowds of better standing than the healthy sender among them.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::crowds::{Crowd, Drip, forged_head, is_taken, self_report};
use super::target::{MOST_MIB, PATIENCE, Target, exchange};

/// Slow, but never so slow that it is refused for that alone.
const SLOW: Drip = Drip {
    length: 65_000,
    piece: 600,
    every: Duration::from_millis(500),
};

/// Whoever once repeated a genuine delivery is known from then on, and may hold no room by being slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_known_senders_keep_no_stranger_out() {
    let target = Target::start().await;
    for number in 1..=3 {
        is_taken(&target, Ipv4Addr::new(127, 66, 1, number), 1000).await;
    }
    let _crowd = Crowd::start(900, SLOW, target.daemon.address, |number| {
        Ipv4Addr::new(127, 66, 1, 1 + (number % 3) as u8)
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 1..=3 {
        for (range, length) in (240..).zip([20_000, 60_000]) {
            is_taken(&target, Ipv4Addr::new(127, range, number, 1), length).await;
        }
        let key = target.mint();
        let from = Ipv4Addr::new(127, 243, number, 1);
        let stream = target.connect_from(from).await;
        let reported = tokio::time::timeout(PATIENCE, exchange(stream, self_report(&key), b""));
        assert_eq!(reported.await, Ok(Some(200)));
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}

/// A few forged bodies make strangers of a whole range suspect. Those among them that are genuine come later than other
/// strangers, but they do come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbors_of_forgers_are_not_kept_out_by_strangers() {
    let target = Target::start().await;
    for network in 1..=33 {
        let from = Ipv4Addr::new(127, 77, network, 1);
        let stream = target.connect_from(from).await;
        let status = exchange(stream, forged_head(100), &[b' '; 100]).await;
        assert_eq!(status, Some(401));
    }
    let _crowd = Crowd::ever_new(900, SLOW, target.daemon.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 100..103 {
        is_taken(&target, Ipv4Addr::new(127, 77, number, 1), 60_000).await;
    }
    target.lives().await;
}
