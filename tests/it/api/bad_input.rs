//! Truncated, huge, undecodable, deeply nested and wrongly typed bodies: always a clear refusal.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Reply, Setup, TestServer};

const JSON_ENDPOINTS: [(&str, &str); 6] = [
    ("POST", "/api/v1/user-api-keys"),
    ("POST", "/api/v1/team-api-keys/check"),
    (
        "PATCH",
        "/api/v1/user-api-keys/019359e0-0000-7000-8000-000000000000",
    ),
    (
        "POST",
        "/api/v1/user-api-keys/019359e0-0000-7000-8000-000000000000/rotate",
    ),
    ("POST", "/api/v1/integrations/credential-scanning/revoke"),
    ("POST", "/api/v1/user-api-keys/check"),
];

fn bad_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = format!(
        "{{\"api_key\":{}1{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    vec![
        ("empty", Vec::new()),
        ("cut off", b"{\"api_key\":\"rsc_sk_".to_vec()),
        ("not UTF-8", b"{\"api_key\":\"\xff\xfe\"}".to_vec()),
        ("UTF-16", b"\xff\xfe{\0}\0".to_vec()),
        ("NUL", vec![0; 100]),
        ("deep", deep.into_bytes()),
        ("array", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("number", b"1e999".to_vec()),
        ("two values", b"{} {}".to_vec()),
        ("lone surrogate", b"{\"api_key\":\"\\ud800\"}".to_vec()),
        ("wrong types", b"{\"api_key\":{},\"description\":[],\"revoked\":1,\"overlap_seconds\":\"1\",\"user_id\":true}".to_vec()),
        ("unknown field", b"{\"nothing\":1}".to_vec()),
        ("prototype", b"{\"__proto__\":{\"admin\":true},\"constructor\":1}".to_vec()),
    ]
}

#[tokio::test]
async fn bad_json_is_a_400_in_our_shape() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    for (method, path) in JSON_ENDPOINTS {
        for (what, body) in bad_bodies() {
            // What odd characters make of a presented key is looked up like any other text.
            if ["not UTF-8", "lone surrogate"].contains(&what) && path.ends_with("/revoke") {
                continue;
            }
            let request = admin
                .request(method, path)
                .header("content-type", "application/json");
            let reply = Reply::of(request.body(body)).await;
            assert_eq!(reply.status, 400, "{method} {path}, {what}: {}", reply.text);
            let code = reply.json()["code"].as_str().unwrap().to_owned();
            assert!(
                ["SCHEMA_ERROR", "BODY_PARSING_ERROR"].contains(&code.as_str()),
                "{what}: {code}"
            );
            let error = reply.error(400, &code);
            assert_eq!(error["details"]["message"], error["error"]);
            assert!(!reply.text.contains("rsc_sk_"), "{what}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_body_has_to_be_declared_as_json() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    for (method, path) in JSON_ENDPOINTS {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "json",
            "application/jsonx",
        ] {
            let request = admin
                .request(method, path)
                .header("content-type", kind)
                .body("{}");
            Reply::of(request)
                .await
                .error(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        let request = admin
            .request(method, path)
            .header("content-type", "Application/JSON; charset=utf-8");
        assert_ne!(Reply::of(request.body("{}")).await.status, 415);
    }
}

#[tokio::test]
async fn huge_bodies_are_a_413_with_and_without_a_length() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    for (method, path) in JSON_ENDPOINTS {
        let json = "application/json";
        let huge = format!("{{\"api_key\":\"{}\"}}", "x".repeat(1 << 20));
        let declared = admin
            .request(method, path)
            .header("content-type", json)
            .body(huge.clone());
        let error = Reply::of(declared).await.error(413, "PAYLOAD_TOO_LARGE");
        assert_eq!(error["details"]["limit_bytes"], 65_536);
        let chunks = futures_util::stream::iter(
            huge.into_bytes()
                .chunks(1000)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>(),
        );
        let chunked = admin.request(method, path).header("content-type", json);
        let reply = Reply::of(chunked.body(reqwest::Body::wrap_stream(chunks))).await;
        reply.error(413, "PAYLOAD_TOO_LARGE");
    }
    let import = admin
        .request("POST", "/api/v1/keys/import")
        .header("content-type", "text/csv");
    let reply = Reply::of(import.body(vec![b'x'; (25 << 20) + 1])).await;
    reply.error(413, "PAYLOAD_TOO_LARGE");
}

/// Sends bytes, closes the sending side, and reads until the server closes.
async fn raw(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn half_requests_do_nothing_and_hurt_nobody() {
    let server = TestServer::start().await;
    let token = server.token(rescind::store::Role::Admin).await;
    let head = format!(
        "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    );
    let body = r#"{"user_id":"u","description":"d","expires_at_millis":null}"#;
    for request in [
        format!("{head}content-length: {}\r\n\r\n{body}", body.len() + 1),
        format!("{head}transfer-encoding: chunked\r\n\r\n3a\r\n{body}\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}content-length: x\r\n\r\n{body}"),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\0\0\0\0".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000)),
    ] {
        let answer = raw(&server, request.as_bytes()).await;
        assert!(
            !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
            "{request:.200}: {answer}"
        );
    }
    let list = server
        .with_token(&token)
        .get("/api/v1/user-api-keys?user_id=u")
        .await
        .json();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn imports_take_anything_row_by_row() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let send = async |kind: &str, body: Vec<u8>| {
        let request = admin
            .request("POST", "/api/v1/keys/import")
            .header("content-type", kind);
        Reply::of(request.body(body)).await
    };
    for (what, body) in bad_bodies() {
        for kind in ["text/csv", "application/jsonl"] {
            let reply = send(kind, body.clone()).await;
            assert_eq!(reply.status, 200, "{kind}, {what}: {}", reply.text);
            assert_eq!(reply.json()["imported"], 0, "{what}");
            assert!(!reply.text.contains("rsc_sk_"), "{}", reply.text);
        }
    }
    let many = send("application/jsonl", b"x\n".repeat(5000)).await.json();
    assert_eq!(many["failed"], 5000);
    assert_eq!(many["errors"].as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let limits = rescind::server::Limits {
        body_time: std::time::Duration::from_millis(50),
        ..rescind::server::Limits::default()
    };
    let server = TestServer::start_with(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let token = server.token(rescind::store::Role::Admin).await;
    // The body never comes.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("REQUEST_TIMEOUT"),
        "{answer}"
    );
}
