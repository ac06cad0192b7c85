//! A signal to stop in the middle of requests that were made to take long.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use rescind::server::{Connections, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::signed_report;
use super::target::{Target, exchange};
use crate::attacks::work::until;

/// Characters that each may be the beginning of another encoding.
const COSTLY: &str = r"\%2B%25a\25%2B410x41,41=5C0x41,%26amp;=41a";

/// Maximum time that a stop takes: 25 s for what is in flight, 3 s for the database; twice that on a busy machine.
const STOP: Duration = Duration::from_mins(1);

/// Maximum time that a stop takes when only clients are waited for: 9 s, and some more on a busy machine. Before that
/// was bounded it took 15 s for a head of a request, and 20 s for an answer.
const STOP_AMID_SLOW_CLIENTS: Duration = Duration::from_secs(13);

/// Number of keys that are reported one by one while the daemon stops.
const LEAKED: usize = 8;

/// Returns a report of 8 MiB, of a key in costly places.
fn costly_report(key: &str) -> Vec<u8> {
    let rows: Vec<Value> = (0..4_000)
        .map(|row| {
            let link = format!("https://x.example/{row}/{}", COSTLY.repeat(50));
            json!({"token": key, "type": "t", "url": link[..1_950], "source": "commit"})
        })
        .collect();
    json!(rows).to_string().into_bytes()
}

/// Returns an import of 24 MiB, of keys with costly descriptions.
fn costly_import() -> String {
    let description = json!(COSTLY.repeat(20)).to_string();
    let mut rows = String::new();
    for row in 0.. {
        let _ = writeln!(
            rows,
            r#"{{"sha256":"{row:064x}","owner_type":"user","owner_id":"imported","description":{description}}}"#
        );
        if rows.len() > 24 << 20 {
            break;
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_amid_costly_requests_ends_in_time_and_loses_nothing() {
    let target = Target::start().await;
    let token = target.token_of("issuer", "default");
    let leaked: Vec<String> = (0..LEAKED).map(|_| target.mint()).collect();
    let in_many_places = target.mint();
    let imported = |target: &Target| {
        let keys = target.run("keys list --user imported --json").ok();
        keys.lines().count()
    };

    let mut costly = JoinSet::new();
    let rows = costly_import();
    let head = format!(
        "POST /api/v1/keys/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        rows.len()
    );
    let stream = target.connect().await;
    costly.spawn(async move { exchange(stream, head, rows.as_bytes()).await });
    let (head, report) = signed_report(&target, costly_report(&in_many_places));
    let stream = target.connect().await;
    costly.spawn(async move { exchange(stream, head, &report).await });
    until("an import is in flight", async || imported(&target) > 0).await;
    let before = imported(&target);

    let began = Instant::now();
    let mut accepted = Vec::new();
    for (number, key) in leaked.iter().enumerate() {
        if number == LEAKED / 2 {
            target.daemon.signal("TERM");
        }
        let body = json!([{"token": key, "type": "t", "url": "", "source": "commit"}]);
        let (head, body) = signed_report(&target, body.to_string().into_bytes());
        let Ok(stream) = TcpStream::connect(target.daemon.address).await else {
            continue;
        };
        if exchange(stream, head, &body).await == Some(200) {
            accepted.push(key);
        }
    }
    let target = target.started_again();
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
    costly.join_all().await;

    // The key of the start, and those whose reports were answered.
    assert!(accepted.len() >= LEAKED / 2, "{}", accepted.len());
    let log = target.run("log list --json").ok();
    assert!(log.lines().count() > accepted.len(), "{log}");
    assert!(imported(&target) >= before);
    for key in leaked.iter().chain([&in_many_places]) {
        target.reports(key).await;
    }
    let log = target.run("log list --json").ok();
    assert_eq!(log.lines().count(), 1 + LEAKED + 1, "each once: {log}");
    target.run("log verify").ok();
}

/// A container runtime kills after 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || vec![b'x'; 32 << 20]));
    let stop = CancellationToken::new();
    let serving = serve(listener, router, Connections::default(), stop.clone());
    let serving = TaskTracker::new().spawn(serving);
    let mut reader = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    reader.write_all(request).await.unwrap();
    // The answer has begun, and most of it has no room anywhere until it is read.
    reader.read_u8().await.unwrap();
    stop.cancel();
    let ended = timeout(STOP_AMID_SLOW_CLIENTS, serving).await;
    ended.expect("in time").expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_clients_that_do_not_send() {
    let mut target = Target::start().await;
    let token = target.token("issuer");
    let _silent = target.connect().await;
    let mut begun = target.connect().await;
    begun.write_all(b"GET /healthz HTT").await.unwrap();
    let mut sender = target.connect().await;
    let head = format!(
        "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    );
    sender.write_all(head.as_bytes()).await.unwrap();
    // The body is being waited for.
    sender.read_u8().await.unwrap();
    target.daemon.signal("TERM");
    assert!(target.daemon.ends_within(STOP_AMID_SLOW_CLIENTS));
    let ended = target.daemon.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is_clean = ended.log.iter().any(|line| line.ends_with("stopped"));
    assert!(is_clean, "{ended:?}");
}
