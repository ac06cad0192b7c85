//! `serve` starts itself anew, once, so that the C library takes its settings.

use std::fs;

use super::Daemon;
use crate::cli::Binary;

const SETTING: &str = "MALLOC_MMAP_THRESHOLD_=";
const MARK: &str = "RESCIND_STARTED_ANEW=1";

/// The variables that the daemon was started with, or started itself with.
fn environment(daemon: &Daemon) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{}/environ", daemon.id())).expect("a process");
    let variables = bytes.split(|byte| *byte == 0);
    variables
        .map(|variable| String::from_utf8_lossy(variable).into_owned())
        .collect()
}

fn has(variables: &[String], start: &str) -> bool {
    variables.iter().any(|variable| variable.starts_with(start))
}

#[cfg(target_env = "gnu")]
#[test]
fn it_is_the_same_process_with_the_settings() {
    let binary = Binary::new();
    let daemon = Daemon::start(&binary, &["serve"]);
    let variables = environment(&daemon);
    assert!(
        has(&variables, SETTING) && has(&variables, MARK),
        "{variables:?}"
    );
    let command = fs::read(format!("/proc/{}/cmdline", daemon.id())).expect("a process");
    assert!(command.ends_with(b"\0serve\0"), "{command:?}");
    assert_eq!(daemon.stop().code, Some(0));
}

/// They are held back across that, and heeded once there are handlers: these were sent before the program began.
#[cfg(target_env = "gnu")]
#[test]
fn early_signals_end_nothing_and_an_early_hangup_is_heeded() {
    let binary = Binary::new();
    let command = binary.command(["serve"]);
    let mut early = std::process::Command::new("env");
    let send = "for s in HUP USR1 USR2 QUIT; do kill -s $s $$; done; exec \"$@\"";
    early
        .args([
            "--block-signal=HUP,USR1,USR2,QUIT",
            "/bin/sh",
            "-c",
            send,
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(binary.path("."));
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            early.env(name, value);
        }
    }
    let mut daemon = Daemon::start_as(early);
    daemon.wait_for("the configuration was read again");
    for name in ["HUP", "USR1", "USR2", "QUIT"] {
        daemon.signal(name);
    }
    daemon.wait_for("the configuration was read again");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ignored = ended.log.iter().filter(|line| line.contains("ignored"));
    assert_eq!(ignored.count(), 3, "{ended:?}");
}

#[test]
fn what_an_operator_set_is_respected() {
    let binary = Binary::new().with("MALLOC_ARENA_MAX", "4");
    let daemon = Daemon::start(&binary, &["serve"]);
    let variables = environment(&daemon);
    assert!(
        !has(&variables, SETTING) && !has(&variables, MARK),
        "{variables:?}"
    );
    assert!(has(&variables, "MALLOC_ARENA_MAX=4"), "{variables:?}");
    assert_eq!(daemon.stop().code, Some(0));
}

/// The C library takes the settings away from a program with rights that its user has not, and leaves the mark.
#[cfg(target_env = "gnu")]
#[test]
fn where_the_settings_are_taken_away_it_starts_anew_once() {
    let binary = Binary::new().with("RESCIND_STARTED_ANEW", "1");
    let daemon = Daemon::start(&binary, &["serve"]);
    let variables = environment(&daemon);
    assert!(!has(&variables, SETTING), "{variables:?}");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = ended
        .log
        .iter()
        .filter(|line| line.contains("memory is given back late"));
    assert_eq!(told.count(), 1, "{ended:?}");
}
