//! Few bytes that make much work: many work items of long names, and long lists of references.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::http::target::{MOST_MIB, PATIENCE, SECRET, Target, connect_from, exchange};
use crate::api::harness::http_client;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;
use crate::webhooks::sender::hmac;

/// Senders of deliveries that tell of many references.
const SENDERS: u8 = 48;

/// References of each of their deliveries: the most that are read one by one, and as many as fit in 64 KiB.
const MANY: [usize; 2] = [1_000, 700];

/// Time for which they send.
const TOGETHER: Duration = Duration::from_secs(12);

/// Returns the number of work items of a source, by name, in the list of all sources.
fn items_of(status: &str, name: &str) -> u64 {
    let all = status
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let mut all = all.map(|status| status.expect("JSON"));
    let of_name = all.find(|status| status["name"] == name);
    let items = of_name.and_then(|status| status["counts"]["items"].as_u64());
    items.unwrap_or_default()
}

/// A genuine delivery of GitLab, of a project in twenty nested groups with long names.
fn many_references(sender: u8, round: u32, count: usize) -> (String, Vec<u8>) {
    let name = format!("owner{sender}{}", format!("/{}", "p".repeat(95)).repeat(20));
    let changes: Vec<_> = (0..count)
        .map(|n| json!({"ref": format!("refs/heads/{n:x}"), "after": format!("{round:020x}{n:020x}")}))
        .collect();
    let body = json!({
        "event_name": "repository_update", "project_id": sender, "changes": changes,
        "project": {"path_with_namespace": name, "git_http_url": format!("http://127.0.0.1:9/{name}.git")},
    });
    let body = body.to_string().into_bytes();
    let head = format!(
        "POST /webhooks/gitlab HTTP/1.1\r\nhost: x\r\nx-gitlab-token: {SECRET}\r\nx-gitlab-event: System Hook\r\n\
         idempotency-key: {sender}-{round}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

/// Asserts that a comment with a key is taken, which means that the key is revoked. Returns how long that took.
async fn comment(target: &Target, key: &str) -> Duration {
    let body = json!({
        "action": "created", "comment": {"body": key, "html_url": "https://github.com/v/r/issues/1"},
        "repository": {"id": 3, "full_name": "v/r"},
    });
    let body = body.to_string().into_bytes();
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: issue_comment\r\n\
         x-hub-signature-256: sha256={}\r\ncontent-length: {}\r\n\r\n",
        hmac(SECRET.as_bytes(), &body),
        body.len()
    );
    let began = Instant::now();
    let stream = connect_from(Ipv4Addr::new(127, 9, 9, 9), target.daemon.address).await;
    let answered = exchange(stream, head, &body).await;
    assert_eq!(answered, Some(202));
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_tell_of_a_thousand_long_references_take_little_and_hold_up_nobody() {
    let config = format!(
        "[webhooks.gitlab]\nsecrets = [\"{SECRET}\"]\nclone_hosts = [\"http://127.0.0.1:9\"]\n"
    );
    let target = Target::start_with(&config).await;
    // The command line would wait for the database's file, in which nobody gives it a turn.
    let keys: Vec<_> = (0..=TOGETHER.as_secs()).map(|_| target.mint()).collect();
    let before = target.peak();
    let accepted = Arc::new(AtomicU32::new(0));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (accepted, to) = (Arc::clone(&accepted), target.daemon.address);
        senders.spawn(async move {
            for round in 0.. {
                let count = MANY[usize::from(sender) % 2];
                let (head, body) = many_references(sender, round, count);
                let stream = connect_from(Ipv4Addr::new(127, 0, 2, sender + 1), to).await;
                let status = exchange(stream, head, &body).await;
                assert!(matches!(status, Some(202 | 503)), "{status:?}");
                if status == Some(202) {
                    accepted.fetch_add(1, Ordering::Relaxed);
                } else {
                    sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }
    let began = Instant::now();
    for key in &keys {
        if began.elapsed() >= TOGETHER {
            break;
        }
        sleep(Duration::from_secs(1)).await;
        let took = comment(&target, key).await;
        assert!(took < PATIENCE, "{took:?}");
        target.lives().await;
    }
    senders.abort_all();
    let peak = target.peak();
    eprintln!("{before} MiB before, {peak} MiB at most, {accepted:?} deliveries answered 202");
    // Whoever is answered late is told so, and what it sent is stored.
    eventually("deliveries are stored", async || {
        sleep(Duration::from_secs(1)).await;
        items_of(&target.run("sources status --json").ok(), "webhook:gitlab") >= MANY[1] as u64
    })
    .await;
    // The rooms for the work on bodies of either size, and what is written down at a time.
    assert!(
        peak < before + 90 && peak < MOST_MIB,
        "{before} MiB, then {peak} MiB"
    );
}

/// Sources of one server, and references of each.
const SOURCES: usize = 12;
const REFERENCES: usize = 50_000;

/// Starts a git server whose repositories have this list of references.
async fn git_server(tasks: &mut JoinSet<()>, list: Bytes) -> String {
    let answer = move |asked: Bytes| {
        let is_list = asked.windows(4).any(|part| part == b"tags");
        let answer = if is_list {
            list.clone()
        } else {
            Bytes::from_static(b"0000")
        };
        async move {
            (
                [("content-type", "application/x-git-upload-pack-result")],
                answer,
            )
        }
    };
    let app = axum::Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn list_of_references() -> Bytes {
    let mut list = String::new();
    for n in 0..REFERENCES {
        let line = format!("{:040x} refs/heads/{n:05}{}\n", n + 1, "z".repeat(62));
        let _ = write!(list, "{:04x}{line}", line.len() + 4);
    }
    Bytes::from(list + "0000")
}

fn peak_of(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<u64>().unwrap() >> 10
}

/// Long lists are read and compared one after the other, however many sources are polled at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_of_many_sources_take_the_memory_of_one() {
    let mut tasks = JoinSet::new();
    let url = git_server(&mut tasks, list_of_references()).await;
    let binary = Binary::new();
    let sources = (0..SOURCES).map(|n| {
        format!("[[sources]]\nname = \"g{n}\"\nkind = \"git\"\nurl = \"{url}/owner{n}/r.git\"\n")
    });
    binary.write("config.toml", "");
    let idle = Daemon::start(&binary, &["serve"]);
    let before = peak_of(&idle);
    idle.stop();
    binary.write("config.toml", sources.collect::<String>());
    let daemon = Daemon::start(&binary, &["serve"]);
    eventually("all sources are polled", async || {
        sleep(Duration::from_secs(1)).await;
        let status = binary.run("sources status --json").ok();
        (0..SOURCES).all(|n| items_of(&status, &format!("g{n}")) > 0)
    })
    .await;
    let health = http_client().get(format!("http://{}/readyz", daemon.address));
    assert_eq!(health.ask().await.unwrap().status(), 200);
    let peak = peak_of(&daemon);
    eprintln!("{before} MiB idle, {peak} MiB at most");
    assert!(peak < before + 60, "{before} MiB, then {peak} MiB");
}
