//! Reports whose texts are costly to search for keys.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::target::Target;
use crate::api::harness::http_client;
use crate::intake::signer::{ENDPOINT, IDENTIFIER, SIGNATURE};
use crate::support::http::Ask as _;

/// Characters that each may be the beginning of another encoding.
const COSTLY: &str = r"\%2B%25a\25%2B410x41,41=5C0x41,%26amp;=41a";

/// As many reports as there are threads, of a key of ours in many places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_of_many_costly_links_keeps_nobody_waiting() {
    let target = Target::start().await;
    let mut reports = tokio::task::JoinSet::new();
    let client = http_client();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    for report in 0..at_once {
        let key = target.mint();
        let rows: Vec<Value> = (0..8)
            .map(|row| {
                let link = format!("https://x.example/{report}/{row}/{}", COSTLY.repeat(46));
                json!({"token": key, "type": "t", "url": link[..1_900], "source": "commit"})
            })
            .collect();
        let body = json!(rows).to_string();
        let request = client
            .post(format!("http://{}{ENDPOINT}", target.daemon.address))
            .header(IDENTIFIER, "k1")
            .header(SIGNATURE, target.signer.sign(body.as_bytes()))
            .timeout(Duration::from_mins(2))
            .body(body);
        reports.spawn(request.ask());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let healthz = client.get(format!("http://{}/healthz", target.daemon.address));
    let alive = healthz.timeout(Duration::from_secs(10)).ask().await;
    assert_eq!(alive.expect("an answer").status(), 200);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let key = target.mint();
    target.reports(&key).await;
    for answer in reports.join_all().await {
        assert_eq!(answer.expect("an answer").status(), 200);
    }
}
