//! Files that are gone, empty or something else when the configuration is read again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use super::{ONE, OTHER, deliver, hook};
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually_blocking;

const PATTERNS: &str = include_str!("../../../../patterns/rescind.toml");

/// A format of the operator's own.
const ACME: &str = r#"
[[format]]
id = "acme"
visibility = "secret"
prefix = "acme_sk_"
body = { alphabet = "base62", length = 30 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }
"#;

/// Has the configuration read again, which fails for this reason, and checks that all stays as it is.
fn refused(daemon: &mut Daemon, said: &[&str]) {
    daemon.signal("HUP");
    let line = daemon.wait_for("all stays as it is");
    for said in said {
        assert!(line.contains(said), "{said} in {line}");
    }
    assert_eq!((deliver(daemon, ONE), deliver(daemon, OTHER)), (202, 401));
    assert_eq!(daemon.get("/readyz", None).0, 200);
}

#[test]
fn what_was_read_before_and_is_gone_puts_no_defaults_in_force() {
    let binary = Binary::new();
    std::fs::create_dir(binary.path("patterns")).expect("a folder");
    binary.write("patterns/a.toml", PATTERNS);
    binary.write("config.toml", hook(ONE));
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let away = |name: &str| {
        std::fs::rename(binary.path(name), binary.path("away")).expect("moved");
    };
    let back = |name: &str| {
        std::fs::rename(binary.path("away"), binary.path(name)).expect("moved");
    };
    away("patterns");
    refused(&mut daemon, &["patterns", "cannot be read"]);
    std::os::unix::fs::symlink("nowhere", binary.path("patterns")).expect("a link");
    refused(&mut daemon, &["patterns", "cannot be read"]);
    std::fs::remove_file(binary.path("patterns")).expect("removed");
    back("patterns");
    away("config.toml");
    refused(&mut daemon, &["config.toml", "put it back"]);
    std::os::unix::fs::symlink("nowhere", binary.path("config.toml")).expect("a link");
    refused(&mut daemon, &["config.toml", "put it back"]);
    std::fs::remove_file(binary.path("config.toml")).expect("removed");
    // Truncated by whoever is about to write it.
    binary.write("config.toml", "\n");
    refused(&mut daemon, &["config.toml", "it is empty", "a comment"]);
    std::fs::remove_file(binary.path("config.toml")).expect("removed");
    fifo(&binary, "config.toml");
    refused(
        &mut daemon,
        &["config.toml", "not a regular file", "regular file"],
    );
    std::fs::remove_file(binary.path("config.toml")).expect("removed");
    binary.write("config.toml", "# The defaults are wanted.\n");
    daemon.signal("HUP");
    daemon.wait_for("is in force");
    assert_eq!(deliver(&daemon, ONE), 404);
    back("config.toml");
    daemon.signal("HUP");
    daemon.wait_for("is in force");
    assert_eq!(deliver(&daemon, ONE), 202);
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn what_was_never_there_is_not_missed_and_is_read_once_it_is_there() {
    let binary = Binary::new();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    daemon.signal("HUP");
    let line = daemon.wait_for("is in force");
    assert!(line.contains("nothing"), "{line}");
    binary.write("config.toml", hook(ONE));
    std::fs::create_dir(binary.path("patterns")).expect("a folder");
    binary.write("patterns/a.toml", format!("{PATTERNS}{ACME}"));
    daemon.signal("HUP");
    let line = daemon.wait_for("is in force");
    assert!(
        line.contains("key formats") && line.contains("webhooks.gitlab"),
        "{line}"
    );
    assert_eq!(deliver(&daemon, ONE), 202);
    assert_eq!(daemon.stop().code, Some(0));
}

fn fifo(binary: &Binary, name: &str) {
    let made = Command::new("mkfifo").arg(binary.path(name)).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Opens a pipe for writing as soon as somebody reads from it.
fn writer(binary: &Binary, name: &str) -> File {
    eventually_blocking("the pipe is read from", || {
        let nonblocking = 0o4000;
        OpenOptions::new()
            .write(true)
            .custom_flags(nonblocking)
            .open(binary.path(name))
    })
}

/// It is waiting for its configuration when they come, before anything runs.
#[test]
fn signals_before_the_start_end_nothing_and_a_pipe_is_read_once() {
    let binary = Binary::new();
    fifo(&binary, "pipe");
    let mut command = binary.command(["--config", "pipe", "serve"]);
    command.env("RESCIND__SERVER__BIND", "127.0.0.1:0");
    let mut daemon = Daemon::begin_as(command, ([127, 0, 0, 1], 0).into());
    let mut pipe = writer(&binary, "pipe");
    for signal in ["HUP", "USR1", "USR2"] {
        daemon.signal(signal);
    }
    std::io::Write::write_all(&mut pipe, hook(ONE).as_bytes()).expect("written");
    drop(pipe);
    daemon.wait_until_it_listens();
    // The SIGHUP of before.
    let line = daemon.wait_for("all stays as it is");
    assert!(line.contains("pipe: it is not a regular file"), "{line}");
    refused(&mut daemon, &["start the daemon with a regular file"]);
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_command_that_reads_its_configuration_twice_finds_a_pipe_as_it_was() {
    let binary = Binary::new();
    let elsewhere = "[database]\nurl = \"sqlite://elsewhere.db\"\n";
    binary.write("elsewhere.toml", elsewhere);
    let line = "--config elsewhere.toml keys create --user u --description x";
    binary.write("leak.txt", binary.run(line).ok());
    fifo(&binary, "pipe");
    let child = binary
        .command(["--config", "pipe", "scan", "--match", "leak.txt"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = writer(&binary, "pipe");
    std::io::Write::write_all(&mut pipe, elsewhere.as_bytes()).expect("written");
    drop(pipe);
    let ran = crate::cli::Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!binary.path("data").exists(), "{ran:?}");
}

#[test]
fn a_key_in_a_wrong_place_is_redacted_whichever_formats_know_it() {
    let binary = Binary::new();
    std::fs::create_dir(binary.path("patterns")).expect("a folder");
    binary.write("patterns/a.toml", PATTERNS);
    binary.write("config.toml", hook(ONE));
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let formats = rescind::keyformat::FormatSet::parse(&[("acme.toml", ACME)]).expect("sound");
    let format = formats.get("acme").expect("the format");
    let key = format.mint().expect("a key").expose().to_owned();
    let wrong = format!("{}[keys]\npeppers = [{{ file = \"{key}\" }}]\n", hook(ONE));
    let shown = |daemon: &mut Daemon| {
        daemon.signal("HUP");
        let line = daemon.wait_for("all stays as it is");
        assert!(line.contains("keys.peppers"), "{line}");
        line.contains(&key)
    };
    // The format is about to be in force, is in force, and was at first.
    binary.write("config.toml", &wrong);
    binary.write("patterns/b.toml", ACME);
    assert!(!shown(&mut daemon));
    binary.write("config.toml", hook(ONE));
    daemon.signal("HUP");
    daemon.wait_for("is in force");
    binary.write("config.toml", &wrong);
    assert!(!shown(&mut daemon));
    std::fs::remove_file(binary.path("patterns/b.toml")).expect("removed");
    assert!(!shown(&mut daemon));
    assert_eq!(daemon.stop().code, Some(0));
    // A start, and any command, with a configuration that says nothing of formats for all its mistakes.
    binary.write("patterns/b.toml", ACME);
    for line in ["serve", "keys list"] {
        let ran = binary.run(line);
        ran.fails(2, &["keys.peppers"]);
        assert!(!ran.stderr.contains(&key), "{ran:?}");
    }
}
