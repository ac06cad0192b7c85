//! Tests of serve.

mod anew;
mod daemon;
mod leak;
mod reload;

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::cli::Binary;
use crate::support::eventually::eventually_blocking;
pub(crate) use daemon::{Daemon, Ended, PausedLog, answer, free_address, get, post};

/// The administrator's token that the first start wrote into a file.
fn admin_token(binary: &Binary) -> String {
    let token = std::fs::read_to_string(binary.path("data/rescind.db.admin-token"));
    token.expect("the file of the token").trim().to_owned()
}

#[test]
fn the_first_start_writes_a_token_into_a_file_and_no_other_start_does() {
    let binary = Binary::new();
    let first = Daemon::start(&binary, &["serve"]);
    assert_eq!(first.get("/healthz", None).0, 200);
    assert_eq!(first.get("/readyz", None).0, 200);
    assert_eq!(first.get("/openapi.json", None).0, 200);
    let first = first.stop();
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), ""));
    let token = admin_token(&binary);
    assert!(token.starts_with("rsc_sk_"), "{token}");
    let file = binary.folder().canonicalize().expect("a folder");
    let file = file.join("data/rescind.db.admin-token");
    let named = file.display().to_string();
    let mode = std::fs::metadata(&file).expect("the file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let told = |line: &&String| line.contains(&named) && line.contains("first access token");
    assert_eq!(first.log.iter().filter(told).count(), 1, "{first:?}");
    let said = |line: &String| line.contains(&token);
    assert!(!first.log.iter().any(said), "{first:?}");

    std::fs::remove_file(&file).expect("removed");
    let second = Daemon::start(&binary, &["serve"]);
    let (status, _) = second.get("/api/v1/revocations", Some(&token));
    assert_eq!(status, 200, "the token outlives the restart");
    assert_eq!(second.get("/api/v1/revocations", None).0, 401);
    let second = second.stop();
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), ""));
    assert!(!file.exists(), "no second token is made");

    // The command line sees the same database.
    let tokens = binary.run("tokens list --json").ok();
    assert_eq!(tokens.lines().count(), 1);
    assert!(tokens.contains("\"admin\""), "{tokens}");
}

#[test]
fn on_a_terminal_the_first_token_is_printed_and_in_no_file() {
    let binary = Binary::new();
    let address = free_address();
    let typescript = binary.path("typescript");
    // A terminal of its own, whose output is in a file. What hangs it up does not end the daemon.
    let command = format!(
        "echo $$ > pid; exec {} serve",
        env!("CARGO_BIN_EXE_rescind")
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--flush", "--command", &command])
        .arg(&typescript)
        .current_dir(binary.folder())
        .env("RESCIND__SERVER__BIND", address.to_string())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("script runs");
    let printed = eventually_blocking("the address is printed", || {
        let text = std::fs::read_to_string(&typescript).unwrap_or_default();
        let is_there = text.contains(&format!("API: http://{address}"));
        if is_there { Ok(text) } else { Err(text) }
    });
    let (_, token) = printed
        .split_once("admin token (shown once): ")
        .expect("a token");
    let token = token.split_whitespace().next().expect("a token");
    assert_eq!(get(address, "/api/v1/revocations", Some(token)).0, 200);
    assert!(!binary.path("data/rescind.db.admin-token").exists());
    let pid = std::fs::read_to_string(binary.path("pid")).expect("a process");
    let ended = Command::new("kill")
        .args(["-s", "TERM", pid.trim()])
        .status();
    assert!(ended.expect("kill runs").success());
    child.wait().expect("ended");
}

#[test]
fn the_first_token_is_stored_only_if_it_is_in_its_file() {
    let binary = Binary::new();
    let file = binary.path("data/rescind.db.admin-token");
    // A folder of this name cannot be replaced by a file.
    std::fs::create_dir_all(file.join("in the way")).expect("a folder");
    let refused = binary
        .command(["serve"])
        .env("RESCIND__SERVER__BIND", "127.0.0.1:0")
        .output();
    let refused = crate::cli::Ran::from(refused.expect("the binary runs"));
    refused.fails(
        3,
        &[
            "rescind.db.admin-token",
            "cannot be written",
            "was not stored",
        ],
    );
    assert_eq!(binary.run("tokens list --json").ok(), "");
    std::fs::remove_dir_all(&file).expect("removed");
    // It is not lost where standard output is closed or discarded, as a shell can leave it.
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
    let ended = Daemon::start_as(serve(">&-")).stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(admin_token(&binary).starts_with("rsc_sk_"));
}

/// Whenever it is killed, the next start leaves an administrator's token that works, in the file or in none but for one
/// that was stored.
#[test]
fn a_first_start_that_is_killed_leaves_no_instance_without_an_administrator() {
    for round in 0..12_u64 {
        let binary = Binary::new();
        let file = binary.path("data/rescind.db.admin-token");
        let begun = Daemon::begin(&binary);
        // Later each time: before the database is there, amid its migrations, while the token is made, and after it.
        if round < 8 {
            std::thread::sleep(Duration::from_millis(round * 25));
        } else {
            eventually_blocking("the token is in its file", || {
                if file.exists() {
                    Ok(())
                } else {
                    Err("not yet".to_owned())
                }
            });
        }
        begun.signal("KILL");
        begun.wait();
        let daemon = Daemon::start(&binary, &["serve"]);
        let token = admin_token(&binary);
        let (status, _) = daemon.get("/api/v1/revocations", Some(&token));
        assert_eq!(status, 200, "round {round}: the token in the file is valid");
        daemon.stop();
    }
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
        ("HUP", "the configuration was read again"),
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
    daemon.wait_for("the configuration was read again");
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
    Daemon::start(&binary, &["serve"]).stop();
    assert!(admin_token(&binary).starts_with("rsc_sk_"));
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
    let escaped: Vec<String> = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped = escaped.concat();
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
