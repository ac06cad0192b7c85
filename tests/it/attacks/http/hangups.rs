//! Clients that end their direction of a connection, or all of it, while a request is in flight or none is.

use std::io::Write as _;

use rescind::store::Role;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::harness::{Setup, TestServer};
use crate::intake::signer::{ENDPOINT, IDENTIFIER, SIGNATURE, Signer, partnership};
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually;

const SELF_REPORT: &str = "/api/v1/integrations/credential-scanning/revoke";

fn signed_report(signer: &Signer, key: &str) -> String {
    let body = json!([{"token": key}]).to_string();
    let (signature, length) = (signer.sign(body.as_bytes()), body.len());
    format!(
        "POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\n{IDENTIFIER}: k1\r\n{SIGNATURE}: {signature}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn self_report(key: &str) -> String {
    let body = json!({"api_key": key}).to_string();
    let length = body.len();
    format!(
        "POST {SELF_REPORT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn sent(server: &TestServer, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Sends something, ends the client's direction, and returns all that is answered until the server ends the other one.
async fn half_closed(server: &TestServer, request: &str) -> String {
    let mut stream = sent(server, request).await;
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Blocks the thread on which the server runs as well: it finds the request and its end at the same time.
fn send_and_hang_up(server: &TestServer, request: &str) {
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_sender_that_ends_its_direction_is_answered() {
    let (server, _origin, signer) = partnership().await;
    let admin = server.admin().await;
    let ready = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
    for _ in 0..5 {
        let [first, second] = [(); 2].map(|()| json!({}));
        let (first, second) = (admin.create(first).await, admin.create(second).await);
        let [first, second] = [&first, &second].map(|key| key["value"].as_str().unwrap());
        let requests = [
            signed_report(&signer, first),
            self_report(second),
            ready.clone(),
        ];
        for request in requests {
            let answer = half_closed(&server, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{request}: {answer}");
        }
    }
    assert_eq!(server.store.log_head().await.unwrap().seq, 10);
    server.stop().await;
}

#[tokio::test]
async fn a_sender_that_hangs_up_after_its_last_byte_has_reported() {
    let (server, _origin, signer) = partnership().await;
    let admin = server.admin().await;
    for number in 0..20 {
        let key = admin.create(json!({})).await;
        let key = key["value"].as_str().unwrap();
        let request = if number % 2 == 0 {
            signed_report(&signer, key)
        } else {
            self_report(key)
        };
        send_and_hang_up(&server, &request);
    }
    eventually("all keys are revoked", async || {
        let head = server.store.log_head().await.unwrap();
        (head.seq == 20).then_some(()).ok_or(head.seq)
    })
    .await;
    server.stop().await;
}

/// The client is gone before the database has taken anything of it.
#[tokio::test]
async fn a_request_that_came_whole_is_worked_on_without_its_client() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, Setup::default()).await;
    let token = server.token(Role::Admin).await;
    let admin = server.with_token(token.clone());
    let mut holder = sqlx::SqliteConnection::connect(&database.url)
        .await
        .unwrap();
    holder.execute("BEGIN IMMEDIATE").await.unwrap();
    let body = json!({"user_id": "u", "description": "d", "expires_at_millis": null}).to_string();
    let length = body.len();
    let request = format!(
        "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    send_and_hang_up(&server, &request);
    // Connections are accepted in their order, so the request has been found by then.
    for _ in 0..10 {
        assert_eq!(admin.get("/healthz").await.status, 200);
    }
    holder.execute("ROLLBACK").await.unwrap();
    eventually("the key is there", async || {
        let keys = admin.get("/api/v1/user-api-keys?user_id=u").await.json();
        keys["items"].as_array().unwrap().len() == 1
    })
    .await;
    server.stop().await;
}

/// Otherwise whoever vanished would keep a place until a time limit.
#[tokio::test]
async fn an_end_between_requests_or_amid_one_ends_the_connection() {
    let (server, _origin, signer) = partnership().await;
    let whole = signed_report(&signer, "nobody's");
    let ready = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (text, answers) in [
        ("", 0),
        ("GET /readyz HTT", 0),
        (&whole[..whole.len() - 3], 0),
        (&format!("{ready}{ready}"), 2),
    ] {
        let reading = half_closed(&server, text);
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), reading).await;
        let answer = answer.unwrap_or_else(|_| panic!("{text:?} keeps its connection"));
        assert_eq!(
            answer.matches("HTTP/1.1 200").count(),
            answers,
            "{text}: {answer}"
        );
    }
    server.stop().await;
}
