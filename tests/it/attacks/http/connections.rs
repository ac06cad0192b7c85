//! Connections that are opened and not used.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::target::Target;

/// Sends as many requests as are accepted, and reads nothing.
async fn send_without_reading(stream: &mut TcpStream) {
    let request = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    for _ in 0..10 {
        let sent = stream.write_all(request.as_bytes());
        if !matches!(
            tokio::time::timeout(Duration::from_millis(100), sent).await,
            Ok(Ok(()))
        ) {
            break;
        }
    }
}

/// More connections of every malicious kind than there are file descriptors for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idlers_keep_nobody_out() {
    let target = Target::with_descriptors(256, 256).await;
    let key = target.mint();
    let mut streams = Vec::new();
    let mut unread = Vec::new();
    for number in 0..360 {
        let mut stream = target.connect().await;
        match number % 4 {
            0 => {}
            1 => {
                let _ = stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-y: ")
                    .await;
            }
            2 => {
                let head = Target::report_head(&target.signer.sign(b""), 60_000);
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&[b' '; 1000]).await;
            }
            _ => {
                unread.push(TaskTracker::new().spawn(async move {
                    send_without_reading(&mut stream).await;
                    stream
                }));
                continue;
            }
        }
        streams.push(stream);
    }
    for sender in unread {
        streams.push(sender.await.unwrap());
    }
    target.lives().await;
    target.reports(&key).await;
    target.lives().await;
    // The attack goes on: a byte now and then does not count as progress.
    let dripping = async {
        loop {
            for stream in &mut streams {
                let _ = stream.try_write(b" ");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let key = target.mint();
    let healthy = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..10 {
            target.lives().await;
        }
        target.reports(&key).await;
    };
    tokio::select! {
        () = healthy => {}
        () = dripping => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn whoever_does_not_read_is_cut_off() {
    let target = Target::start().await;
    let mut stream = target.connect().await;
    send_without_reading(&mut stream).await;
    let ended = async {
        loop {
            if stream
                .try_write(b"GET")
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), ended).await;
    assert!(ended.is_ok(), "the connection is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_descriptors_is_raised_and_named() {
    let target = Target::with_descriptors(64, 300).await;
    let limits = format!("/proc/{}/limits", target.daemon.id());
    let limits = std::fs::read_to_string(limits).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = line.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["300", "300"]);
    let ended = target.daemon.stop();
    let named = ended
        .log
        .iter()
        .any(|line| line.contains("300 file descriptors are enough for 186 connections"));
    assert!(named, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_sent_does_not_cost_the_answer() {
    let target = Target::start().await;
    let mut stream = target.connect().await;
    let head = "POST /webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Like a client that reads nothing until it has sent everything.
    stream.write_all(&vec![b' '; 30_000_000]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// A body that arrives a byte at a time is refused long before the time limit for bodies, and holds no budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dawdles_is_told_so() {
    let target = Target::start().await;
    let dawdle = async |length| {
        let mut stream = target.connect().await;
        let head = Target::report_head(&target.signer.sign(b""), length);
        stream.write_all(head.as_bytes()).await.unwrap();
        let dripping = async {
            while stream.try_write(b" ").is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(6), dripping).await;
        let mut answer = [0; 12];
        let answered = stream.read_exact(&mut answer);
        let answered = tokio::time::timeout(Duration::from_secs(10), answered).await;
        answered.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    };
    tokio::join!(dawdle(60_000), dawdle(25 << 20));
}
