//! `POST /user-api-keys/check` on SQLite with 1,000,000 keys, compared with an axum handler that returns a
//! constant: requests per second of the same keep-alive client on each in turn, and the ratio.
//!
//! `cargo bench --bench key_check [-- KEYS]`

#[path = "support/server.rs"]
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use server::{Server, mint};

/// Number of keep-alive connections of the client.
const CONNECTIONS: usize = 64;

/// Number of distinct keys that are checked.
const CHECKED: usize = 10_000;

/// Number of turns per server, of which the median is reported.
const ROUNDS: usize = 7;

/// Duration of one turn, after a warm-up of a tenth of it.
const TURN: Duration = Duration::from_secs(3);

/// Response body as long as that of a check.
const CONSTANT: &str = r#"{"id":"019359e0-0000-7000-8000-000000000000","type":"user","user_id":"user-1","description":"a key","is_public":false,"created_at_millis":1795380375123,"value":{"last_four":"wxyz"}}"#;

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok());
    let keys = keys.unwrap_or(1_000_000);
    // Servers and client have separate runtimes, so that neither uses the other's threads.
    let servers = Runtime::new().expect("a runtime");
    let client = Runtime::new().expect("a runtime");

    let own: Vec<_> = (0..CHECKED).map(|_| mint()).collect();
    let started = Instant::now();
    let server = servers.block_on(Server::start(keys, &own, None));
    let count = servers
        .block_on(server.store.count_keys())
        .expect("a count");
    println!(
        "{count} keys imported in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let constant = servers.block_on(start_constant(&server));
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(
        own.iter()
            .map(|key| request(&server.token, key.expose()))
            .collect(),
    );

    let mut checks = Vec::new();
    let mut constants = Vec::new();
    for round in 1..=ROUNDS {
        constants.push(client.block_on(measure(constant, &requests)));
        checks.push(client.block_on(measure(server.address, &requests)));
        println!(
            "round {round}: constant {:>8.0} requests/s, check {:>8.0} requests/s, ratio {:.2}",
            constants[round - 1],
            checks[round - 1],
            checks[round - 1] / constants[round - 1]
        );
    }
    let (constant, check) = (median(&mut constants), median(&mut checks));
    println!(
        "median: constant {constant:.0} requests/s, check {check:.0} requests/s, ratio {:.2}",
        check / constant
    );
}

async fn start_constant(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let headers = [("content-type", "application/json")];
    let app = Router::new().route(
        "/api/v1/user-api-keys/check",
        post(move || async move { (headers, CONSTANT) }),
    );
    server.spawn(async move {
        axum::serve(listener, app)
            .await
            .expect("the constant server runs");
    });
    address
}

fn request(token: &str, key: &str) -> Vec<u8> {
    let body = format!("{{\"api_key\":\"{key}\"}}");
    format!(
        "POST /api/v1/user-api-keys/check HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns the number of requests per second that all connections together have answered with 200.
async fn measure(address: SocketAddr, requests: &Arc<Vec<Vec<u8>>>) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let requests = Arc::clone(requests);
        let answered = Arc::clone(&answered);
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let mut buffer = vec![0; 4096];
            // The step shares no factor with the number of keys, so that every connection visits all of them.
            let mut next = connection * 157;
            loop {
                let request = &requests[next % requests.len()];
                next += 7919;
                exchange(&mut stream, request, &mut buffer).await;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(TURN / 10).await;
    let (before, started) = (answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(TURN).await;
    let count = answered.load(Ordering::Relaxed) - before;
    let seconds = started.elapsed().as_secs_f64();
    connections.shutdown().await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    let count = count as f64;
    count / seconds
}

/// Sends a request and reads the whole response.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) {
    stream.write_all(request).await.expect("a request");
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let Some(head) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else {
            continue;
        };
        if filled >= head + 4 + content_length(&buffer[..head]) {
            assert!(
                buffer.starts_with(b"HTTP/1.1 200 "),
                "{}",
                String::from_utf8_lossy(&buffer[..filled])
            );
            return;
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let name = b"content-length: ";
    let at = memchr::memmem::find(head, name).expect("a content-length") + name.len();
    head[at..]
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
