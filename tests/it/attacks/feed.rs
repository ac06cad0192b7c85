//! Attacks through what is shaped like GitHub's API of events.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::api::harness::http_client;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::http::Ask as _;

/// Most memory that may be resident, whatever comes in, in KiB.
const MAX_RESIDENT_KIB: u64 = 256 << 10;

/// Bytes of a hostile page: a page may have 8 MiB.
const PAGE: usize = 7 << 20;

/// Returns the address of a feed with these pages, one for each source.
async fn feeds(tasks: &mut JoinSet<()>, pages: Vec<Vec<u8>>) -> Vec<String> {
    let mut urls = Vec::new();
    for page in pages.into_iter().map(Bytes::from) {
        let answer = move || async move { ([("content-type", "application/json")], page) };
        let app = axum::Router::new().route("/events", axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    }
    urls
}

fn configure(binary: &Binary, urls: &[String]) {
    let sources = urls.iter().enumerate().map(|(at, url)| {
        format!(
            "[[sources]]\nname = \"feed{at}\"\nkind = \"github_events\"\napi_url = \"{url}\"\n\
             clone_url = \"{url}\"\ntoken = {{ env = \"FEED_TOKEN\" }}\n"
        )
    });
    binary.write("config.toml", sources.collect::<String>());
}

fn rig() -> Binary {
    Binary::new().with("FEED_TOKEN", "feed-token-0123456789")
}

/// An event of a comment.
fn comment(id: &str, body: &str) -> String {
    json!({
        "id": id, "type": "IssueCommentEvent", "created_at": "2026-11-22T07:50:26Z",
        "repo": {"id": 7, "name": "acme/app"}, "payload": {"comment": {"body": body}},
    })
    .to_string()
}

/// Events with millions of values where a text belongs, and bytes that are no text.
fn hostile(kind: usize) -> String {
    let filler = |one: &str| one.repeat(PAGE / one.len());
    match kind {
        0 => format!(r#"{{"id": "1", "type": [{}0]}}"#, filler("0,")),
        1 => format!(
            r#"{{"id": "1", "created_at": {{{}"b": 1}}}}"#,
            filler("\"a\":1,")
        ),
        _ => format!(r#"{{"id": [{}[]], "type": "PushEvent"}}"#, filler("[],")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_where_a_text_belongs_takes_no_memory() {
    let mut tasks = JoinSet::new();
    for kind in 0..4 {
        let binary = rig();
        let key = binary.run("keys create --user u --description x").ok();
        let found = comment("2", &format!("see {}", key.trim()));
        let page = if kind == 3 {
            let mut page = b"[{\"id\": \"1\", \"type\": \"\\u0041".to_vec();
            page.resize(PAGE, 0xff);
            page.extend_from_slice(format!("\"}}, {found}]").as_bytes());
            page
        } else {
            format!("[{}, {found}]", hostile(kind)).into_bytes()
        };
        let urls = feeds(&mut tasks, vec![page.clone(), page]).await;
        configure(&binary, &urls);
        let mut daemon = Daemon::start(&binary, &["serve"]);
        daemon.wait_for("a leaked key was revoked");
        let peak = peak(&daemon);
        assert!(peak < MAX_RESIDENT_KIB, "kind {kind}: {peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_slow_to_scan_holds_up_nobody() {
    let mut tasks = JoinSet::new();
    // Each repetition has to be decoded, to no avail.
    let body = "eDU3NGNrNHU3aHh4".repeat(500_000);
    let page = format!("[{}]", comment("1", &body)).into_bytes();
    let urls = feeds(&mut tasks, vec![page]).await;
    // As on a machine with one processor.
    let binary = rig().with("TOKIO_WORKER_THREADS", "1");
    configure(&binary, &urls);
    let daemon = Daemon::start(&binary, &["serve"]);
    let client = http_client();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let asked = Instant::now();
        let url = format!("http://{}/healthz", daemon.address);
        let answer = client.get(&url).timeout(Duration::from_secs(20)).ask();
        assert_eq!(answer.await.unwrap().status(), 200);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Answers each request with `page`, but for its last bytes, which drip.
async fn drip(page: Bytes, listener: tokio::net::TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let page = page.clone();
        clients.spawn(async move {
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await?;
            let length = page.len() + 100_000;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            client.write_all(head.as_bytes()).await?;
            client.write_all(&page).await?;
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                client.write_all(&[b' '; 1024]).await?;
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            std::io::Result::Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_pages_that_never_end_share_their_memory_and_hold_up_no_healthy_source() {
    const HOSTILE: usize = 10;
    let mut tasks = JoinSet::new();
    let binary = rig();
    let key = binary.run("keys create --user u --description x").ok();
    let mut urls = Vec::new();
    let page = Bytes::from(format!("[{}", "0,".repeat((7 << 20) / 2)));
    for _ in 0..HOSTILE {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        tasks.spawn(drip(page.clone(), listener));
    }
    let found = format!("[{}]", comment("2", &format!("see {}", key.trim())));
    urls.extend(feeds(&mut tasks, vec![found.into_bytes()]).await);
    configure(&binary, &urls);
    let began = Instant::now();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    daemon.wait_for("a leaked key was revoked");
    assert!(began.elapsed() < Duration::from_secs(10));
    // Until all that may come at once has come.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let peak = peak(&daemon);
    assert!(peak < MAX_RESIDENT_KIB, "{peak} KiB");
}

fn peak(daemon: &Daemon) -> u64 {
    let status = format!("/proc/{}/status", daemon.id());
    let status = std::fs::read_to_string(status).expect("the daemon lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse().expect("a number")
}
