//! `rescind sources` with the real binary.

use rescind::store::{NewWorkItem, Postponed, Priority, Store, StoreOptions, WorkKind};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually;
use crate::support::world::World;

fn config(api: &str, clones: &str) -> String {
    format!(
        "[[sources]]\nname = \"github-public\"\nkind = \"github_events\"\napi_url = \"{api}\"\n\
         clone_url = \"{clones}\"\n"
    )
}

fn objects(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON")
}

fn status(binary: &Binary, name: &str) -> Value {
    let arguments = ["sources", "status", name, "--json"];
    serde_json::from_str(&binary.run_with(arguments, "").ok()).expect("JSON")
}

async fn store(binary: &Binary) -> Store {
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    Store::open(StoreOptions::new(url)).await.expect("a store")
}

#[test]
fn with_nothing_configured_it_says_what_to_add() {
    let binary = Binary::new();
    let ran = binary.run("sources status");
    assert!(ran.stderr.contains("[[sources]]"), "{ran:?}");
    ran.ok();
    binary
        .run("sources status nobody")
        .fails(2, &["[[sources]]"]);
    binary.run("sources poll nobody").fails(2, &["[[sources]]"]);
    assert!(!binary.path("data").exists());
}

#[test]
fn names_that_are_not_there_are_2_and_the_right_one_is_guessed() {
    let binary = Binary::new();
    binary.write(
        "config.toml",
        config("http://127.0.0.1:9", "http://127.0.0.1:9"),
    );
    // Before there is a database, what is configured is shown all the same.
    let listed = objects(&binary.run("sources status --json").ok());
    assert_eq!(listed[0]["name"], "github-public");
    assert_eq!(listed[0]["state"], "waiting");
    binary.run("migrate").ok();
    for line in [
        "sources status github-pubic",
        "sources poll github-pubic",
        "sources dead github-pubic",
        "sources requeue --all github-pubic",
    ] {
        let meant = "did you mean `github-public`?";
        binary
            .run(line)
            .fails(2, &[meant, "known here: github-public"]);
    }
}

