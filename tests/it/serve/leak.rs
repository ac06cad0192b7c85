//! From the configuration to the revocation: what the daemon is for.

use rescind::sandbox::git_server::GitServer;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Daemon;
use crate::cli::Binary;
use crate::support::databases::on_both_databases;

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON")
}

on_both_databases! {
    async fn a_configured_source_is_polled_and_what_leaked_is_revoked(database) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tasks = TaskTracker::new();
        let forge = GitServer::start(folder.path(), &tasks).await.expect("a forge");
        let repository = forge.create("acme/app").expect("a repository");
        let feed = MockServer::start().await;
        let binary = Binary::new()
            .with("RESCIND__DATABASE__URL", &database.url)
            .with("FEED_TOKEN", "feed-token-0123456789");
        binary.write("config.toml", format!(
            "[[sources]]\nname = \"feed\"\nkind = \"github_events\"\napi_url = \"{}\"\nclone_url = \"{}\"\n\
             token = {{ env = \"FEED_TOKEN\" }}\n",
            feed.uri(), forge.url(),
        ));
        let leaked = binary.run("keys create --user u_leaky --description x").ok();
        let kept = binary.run("keys create --user u_careful --description x").ok();
        let public = binary.run("keys create --user u_open --description x --public").ok();

        repository.write("README.md", b"nothing yet\n").expect("a file");
        repository.commit("start").expect("a commit");
        repository.push("main").expect("a push");
        let settings = format!("secret = \"{}\"\npublic = \"{}\"\n", leaked.trim(), public.trim());
        repository.write("settings.toml", settings.as_bytes()).expect("a file");
        repository.commit("settings").expect("a commit");
        let pushed = repository.push("main").expect("a push");
        let event = json!([{
            "id": "40000000001", "type": "PushEvent", "actor": {"id": 1, "login": "acme"},
            "repo": {"id": 7, "name": "acme/app"}, "public": true, "created_at": "2026-11-22T07:50:26Z",
            "payload": {"repository_id": 7, "push_id": 1, "ref": pushed.reference,
                "head": pushed.after.to_string(), "before": pushed.before.to_string()},
        }]);
        Mock::given(method("GET")).and(path("/events"))
            .respond_with(ResponseTemplate::new(200).set_body_json(event))
            .mount(&feed).await;

        let mut daemon = Daemon::start(&binary, &["serve"]);
        daemon.wait_for("a leaked key was revoked");
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.log.iter().all(|line| !line.contains("feed-token-0123456789")));

        for (value, status) in [(&leaked, "revoked"), (&kept, "valid"), (&public, "valid")] {
            let checked = binary.run_with(["keys", "check", "--json"], value).stdout;
            let checked: Value = serde_json::from_str(&checked).expect("JSON");
            assert_eq!(checked["status"], status, "{checked}");
        }
        let log = lines(&binary.run("log list --json").ok());
        assert_eq!(log.len(), 1, "{log:?}");
        assert_eq!(log[0]["reason"], "leaked");
        assert_eq!(log[0]["actor"], "source:feed");
        assert_eq!(log[0]["occurrence"]["path"], "settings.toml");
        binary.run("log verify").ok();

        // After a restart the same events are nothing new.
        let daemon = Daemon::start(&binary, &["serve"]);
        assert_eq!(daemon.stop().code, Some(0));
        assert_eq!(binary.run("log list --json").ok().lines().count(), 1);
    }
}
