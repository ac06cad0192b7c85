//! Imports whose sender does not wait for their end.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::target::{MOST_MIB, PATIENCE, Target, exchange};

/// Size of an import, in bytes: invalid rows, or empty lines.
const LENGTH: usize = 24 << 20;

fn head(token: &str, length: usize) -> String {
    format!(
        "POST /api/v1/keys/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends an import and resets the connection after its last byte.
async fn send_and_hang_up(mut stream: TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.set_zero_linger()
}

/// The rows are read by a thread that does not end with its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hangs_up_leaves_no_body_behind() {
    let target = Target::start().await;
    let token = target.token("issuer");
    let bodies: [&'static [u8]; 2] =
        ["{}\n", "\n"].map(|row| row.repeat(LENGTH / row.len()).into_bytes().leak() as &[u8]);
    let senders = TaskTracker::new();
    let crowd = CancellationToken::new();
    for number in 0..6 {
        let (address, ended) = (target.daemon.address, crowd.clone());
        let body = bodies[number % 2];
        let head = head(&token, body.len());
        let sending = async move {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    let _ = send_and_hang_up(stream, &head, body).await;
                }
            }
        };
        senders.spawn(async move { ended.run_until_cancelled(sending).await });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
    let key = target.mint();
    target.reports(&key).await;
    target.lives().await;
    crowd.cancel();
    // The places of imports that were abandoned are free again.
    let row = format!(
        r#"{{"sha256":"{}","owner_type":"user","owner_id":"u"}}"#,
        "2c".repeat(32)
    );
    let imported = async {
        let stream = target.connect().await;
        exchange(stream, head(&token, row.len()), row.as_bytes()).await
    };
    let imported = tokio::time::timeout(PATIENCE, imported).await;
    assert_eq!(imported, Ok(Some(200)));
}
