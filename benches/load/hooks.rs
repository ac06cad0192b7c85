//! Signed webhook deliveries over keep-alive connections.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rescind::fetch::http_client;
use serde_json::json;
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Offered;
use crate::forge::Push;

/// Secret with which deliveries are signed.
pub(crate) const SECRET: &str = "a secret of the load generator";

struct Delivery {
    event: &'static str,
    body: Vec<u8>,
    due: Instant,
}

/// Sender of deliveries.
pub(crate) struct Hooks {
    senders: Vec<mpsc::UnboundedSender<Delivery>>,
    next: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
    results: Arc<Mutex<Offered>>,
}

impl Hooks {
    /// Creates a sender to the daemon at `url` with this many connections.
    pub(crate) fn new(url: &str, connections: usize) -> anyhow::Result<Self> {
        let url = format!("{url}/webhooks/github");
        let results = Arc::new(Mutex::new(Offered {
            answers: Vec::new(),
            refused: 0,
        }));
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..connections {
            let (sender, deliveries) = mpsc::unbounded_channel();
            let client = http_client()?;
            tasks.spawn(send_all(
                client,
                url.clone(),
                deliveries,
                Arc::clone(&results),
            ));
            senders.push(sender);
        }
        Ok(Self {
            senders,
            next: AtomicUsize::new(0),
            tasks: Mutex::new(tasks),
            results,
        })
    }

    /// Sends a delivery as soon as a connection is free. Its response time counts from now.
    pub(crate) fn send(&self, event: &'static str, body: Vec<u8>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.senders.len();
        // A failed sender is noticed when the results are counted.
        let _ = self.senders[next].send(Delivery {
            event,
            body,
            due: Instant::now(),
        });
    }

    /// Waits for all responses.
    ///
    /// # Errors
    /// Returns an error if a connection's task ended early.
    pub(crate) async fn finish(&self) -> anyhow::Result<Offered> {
        let expected = self.next.load(Ordering::Relaxed);
        loop {
            {
                let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
                if results.answers.len() + results.refused >= expected {
                    let answers = std::mem::take(&mut results.answers);
                    return Ok(Offered {
                        answers,
                        refused: results.refused,
                    });
                }
            }
            let ended = {
                let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                tasks.try_join_next().is_some()
            };
            anyhow::ensure!(!ended, "a sender ended early");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the load comes from outside")]
async fn send_all(
    client: reqwest::Client,
    url: String,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    results: Arc<Mutex<Offered>>,
) {
    while let Some(delivery) = deliveries.recv().await {
        let signature = signature(&delivery.body);
        let answer = client
            .post(&url)
            .header("content-type", "application/json")
            .header("x-github-event", delivery.event)
            .header("x-github-delivery", Uuid::now_v7().to_string())
            .header("x-hub-signature-256", signature.unwrap_or_default())
            .body(delivery.body)
            .send()
            .await;
        let took = delivery.due.elapsed();
        let accepted = answer.is_ok_and(|answer| answer.status() == 202);
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted {
            results.answers.push(took);
        } else {
            results.refused += 1;
        }
    }
}

fn signature(body: &[u8]) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).context("a key")?;
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// Returns the payload of a push event.
pub(crate) fn push(number: usize, push: &Push, forge: SocketAddr) -> Vec<u8> {
    let Push {
        repository,
        before,
        after,
        ..
    } = push;
    let name = format!("acme/shop{repository}");
    json!({
        "ref": "refs/heads/main", "before": before.to_string(), "after": after.to_string(),
        "created": false, "deleted": false, "forced": false,
        "repository": {"id": 1000 + repository, "full_name": name, "name": format!("shop{repository}"),
            "private": false, "html_url": format!("http://{forge}/{name}"),
            "clone_url": format!("http://{forge}/{name}.git")},
        "pusher": {"name": "octocat"}, "sender": {"login": "octocat", "id": 1},
        "commits": [{"id": after.to_string(), "message": format!("push {number}"), "added": ["file0.rs"]}],
    })
    .to_string()
    .into_bytes()
}

/// Returns an event that does not concern Rescind, as large as GitHub's, and its type.
pub(crate) fn unrelated(number: usize) -> (&'static str, Vec<u8>) {
    let event = ["star", "label", "issue_comment", "watch"][number % 4];
    let urls: serde_json::Map<_, _> = (0..60)
        .map(|n| {
            (
                format!("field_{n}_url"),
                json!(format!("https://api.example.com/repos/acme/shop/{n}")),
            )
        })
        .collect();
    let body = json!({
        "action": "created", "number": number, "repository": urls,
        "comment": {"html_url": "https://example.com/acme/shop/issues/1", "body": "It works here, thank you. ".repeat(40)},
        "sender": {"login": "octocat", "id": 1},
    });
    (event, body.to_string().into_bytes())
}
