//! Whoever reads the log stops, and whoever can send fills it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::Binary;
use crate::serve::{Daemon, PausedLog, post};

/// Maximum time for any response, and for the daemon to stop.
const SOON: Duration = Duration::from_secs(10);

/// The most lines that one place logs in a second.
const LINES_PER_SECOND: usize = 50;

/// Sends `count` requests over connections that are kept alive, and waits for each answer.
fn ask(daemon: SocketAddr, path: &str, count: usize) {
    for batch in 0..count.div_ceil(50) {
        let stream = TcpStream::connect(daemon).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut answers = BufReader::new(stream);
        for _ in 0..50.min(count - batch * 50) {
            let request = format!("GET {path} HTTP/1.1\r\nhost: rescind\r\n\r\n");
            let sent = answers.get_mut().write_all(request.as_bytes());
            sent.expect("the daemon reads requests");
            let mut length = 0;
            loop {
                let mut line = String::new();
                answers.read_line(&mut line).expect("the daemon answers");
                if let Some(bytes) = line.strip_prefix("content-length: ") {
                    length = bytes.trim().parse().expect("a number");
                }
                match line.as_str() {
                    "\r\n" => break,
                    "" => panic!("the connection ended"),
                    _ => {}
                }
            }
            let mut body = answers.by_ref().take(length);
            std::io::copy(&mut body, &mut std::io::sink()).expect("a body");
        }
    }
}

fn self_report(daemon: SocketAddr, key: &str) {
    let path = "/api/v1/integrations/credential-scanning/revoke";
    let began = Instant::now();
    let report = json!({ "api_key": key }).to_string();
    assert_eq!(post(daemon, path, None, &report).0, 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A daemon with a key, and more log than its pipe and its queue hold. Nobody reads on until the last value is
/// dropped.
fn unread() -> (Binary, Daemon, String, PausedLog) {
    let binary = Binary::new().with("RESCIND_LOG", "debug");
    let key = binary.run("keys create --user u_1 --description x").ok();
    let daemon = Daemon::start(&binary, &["serve"]);
    let paused = daemon.stop_reading();
    ask(daemon.address, "/healthz", 6_000);
    (binary, daemon, key.trim().to_owned(), paused)
}

#[test]
fn a_log_that_is_not_read_keeps_nothing_from_being_revoked_nor_the_daemon_from_ending() {
    let (binary, mut daemon, key, paused) = unread();
    self_report(daemon.address, &key);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.signal("TERM");
    assert!(daemon.ends_within(SOON), "SIGTERM has no effect");
    drop(paused);
    let ended = daemon.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let log = binary.run("log list --json").ok();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("self_report"), "{log}");
}

#[test]
fn a_log_that_is_read_again_tells_what_it_lost() {
    let (_binary, mut daemon, key, paused) = unread();
    // Details leave room for what matters more.
    self_report(daemon.address, &key);
    drop(paused);
    daemon.wait_for("a leaked key was revoked");
    let told = daemon.wait_for("log lines were dropped: the log was not read");
    assert!(count_in(&told) > 1_000, "{told}");
    // From now on nothing is lost.
    daemon.get("/nowhere", None);
    daemon.wait_for("request refused");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let last = ended.log.last().expect("a last line");
    assert!(last.contains("stopped"), "{last}");
}

/// The number of lines that a line tells of.
fn count_in(line: &str) -> usize {
    let count = line.split(" lines=").nth(1).unwrap_or_default();
    let count = count.split(' ').next().unwrap_or_default();
    count.parse().unwrap_or_else(|_| panic!("no count: {line}"))
}

/// Returns the number of these lines that were written, and the number reported as left out.
fn counted(log: &[String], message: &str) -> (usize, usize) {
    let said = format!("said=\"{message}\"");
    let told = log.iter().filter(|line| line.contains(&said));
    let told = told.map(|line| count_in(line)).sum();
    let written = log.iter().filter(|line| line.contains(message));
    let written = written.filter(|line| !line.contains("said=")).count();
    (written, told)
}

#[test]
fn a_flood_of_one_kind_is_capped_and_counted() {
    let binary = Binary::new();
    let key = binary.run("keys create --user u_1 --description x").ok();
    let key = key.trim();
    let daemon = Daemon::start(&binary, &["serve"]);
    self_report(daemon.address, key);
    let began = Instant::now();
    let address = daemon.address;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| self_report(address, key)));
        }
        scope.spawn(|| ask(address, "/nowhere", 1_000));
    });
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("soon") + 2;
    // Those of another kind are seen all the same.
    let other = binary.run("keys create --user u_2 --description x").ok();
    self_report(daemon.address, other.trim());
    let log = daemon.stop().log;
    let revoked = "a leaked key was revoked";
    assert_eq!(counted(&log, revoked), (2, 0), "{log:#?}");
    for (message, sent) in [
        ("a key that is invalid already was seen", 400),
        ("request refused", 1_000),
    ] {
        let (written, told) = counted(&log, message);
        assert_eq!(written + told, sent, "{message}: {log:#?}");
        assert!(
            written <= LINES_PER_SECOND * seconds,
            "{message}: {written} in {seconds} s"
        );
        assert!(written >= LINES_PER_SECOND, "{message}: {written}");
    }
}
