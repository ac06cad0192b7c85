//! `rescind doctor` with the real binary.

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Binary, Ran};
use crate::serve::{Daemon, free_address};
use crate::support::eventually::eventually;

const TOKEN: &str = "ghp_token_of_the_doctor_0123456789";

fn config(url: &str, more: &str) -> String {
    format!(
        "[partners.github]\npublic_keys_url = \"{url}/keys\"\n\
         [webhooks.github]\nsecrets = [\"0123456789abcdef0123456789abcdef\"]\n\
         [[sources]]\nname = \"feed\"\nkind = \"github_events\"\nscope = \"org:acme\"\n\
         api_url = \"{url}\"\nclone_url = \"{url}/git\"\ntoken = \"{TOKEN}\"\n{more}"
    )
}

/// A server where all is well.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    let events = ResponseTemplate::new(200)
        .insert_header("x-ratelimit-limit", "5000")
        .insert_header("x-ratelimit-remaining", "4999")
        .set_body_json(json!([]));
    Mock::given(method("GET"))
        .and(path("/orgs/acme/events"))
        .and(header("authorization", format!("Bearer {TOKEN}")))
        .respond_with(events)
        .mount(&server)
        .await;
    let keys = json!({"public_keys": [{"key_identifier": "a", "key": "b", "is_current": true}]});
    Mock::given(path("/keys"))
        .respond_with(ResponseTemplate::new(200).set_body_json(keys))
        .mount(&server)
        .await;
    server
}

