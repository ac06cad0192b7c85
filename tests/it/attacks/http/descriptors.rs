//! A daemon with few file descriptors, as under many service managers.

use std::time::Duration;

use rescind::sandbox::git_server::GitServer;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::signed_delivery;
use super::target::{PATIENCE, SECRET, exchange, limited};
use crate::cli::{Binary, Ran};
use crate::serve::Daemon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_are_enough_for_a_delivery_and_its_fetch_in_a_flood() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = GitServer::start(folder.path(), &TaskTracker::new()).await;
    let server = server.expect("a forge");
    let repository = server.create("acme/app").expect("a repository");
    let binary = Binary::new();
    let config = format!(
        "[webhooks.github]\nsecrets = [\"{SECRET}\"]\nclone_url = \"{}\"\n",
        server.url()
    );
    binary.write("config.toml", config);
    let mut daemon = Daemon::start_as(limited(&binary, ["serve"], 100, 100));
    let address = daemon.address;
    let flood = CancellationToken::new();
    for _ in 0..3 {
        let ended = flood.clone();
        let flooding = async move {
            let mut held = std::collections::VecDeque::new();
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    let _ = stream.try_write(b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\n");
                    held.push_back(stream);
                }
                if held.len() > 80 {
                    held.pop_front();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        TaskTracker::new().spawn(async move { ended.run_until_cancelled(flooding).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for round in 0..3 {
        let leaked = binary.run("keys create --user u --description x").ok();
        let text = format!("# {round}\nsecret = \"{}\"\n", leaked.trim());
        let file = repository.write("settings.toml", text.as_bytes());
        file.expect("a file");
        repository.commit("settings").expect("a commit");
        let pushed = repository.push("main").expect("a push");
        let payload = json!({
            "ref": pushed.reference, "before": pushed.before.to_string(), "after": pushed.after.to_string(),
            "repository": {"id": 7, "full_name": "acme/app",
                "clone_url": format!("{}/acme/app.git", server.url())},
        });
        let (head, body) = signed_delivery(payload.to_string().into_bytes());
        let delivered = async {
            let stream = TcpStream::connect(address).await.expect("a connection");
            exchange(stream, head, &body).await
        };
        let status = tokio::time::timeout(PATIENCE, delivered).await;
        assert_eq!(status, Ok(Some(202)));
        daemon.wait_for("a leaked key was revoked");
    }
    flood.cancel();
    let ended = daemon.stop();
    let ran_out = |line: &&String| {
        line.contains("cannot be accepted") || line.contains("Too many open files")
    };
    assert_eq!(ended.log.iter().find(ran_out), None);
}

#[test]
fn with_too_few_the_daemon_says_so_and_does_not_start() {
    let binary = Binary::new();
    let output = limited(&binary, ["serve"], 50, 50).output();
    let ran = Ran::from(output.expect("the binary runs"));
    let said = [
        "50 file descriptors are too few",
        "LimitNOFILE of systemd",
        "ulimit -Hn",
    ];
    ran.fails(3, &said);
    let output = limited(&binary, ["doctor"], 50, 50).output();
    let ran = Ran::from(output.expect("the binary runs"));
    // The configuration is right.
    assert_eq!(ran.code, 1, "{ran:?}");
    for said in said {
        assert!(ran.stdout.contains(said), "{ran:?}");
    }
}
