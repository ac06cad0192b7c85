//! Tests of serve.

mod anew;
mod daemon;
mod leak;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::cli::Binary;
pub(crate) use daemon::{Daemon, Ended, PausedLog, answer, free_address, get, post};

/// The token in what the first start printed.
fn admin_token(ended: &Ended) -> &str {
    let line = ended.stdout.lines().next().unwrap_or_default();
    let token = line.strip_prefix("admin token (shown once): ");
    token.unwrap_or_else(|| panic!("{ended:?}"))
}

#[test]
fn the_first_start_prints_a_token_and_no_other_start_does() {
    let binary = Binary::new();
    let first = Daemon::start(&binary, &["serve"]);
    assert_eq!(first.get("/healthz", None).0, 200);
    assert_eq!(first.get("/readyz", None).0, 200);
    assert_eq!(first.get("/openapi.json", None).0, 200);
    let address = first.address;
    let first = first.stop();
    assert_eq!(first.code, Some(0), "{first:?}");
    let token = admin_token(&first);
    assert!(token.starts_with("rsc_sk_"), "{token}");
    assert_eq!(first.stdout.matches(token).count(), 1);
    assert!(
        first.stdout.contains(&format!("API: http://{address}")),
        "{first:?}"
    );
    assert!(
        first.log.iter().all(|line| !line.contains(token)),
        "{first:?}"
    );

    let second = Daemon::start(&binary, &["serve"]);
    let (status, _) = second.get("/api/v1/revocations", Some(token));
    assert_eq!(status, 200, "the token outlives the restart");
    assert_eq!(second.get("/api/v1/revocations", None).0, 401);
    let second = second.stop();
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), ""));

    // The command line sees the same database.
    let tokens = binary.run("tokens list --json").ok();
    assert_eq!(tokens.lines().count(), 1);
    assert!(tokens.contains("\"admin\""), "{tokens}");
}

#[test]
fn the_first_token_is_stored_only_if_it_could_be_shown() {
    let binary = Binary::new();
    // A shell can leave standard output closed.
    let serve = |redirected: &str| {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("exec \"$0\" serve {redirected}")])
            .arg(env!("CARGO_BIN_EXE_rescind"))
            .current_dir(binary.path("."))
            .env_clear()
            .env("RESCIND__SERVER__BIND", "127.0.0.1:0");
        command
    };
    let full = serve("> /dev/full").output();
    let full = crate::cli::Ran::from(full.expect("a shell"));
    full.fails(3, &["cannot be shown", "standard output", "was not stored"]);
    for nowhere in [">&-", "> /dev/null"] {
        let ended = Daemon::start_as(serve(nowhere)).stop();
        let told = |line: &String| line.contains("tokens create --role admin");
        assert!(
            ended.code == Some(0) && ended.log.iter().any(told),
            "{ended:?}"
        );
    }
    assert_eq!(binary.run("tokens list --json").ok(), "");
    let ended = Daemon::start(&binary, &["serve"]).stop();
    assert!(admin_token(&ended).starts_with("rsc_sk_"));
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        let binary = Binary::new();
        let token = binary.run("tokens create --role issuer").ok();
        let mut daemon = Daemon::start(&binary, &["serve"]);
        let body = r#"{"user_id":"u_1","description":"x","expires_at_millis":null}"#;
        let head = format!(
            "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: rescind\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            token.trim(),
            body.len()
        );
        let mut stream = daemon.connect();
        stream.write_all(head.as_bytes()).expect("sent");
        // The handler has begun to read the body when the server asks for it.
        let mut interim = [0; 25];
        std::io::Read::read_exact(&mut stream, &mut interim).expect("an interim answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

        daemon.signal(signal);
        daemon.wait_for(&format!("SIG{signal}"));
        stream.write_all(body.as_bytes()).expect("sent");
        let (status, body) = answer(stream);
        assert_eq!(status, 200, "{body}");
        let ended = daemon.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let keys = binary.run("keys list --json").ok();
        assert!(keys.contains("u_1"), "{keys}");
    }
}

