//! Reloads while something hangs: the reading itself, and polls.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use rescind::clock::SystemClock;
use rescind::config::{Config, Environment};
use rescind::daemon::{self, Ended, Hangups, Loaded, Signals};
use rescind::keyformat::KeyValue;
use rescind::store::Store;

use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::eventually::{eventually, eventually_blocking};

fn signal_this_process(name: &str) {
    let pid = std::process::id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status();
    assert!(sent.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_hangs_does_not_keep_the_daemon_from_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}/rescind.db", folder.path().display());
    let text = format!("[server]\nbind = \"127.0.0.1:0\"\n[database]\nurl = \"{database}\"\n");
    let environment: Environment = [].into_iter().collect();
    let config = Config::parse("c.toml".as_ref(), &text, &environment).expect("valid");
    let formats = config.load_formats().expect("built in");
    let minting = config.issuer_formats(&formats).expect("built in");
    let loaded = Loaded {
        config,
        formats,
        minting,
    };
    let (mut signals, hangups) = (
        Signals::listen().expect("handlers"),
        Hangups::listen().expect("a handler"),
    );
    let show = |_: &KeyValue, _: &Store| Ok(());
    let started = daemon::Daemon::start(loaded, false, Arc::new(SystemClock), &mut signals, &show);
    let daemon = Box::pin(started).await.expect("it starts");
    let is_hanging = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel::<()>();
    let (told, hangs) = (Mutex::new(told), Arc::clone(&is_hanging));
    let load: daemon::Load = Arc::new(move |in_force| {
        hangs.store(true, Ordering::Relaxed);
        // An error is the end of the test.
        let _ = told.lock().expect("one reader").recv();
        Ok(in_force.clone())
    });
    let stopping = async {
        signal_this_process("HUP");
        eventually("it is read", async || is_hanging.load(Ordering::Relaxed)).await;
        signal_this_process("TERM");
    };
    let running = tokio::time::timeout(
        std::time::Duration::from_mins(1),
        daemon.run(signals, hangups, load),
    );
    let (ended, ()) = tokio::join!(running, stopping);
    drop(tell);
    assert_eq!(ended.ok(), Some(Ended::Cleanly));
}

/// A server that takes connections and never answers.
fn silent() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    listener
}

fn asked(listener: &TcpListener) -> TcpStream {
    let (stream, _) = eventually_blocking("it is asked", || listener.accept());
    stream.set_nonblocking(true).expect("a stream");
    stream
}

/// Returns whether the other end of a connection is closed.
fn is_left(stream: &TcpStream) -> bool {
    let mut request = [0; 4_096];
    loop {
        match std::io::Read::read(&mut { stream }, &mut request) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_corrected_source_is_polled_at_once_and_those_beside_it_go_on() {
    let (wrong, right, other, gone) = (silent(), silent(), silent(), silent());
    let source = |name: &str, server: &TcpListener| {
        let url = format!("http://{}", server.local_addr().expect("an address"));
        format!(
            "[[sources]]\nname = \"{name}\"\nkind = \"github_events\"\nscope = \"org:x\"\napi_url = \"{url}\"\n\
             clone_url = \"{url}\"\n"
        )
    };
    let binary = Binary::new();
    let beside = source("beside", &other);
    let before = format!(
        "{}{beside}{}",
        source("moved", &wrong),
        source("gone", &gone)
    );
    binary.write("config.toml", before);
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let [former, unchanged, removed] = [&wrong, &other, &gone].map(asked);
    binary.write(
        "config.toml",
        format!("{}{beside}", source("moved", &right)),
    );
    daemon.signal("HUP");
    let line = daemon.wait_for("is in force");
    assert!(
        line.contains("source moved") && !line.contains("beside"),
        "{line}"
    );
    let _corrected = asked(&right);
    for left in [&former, &removed] {
        eventually_blocking("the former poll has ended", || {
            is_left(left).then_some(()).ok_or("it is waited for")
        });
    }
    assert!(!is_left(&unchanged), "a poll beside it was disturbed");
    assert!(other.accept().is_err(), "it was begun twice");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0));
    let lines = ended.log.iter();
    let failed: Vec<_> = lines
        .filter(|line| line.contains("WARN") && line.contains("moved"))
        .collect();
    assert!(failed.is_empty(), "no poll had to fail first: {failed:?}");
}
