//! Every budget of memory, full at the same time.
//!
//! Each alone is far from the limit; what is promised holds for their sum (`src/memory.rs`).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::http::bodies::{filled, signed_delivery, signed_report};
use super::http::imports::import;
use super::http::listings::{ask_and_read_nothing, large_incident, request};
use super::http::target::{MOST_MIB, Target, connect_from, exchange};
use super::packs::builder::{BLOB, Pack, TREE, copying, deflate, named};
use crate::support::git;

/// Number of keys that are imported before: more than SQLite's caches hold.
const IMPORTED: usize = 360_000;

/// Time for which all that can wait is there together.
const TOGETHER: Duration = Duration::from_secs(15);

/// Repositories of each kind, by the beginning of their names. More than 12 small ones of a host have no place.
const SMALL: usize = 11;
const MEDIUM: usize = 2;

/// Sources with a page of nearly a mebibyte, and one with a large one.
const ORDINARY_PAGES: usize = 5;

/// A server with the pages of all feeds and the packs of all repositories. What it sends has no end: the last bytes are
/// missing.
struct Forge {
    url: String,
    /// `true` once the feeds have something.
    is_open: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Forge {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_open = Arc::new(AtomicBool::new(false));
        let (heavy, open) = (packed(&heavy()), Arc::clone(&is_open));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (heavy, open) = (heavy.clone(), Arc::clone(&open));
                clients.spawn(async move { answer(client, &heavy, &open).await.err() });
            }
        });
        Self {
            url,
            is_open,
            _tasks: tasks,
        }
    }

    /// Returns the configuration of the webhook's clone address, and of the sources.
    fn config(&self) -> String {
        let url = &self.url;
        let source = |name: String| {
            format!(
                "[[sources]]\nname = \"{name}\"\nkind = \"github_events\"\napi_url = \"{url}/{name}\"\n\
                 clone_url = \"{url}\"\n"
            )
        };
        let ordinary = (0..ORDINARY_PAGES).map(|n| source(format!("ordinary{n}")));
        let sources: String = ordinary.chain([source("large".to_owned())]).collect();
        format!("clone_url = \"{url}\"\n{sources}")
    }
}

/// A small pack that takes much memory to read: a delta as large as its base, again and again.
fn heavy() -> Vec<u8> {
    let mut pack = Pack::new();
    let size = 17 << 20;
    let base = pack.entry(BLOB, b"", &deflate(&vec![0; size], 6));
    let delta = copying(size, size >> 16);
    for _ in 0..20 {
        pack.offset_delta(base, &delta);
    }
    let tree = pack.object(
        TREE,
        &named("100644", b"x", super::packs::builder::before()),
    );
    pack.push(tree).pack
}

fn packed(pack: &[u8]) -> Bytes {
    let mut body = line(b"packfile\n");
    for piece in pack.chunks(60_000) {
        body.extend(line(&[b"\x01", piece].concat()));
    }
    body.extend(b"0000");
    body.into()
}

fn line(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

async fn answer(mut client: TcpStream, heavy: &[u8], is_open: &AtomicBool) -> std::io::Result<()> {
    let mut head = [0; 1024];
    let read = client.peek(&mut head).await?;
    let path = String::from_utf8_lossy(&head[..read]).into_owned();
    let path = path.split_whitespace().nth(1).unwrap_or_default();
    if path.ends_with("/events") || path.contains("/events?") {
        let _ = client.read(&mut head).await?;
        let length = if path.contains("large") {
            (8 << 20) - 200_000
        } else {
            1_000_000
        };
        return page(client, length, is_open).await;
    }
    git::request(&mut client).await?;
    client
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\nconnection: close\r\n\r\n",
        )
        .await?;
    let name = path.split('/').nth(2).unwrap_or_default();
    if name.starts_with("heavy") {
        return client.write_all(heavy).await;
    }
    let size = match name {
        name if name.starts_with("small") => 1_000_000,
        name if name.starts_with("medium") => 7_900_000,
        _ => 33_000_000,
    };
    client.write_all(&line(b"packfile\n")).await?;
    client
        .write_all(&line(b"\x01PACK\0\0\0\x02\0\x10\0\0"))
        .await?;
    let piece = line(&[&b"\x01"[..], &vec![7; 60_000]].concat());
    for _ in 0..size / 60_000 {
        client.write_all(&piece).await?;
    }
    std::future::pending().await
}

/// Sends a page of events but for its end.
async fn page(mut client: TcpStream, length: usize, is_open: &AtomicBool) -> std::io::Result<()> {
    if !is_open.load(Ordering::Relaxed) {
        let empty = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-poll-interval: 1\r\nconnection: close\r\n\r\n[]";
        return client.write_all(empty).await;
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n[",
        length + 50_000
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(&b"0,".repeat(length / 2)).await?;
    loop {
        sleep(Duration::from_millis(500)).await;
        client.write_all(&[b' '; 1024]).await?;
    }
}

/// Announces a push of an owner of its own.
async fn announce(target: &Target, name: &str, number: usize) {
    let payload = json!({
        "ref": "refs/heads/main",
        "before": "1".repeat(40),
        "after": format!("{number:040x}"),
        "repository": {"id": number, "full_name": format!("owner{number}/{name}")},
    });
    let (head, body) = signed_delivery(payload.to_string().into_bytes());
    let answered = exchange(target.connect().await, head, &body).await;
    assert_eq!(answered, Some(202), "{name}");
}

fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("few");
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 100, 0, 1).to_bits() + number * 7)
}

