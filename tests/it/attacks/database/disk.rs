//! A disk that is full for a while.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::until;
use crate::cli::Binary;
use crate::serve::{Daemon, free_address};

/// A place for a database that can be full.
pub(super) enum Disk {
    /// A file system of its own, where this user may mount one.
    Mounted(PathBuf),
    /// Files that the daemon cannot make larger than they are: the same for SQLite, but that the operating
    /// system gives another reason, and sends a signal that ends whoever does not expect it.
    Limited,
}

impl Disk {
    pub(super) fn mount(at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m,mode=700", "rescind-test"]);
        match mount.arg(at).output() {
            Ok(mounted) if mounted.status.success() => Self::Mounted(at.to_owned()),
            _ => {
                eprintln!(
                    "no file system may be mounted here: the size of files is limited instead"
                );
                Self::Limited
            }
        }
    }

    pub(super) fn is_mounted(&self) -> bool {
        matches!(self, Self::Mounted(_))
    }

    fn fill(&self, daemon: &Daemon, database: &Path) {
        match self {
            Self::Mounted(at) => {
                let mut filler = fs::File::create(at.join("filler")).unwrap();
                while filler.write_all(&[0; 4096]).is_ok() {}
            }
            Self::Limited => {
                let wal = database.with_extension("db-wal");
                let sizes =
                    [database, &wal].map(|file| fs::metadata(file).map_or(0, |file| file.len()));
                limit(daemon, sizes.into_iter().max());
            }
        }
    }

    fn free(&self, daemon: &Daemon) {
        match self {
            Self::Mounted(at) => fs::remove_file(at.join("filler")).unwrap(),
            Self::Limited => limit(daemon, None),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(at) = self {
            let unmounted = Command::new("umount").arg("--lazy").arg(at).status();
            assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

/// The most bytes of a file that the daemon writes.
fn limit(daemon: &Daemon, bytes: Option<u64>) {
    let pid = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

fn stops_nothing_for_good(binary: Binary, disk: &Disk, database: &Path) {
    let url = format!("sqlite://{}", database.display());
    let binary = binary.with("RESCIND__DATABASE__URL", &url);
    let token = binary
        .run("tokens create --role admin")
        .ok()
        .trim()
        .to_owned();
    let keys: Vec<String> = (0..2)
        .map(|_| {
            binary
                .run("keys create --user u --description x")
                .ok()
                .trim()
                .to_owned()
        })
        .collect();
    let daemon = Daemon::start(&binary, &["serve"]);
    let new = format!(
        r#"{{"user_id":"u","description":"{}","expires_at_millis":null}}"#,
        "long ".repeat(100)
    );
    let create = || daemon.post("/api/v1/user-api-keys", Some(&token), &new);
    let report = |key: &str| {
        let path = "/api/v1/integrations/credential-scanning/revoke";
        daemon.post(path, None, &format!(r#"{{"api_key":"{key}"}}"#))
    };
    let ready = || daemon.get("/readyz", None).0;
    assert_eq!(ready(), 200);
    assert_eq!(report(&keys[0]).0, 200);

    disk.fill(&daemon, database);
    // Room that SQLite had already is used up first.
    let refused = until("a write on a full disk", create, |(status, _)| {
        *status != 200
    });
    assert_eq!(refused.0, 503, "{}", refused.1);
    let reason = match disk {
        Disk::Mounted(_) => "disk is full",
        Disk::Limited => "as large as they may be",
    };
    assert!(refused.1.contains(reason), "{}", refused.1);
    assert!(refused.1.contains("Try again later"), "{}", refused.1);
    until(
        "a report on a full disk",
        || report(&keys[1]).0,
        |status| *status == 503,
    );
    until("readiness on a full disk", ready, |status| *status == 503);
    assert_eq!(daemon.get("/healthz", None).0, 200);
    assert_eq!(daemon.get("/api/v1/revocations", Some(&token)).0, 200);
    // It is not only remembered: a write of its own fails.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(ready(), 503);

    disk.free(&daemon);
    until(
        "a report when there is space again",
        || report(&keys[1]).0,
        |status| *status == 200,
    );
    assert_eq!(create().0, 200);
    until("readiness when there is space again", ready, |status| {
        *status == 200
    });
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let remedy = match disk {
        Disk::Mounted(_) => "free some space",
        Disk::Limited => "LimitFSIZE=",
    };
    assert!(
        ended.log.iter().any(|line| line.contains(remedy)),
        "{ended:?}"
    );
    assert_eq!(binary.run("log list --json").ok().lines().count(), 2);
    binary.run("log verify").ok();
}

#[test]
fn a_limit_on_the_size_of_files_is_named_and_waited_for_at_the_start() {
    let binary = Binary::new();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -S -f 8; exec \"$0\" serve"])
        .arg(env!("CARGO_BIN_EXE_rescind"))
        .current_dir(binary.path("."))
        .env_clear();
    let address = free_address();
    command.env("RESCIND__SERVER__BIND", address.to_string());
    let mut daemon = Daemon::begin_as(command, address);
    let line = daemon.wait_for("waiting for room");
    assert!(line.contains("LimitFSIZE="), "{line}");
    assert_eq!(daemon.get("/healthz", None).0, 200);
    assert_eq!(daemon.get("/readyz", None).0, 503);
    limit(&daemon, None);
    daemon.wait_until_it_listens();
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_limit_on_the_size_of_files_ends_a_command_with_an_error_that_names_it() {
    let binary = Binary::new();
    let command = [
        "-c",
        "ulimit -S -f 8; exec \"$0\" migrate",
        env!("CARGO_BIN_EXE_rescind"),
    ];
    let mut shell = Command::new("/bin/sh");
    shell
        .args(command)
        .current_dir(binary.path("."))
        .env_clear();
    let ended = shell.output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("LimitFSIZE="), "{said}");
    binary.run("migrate").ok();
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let binary = Binary::new();
            let at = binary.path("disk");
            let disk = Disk::mount(&at);
            stops_nothing_for_good(binary, &disk, &at.join("rescind.db"));
        });
        let binary = Binary::new();
        let database = binary.path("data/rescind.db");
        stops_nothing_for_good(binary, &Disk::Limited, &database);
    });
}
