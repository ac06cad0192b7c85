//! Imports whose sender does not wait for their end, and imports that others wait for.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::{signed_delivery, signed_report};
use super::target::{MOST_MIB, PATIENCE, Target, connect_from, exchange};

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
    // Those that wait begin, and find out that nobody sends the rest of them.
    let imported = async {
        loop {
            let stream = target.connect().await;
            if exchange(stream, head(&token, row.len()), row.as_bytes()).await == Some(200) {
                break;
            }
        }
    };
    let imported = tokio::time::timeout(2 * PATIENCE, imported).await;
    assert!(imported.is_ok());
}

/// Returns an import of so many bytes, whose keys nobody has imported yet.
fn import_of(length: usize, salt: usize) -> String {
    let description = "abc ".repeat(250);
    let mut rows = String::new();
    for row in 0_u32.. {
        if rows.len() + 1200 > length {
            break;
        }
        let _ = writeln!(
            rows,
            r#"{{"sha256":"{salt:032x}{row:032x}","owner_type":"user","owner_id":"u","description":"{description}","format":"rescind_secret"}}"#
        );
    }
    rows
}

/// Imports at least so many keys that nobody has imported yet.
pub(in crate::attacks) async fn import(target: &Target, count: usize) {
    let token = target.token("issuer");
    for (salt, first) in (0..count).step_by(60_000).enumerate() {
        let rows = first.min(count)..(first + 60_000).min(count);
        let digest =
            |row: usize| (row as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let rows = rows.map(|row| {
            let digest = digest(row + 1);
            format!("{digest:032x}{salt:032x},user,u{row},imported\n")
        });
        let csv = format!(
            "sha256,owner_type,owner_id,description\n{}",
            rows.collect::<String>()
        );
        let head = head(&token, csv.len()).replace("application/x-ndjson", "text/csv");
        let imported = exchange(target.connect().await, head, csv.as_bytes()).await;
        assert_eq!(imported, Some(200));
    }
}

/// Sends imports from this address, one after the other.
async fn import_on(number: u8, token: String, address: std::net::SocketAddr) {
    for salt in 0.. {
        let rows = import_of(8 << 20, usize::from(number) << 32 | salt);
        let stream = connect_from(Ipv4Addr::new(127, 66, number, 1), address).await;
        let _ = exchange(stream, head(&token, rows.len()), rows.as_bytes()).await;
    }
}

/// Four of them would fill the room of all large bodies, and the room for what is made of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_keep_neither_large_bodies_nor_other_projects_out() {
    let target = Target::start().await;
    let token = target.token("issuer");
    let crowd = CancellationToken::new();
    for number in 0..8 {
        let importing = import_on(number, token.clone(), target.daemon.address);
        let ended = crowd.clone();
        TaskTracker::new().spawn(async move { ended.run_until_cancelled(importing).await });
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let other = target.token_of("issuer", "third");
    let padding = " ".repeat(100_000);
    for round in 0..3_u8 {
        let delivery = signed_delivery(format!(r#"{{"zen":"x"}}{padding}"#).into_bytes());
        let report = signed_report(&target, format!("[{padding}]").into_bytes());
        let rows = import_of(64 << 10, usize::MAX - usize::from(round));
        let import = (head(&other, rows.len()), rows.into_bytes());
        for ((head, body), expected) in [(delivery, 202), (report, 200), (import, 200)] {
            let stream = target.connect_from(Ipv4Addr::new(127, 9, round, 1)).await;
            let answered = tokio::time::timeout(PATIENCE, exchange(stream, head, &body)).await;
            assert_eq!(answered, Ok(Some(expected)), "round {round}");
        }
    }
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
    crowd.cancel();
}

/// Whoever has places for imports and sends nothing keeps none that others want.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_go_on_gives_his_place_to_others() {
    let target = Target::start().await;
    let (mine, other) = (target.token("issuer"), target.token_of("issuer", "third"));
    let mut dripping = Vec::new();
    for _ in 0..4 {
        let mut stream = target.connect().await;
        let begun = head(&mine, 1 << 20) + "{}\n";
        stream.write_all(begun.as_bytes()).await.unwrap();
        dripping.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let rows = import_of(8 << 10, 7);
    let imported = exchange(
        target.connect().await,
        head(&other, rows.len()),
        rows.as_bytes(),
    );
    let imported = tokio::time::timeout(PATIENCE, imported).await;
    assert_eq!(imported, Ok(Some(200)));
}

/// Whoever may import could otherwise fill the log with errors that are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_finds_no_place_is_no_fault_of_the_server() {
    let target = Target::start().await;
    let token = target.token("issuer");
    let mut dripping = Vec::new();
    for _ in 0..4 {
        let mut stream = target.connect().await;
        let begun = head(&token, 1 << 20) + "{}\n";
        stream.write_all(begun.as_bytes()).await.unwrap();
        dripping.push(stream);
    }
    let rows = import_of(8 << 10, 7);
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let stream = target.connect().await;
        let (head, rows) = (head(&token, rows.len()), rows.clone());
        others.spawn(async move { exchange(stream, head, rows.as_bytes()).await });
    }
    let answers = others.join_all().await;
    assert!(answers.contains(&Some(503)), "{answers:?}");
    drop(dripping);
    let ended = target.daemon.stop();
    let failed = |line: &&String| line.contains("request failed");
    assert_eq!(ended.log.iter().find(failed), None);
}
