//! Partner report of 10,000 rows, 100 of them known keys: time from the first byte sent to the last byte received,
//! with verification, revocation and log, on SQLite with 100,000 other keys.
//!
//! `cargo bench --bench partner_report`

#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{EncodePublicKey as _, LineEnding};
use rescind::keyformat::KeyValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use server::{Server, mint};

const ROWS: usize = 10_000;
const OURS: usize = 100;
const REPORTS: usize = 10;
const OTHER_KEYS: usize = 100_000;

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the reports come from outside")]
async fn main() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("the only provider");
    let signer = SigningKey::from_slice(&rand::random::<[u8; 32]>()).expect("a key");
    let pem = signer
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .expect("a public key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let keys_url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let list = json!({"public_keys": [{"key_identifier": "k", "key": pem, "is_current": true}]})
        .to_string();
    let own: Vec<_> = (0..OURS * REPORTS).map(|_| mint()).collect();
    let server = Server::start(OTHER_KEYS, &own, Some(keys_url)).await;
    server.spawn(async move {
        let app = Router::new().route("/keys", get(move || async move { list }));
        axum::serve(listener, app)
            .await
            .expect("the key server runs");
    });

    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("http://{}/webhooks/github/secret-scanning", server.address);
    let mut times = Vec::new();
    for ours in own.chunks(OURS) {
        let body = report(ours);
        let signature: Signature = signer.sign(body.as_bytes());
        let request = client
            .post(&url)
            .header("github-public-key-identifier", "k")
            .header(
                "github-public-key-signature",
                STANDARD.encode(signature.to_der()),
            )
            .body(body);
        let started = Instant::now();
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let feedback: Value = response.json().await.expect("feedback");
        times.push(started.elapsed());
        let rows = feedback.as_array().expect("rows");
        let found = rows
            .iter()
            .filter(|row| row["label"] == "true_positive")
            .count();
        assert_eq!((rows.len(), found), (ROWS, OURS));
    }
    // The revocations really happened, and were not only reported.
    let check = client
        .post(format!(
            "http://{}/api/v1/user-api-keys/check",
            server.address
        ))
        .bearer_auth(&server.token)
        .json(&json!({ "api_key": own[0].expose() }));
    let checked = check.send().await.expect("an answer");
    assert_eq!(checked.status(), 401);
    let entries = server.store.log_head().await.expect("the log").seq;
    assert_eq!(entries, own.len() as u64);
    times.sort();
    println!(
        "{REPORTS} reports of {ROWS} rows, {OURS} ours: median {:.0} ms, slowest {:.0} ms",
        millis(times[times.len() / 2]),
        millis(times[times.len() - 1])
    );
}

/// Returns a report in which the known keys are spread among unknown tokens.
fn report(ours: &[KeyValue]) -> String {
    let step = ROWS / OURS;
    let rows: Vec<Value> = (0..ROWS)
        .map(|row| {
            let stranger;
            let token = if row % step == 0 {
                ours[row / step].expose()
            } else {
                stranger = format!("rsc_sk_{row:036}");
                &stranger
            };
            json!({
                "token": token, "type": "rescind_secret", "source": "commit",
                "url": format!("https://github.com/octocat/Hello-World/blob/12345600b9cbe38a219f39a9941c9319b600c002/{row}.txt"),
            })
        })
        .collect();
    Value::from(rows).to_string()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
