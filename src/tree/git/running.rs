//! A git that was started.

use std::io::{self, Read as _, Write as _};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::HistoryError;
use super::silence::{Listening, Shared, Watch, locked, wait_for};

/// Maximum length of git's standard error that is kept, in bytes.
const MAX_COMPLAINT: u64 = 4096;

/// A running git.
#[derive(Debug)]
pub(super) struct Running {
    child: Shared,
    what: &'static str,
    complaints: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    pub(super) fn start(what: &'static str, command: &mut Command) -> Result<Self, HistoryError> {
        let mut child = command.spawn().map_err(HistoryError::from_start)?;
        let complaints = child.stderr.take().map(drain);
        Ok(Self {
            child: Arc::new(Mutex::new(child)),
            what,
            complaints,
        })
    }

    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        locked(&self.child).stdin.take()
    }

    /// Tells it all of its input. Should it not read that, then it failed, and says why at the end.
    pub(super) fn tell(&mut self, input: &[u8]) -> io::Result<()> {
        let watch = Watch::over(vec![Arc::clone(&self.child)]);
        if let Some(mut stdin) = self.stdin() {
            let _waiting = watch.wait();
            let _ = stdin.write_all(input);
        }
        watch.check()
    }

    /// Its output for another process to read.
    pub(super) fn stdout(&mut self) -> io::Result<ChildStdout> {
        let stdout = locked(&self.child).stdout.take();
        stdout.ok_or_else(|| io::Error::other("git's output was taken before"))
    }

    /// Its output, to be read here. It comes by way of `others`; should none of them do anything, they are ended.
    pub(super) fn listen(&mut self, others: &[&Self]) -> io::Result<Listening> {
        let mut all = vec![Arc::clone(&self.child)];
        all.extend(others.iter().map(|other| Arc::clone(&other.child)));
        Ok(Listening::new(self.stdout()?, Watch::over(all)))
    }

    /// Waits for the end, and gives what it complained about.
    pub(super) fn end(&mut self) -> Result<(ExitStatus, Vec<u8>), HistoryError> {
        let status = wait_for(&self.child).map_err(|source| HistoryError::Broken {
            what: self.what,
            source,
        })?;
        let complaints = self.complaints.take().map(JoinHandle::join);
        Ok((status, complaints.and_then(Result::ok).unwrap_or_default()))
    }

    /// Waits for the end, which must be a good one. Gives what git says it left out nevertheless.
    pub(super) fn finish(mut self) -> Result<Vec<String>, HistoryError> {
        let (status, complaints) = self.end()?;
        if status.success() {
            return Ok(left_out(&complaints));
        }
        Err(HistoryError::Failed {
            what: self.what,
            complaint: complaint(&complaints),
        })
    }
}

impl Drop for Running {
    /// Ends git: nothing is left running when a scan ends early.
    fn drop(&mut self) {
        let mut child = locked(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Reads all that git complains about, so that it never waits for us, and keeps the start.
fn drain(mut stderr: ChildStderr) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut start = Vec::new();
        let _ = stderr.by_ref().take(MAX_COMPLAINT).read_to_end(&mut start);
        let _ = io::copy(&mut stderr, &mut io::sink());
        start
    })
}

/// Returns what git says that it passed over, such as a reference that leads to nothing. That a symbolic reference does
/// is common, and harmless.
pub(super) fn left_out(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("error:") || line.contains("ignoring broken ref"));
    lines.map(str::to_owned).collect()
}

/// Returns the last line that git wrote: mostly the one that says what is wrong.
pub(super) fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("git gave no reason").to_owned()
}
