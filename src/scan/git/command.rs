//! Runs `git` on a repository that is not trusted.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::{self, JoinHandle};

use super::HistoryError;

/// What is kept of what git says on standard error, in bytes.
const MAX_COMPLAINT: u64 = 4096;

/// A repository to run git on.
#[derive(Debug)]
pub(super) struct Repository {
    path: PathBuf,
}

/// A running git.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    what: &'static str,
    complaint: Option<JoinHandle<String>>,
}

impl Repository {
    /// The repository at `path`, which is its working tree, its `.git` or a bare repository. A folder
    /// inside a working tree is refused: it would be surprising to scan all that is around it.
    pub(super) fn open(path: &Path) -> Result<Self, HistoryError> {
        let path = path.canonicalize().map_err(HistoryError::Unreadable)?;
        let repository = Self { path };
        let mut command = repository.git(&["rev-parse", "--git-dir"]);
        let output = command.output().map_err(HistoryError::from_start)?;
        if output.status.success() {
            Ok(repository)
        } else {
            Err(HistoryError::NotARepository {
                complaint: complaint(&output.stderr),
            })
        }
    }

    /// A git command that runs nothing that the repository's own configuration names, asks nobody, writes
    /// nothing, fetches nothing and is not told by the environment to look elsewhere.
    pub(super) fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        let above = self.path.parent().unwrap_or(&self.path);
        command
            .current_dir(&self.path)
            .env("LC_ALL", "C")
            .env("GIT_CEILING_DIRECTORIES", above)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", null_device())
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Objects that a partial clone lacks are reported, not fetched.
            .env("GIT_NO_LAZY_FETCH", "1")
            // What replacements and grafts hide is history too.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_GRAFT_FILE", null_device())
            .args(["--no-pager", "--literal-pathspecs"])
            // Somebody else's repository is as good as ours: nothing of it is run.
            .args(["-c", "safe.directory=*"])
            .args(["-c", "core.fsmonitor=false"])
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "protocol.allow=never"])
            // A cache that could be out of date, or say less than the commits do.
            .args(["-c", "core.commitGraph=false"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a git command; `what` it does is for errors.
    pub(super) fn start(
        &self,
        what: &'static str,
        arguments: &[&str],
        input: Stdio,
    ) -> Result<Running, HistoryError> {
        let mut child = self
            .git(arguments)
            .stdin(input)
            .spawn()
            .map_err(HistoryError::from_start)?;
        let complaint = child.stderr.take().map(drain);
        Ok(Running {
            child,
            what,
            complaint,
        })
    }
}

impl Running {
    pub(super) fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub(super) fn stdout(&mut self) -> io::Result<std::process::ChildStdout> {
        let stdout = self.child.stdout.take();
        stdout.ok_or_else(|| io::Error::other("git's output was taken before"))
    }

    /// Waits for the end, which must be a good one.
    pub(super) fn finish(mut self) -> Result<(), HistoryError> {
        let status = self.child.wait().map_err(|source| HistoryError::Broken {
            what: self.what,
            source,
        })?;
        let complaint = self.complaint.take().map(JoinHandle::join);
        if status.success() {
            return Ok(());
        }
        Err(HistoryError::Failed {
            what: self.what,
            complaint: complaint.and_then(Result::ok).unwrap_or_default(),
        })
    }
}

impl Drop for Running {
    /// Nothing is left running when a scan ends early.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all that git complains about, so that it never waits for us, and keeps the start.
fn drain(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut start = Vec::new();
        let _ = stderr.by_ref().take(MAX_COMPLAINT).read_to_end(&mut start);
        let _ = io::copy(&mut stderr, &mut io::sink());
        complaint(&start)
    })
}

/// The last line that git wrote: mostly the one that says what is wrong.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("git gave no reason").to_owned()
}

fn null_device() -> &'static OsStr {
    OsStr::new(if cfg!(windows) { "NUL" } else { "/dev/null" })
}