/// Sends the head of a delivery with a made-up signature, and all but the last byte of its body.
async fn begin(target: &Target, number: usize, length: usize, more: &str) -> TcpStream {
    let mut stream = connect_from(address(number), target.daemon.address).await;
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\nx-hub-signature-256: sha256={}\r\n\
         {more}content-length: {length}\r\n\r\n",
        "0".repeat(64),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is the daemon that decides how much of it there is room for.
    let body = vec![b' '; length - 1];
    let _ = tokio::time::timeout(Duration::from_millis(500), stream.write_all(&body)).await;
    stream
}

/// Bodies of all sizes, heads and connections that wait, of so many addresses.
async fn fill_connections(target: &Target) -> Vec<TcpStream> {
    let mut held = Vec::new();
    let token = format!("x-gitlab-token: {}\r\n", "y".repeat(6_900));
    let kinds = [
        (300, 1_900, token.as_str()),
        (330, 8_100, ""),
        (120, 65_000, ""),
        (1, 1 << 20, ""),
    ];
    for (count, length, more) in kinds {
        for _ in 0..count {
            held.push(begin(target, held.len(), length, more).await);
        }
    }
    while held.len() < 850 {
        let mut stream = connect_from(address(held.len()), target.daemon.address).await;
        let begun = format!("GET /healthz HTTP/1.1\r\nx-y: {}", "y".repeat(7_000));
        stream.write_all(begun.as_bytes()).await.unwrap();
        held.push(stream);
    }
    held
}

/// Reports that take as much as a report may to be answered: rows without end in 64 KiB, and 25 MiB in all.
fn reports(target: &Target) -> [(String, Vec<u8>); 2] {
    let rows = format!("[{}0]", "0,".repeat(32_000)).into_bytes();
    let row = json!({"token": "nobody's ".repeat(16), "type": "t".repeat(100), "source": "commit"});
    let rows_of_all = filled("[", &format!("{row},"), "{}]");
    [rows, rows_of_all].map(|body| signed_report(target, body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn all_budgets_together_fit() {
    let forge = Forge::start().await;
    let target = Target::start_with(&forge.config()).await;
    let peak = |what: &str| {
        let (peak, now) = (target.peak(), target.resident() >> 10);
        eprintln!("{what}: {peak} MiB at most, {now} MiB now");
        peak
    };
    peak("started");
    import(&target, IMPORTED).await;
    peak("imported");
    let viewers = [(); 2].map(|()| target.token_of("viewer", "default"));
    let incident = large_incident(&target, &viewers[0], 500).await;
    let details = viewers.map(|viewer| request(&incident, &viewer));
    let reports = reports(&target);
    peak("before");

    forge.is_open.store(true, Ordering::Relaxed);
    for number in 0..SMALL {
        announce(&target, &format!("small{number}"), number + 1).await;
    }
    for number in 0..MEDIUM {
        announce(&target, &format!("medium{number}"), number + 101).await;
    }
    announce(&target, "large", 201).await;
    let held = fill_connections(&target).await;
    let mut unread = Vec::new();
    for number in 0..100 {
        unread.push(ask_and_read_nothing(&target, number, &details[usize::from(number % 2)]).await);
    }
    peak("all of it waits");
    let mut tasks = JoinSet::new();
    for (head, body) in reports.into_iter().flat_map(|report| vec![report; 3]) {
        let to = target.daemon.address;
        tasks.spawn(async move {
            loop {
                let stream = connect_from(Ipv4Addr::new(127, 3, 3, 3), to).await;
                let status = exchange(stream, head.clone(), &body).await;
                if body.len() > 1 << 20 {
                    eprintln!("large report: {status:?}");
                }
            }
        });
    }
    let began = tokio::time::Instant::now();
    for number in 301.. {
        if began.elapsed() > TOGETHER {
            break;
        }
        announce(&target, &format!("heavy{number}"), number).await;
        sleep(Duration::from_millis(250)).await;
        if number % 8 == 0 {
            peak("together");
        }
    }
    tasks.shutdown().await;
    drop((held, unread));
    let peak = peak("all of it was there");
    let key = target.mint();
    target.reports(&key).await;
    target.lives().await;
    // More of the file of an unoptimized build is resident.
    let is_other = std::env::var_os("RESCIND_TEST_BINARY").is_some();
    let more = if cfg!(debug_assertions) && !is_other {
        20
    } else {
        0
    };
    assert!(peak <= MOST_MIB + more, "{peak} MiB");
}
