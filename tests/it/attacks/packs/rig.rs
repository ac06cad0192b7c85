//! A daemon that reads pushes, and the server that they are on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::builder::{Push, before, file};
use crate::api::harness::http_client;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;

const SECRET: &str = "It's a Secret to Everybody";

/// Maximum resident memory under any load, in KiB.
const MAX_RESIDENT_KIB: u64 = 256 << 10;

/// The answers to fetches, by repository.
type Answers = Arc<Mutex<HashMap<String, axum::body::Bytes>>>;

/// A daemon whose webhook of GitHub is configured.
pub(super) struct Rig {
    binary: Binary,
    daemon: Daemon,
    answers: Answers,
    pushes: usize,
    _tasks: tokio::task::JoinSet<()>,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let answers = Answers::default();
        let app = axum::Router::new()
            .route(
                "/acme/{name}/git-upload-pack",
                axum::routing::post(upload_pack),
            )
            .with_state(Arc::clone(&answers));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let binary = Binary::new().with("HOOK_SECRET", SECRET);
        binary.write(
            "config.toml",
            format!(
                "[webhooks.github]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\nclone_url = \"{url}\"\n"
            ),
        );
        let daemon = Daemon::start(&binary, &["serve"]);
        Self {
            binary,
            daemon,
            answers,
            pushes: 0,
            _tasks: tasks,
        }
    }

    /// A key of ours.
    pub(super) fn key(&self) -> String {
        let minted = self.binary.run("keys create --user u --description x").ok();
        minted.trim().to_owned()
    }

    /// Puts a push on the server and tells the daemon.
    pub(super) async fn push(&mut self, push: Push) {
        self.pushes += 1;
        let name = format!("r{}", self.pushes);
        let answer = packed(&push.pack).into();
        self.answers.lock().unwrap().insert(name.clone(), answer);
        let payload = json!({
            "ref": "refs/heads/main",
            "before": before().to_string(),
            "after": push.after.to_string(),
            "repository": {"id": self.pushes, "full_name": format!("acme/{name}")},
        });
        assert_eq!(self.deliver(payload.to_string()).await, 202);
    }

    /// Sends a signed delivery.
    pub(super) async fn deliver(&self, body: String) -> u16 {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let digits = hex::encode(mac.finalize().into_bytes());
        let url = format!("http://{}/webhooks/github", self.daemon.address);
        let request = http_client()
            .post(url)
            .header("X-Hub-Signature-256", format!("sha256={digits}"))
            .header("X-GitHub-Event", "push")
            .header("content-type", "application/json");
        let response = request.body(body).ask().await.unwrap();
        response.status().as_u16()
    }

    /// Waits until a key was revoked.
    pub(super) fn wait_for_revocation(&mut self) {
        self.daemon.wait_for("a leaked key was revoked");
    }

    /// A small push leaks a key: it is revoked in time.
    pub(super) async fn still_revokes(&mut self) {
        let key = self.key();
        let start = Instant::now();
        self.push(file(b"leak.env", key.as_bytes())).await;
        self.wait_for_revocation();
        // Ten seconds on a machine that does nothing else; this one runs other tests.
        let took = start.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
        eprintln!("revoked after {took:?}");
    }

    /// Waits until nothing is left to be read.
    pub(super) async fn read_on(&self) {
        eventually("nothing is left to be read", async || {
            let status = self.binary.run("sources status --json").ok();
            let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
            status["counts"]["waiting"] == 0
        })
        .await;
    }

    /// The most memory that was resident so far, in KiB.
    pub(super) fn peak(&self) -> u64 {
        let status = format!("/proc/{}/status", self.daemon.id());
        let status = std::fs::read_to_string(status).expect("the daemon lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.expect("a number").parse().expect("a number")
    }

    #[track_caller]
    pub(super) fn stays_small(&self) {
        let peak = self.peak();
        eprintln!("resident: {} MiB at most", peak >> 10);
        assert!(peak <= MAX_RESIDENT_KIB, "{peak} KiB were resident");
    }
}

async fn upload_pack(State(answers): State<Answers>, Path(name): Path<String>) -> Response {
    let name = name.trim_end_matches(".git");
    let answer = answers.lock().unwrap().get(name).cloned();
    match answer {
        Some(body) => {
            let kind = [("content-type", "application/x-git-upload-pack-result")];
            (kind, body).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn packed(pack: &[u8]) -> Vec<u8> {
    let mut body = b"000dpackfile\n".to_vec();
    for piece in pack.chunks(60_000) {
        body.extend(format!("{:04x}\x01", piece.len() + 5).as_bytes());
        body.extend(piece);
    }
    body.extend(b"0000");
    body
}