#[test]
fn a_second_signal_ends_at_once_unless_it_belongs_to_the_first() {
    let binary = Binary::new();
    let token = binary.run("tokens create --role issuer").ok();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let mut stream = daemon.connect();
    let head = format!(
        "POST /api/v1/user-api-keys HTTP/1.1\r\nhost: rescind\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n",
        token.trim()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut interim).expect("an interim answer");
    daemon.signal("TERM");
    daemon.wait_for("SIGTERM");
    // Within a second it is the same stop, however often it is asked for.
    for signal in ["TERM", "INT", "TERM"] {
        std::thread::sleep(Duration::from_millis(100));
        daemon.signal(signal);
    }
    assert!(!daemon.ends_within(Duration::from_millis(700)));
    // The body never comes, so only a second signal can end this.
    daemon.signal("TERM");
    daemon.wait_for("second signal");
    let ended = daemon.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn no_signal_but_the_two_that_stop_it_ends_the_daemon() {
    let binary = Binary::new();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    for (signal, told) in [
        (
            "HUP",
            "SIGHUP is ignored: restart to read the configuration",
        ),
        ("QUIT", "SIGQUIT"),
        ("ALRM", "SIGALRM"),
        ("USR1", "SIGUSR1"),
        ("USR2", "SIGUSR2"),
        ("TSTP", "SIGTSTP"),
        ("TTIN", "SIGTTIN"),
        ("TTOU", "SIGTTOU"),
        ("VTALRM", "SIGVTALRM"),
        ("PROF", "SIGPROF"),
        ("POLL", "SIGIO"),
        ("PWR", "SIGPWR"),
        ("XCPU", "SIGXCPU"),
        ("34", "signal 34"),
        ("64", "signal 64"),
    ] {
        daemon.signal(signal);
        daemon.wait_for(told);
        assert_eq!(daemon.get("/healthz", None).0, 200, "{signal}");
    }
    for signal in ["PIPE", "XFSZ"] {
        daemon.signal(signal);
        assert_eq!(daemon.get("/readyz", None).0, 200, "{signal}");
    }
    // A timer may send its signal time and again; who sends SIGHUP expects something.
    daemon.signal("ALRM");
    daemon.signal("HUP");
    daemon.wait_for("SIGHUP is ignored");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let alarms = ended.log.iter().filter(|line| line.contains("SIGALRM"));
    assert_eq!(alarms.count(), 1, "{ended:?}");
}

#[test]
fn a_taken_port_is_named_and_costs_no_token() {
    let binary = Binary::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let ran = binary
        .command(["serve"])
        .env("RESCIND__SERVER__BIND", &address)
        .output()
        .expect("the binary runs");
    let ran = crate::cli::Ran::from(ran);
    ran.fails(3, &["cannot listen on", &address, "server.bind"]);
    assert_eq!(ran.stderr.matches(" use").count(), 1, "said once: {ran:?}");
    assert_eq!(ran.stdout, "");
    // The first start that works still has the token to show.
    let ended = Daemon::start(&binary, &["serve"]).stop();
    assert!(admin_token(&ended).starts_with("rsc_sk_"));
}

#[test]
fn json_logs_are_one_object_per_line() {
    let binary = Binary::new().with("RESCIND_LOG", "trace");
    let daemon = Daemon::start(&binary, &["--log", "json", "serve"]);
    daemon.get("/healthz", None);
    daemon.get("/nowhere", None);
    let ended = daemon.stop();
    assert!(ended.log.len() > 3, "{ended:?}");
    for line in &ended.log {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        let target = line["target"].as_str().unwrap_or_default();
        assert!(target.starts_with("rescind"), "{line}");
    }
}

#[test]
fn the_log_at_trace_level_has_no_token_and_no_key() {
    let binary = Binary::new()
        .with("RESCIND_LOG", "trace")
        .with("RESCIND__KEYS__PEPPERS", r#"["pepper-0123456789"]"#);
    let key = binary.run("keys create --user u --description x").ok();
    let key = key.trim();
    let token = binary.run("tokens create --role admin").ok();
    let token = token.trim();
    let daemon = Daemon::start(&binary, &["serve"]);
    for path in [
        "/api/v1/user-api-keys?user_id=u".to_owned(),
        format!("/api/v1/user-api-keys/{key}"),
        format!("/api/v1/user-api-keys?user_id={key}"),
        format!("/{key}"),
        format!("/nowhere?token={token}"),
    ] {
        let (_, body) = daemon.get(&path, Some(token));
        assert!(
            !body.contains(key) && !body.contains(token),
            "{path}: {body}"
        );
    }
    let ended = daemon.stop();
    let log = ended.log.join("\n");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    for secret in [key, token, "pepper-0123456789"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_token_without_its_variable_is_a_warning() {
    let binary = Binary::new();
    binary.write(
        "config.toml",
        "[[sources]]\nname = \"quiet\"\nkind = \"github_events\"\napi_url = \"http://127.0.0.1:1\"\n\
         clone_url = \"http://127.0.0.1:1\"\ntoken = { env = \"NO_SUCH_TOKEN\" }\n",
    );
    let ended = Daemon::start(&binary, &["serve"]).stop();
    assert_eq!(
        ended.code,
        Some(0),
        "a source that cannot be reached stops nothing: {ended:?}"
    );
    assert!(
        ended.log.iter().any(|line| line.contains("NO_SUCH_TOKEN")),
        "{ended:?}"
    );
}

/// Who works on an incident has the log at hand, not the database.
#[test]
fn the_log_tells_of_a_refusal_and_of_a_revocation_what_one_looks_for() {
    let binary = Binary::new();
    let token = binary.run("tokens create --role viewer").ok();
    let key = binary
        .run("keys create --user owner-7 --description x")
        .ok();
    let (key, token) = (key.trim(), token.trim());
    let mut daemon = Daemon::start(&binary, &["--log", "json", "serve"]);
    let mut refused = |path: &str, token: Option<&str>| {
        daemon.get(path, token);
        let line = daemon.wait_for("request refused");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
    };
    let line = refused("/api/v1/incidents?q=in-the-query", None);
    assert_eq!(line["code"], "ACCESS_TOKEN_REQUIRED", "{line}");
    assert_eq!(line["path"], "/api/v1/incidents");
    assert_eq!(line["client"], "127.0.0.1");
    let escaped: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for path in [key, &escaped, &format!("{}{key}", "x".repeat(1_000))] {
        let line = refused(&format!("/api/v1/user-api-keys/{path}"), Some(token)).to_string();
        assert!(line.contains("/api/v1/user-api-keys/"), "{line}");
        assert!(!line.contains(key) && !line.contains(&escaped), "{line}");
    }
    let line = refused(&format!("/{}", "x".repeat(2_000)), None);
    assert_eq!(line["code"], "NOT_FOUND", "{line}");
    assert!(line["path"].as_str().expect("a path").len() < 300, "{line}");

    let url = format!("https://example.com/acme/app/issues/7?key={key}");
    let body = serde_json::json!({"api_key": key, "url": url}).to_string();
    let path = "/api/v1/integrations/credential-scanning/revoke";
    assert_eq!(daemon.post(path, None, &body).0, 200);
    let line = daemon.wait_for("a leaked key was revoked");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["owner_type"], &line["owner"]),
        (&"user".into(), &"owner-7".into())
    );
    let incidents = daemon.get("/api/v1/incidents", Some(token)).1;
    let incidents: serde_json::Value = serde_json::from_str(&incidents).expect("JSON");
    assert_eq!(line["incident"], incidents["items"][0]["id"], "{line}");
    let shown = line["url"].as_str().expect("a link");
    assert!(
        shown.starts_with("https://example.com/acme/app/issues/7") && !shown.contains(key),
        "{line}"
    );
    daemon.stop();
}
