//! Lists and detailed views: those that are costly to put together, and those whose answers nobody reads.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::signed_report;
use super::target::{MOST_MIB, PATIENCE, Target, exchange};
use crate::api::harness::http_client;
use crate::support::http::Ask as _;

const INCIDENTS: &str = "/api/v1/incidents";

pub(in crate::attacks) fn request(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n")
}

/// Returns what a list or a detailed view says, and asserts that it is answered in time.
async fn get(target: &Target, path: &str, token: &str) -> Value {
    let began = Instant::now();
    loop {
        let request = http_client()
            .get(format!("http://{}{path}", target.daemon.address))
            .bearer_auth(token)
            .timeout(3 * PATIENCE);
        let answer = request.ask().await.expect("an answer");
        let status = answer.status();
        assert!(status == 200 || status == 503, "{path}: {status}");
        if status == 200 {
            let text = answer.text().await.expect("all of the answer");
            assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
            return serde_json::from_str(&text).expect("JSON");
        }
        assert!(
            began.elapsed() < 3 * PATIENCE,
            "{path} is refused again and again"
        );
    }
}

/// Reports a key at so many places with long links, and returns the path of its incident.
pub(in crate::attacks) async fn large_incident(
    target: &Target,
    token: &str,
    places: usize,
) -> String {
    let key = target.mint();
    let place = |number| {
        let url = format!(
            "https://github.com/o{number:04}/n/blob/x/{}",
            "x".repeat(1_950)
        );
        json!({"token": key, "type": "t", "url": url, "source": "commit"})
    };
    // Of a single report, only so many links are looked through, and kept.
    for hundred in 0..places / 100 {
        let rows: Vec<_> = (0..100).map(|at| place(hundred * 100 + at)).collect();
        let (head, body) = signed_report(target, json!(rows).to_string().into_bytes());
        assert_eq!(
            exchange(target.connect().await, head, &body).await,
            Some(200)
        );
    }
    let list = get(target, INCIDENTS, token).await;
    let id = list["items"][0]["id"].as_str().expect("an incident");
    format!("{INCIDENTS}/{id}")
}

/// Asks for something, with room for little of the answer.
pub(in crate::attacks) async fn ask_and_read_nothing(
    target: &Target,
    number: u8,
    request: &str,
) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let from = Ipv4Addr::new(127, 80 + number % 4, number, 1);
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(target.daemon.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_nobody_reads_have_a_room_that_others_get() {
    let target = Target::start().await;
    let tokens = [(); 2].map(|()| target.token_of("viewer", "default"));
    let path = large_incident(&target, &tokens[0], 500).await;
    let detail = get(&target, &path, &tokens[0]).await;
    assert_eq!(detail["occurrences"].as_array().unwrap().len(), 500);
    let request = request(&path, &tokens[0]);
    let mut unread = Vec::new();
    for number in 0..240 {
        unread.push(ask_and_read_nothing(&target, number, &request).await);
    }
    for _ in 0..3 {
        let key = target.mint();
        target.reports(&key).await;
        let detail = get(&target, &path, &tokens[1]).await;
        assert_eq!(detail["occurrences"].as_array().unwrap().len(), 500);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    target.lives().await;
    let peak = target.peak();
    assert!(peak <= MOST_MIB, "{peak} MiB");
    drop(unread);
}

/// Adds incidents to the database of the daemon, of copies of the only key that it has.
async fn add_incidents(target: &Target, count: u32) {
    let mut connection = sqlx::SqliteConnection::connect(&target.database())
        .await
        .unwrap();
    let numbers = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
    );
    let keys = format!(
        "{numbers} INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public, prefix,
            last_four, notify_emails, created_at)
         SELECT printf('00000000-0000-7000-8000-%012x', n), project, randomblob(32), format, owner_type, owner_id,
            'a copy', is_public, prefix, last_four, notify_emails, created_at
         FROM numbers, (SELECT * FROM keys LIMIT 1)"
    );
    let incidents = format!(
        "{numbers} INSERT INTO incidents (id, project, key_id, status, opened_at, last_seen_at, sightings, occurrences,
            uses)
         SELECT printf('00000000-0000-7000-9000-%012x', n), project, printf('00000000-0000-7000-8000-%012x', n), status,
            opened_at, last_seen_at, 1, 1, 0
         FROM numbers, (SELECT * FROM incidents LIMIT 1)"
    );
    for sql in [keys, incidents] {
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costly_lists_hold_up_nobody_else() {
    let target = Target::start().await;
    let tokens = [(); 2].map(|()| target.token_of("viewer", "default"));
    let keys = [(); 4].map(|()| target.mint());
    add_incidents(&target, 400_000).await;
    let attack = CancellationToken::new();
    let askers = TaskTracker::new();
    for number in 0..200_u8 {
        let request = request(&format!("{INCIDENTS}?q=zzz{number}"), &tokens[0]);
        let (address, ended) = (target.daemon.address, attack.clone());
        let asking = async move {
            loop {
                let from = Ipv4Addr::new(127, 90, number, 1);
                let stream = super::target::connect_from(from, address).await;
                let _ = exchange(stream, request.clone(), &[]).await;
            }
        };
        askers.spawn(async move { ended.run_until_cancelled(asking).await });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for key in &keys {
        target.reports(key).await;
        get(&target, &format!("{INCIDENTS}?limit=1"), &tokens[1]).await;
    }
    target.lives().await;
    attack.cancel();
}
