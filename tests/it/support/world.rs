//! Environment of a test: a forge with a git repository, its events feed, a partner that signs reports, and the
//! `rescind` binary as a process that can be killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rescind::clock::{Clock as _, SystemClock};
use rescind::sandbox::git_server::{GitServer, Repository};
use rescind::sandbox::{Feed, Partner};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::eventually::eventually_blocking;

pub(crate) const REPOSITORY: &str = "acme/webshop";
const REPOSITORY_ID: u64 = 4711;

/// Everything outside Rescind, which sees it over HTTP only.
pub(crate) struct World {
    folder: TempDir,
    tracker: TaskTracker,
    pub(crate) feed: Feed,
    pub(crate) forge: GitServer,
    pub(crate) partner: Partner,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let tracker = TaskTracker::new();
        let root = folder.path().join("forge");
        let forge = GitServer::start(&root, &tracker).await.expect("a forge");
        let repository = forge.create(REPOSITORY).expect("a repository");
        repository
            .write("README", b"A web shop.\n")
            .expect("a file");
        repository.commit("Begin").expect("a commit");
        repository.push("main").expect("a push");
        let partner = Partner::new().expect("a key pair");
        let feed = Feed::start(&tracker, 1, partner.public_keys())
            .await
            .expect("a feed");
        Self {
            folder,
            tracker,
            feed,
            forge,
            partner,
            repository,
        }
    }

    /// Returns the folder of the repositories.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a configuration that points at this environment.
    pub(crate) fn config(&self, database_url: &str) -> String {
        format!(
            r#"
[server]
bind = "127.0.0.1:0"
[database]
url = "{database_url}"
[partners.github]
enabled = true
public_keys_url = "{api}/meta/public_keys/secret_scanning"
[[sources]]
name = "world"
kind = "github_events"
scope = "public"
api_url = "{api}"
clone_url = "{forge}"
schedule = "poll"
"#,
            api = self.feed.url(),
            forge = self.forge.url(),
        )
    }

    /// Commits files, pushes them, and adds the push to the feed.
    pub(crate) fn push(&self, files: &[(&str, Vec<u8>)], message: &str) {
        for (name, content) in files {
            self.repository.write(name, content).expect("a file");
        }
        self.repository.commit(message).expect("a commit");
        let pushed = self.repository.push("main").expect("a push");
        self.feed
            .push(REPOSITORY_ID, REPOSITORY, &pushed, SystemClock.now());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tracker.close();
    }
}

/// Running `rescind serve`. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
    /// Admin token, if this was the first start on an empty database.
    pub(crate) token: Option<String>,
}

/// Folder of a daemon, with its configuration, database and log.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
}

impl Home {
    pub(crate) fn new(config: impl FnOnce(&str) -> String) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let database = format!("sqlite://{}", folder.path().join("rescind.db").display());
        fs::write(folder.path().join("config.toml"), config(&database)).expect("a file");
        Self { folder }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Runs a command to completion.
    pub(crate) fn rescind(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rescind"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("the rescind binary runs")
    }

    /// Starts the daemon with full logging, and waits until it listens.
    pub(crate) fn serve(&self) -> Daemon {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let start = fs::metadata(self.log()).expect("a log file").len();
        let start = usize::try_from(start).expect("a small log");
        let child = Command::new(env!("CARGO_BIN_EXE_rescind"))
            .args(["--log", "json", "--config"])
            .arg(self.config())
            .arg("serve")
            .env("RESCIND_LOG", "trace")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the rescind binary starts");
        let mut daemon = Daemon {
            child,
            url: String::new(),
            token: None,
        };
        daemon.url = self.address(start);
        daemon.token = self.take_token();
        daemon
    }

    /// Takes the admin token of a first start out of its file. It is written before the daemon listens.
    fn take_token(&self) -> Option<String> {
        let files = ["rescind.db.admin-token", "data/rescind.admin-token"];
        let mut files = files.map(|name| self.folder.path().join(name)).into_iter();
        let file = files.find(|file| file.exists())?;
        let token = fs::read_to_string(&file).expect("a token");
        fs::remove_file(file).expect("removed");
        Some(token.trim().to_owned())
    }

    /// Waits until the log, from byte `start` on, contains an address, and returns it.
    fn address(&self, start: usize) -> String {
        eventually_blocking("the daemon listens", || {
            let log = fs::read_to_string(self.log()).expect("a log");
            let said = log[start..].to_owned();
            let rest = said.split_once("listening on ").map(|(_, rest)| rest);
            let address = rest.and_then(|rest| Some(&rest[..rest.find(['"', ' '])?]));
            address.map(str::to_owned).ok_or(said)
        })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }
}

impl Daemon {
    /// Returns the identifier of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL, and waits for the process to end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the daemon can be killed");
        self.child.wait().expect("the daemon has ended");
    }

    /// Sends SIGTERM, and returns the exit status.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("`kill` runs");
        assert!(sent.success(), "SIGTERM could not be sent");
        self.child.wait().expect("the daemon has ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
