//! Commands that open a SQLite database whose files were removed while a daemon has it open.

use std::fs;

use crate::cli::Binary;
use crate::serve::{Daemon, get};

const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";
const KEYS: usize = 6;

/// A binary whose database is `data/rescind.db`, and its keys.
fn with_keys() -> (Binary, Vec<String>) {
    let binary = Binary::new();
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    let binary = binary.with("RESCIND__DATABASE__URL", &url);
    let create = || binary.run("keys create --user u --description x").ok();
    let keys = (0..KEYS).map(|_| create().trim().to_owned()).collect();
    (binary, keys)
}

fn reports(daemon: &Daemon, keys: &[String]) {
    for key in keys {
        let answer = daemon.post(REVOKE, None, &format!(r#"{{"api_key":"{key}"}}"#));
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
}

/// Each of them wrote the last pages of the removed log over the database, or nothing in place of them.
#[test]
fn a_database_whose_file_was_removed_under_a_daemon_is_opened_by_no_command() {
    for ends in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let (binary, keys) = with_keys();
        let token = binary.run("tokens create --role admin").ok();
        let daemon = Daemon::start(&binary, &["serve"]);
        reports(&daemon, &keys[..4]);
        let file = binary.path("data/rescind.db").display().to_string();
        for end in ends {
            fs::remove_file(file.clone() + end).unwrap();
        }
        // More readers than were connected before.
        let address = daemon.address;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| get(address, "/api/v1/revocations", Some(token.trim())));
            }
        });
        let missing = file.clone() + ends[0];
        let said = [
            missing.as_str(),
            "has the database open",
            "nothing was changed",
        ];
        let doctor = binary.run("doctor");
        for said in said {
            assert!(doctor.stdout.contains(said), "{said}: {doctor:?}");
        }
        assert!(!doctor.stdout.contains("permissions"), "{doctor:?}");
        assert_ne!(doctor.code, 0, "{doctor:?}");
        let create = "keys create --user v --description x";
        for command in ["keys list", create] {
            binary.run(command).fails(3, &said);
        }
        let second = Daemon::begin(&binary).wait();
        assert_eq!(second.code, Some(3), "{second:?}");
        for end in ends {
            let made = fs::exists(file.clone() + end).unwrap();
            assert!(!made, "{end} was made anew");
        }
        let ended = daemon.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");

        let daemon = Daemon::start(&binary, &["serve"]);
        reports(&daemon, &keys[4..]);
        let listed = binary.run("log list --json").ok();
        assert_eq!(listed.lines().count(), KEYS, "{ends:?}: {listed}");
        binary.run("log verify").ok();
    }
}

/// The files that a killed daemon left behind keep nobody from the database.
#[test]
fn files_that_a_killed_daemon_left_hinder_no_start() {
    for end in ["-wal", "-shm"] {
        let (binary, keys) = with_keys();
        let daemon = Daemon::start(&binary, &["serve"]);
        daemon.signal("KILL");
        daemon.wait();
        let removed = binary.path("data/rescind.db").display().to_string() + end;
        fs::remove_file(removed).unwrap();
        binary.run("keys list").ok();
        let daemon = Daemon::start(&binary, &["serve"]);
        reports(&daemon, &keys);
    }
}
