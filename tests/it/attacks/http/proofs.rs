//! Requests that cannot be genuine are refused before their body is read.

use rescind::forge::Forge;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::target::{MOST_MIB, Target, exchange};
use crate::api::harness::{Setup, TestServer};
use crate::intake::signer::{ENDPOINT, IDENTIFIER, Origin, SIGNATURE, Signer};
use crate::webhooks::sender;

/// Returns the status line of the first response to a request that sends its body only after `100 Continue`.
async fn first_line(server: &TestServer, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn a_body_is_asked_for_only_of_whoever_may_be_genuine() {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    let setup = Setup {
        public_keys_url: Some(origin.url()),
        revocation_tokens: vec!["pre-shared-token"],
        ..sender::all()
    };
    let server = TestServer::start_with(setup).await;
    // One report, so that the server knows which keys exist.
    assert_eq!(signer.send(&server, "[]").await.status, 200);
    let unknown = Signer::new("k2");
    assert_eq!(unknown.send(&server, "[]").await.status, 401);
    let signature = signer.sign(b"something else");
    let digits = "0".repeat(64);
    let identifier = format!("{IDENTIFIER}: k1\r\n");
    let with_signature = format!("{SIGNATURE}: {signature}\r\n");
    let partner = [
        String::new(),
        identifier.clone(),
        with_signature.clone(),
        format!("{identifier}{SIGNATURE}: \r\n"),
        format!("{identifier}{SIGNATURE}: x\r\n"),
        format!("{identifier}{SIGNATURE}: AAAA\r\n"),
        format!("{IDENTIFIER}: {}\r\n{with_signature}", "k".repeat(200)),
        format!("{IDENTIFIER}: k2\r\n{with_signature}"),
    ];
    let mut refused: Vec<(&str, String)> = partner.map(|headers| (ENDPOINT, headers)).into();
    for headers in [
        String::new(),
        "X-Hub-Signature: sha1=0000\r\n".to_owned(),
        "X-Hub-Signature-256: sha256=00\r\n".to_owned(),
        format!("X-Hub-Signature-256: {digits}\r\n"),
        format!("X-Hub-Signature-256: sha256={}\r\n", "g".repeat(64)),
    ] {
        refused.push(("/webhooks/github", headers));
    }
    for headers in [
        String::new(),
        "X-Gitlab-Token: wrong\r\n".to_owned(),
        "webhook-signature: v1,AAAA\r\nwebhook-id: x\r\nwebhook-timestamp: 1\r\n".to_owned(),
        "webhook-signature: v1,AAAA\r\n".to_owned(),
    ] {
        refused.push(("/webhooks/gitlab", headers));
    }
    refused.push(("/webhooks/gitea", String::new()));
    refused.push(("/webhooks/gitea", "X-Gitea-Signature: 00\r\n".to_owned()));
    refused.push(("/webhooks/bitbucket", String::new()));
    refused.push((
        "/webhooks/bitbucket",
        "X-Hub-Signature: sha1=00\r\n".to_owned(),
    ));
    for headers in ["", "authorization: wrong\r\n"] {
        refused.push(("/v1/revoke_tokens", headers.to_owned()));
    }
    for path in [
        "/api/v1/keys/import",
        "/api/v1/user-api-keys",
        "/api/v1/user-api-keys/check",
    ] {
        refused.push((path, "content-type: application/json\r\n".to_owned()));
        let wrong = "authorization: Bearer wrong\r\ncontent-type: application/json\r\n";
        refused.push((path, wrong.to_owned()));
    }
    for (path, headers) in refused {
        let line = first_line(&server, path, &headers).await;
        assert!(
            line.starts_with("HTTP/1.1 401 "),
            "{path} {headers:?}: {line}"
        );
    }
    for (path, headers) in [
        (ENDPOINT, format!("{identifier}{with_signature}")),
        (
            "/webhooks/github",
            format!("X-Hub-Signature-256: sha256={digits}\r\n"),
        ),
        (
            "/webhooks/gitlab",
            format!("X-Gitlab-Token: {}\r\n", sender::SECRET),
        ),
        (
            "/webhooks/gitea",
            format!("X-Gitea-Signature: {digits}\r\n"),
        ),
        (
            "/webhooks/bitbucket",
            format!("X-Hub-Signature: sha256={digits}\r\n"),
        ),
        (
            "/v1/revoke_tokens",
            "authorization: pre-shared-token\r\n".to_owned(),
        ),
    ] {
        let line = first_line(&server, path, &headers).await;
        assert!(
            line.starts_with("HTTP/1.1 100 "),
            "{path} {headers:?}: {line}"
        );
    }
    assert_eq!(Forge::ALL.len(), 4, "each forge's endpoint is tried above");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_without_proof_take_no_memory() {
    let target = Target::start().await;
    let key = target.mint();
    let body: &'static [u8] = vec![b' '; 25 << 20].leak();
    let mut senders = Vec::new();
    for number in 0..60 {
        let path = ["/webhooks/github", ENDPOINT][number % 2];
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = target.connect().await;
        senders.push(TaskTracker::new().spawn(exchange(stream, head, body)));
    }
    target.reports(&key).await;
    target.lives().await;
    for sender in senders {
        assert_eq!(sender.await.unwrap(), Some(401));
    }
    let peak = target.peak();
    assert!(peak < MOST_MIB / 2, "{peak} MiB");
}
