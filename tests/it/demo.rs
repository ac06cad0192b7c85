//! The demo is what a newcomer sees first.

use std::process::Command;

#[test]
fn demo_tells_the_whole_story_and_ends_well() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("in-use.db");
    // A configuration that no command could work with, in the folder and named.
    let broken = folder.path().join("config.toml");
    std::fs::write(&broken, "[sevrer]\nbind = 7\n").expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_rescind"))
        .args(["demo", "--exit"])
        .current_dir(folder.path())
        .env("RESCIND_CONFIG", &broken)
        .env("RESCIND__KEYS__PEPPERS", "broken")
        .env("RESCIND__NO__SUCH__KEY", "x")
        .env("RESCIND__FORMATS__DIR", "nowhere")
        // Nothing of an instance that is configured so is touched.
        .env(
            "RESCIND__DATABASE__URL",
            format!("sqlite://{}", database.display()),
        )
        .env("RESCIND__SERVER__BIND", "192.0.2.1:1")
        // Nor is a proxy asked for what is on this machine.
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .expect("the rescind binary runs");
    let left = std::fs::read_dir(folder.path()).expect("the folder");
    let left: Vec<_> = left
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    assert_eq!(left, [broken], "and not {}", database.display());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for word in [
        "plain text in deploy/.env",
        "base64 in a Kubernetes secret",
        "UTF-16 in windows/settings.ini",
        "added and removed within one push",
        "in a signed partner report",
        "public key in web/app.js",
        "leak to revocation",
        "revoked",
    ] {
        assert!(stdout.contains(word), "the story lacks {word:?}:\n{stdout}");
    }
    assert!(!stdout.contains("FAILED"), "{stdout}");
}

#[test]
fn demo_refuses_a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_rescind"))
        .args(["demo", "--exit", "--port", &port])
        .output()
        .expect("the rescind binary runs");
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&port),
        "the message names the port: {stderr}"
    );
}

/// As behind `| head`, also without `--exit`: nobody looks around then.
#[test]
fn a_demo_that_nobody_reads_ends_as_well_as_any() {
    for arguments in [&["demo", "--exit"][..], &["demo"]] {
        let (reader, gone) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_rescind"))
            .args(arguments)
            .stdout(gone)
            .output()
            .expect("the rescind binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), stderr.contains("panicked")),
            (Some(0), false),
            "{stderr}"
        );
    }
}
