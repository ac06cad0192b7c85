//! From a forge's delivery to the revocation, through the real daemon and a real git server.

use rescind::forge::Forge;
use rescind::sandbox::git_server::{GitServer, Pushed, Repository};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::sender::{SECRET, headers};
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;

fn push(server: &GitServer, pushed: &Pushed) -> Value {
    json!({
        "ref": pushed.reference, "before": pushed.before.to_string(), "after": pushed.after.to_string(),
        "repository": {"id": 7, "full_name": "acme/app",
            "clone_url": format!("{}/acme/app.git", server.url())},
    })
}

fn commit(repository: &Repository, text: &str) -> Pushed {
    repository
        .write("settings.toml", text.as_bytes())
        .expect("a file");
    repository.commit("settings").expect("a commit");
    repository.push("main").expect("a push")
}

async fn send(daemon: &Daemon, forge: Forge, id: &str, payload: &Value) -> u16 {
    let body = payload.to_string();
    let url = format!("http://{}/webhooks/{}", daemon.address, forge.name());
    let mut request = crate::api::harness::http_client().post(url);
    for (name, value) in headers(forge, "push", id, body.as_bytes()) {
        request = request.header(name, value);
    }
    request
        .body(body)
        .ask()
        .await
        .expect("an answer")
        .status()
        .as_u16()
}

fn log(binary: &Binary) -> Vec<Value> {
    let lines = binary.run("log list --json").ok();
    let lines = lines.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON")
}

on_both_databases! {
    async fn a_pushed_key_is_fetched_and_revoked(database) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tasks = TaskTracker::new();
        let server = GitServer::start(folder.path(), &tasks).await.expect("a forge");
        let repository = server.create("acme/app").expect("a repository");
        let binary = Binary::new()
            .with("RESCIND__DATABASE__URL", &database.url)
            .with("HOOK_SECRET", SECRET);
        // GitHub's clone_url is configured, Gitea's comes with the payload.
        binary.write("config.toml", format!(
            "[webhooks.github]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\nclone_url = \"{}\"\n\
             [webhooks.gitea]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\n", server.url(),
        ));
        let mut daemon = Daemon::start(&binary, &["serve"]);
        for (forge, name) in [(Forge::GitHub, "webhook:github"), (Forge::Gitea, "webhook:gitea")] {
            let leaked = binary.run("keys create --user u_leaky --description x").ok();
            let pushed = commit(&repository, &format!("# {name}\nsecret = \"{}\"\n", leaked.trim()));
            let payload = push(&server, &pushed);
            for id in ["guid-1", "guid-1", "guid-2"] {
                assert_eq!(send(&daemon, forge, id, &payload).await, 202);
            }
            daemon.wait_for("a leaked key was revoked");
            let log = log(&binary);
            let entry = log.iter().find(|entry| entry["actor"] == name).expect("an entry");
            assert_eq!(entry["occurrence"]["source"], name);
            assert_eq!(entry["occurrence"]["path"], "settings.toml");
            assert_eq!(entry["occurrence"]["commit"], pushed.after.to_string());
            if forge == Forge::Gitea {
                refuse(&mut daemon, payload, leaked.trim()).await;
            }
        }
        // The answer was given, so the push is known, whatever happens next.
        let leaked = binary.run("keys create --user u_leaky --description x").ok();
        let pushed = commit(&repository, &format!("third = \"{}\"\n", leaked.trim()));
        assert_eq!(send(&daemon, Forge::GitHub, "guid-3", &push(&server, &pushed)).await, 202);
        daemon.signal("KILL");
        drop(daemon);
        let daemon = Daemon::start(&binary, &["serve"]);
        eventually("the third key is revoked", async || log(&binary).len() == 3).await;
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(log(&binary).len(), 3);
        binary.run("log verify").ok();
        let shown = binary.run("config show").ok();
        assert!(shown.contains("secrets = [\"********\"]") && !shown.contains(SECRET), "{shown}");
    }
}

/// A server that nobody allowed is named together with the delivery, and no key is.
async fn refuse(daemon: &mut Daemon, mut payload: Value, key: &str) {
    payload["repository"]["clone_url"] = json!("https://elsewhere.example/acme/app.git");
    payload["repository"]["full_name"] = json!(format!("acme/{key}"));
    assert_eq!(send(daemon, Forge::Gitea, "guid-9", &payload).await, 202);
    let line = daemon.wait_for("tells of a push that cannot be read");
    for named in ["gitea", "guid-9", "acme/", "https://elsewhere.example"] {
        assert!(line.contains(named), "{named} is not in {line}");
    }
    assert!(!line.contains(key), "{line}");
}