fn diagnosis(ran: &Ran, code: i32) -> Value {
    assert_eq!(ran.code, code, "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// The check of this name: its status and its message.
fn check(diagnosis: &Value, name: &str) -> (String, String) {
    let checks = diagnosis["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {diagnosis}"));
    if found["status"] != "ok" {
        assert!(found["mend"].is_string(), "{found}");
    }
    let text = |name: &str| found[name].as_str().expect("a text").to_owned();
    (text("status"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well() {
    let server = server().await;
    let binary = Binary::new();
    binary.write("config.toml", config(&server.uri(), ""));
    binary.run("migrate").ok();
    let ran = binary.run("doctor --json");
    assert!(!format!("{ran:?}").contains(TOKEN));
    let found = diagnosis(&ran, 0);
    let clone = format!("clone_url {}/git", server.uri());
    for name in [
        "configuration",
        "patterns",
        "webhook:github",
        "database",
        "revocation log",
        "work queue",
        "disk",
        "source feed",
        "partner github",
        &clone,
    ] {
        let (status, message) = check(&found, name);
        assert!(status == "ok" || name == "disk", "{name}: {message}");
    }
    let (_, feed) = check(&found, "source feed");
    assert!(
        feed.contains("token is accepted") && feed.contains("4999 of 5000"),
        "{feed}"
    );
    let text = binary.run("doctor").ok();
    assert!(text.contains("ok       source feed"), "{text}");
    assert!(text.contains("0 failed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_an_unreachable_source_and_a_wrong_clock() {
    let server = server().await;
    let late = ResponseTemplate::new(401).insert_header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    Mock::given(path("/orgs/other/events"))
        .respond_with(late)
        .mount(&server)
        .await;
    let text = ResponseTemplate::new(200).set_body_string("<html>");
    Mock::given(path("/repos/a/b/events"))
        .respond_with(text)
        .mount(&server)
        .await;
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "60");
    Mock::given(path("/users/busy/events"))
        .respond_with(limited)
        .mount(&server)
        .await;
    let more = |name: &str, scope: &str, api: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\nkind = \"github_events\"\nscope = \"{scope}\"\napi_url = \"{api}\"\n\
             clone_url = \"{}/git\"\ntoken = \"{TOKEN}\"\n",
            server.uri()
        )
    };
    let all = [
        more("refused", "org:other", &server.uri()),
        more("html", "repo:a/b", &server.uri()),
        more("missing", "org:nobody", &server.uri()),
        more("busy", "user:busy", &server.uri()),
        more("far", "public", "http://127.0.0.1:9"),
        more("several", "org:acme", &server.uri())
            .replace("scope =", "tokens = [\"another-token-that-is-wrong\"]\nscope ="),
        format!("[[sources]]\nname = \"past\"\nkind = \"gharchive\"\nbase_url = \"{0}\"\nclone_url = \"{0}/git\"\ntoken = \"{TOKEN}\"\n", server.uri()),
        "[[sources]]\nname = \"one\"\nkind = \"git\"\nurl = \"http://127.0.0.1:9/a.git\"\nschedule = \"0 * * * *\"\n".to_owned(),
    ];
    let binary = Binary::new();
    binary.write("config.toml", config(&server.uri(), &all.concat()));
    let ran = binary.run("doctor --json");
    assert!(!format!("{ran:?}").contains(TOKEN));
    let found = diagnosis(&ran, 1);
    for (name, status, said) in [
        ("source feed", "ok", "reachable"),
        ("source refused", "failed", "401"),
        ("source html", "failed", "no list of events"),
        ("source missing", "failed", "org:nobody"),
        ("source busy", "warning", "60 s"),
        ("source far", "failed", "http://127.0.0.1:9"),
        ("source several", "ok", "accepted"),
        ("source several, token 2", "failed", "404"),
        ("source past", "ok", "reachable"),
        ("source one", "failed", "http://127.0.0.1:9/a.git"),
        ("clock", "warning", "ahead of"),
        ("database", "warning", "no database"),
    ] {
        let (is, message) = check(&found, name);
        assert_eq!(is, status, "{name}: {message}");
        assert!(message.contains(said), "{name}: {message}");
    }
    let text = binary.run("doctor");
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("to mend:"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_used() {
    let server = server().await;
    let binary = Binary::new();
    binary.write("config.toml", config(&server.uri(), ""));
    let with = |url: &str| {
        let mut command = binary.command(["doctor", "--json"]);
        let output = command.env("RESCIND__DATABASE__URL", url).output();
        Ran::from(output.expect("the binary runs"))
    };
    let ran = with("postgres://rescind:hunter2hunter2@127.0.0.1:9/none");
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    let found = diagnosis(&ran, 1);
    assert_eq!(check(&found, "database").0, "failed");
    assert_eq!(check(&found, "source feed").0, "ok");
    // A URL that cannot work is a matter of the configuration.
    let found = diagnosis(&with("sqlite::memory:"), 2);
    assert_eq!(check(&found, "database").0, "failed");
    let file = binary.write("text.db", "this is no database, only a text of some length");
    let found = diagnosis(&with(&format!("sqlite://{}", file.display())), 1);
    assert_eq!(check(&found, "database").0, "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_log_and_work_that_was_put_aside() {
    use sqlx::{Connection as _, Executor as _};
    let server = server().await;
    let binary = Binary::new();
    binary.write("config.toml", config(&server.uri(), ""));
    let key = binary.run("keys create --user u --description x").ok();
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &key)
        .ok();
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let triggers = sqlx::query_scalar::<_, String>(
        "SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger'",
    );
    for drop in triggers.fetch_all(&mut connection).await.unwrap() {
        connection.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
    }
    let change = "UPDATE revocation_log SET hash = replace(hash, substr(hash, 1, 1), 'x')";
    connection.execute(change).await.unwrap();
    connection.close().await.unwrap();
    let found = diagnosis(&binary.run("doctor --json"), 1);
    assert_eq!(check(&found, "revocation log").0, "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_not_ready_is_told() {
    let binary = Binary::new();
    binary.write("config.toml", "[partners.github]\nenabled = false\n");
    binary.run("migrate").ok();
    let doctor = |bind: &str, code| {
        let mut command = binary.command(["doctor", "--json"]);
        command.env("RESCIND__SERVER__BIND", bind);
        let ran = Ran::from(command.output().expect("the binary runs"));
        check(&diagnosis(&ran, code), "daemon")
    };
    let expect = |bind: &str, code, status: &str, said: &str| {
        let (is, message) = doctor(bind, code);
        assert_eq!(is, status, "{message}");
        assert!(message.contains(said), "{message}");
    };
    let address = free_address();
    let bind = address.to_string();
    expect(&bind, 0, "ok", "nothing listens");

    // A database of its own, which then goes away.
    let mut command = binary.command(["serve"]);
    command
        .env("RESCIND__SERVER__BIND", &bind)
        .env("RESCIND__DATABASE__URL", "sqlite://own.db");
    let mut daemon = Daemon::begin_as(command, address);
    daemon.wait_until_it_listens();
    expect(&bind, 0, "ok", "is ready");
    std::fs::remove_file(binary.path("own.db")).unwrap();
    let is_noticed = async || daemon.get("/readyz", None).0 == 503;
    eventually("the daemon is not ready", is_noticed).await;
    expect(&bind, 1, "failed", "is not ready: ");
    drop(daemon);

    let other = server().await;
    let other = other.address().to_string();
    expect(&other, 0, "warning", "is not `rescind serve`");
}

#[test]
fn a_wrong_configuration_is_2() {
    let binary = Binary::new();
    binary.write("config.toml", "[server]\nbnd = \"x\"\n");
    let found = diagnosis(&binary.run("doctor --json"), 2);
    let (status, message) = check(&found, "configuration");
    assert_eq!(status, "failed");
    assert!(message.contains("config.toml:2:1: server.bnd"), "{message}");
    binary.write(
        "config.toml",
        "[formats]\ndir = \"nowhere\"\n[partners.github]\nenabled = false\n",
    );
    let found = diagnosis(&binary.run("doctor --json"), 2);
    assert_eq!(check(&found, "patterns").0, "failed");
    binary.write(
        "config.toml",
        "[issuer]\nsecret = \"rescind_public\"\n[partners.github]\nenabled = false\n",
    );
    let found = diagnosis(&binary.run("doctor --json"), 2);
    let (_, message) = check(&found, "configuration");
    assert!(!message.is_empty());
    // Nothing to watch is worth a word.
    binary.write("config.toml", "[partners.github]\nenabled = false\n");
    let found = diagnosis(&binary.run("doctor --json"), 0);
    assert_eq!(check(&found, "sources").0, "warning");
    assert_eq!(found["status"], "warning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_tell_which_servers_are_read() {
    let secrets = "secrets = [\"0123456789abcdef0123456789abcdef\"]";
    let keys = "[partners.github]\nenabled = false\n";
    let redelivery = "[webhooks.github.redelivery]\nhooks = [\"org:acme:9\"]\ntoken = \"t0123456789\"\n\
                      api_url = \"http://127.0.0.1:9/api/v3\"\n";
    let feed = "[[sources]]\nname = \"feed\"\nkind = \"github_events\"\nscope = \"org:acme\"\n\
                api_url = \"http://127.0.0.1:9\"\nclone_url = \"https://github.com\"\n";
    for (config, forge, status, said) in [
        (
            format!("[webhooks.gitlab]\n{secrets}\n"),
            "gitlab",
            "ok",
            "https://gitlab.com only: name servers of your own in webhooks.gitlab.clone_hosts",
        ),
        (
            format!("[webhooks.gitlab]\n{secrets}\nclone_hosts = [\"https://git.example:8443\"]\n"),
            "gitlab",
            "ok",
            "https://git.example:8443, https://gitlab.com only",
        ),
        (
            format!("[webhooks.gitea]\n{secrets}\n"),
            "gitea",
            "warning",
            "https://codeberg.org, https://gitea.com only",
        ),
        (
            format!("[webhooks.gitea]\n{secrets}\nclone_hosts = [\"http://10.0.0.7:3000\"]\n"),
            "gitea",
            "ok",
            "http://10.0.0.7:3000, https://codeberg.org, https://gitea.com only",
        ),
        // Another webhook's or a source's server counts as well.
        (
            format!(
                "[webhooks.gitea]\n{secrets}\n[webhooks.bitbucket]\n{secrets}\nclone_url = \"https://scm.example/x\"\n"
            ),
            "gitea",
            "ok",
            "https://scm.example only",
        ),
        (
            format!("[webhooks.github]\n{secrets}\n{redelivery}"),
            "github",
            "warning",
            "https://github.com only: name servers of your own in webhooks.github.clone_hosts",
        ),
        // The source takes precedence, so that one push is one work item.
        (
            format!(
                "[webhooks.github]\n{secrets}\nclone_hosts = [\"https://ghe.example\"]\n{feed}"
            ),
            "github",
            "warning",
            "clone_hosts is not used",
        ),
    ] {
        let binary = Binary::new();
        binary.write("config.toml", format!("{keys}{config}"));
        let ran = binary.run("doctor --json");
        let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let (is, message) = check(&found, &format!("webhook:{forge}"));
        assert_eq!(is, status, "{config}: {message}");
        assert!(message.contains(said), "{config}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_whose_contents_were_not_read_are_counted() {
    use sqlx::{Connection as _, Executor as _};
    let binary = Binary::new();
    binary.write(
        "config.toml",
        "[partners.github]\nenabled = false\n[webhooks.gitlab]\nsecrets = [\"0123456789abcdef\"]\n",
    );
    binary.run("migrate").ok();
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for (name, malformed) in [("webhook:gitlab", 3), ("webhook:gitea", 0)] {
        let row = format!(
            "INSERT INTO sources (name, kind, cursor, polls, events, items, gaps, malformed, texts, unknown, repaired)
             VALUES ('{name}', 'webhook', '', 0, 7, 0, 0, {malformed}, 7, 0, 0)"
        );
        connection.execute(sqlx::AssertSqlSafe(row)).await.unwrap();
    }
    connection.close().await.unwrap();
    let found = diagnosis(&binary.run("doctor --json"), 0);
    let (status, message) = check(&found, "deliveries of webhook:gitlab");
    assert_eq!(status, "warning");
    assert!(message.starts_with("3 of 7 deliveries"), "{message}");
    let text = found.to_string();
    assert!(text.contains("webhooks.gitlab.clone_hosts"), "{text}");
    assert!(!text.contains("deliveries of webhook:gitea"), "{text}");
}

/// Its address may hold a password.
#[test]
fn a_proxy_that_is_not_there_is_named_without_its_password() {
    let proxy = free_address();
    let binary = Binary::new()
        .with("http_proxy", &format!("http://user:hunter2@{proxy}"))
        .with("NO_PROXY", "");
    binary.write(
        "config.toml",
        "[partners.github]\npublic_keys_url = \"http://127.0.0.1:1/keys\"\n",
    );
    let ran = binary.run("doctor --json");
    let found = diagnosis(&ran, 1);
    let (status, message) = check(&found, "partner github");
    assert_eq!(status, "failed");
    let named = format!("through the proxy {proxy}");
    assert!(message.contains(&named), "{message}");
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
}

#[test]
fn a_daemon_that_is_stopped_is_a_failure() {
    let binary = Binary::new();
    binary.write("config.toml", "[partners.github]\nenabled = false\n");
    let daemon = Daemon::start(&binary, &["serve"]);
    let bind = daemon.address.to_string();
    daemon.signal("STOP");
    let ran = binary
        .with("RESCIND__SERVER__BIND", &bind)
        .run("doctor --json");
    daemon.signal("CONT");
    let found = diagnosis(&ran, 1);
    let (status, message) = check(&found, "daemon");
    assert_eq!(status, "failed");
    assert!(message.contains("gives no answer within 10 s"), "{message}");
    assert_eq!(daemon.stop().code, Some(0));
}
