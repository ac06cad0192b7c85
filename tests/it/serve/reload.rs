//! A configuration that is read again while the daemon works.

mod files;
mod hanging;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Daemon, answer};
use crate::cli::Binary;
use crate::crash::{export, mint, report};
use crate::support::eventually::{eventually, eventually_blocking};
use crate::support::http::Ask as _;
use crate::support::world::{Home, World};

/// Sends a delivery of GitLab with this token, and returns the status.
fn deliver(daemon: &Daemon, token: &str) -> u16 {
    let body = r#"{"object_kind":"push"}"#;
    let mut stream = daemon.connect();
    let head = format!(
        "POST /webhooks/gitlab HTTP/1.1\r\nhost: rescind\r\nconnection: close\r\nx-gitlab-token: {token}\r\n\
         x-gitlab-event: Wiki Page Hook\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    answer(stream).0
}

fn hook(secret: &str) -> String {
    format!("[webhooks.gitlab]\nsecrets = [\"{secret}\"]\n")
}

const ONE: &str = "the first secret of some length";
const OTHER: &str = "the second secret of some length";

#[test]
fn sighup_puts_a_changed_configuration_in_force_and_names_what_needs_a_restart() {
    let binary = Binary::new();
    binary.write("config.toml", hook(ONE));
    let mut daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!((deliver(&daemon, ONE), deliver(&daemon, OTHER)), (202, 401));
    let rest =
        "[keys]\npeppers = [\"a pepper of 16 bytes or more\"]\n[scan]\nmax_blob_bytes = \"1MiB\"\n";
    binary.write("config.toml", hook(OTHER) + rest);
    daemon.signal("HUP");
    let restart = daemon.wait_for("takes effect with a restart only");
    for key in ["keys.peppers", "scan.max_blob_bytes"] {
        assert!(restart.contains(key), "{restart}");
    }
    assert!(!restart.contains("a pepper of"), "{restart}");
    let line = daemon.wait_for("is in force");
    assert!(
        line.contains("webhooks.gitlab") && !line.contains("secret of"),
        "{line}"
    );
    assert!(!line.contains("key formats"), "{line}");
    assert_eq!((deliver(&daemon, ONE), deliver(&daemon, OTHER)), (401, 202));
    // Without the webhook there is no endpoint, and with another one there is.
    binary.write(
        "config.toml",
        "[webhooks.gitea]\nsecrets = [\"a third secret of some length\"]\n",
    );
    daemon.signal("HUP");
    let line = daemon.wait_for("is in force");
    assert!(line.contains("webhooks.gitea"), "{line}");
    assert_eq!(deliver(&daemon, OTHER), 404);
    assert_eq!(daemon.post("/webhooks/gitea", None, "{}").0, 401);
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_broken_configuration_is_named_with_its_line_and_changes_nothing() {
    let binary = Binary::new();
    std::fs::create_dir(binary.path("patterns")).expect("a folder");
    let patterns = include_str!("../../../patterns/rescind.toml");
    binary.write("patterns/a.toml", patterns);
    let good = format!("[formats]\ndir = \"patterns\"\n{}", hook(ONE));
    binary.write("config.toml", &good);
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let broken = |daemon: &mut Daemon, said: &str| {
        daemon.signal("HUP");
        let line = daemon.wait_for("all stays as it is");
        assert!(line.contains(said), "{said} in {line}");
        assert_eq!((deliver(daemon, ONE), deliver(daemon, OTHER)), (202, 401));
        assert_eq!(daemon.get("/readyz", None).0, 200);
    };
    // The secret is changed as well, and nothing of it is taken.
    let other = format!("[formats]\ndir = \"patterns\"\n{}", hook(OTHER));
    binary.write(
        "config.toml",
        format!("{other}[[sources]]\nname = \"x\"\nkind = \"gopher\"\n"),
    );
    broken(&mut daemon, "config.toml:7");
    binary.write(
        "config.toml",
        format!("{other}[issuer]\nsecret = \"nothing\"\n"),
    );
    broken(&mut daemon, "config.toml:6");
    binary.write("config.toml", &other);
    binary.write(
        "patterns/a.toml",
        patterns.replace("length = 30", "length = 3"),
    );
    broken(&mut daemon, "patterns/a.toml:9");
    std::fs::remove_file(binary.path("patterns/a.toml")).expect("removed");
    broken(&mut daemon, "there is no format");
    binary.write("patterns/a.toml", patterns);
    let app = "[[sources]]\nname = \"x\"\nkind = \"github_events\"\nscope = \"org:x\"\napi_url = \"http://127.0.0.1:1\"\n\
        clone_url = \"http://127.0.0.1:1\"\n[sources.app]\nid = 1\nprivate_key = \"no key\"\n";
    // A source that cannot be used keeps nothing else from being taken over, as at a start.
    binary.write("config.toml", format!("{other}{app}"));
    daemon.signal("HUP");
    daemon.wait_for("is in force");
    let token = std::fs::read_to_string(binary.path("data/rescind.db.admin-token"));
    let token = token.expect("a token");
    eventually_blocking("the source tells why", || {
        let (_, sources) = daemon.get("/api/v1/sources", Some(token.trim()));
        sources.contains("private").then_some(()).ok_or(sources)
    });
    assert_eq!((deliver(&daemon, ONE), deliver(&daemon, OTHER)), (401, 202));
    assert_eq!(daemon.stop().code, Some(0));
}

/// The process that a [`Home`] runs, by its configuration.
fn hang_up(home: &Home) {
    let config = home.config().display().to_string();
    let folders = std::fs::read_dir("/proc").expect("processes");
    for folder in folders.filter_map(Result::ok) {
        let line = std::fs::read(folder.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        if words.contains(&config.as_bytes()) && words.contains(&&b"serve"[..]) {
            let pid = folder.file_name().into_string().expect("a number");
            let sent = std::process::Command::new("kill")
                .args(["-s", "HUP", &pid])
                .status();
            assert_eq!(sent.expect("kill runs").into_raw(), 0);
        }
    }
}

fn reloads(home: &Home) -> usize {
    let log = std::fs::read_to_string(home.folder.path().join("serve.log")).expect("a log");
    log.matches("is in force").count()
}

async fn reload(home: &Home, config: String) {
    let before = reloads(home);
    std::fs::write(home.config(), config).expect("a file");
    hang_up(home);
    eventually("the configuration is in force", async || {
        reloads(home) > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_come_and_go_and_keep_what_they_have_read() {
    let world = World::new().await;
    let database = |home: &Home| {
        format!(
            "sqlite://{}",
            home.folder.path().join("rescind.db").display()
        )
    };
    let whole = |home: &Home| world.config(&database(home));
    let without = |home: &Home| {
        whole(home)
            .split("[[sources]]")
            .next()
            .expect("a start")
            .to_owned()
    };
    let home = Home::new(|database| {
        world
            .config(database)
            .split("[[sources]]")
            .next()
            .expect("a start")
            .to_owned()
    });
    let daemon = home.serve();
    let token = daemon.token.clone().expect("the first token");
    let client = rescind::fetch::http_client().expect("a client");
    let revoked = async |count: usize| {
        eventually("the leaks are revoked", async || {
            let entries = export(&home).len();
            (entries == count).then_some(()).ok_or(entries)
        })
        .await;
    };
    let leak = async |number: usize| {
        let key = mint(&client, &daemon.url, &token, "leaks", false).await;
        let path = format!("leak-{number}.env");
        world.push(&[(&path, key.value.into_bytes())], "Leak");
    };
    leak(1).await;
    reload(&home, whole(&home)).await;
    revoked(1).await;
    // While it is not configured nothing is read of it, and later everything from where it was.
    reload(&home, without(&home)).await;
    leak(2).await;
    let status = || {
        let status = home.rescind(&["sources", "status", "--json"]).stdout;
        String::from_utf8(status).expect("UTF-8")
    };
    assert!(status().contains("removed"), "{}", status());
    reload(&home, whole(&home)).await;
    revoked(2).await;
    let line: Value =
        serde_json::from_str(status().lines().next().expect("a source")).expect("JSON");
    assert_eq!(line["counts"]["gaps"], 0, "{line}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_reloads_under_load() {
    const REPORTS: usize = 200;
    const SENDERS: usize = 4;
    const RELOADS: usize = 10;
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let daemon = home.serve();
    let token = daemon.token.clone().expect("the first token");
    let client = rescind::fetch::http_client().expect("a client");
    let mut keys = Vec::new();
    for _ in 0..REPORTS {
        keys.push(mint(&client, &daemon.url, &token, "leaks", false).await);
    }
    let config = std::fs::read_to_string(home.config()).expect("a file");
    let is_over = AtomicBool::new(false);
    let reloading = async {
        let mut done = 0;
        // All along the reports, however fast they are.
        while done < RELOADS || !is_over.load(Ordering::Relaxed) {
            let hooked = format!(
                "{config}{}",
                hook(&format!("secret number {done} of this hook"))
            );
            reload(&home, hooked).await;
            done += 1;
        }
    };
    let sending = async {
        let senders = (0..SENDERS).map(|sender| {
            let (client, daemon, world) = (&client, &daemon, &world);
            let own: Vec<String> = keys
                .iter()
                .skip(sender)
                .step_by(SENDERS)
                .map(|key| key.value.clone())
                .collect();
            async move {
                for value in own {
                    assert!(
                        report(client, world, &daemon.url, &[value]).await,
                        "a report is answered"
                    );
                }
            }
        });
        futures_util::future::join_all(senders).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let pushed = mint(&client, &daemon.url, &token, "pushed", false).await;
    world.push(&[("leak.env", pushed.value.into_bytes())], "Leak");
    tokio::join!(reloading, sending);
    eventually("the pushed key is revoked", async || {
        export(&home).len() == REPORTS + 1
    })
    .await;
    let answer = client
        .get(format!("{}/readyz", daemon.url))
        .ask()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(daemon.stop().success(), "no task died of it");
}
