//! Heads of requests of the maximum size and number.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::target::{Target, exchange};

/// Number of connections. The test program has file descriptors for that many.
const CONNECTIONS: u8 = 200;

/// Maximum memory of a connection with the largest head and a body in flight, in KiB.
const MOST_KIB: u64 = 34;

/// Returns a delivery with a forged signature, this number of other headers, and a body that does not end.
fn fat_head(headers: usize) -> String {
    let value = "y".repeat(7000 / headers - 8);
    let others = (0..headers).map(|number| format!("x-{number:02}: {value}\r\n"));
    let others = others.collect::<Vec<_>>().concat();
    format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\n\
         x-hub-signature-256: sha256={}\r\n{others}content-length: 1900\r\n\r\n",
        "0".repeat(64),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_not_kept_while_its_body_is_waited_for() {
    let target = Target::start().await;
    target.lives().await;
    let before = target.resident();
    let mut streams = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = target.connect_from(Ipv4Addr::new(127, 1, number, 1)).await;
        let head = fat_head(56);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b' '; 1000]).await.unwrap();
        streams.push(stream);
    }
    target.lives().await;
    let each = target.resident().saturating_sub(before) / u64::from(CONNECTIONS);
    // None of them was refused.
    for stream in &streams {
        let mut answer = [0; 1];
        assert!(stream.try_read(&mut answer).is_err(), "answered");
    }
    assert!(each <= MOST_KIB, "{each} KiB for each connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded_and_large_ones_share_a_budget() {
    let target = Target::start().await;
    let of_headers = |count: usize| {
        let others = "x-y: z\r\n".repeat(count);
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{others}\r\n")
    };
    let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000));
    for (head, status) in [(of_headers(60), 200), (of_headers(65), 431), (long, 431)] {
        let answered = exchange(target.connect().await, head, b"").await;
        assert_eq!(answered, Some(status));
    }
    // A header that is used, and therefore kept. There is room for 440 of them.
    let large = fat_head(1).replace("x-00", "x-gitlab-token");
    let mut streams = Vec::new();
    for number in 0..460_u16 {
        let [network, address] = number.to_be_bytes();
        let from = Ipv4Addr::new(127, 1, network, address.max(1));
        let mut stream = target.connect_from(from).await;
        stream.write_all(large.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    // Until the server has seen all of them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut stream = target.connect_from(Ipv4Addr::new(127, 8, 8, 1)).await;
    stream.write_all(large.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    // A client that proved itself does not depend on strangers: the server waits for its body.
    let mut known = target.connect().await;
    known.write_all(large.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    known.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    // Ordinary heads are not affected.
    let key = target.mint();
    target.reports(&key).await;
    target.lives().await;
}
