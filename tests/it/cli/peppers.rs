//! Peppers that are not those of the database, with the real binary.

use serde_json::Value;

use super::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually;

const OLD: &str = "the pepper of the year 2026";
const NEW: &str = "the pepper of the year 2027";

fn with(binary: Binary, peppers: &[&str]) -> Binary {
    binary.with("RESCIND__KEYS__PEPPERS", &format!("{peppers:?}"))
}

/// The check of peppers: its status and its message.
fn examined(binary: &Binary, code: i32) -> (String, String) {
    let ran = binary.run("doctor --json");
    assert_eq!(ran.code, code, "{ran:?}");
    let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let checks = found["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "peppers");
    let check = check.unwrap_or_else(|| panic!("{ran:?}"));
    assert!(!format!("{ran:?}").contains(OLD) && !format!("{ran:?}").contains(NEW));
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

#[test]
fn commands_that_need_a_missing_pepper_are_refused_and_others_are_not() {
    let binary = Binary::new()
        .with("RESCIND__SERVER__BIND", "127.0.0.1:0")
        .with("RESCIND__PARTNERS__GITHUB__ENABLED", "false");
    let binary = with(binary, &[OLD]);
    let key = binary.run("keys create --user u --description x").ok();
    binary.run("tokens create --role viewer").ok();
    let (status, message) = examined(&binary, 0);
    assert_eq!(status, "ok");
    assert!(message.starts_with("current ("), "{message}");
    assert!(
        message.contains("): 1 keys, 1 access tokens; none: 0 keys"),
        "{message}"
    );
    binary.write("leak.txt", &key);

    let mut binary = binary;
    for peppers in [&[NEW][..], &[]] {
        binary = with(binary, peppers);
        for line in [
            "serve",
            "keys list",
            "keys create --user u --description y",
            "tokens list",
            "tokens create --role viewer",
            "scan --match leak.txt",
        ] {
            let ran = binary.run(line);
            ran.fails(
                2,
                &["with 1 key and 1 access token", "keys.peppers", "retired"],
            );
            assert!(
                !ran.stderr.contains(OLD) && !ran.stderr.contains(NEW),
                "{ran:?}"
            );
        }
        for line in [
            "log list",
            "log verify",
            "log export",
            "sources status",
            "migrate",
        ] {
            binary.run(line).ok();
        }
        let (status, message) = examined(&binary, 2);
        assert_eq!(status, "failed");
        assert!(
            message.contains("with 1 key and 1 access token"),
            "{message}"
        );
    }

    let binary = with(binary, &[NEW, OLD]);
    binary.run_with(["keys", "check"], &key).ok();
    let (status, message) = examined(&binary, 0);
    assert_eq!(status, "ok");
    assert!(message.contains("retired 1 ("), "{message}");
}

/// It does not find what another process stores under a pepper of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_not_ready_once_another_process_has_another_pepper() {
    let binary = with(Binary::new(), &[OLD]);
    let mut daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    let own = binary.run("keys create --user u --description x").ok();
    let binary = with(binary, &[NEW, OLD]);
    let of_another = binary.run("keys create --user u --description x").ok();
    let is_noticed = async || daemon.get("/readyz", None).0 == 503;
    eventually("the daemon is not ready", is_noticed).await;
    let (_, body) = daemon.get("/readyz", None);
    assert!(body.contains("pepper"), "{body}");
    daemon.wait_for("with 1 key");
    assert_eq!(daemon.get("/healthz", None).0, 200);
    // Nor does it say that a key is nobody's, which is final for whoever reports it.
    let path = "/api/v1/integrations/credential-scanning/revoke";
    let report = |key: &str| {
        daemon
            .post(path, None, &format!("{{\"api_key\":\"{key}\"}}"))
            .0
    };
    assert_eq!(report(of_another.trim()), 503);
    assert_eq!(report(own.trim()), 200);
}