#[test]
fn a_webhook_is_not_polled_and_says_so() {
    const WEBHOOK: &str = "[webhooks.gitea]\nsecrets = [\"0123456789abcdef\"]\n";
    let binary = Binary::new();
    binary.write("config.toml", WEBHOOK);
    let told = "`webhook:gitea` is a webhook and is not polled";
    binary.run("sources poll webhook:gitea").fails(2, &[told]);
    let ran = binary.run("sources poll gitea");
    ran.fails(
        2,
        &["there is no source `gitea`", "not polled: webhook:gitea"],
    );
    assert!(!ran.stderr.contains("[[sources]]"), "{ran:?}");
    let feed = config("http://127.0.0.1:9", "http://127.0.0.1:9");
    binary.write("config.toml", format!("{WEBHOOK}{feed}"));
    binary.run("sources poll webhook:gitea").fails(2, &[told]);
    let known = "known here: github-public; webhooks, which are not polled: webhook:gitea";
    binary.run("sources poll nothing").fails(2, &[known]);
    assert!(!binary.path("data").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaked_key_is_revoked_by_a_poll_alone() {
    let world = World::new().await;
    let binary = Binary::new();
    binary.write("config.toml", config(world.feed.url(), &world.forge.url()));
    let key = binary.run("keys create --user u --description x").ok();
    let secret = format!("secret = {}", key.trim());
    world.push(&[("settings.ini", secret.into_bytes())], "Settings");

    let noted = binary.run("sources poll github-public --no-scan").ok();
    assert!(noted.contains("new events     1"), "{noted}");
    assert!(noted.contains("work items     1"), "{noted}");
    assert!(noted.contains("keys revoked   0"), "{noted}");
    assert_eq!(status(&binary, "github-public")["counts"]["waiting"], 1);

    let polled = binary.run("sources poll github-public");
    // The interval of a second may be over already.
    assert!(polled.stdout.contains("items scanned  1"), "{polled:?}");
    assert!(polled.stdout.contains("keys revoked   1"), "{polled:?}");
    assert!(!format!("{polled:?}").contains(key.trim()));
    polled.ok();

    let checked = binary.run_with(["keys", "check", "--json"], &key).stdout;
    assert!(checked.contains("\"revoked\""), "{checked}");
    let found = status(&binary, "github-public");
    assert_eq!(found["state"], "ok", "{found}");
    assert_eq!(found["counts"]["polls"], 2);
    assert_eq!(found["counts"]["scanned"], 1);
    assert!(found["lag_seconds"].is_number(), "{found}");
    let log = objects(&binary.run("log list --json").ok());
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["actor"], "source:github-public");

    let table = binary.run("sources status").ok();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("NAME\tKIND\tSTATE"));
    let row = lines.next().unwrap();
    assert!(
        row.starts_with("github-public\tgithub_events\tok\t"),
        "{row}"
    );
    let detail = binary.run("sources status github-public").ok();
    assert!(detail.contains("dead letters   0"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_source_and_a_used_up_limit_are_told() {
    let api = MockServer::start().await;
    let binary = Binary::new();
    binary.write("config.toml", config(&api.uri(), "http://127.0.0.1:9"));
    let failing = Mock::given(method("GET")).respond_with(ResponseTemplate::new(502));
    let failing = failing.mount_as_scoped(&api).await;
    binary
        .run("sources poll github-public")
        .fails(3, &["github-public", "502"]);
    drop(failing);
    let found = status(&binary, "github-public");
    assert_eq!(found["state"], "failing");
    assert!(found["last_error"].as_str().unwrap().contains("502"));
    let table = binary.run("sources status").ok();
    assert!(
        table.contains("failing") && table.contains("502"),
        "{table}"
    );

    // It asks to wait, which is heeded.
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "600");
    let limited = Mock::given(method("GET"))
        .respond_with(limited)
        .mount_as_scoped(&api)
        .await;
    binary.run("sources poll github-public").fails(3, &["429"]);
    drop(limited);
    Mock::given(path("/events"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!([])))
        .mount(&api)
        .await;
    binary
        .run("sources poll github-public")
        .fails(3, &["rate limit is used up until", "--force"]);
    let forced = binary.run("sources poll github-public --force");
    assert!(forced.stderr.contains("polling all the same"), "{forced:?}");
    forced.ok();
    assert_eq!(status(&binary, "github-public")["state"], "ok");
    // An interval is not heeded, but told.
    let again = binary.run("sources poll github-public");
    assert!(again.stderr.contains("is not due before"), "{again:?}");
    again.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_repository_cannot_be_read_is_failing_at_once() {
    let world = World::new().await;
    let broken = MockServer::start().await;
    Mock::given(wiremock::matchers::any())
        .respond_with(ResponseTemplate::new(500))
        .mount(&broken)
        .await;
    let binary = Binary::new();
    binary.write("config.toml", config(world.feed.url(), &broken.uri()));
    world.push(&[("settings.ini", b"nothing".to_vec())], "Settings");
    let polled = binary.run("sources poll github-public").ok();
    assert!(polled.contains("items waiting  1"), "{polled}");
    let found = status(&binary, "github-public");
    assert_eq!(found["state"], "failing", "{found}");
    let error = found["last_error"].as_str().unwrap();
    assert!(error.starts_with("1 item could not be read"), "{error}");
    assert!(error.ends_with("HTTP 500"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_aside_is_listed_and_put_back() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    let store = store(&binary).await;
    let now = rescind::clock::Clock::now(&rescind::clock::SystemClock);
    let items: Vec<_> = (0..250)
        .map(|n| NewWorkItem {
            kind: WorkKind::Range,
            host: "nowhere.example".to_owned(),
            repository_id: n.to_string(),
            repository: "acme/app".to_owned(),
            clone_url: None,
            ref_name: "refs/heads/main".to_owned(),
            before: "0".repeat(40),
            after: "1".repeat(40),
            source: "old".to_owned(),
            priority: Priority::Firehose,
            event_at: now,
        })
        .collect();
    let mut tx = store.begin().await.unwrap();
    tx.add_work_items(&items, now).await.unwrap();
    tx.commit().await.unwrap();
    let lease = std::time::Duration::from_mins(1);
    for _ in 0..8 {
        for item in store.claim(250, "w", lease).await.unwrap() {
            let failed = store.retry(item.id, "w", "the pack is damaged");
            failed.await.unwrap();
        }
        make_ready(&binary).await;
    }
    let dead = objects(&binary.run("sources dead --json").ok());
    assert_eq!(dead.len(), 250);
    assert_eq!(dead[0]["error"], "the pack is damaged");
    assert_eq!(dead[0]["tries"], 8);
    assert_eq!(binary.run("sources dead old").ok().lines().count(), 251);
    let found = status(&binary, "old");
    assert_eq!(found["state"], "removed");
    assert_eq!(found["counts"]["dead_letters"], 250);

    let (first, second) = (dead[0]["id"].as_str(), dead[1]["id"].as_str());
    let line = format!("sources requeue {} {}", first.unwrap(), second.unwrap());
    assert_eq!(binary.run(&line).ok(), "requeued 2 work items\n");
    let unknown = "0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10";
    let third = dead[2]["id"].as_str().unwrap();
    binary
        .run(&format!("sources requeue {unknown} {third}"))
        .fails(2, &[unknown, "sources dead", "requeued 1 work item"]);
    let all = binary.run("sources requeue --all old").ok();
    assert_eq!(all, "requeued 247 work items\n");
    assert_eq!(binary.run("sources dead --json").ok(), "");
    assert_eq!(status(&binary, "old")["counts"]["waiting"], 250);
}

/// Lets every wait end now.
async fn make_ready(binary: &Binary) {
    use sqlx::{Connection as _, Executor as _};
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let ready = "UPDATE work_items SET ready_at = 0 WHERE state = 'waiting'";
    connection.execute(ready).await.unwrap();
}

/// Two cannot be read with this configuration, however often they are tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_cannot_be_used_are_failing_while_the_others_are_read() {
    let world = World::new().await;
    let binary = Binary::new();
    let (api, clones) = (world.feed.url(), world.forge.url());
    let good = format!(
        "[[sources]]\nname = \"good\"\nkind = \"git\"\nurl = \"{clones}/acme/webshop.git\"\n"
    );
    let nowhere = format!(
        "[[sources]]\nname = \"nowhere\"\nkind = \"git\"\nurl = \"{clones}/acme//webshop.git\"\n"
    );
    let keyless = format!(
        "{}[sources.app]\nid = 1\nprivate_key = \"no key\"\ninstallation = 2\n",
        config(api, "http://127.0.0.1:9")
    );
    let redelivery = format!(
        "[webhooks.github]\nsecrets = [\"0123456789abcdef0123456789abcdef\"]\n\
         [webhooks.github.redelivery]\nhooks = [\"org:acme:9\"]\napi_url = \"{api}\"\n\
         app = {{ id = 1, private_key = \"no key\", installation = 2 }}\n"
    );
    binary.write(
        "config.toml",
        format!("{redelivery}{good}{nowhere}{keyless}"),
    );
    let key = binary.run("keys create --user u --description x").ok();
    let secret = format!("secret = {}", key.trim());
    world.push(&[("settings.ini", secret.into_bytes())], "Settings");

    let found: Value = serde_json::from_str(&binary.run("doctor --json").stdout).expect("JSON");
    let checks = found["checks"].as_array().expect("checks");
    let of = |name: &str| {
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .expect(name);
        (check["status"].clone(), check["message"].to_string())
    };
    assert_eq!(of("source good").0, "ok");
    let (is, message) = of("source nowhere");
    assert!(
        is == "failed" && message.contains("its path is no repository's"),
        "{message}"
    );

    let mut daemon = Daemon::start(&binary, &["serve"]);
    daemon.wait_for("a leaked key was revoked");
    for (name, why) in [
        ("nowhere", "its path is no repository's"),
        ("github-public", "private_key is no private key"),
        ("webhook:github:redelivery", "private_key is no private key"),
    ] {
        let told = eventually("the failure is noted", async || {
            let told = status(&binary, name);
            if told["state"] == "failing" {
                Ok(told)
            } else {
                Err(told)
            }
        });
        let told = told.await;
        assert!(
            told["last_error"]
                .as_str()
                .is_some_and(|error| error.contains(why)),
            "{told}"
        );
    }
    assert_eq!(status(&binary, "good")["state"], "ok");
    assert_eq!(daemon.stop().code, Some(0));
    binary
        .run("sources poll nowhere")
        .fails(3, &["its path is no repository's"]);
}

/// Adds a push and has its server say once that there is nothing to read.
async fn deny(store: &Store) {
    let now = rescind::clock::Clock::now(&rescind::clock::SystemClock);
    let item = NewWorkItem {
        kind: WorkKind::Range,
        host: "github.com".to_owned(),
        repository_id: "1".to_owned(),
        repository: "acme/app-1".to_owned(),
        clone_url: None,
        ref_name: "refs/heads/main".to_owned(),
        before: "0".repeat(40),
        after: "1".repeat(40),
        source: "github-public".to_owned(),
        priority: Priority::Watched,
        event_at: now,
    };
    let mut tx = store.begin().await.expect("a transaction");
    tx.add_work_items(&[item], now).await.expect("an item");
    tx.commit().await.expect("a commit");
    let lease = std::time::Duration::from_mins(1);
    let held = store.claim(1, "w", lease).await.expect("a claim");
    let denied = Postponed {
        id: held[0].id,
        wait: lease,
        why: "HTTP 404",
        is_denial: true,
    };
    store.postpone_all(&[denied], "w").await.expect("a wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_unread_is_told_with_an_example() {
    let binary = Binary::new();
    binary.write(
        "config.toml",
        config("http://127.0.0.1:9", "http://127.0.0.1:9"),
    );
    binary.run("migrate").ok();
    let store = store(&binary).await;
    let mut tx = store.begin().await.expect("a transaction");
    tx.note_unread(
        "github-public",
        "acme/shop, refs/heads/main, it is too large",
    )
    .await
    .expect("a note");
    tx.commit().await.expect("a commit");
    deny(&store).await;
    store.close().await;
    let told = status(&binary, "github-public");
    assert_eq!(told["counts"]["retrying"], 1);
    assert_eq!(
        told["last_retry"]["what"],
        "acme/app-1, refs/heads/main, HTTP 404"
    );
    assert_eq!(
        told["last_unread"]["what"],
        "acme/shop, refs/heads/main, it is too large"
    );
    let shown = binary.run("sources status github-public").ok();
    assert!(
        shown.contains("last unread") && shown.contains("it is too large ("),
        "{shown}"
    );
    assert!(
        shown.contains("retrying       1") && shown.contains("refs/heads/main, HTTP 404 ("),
        "{shown}"
    );
}
