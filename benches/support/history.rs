//! Made-up histories of repositories, as `git fast-import` reads them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rescind::sandbox::git_server::Repository;

use crate::random::Random;

/// Branch on which all commits are.
pub(crate) const BRANCH: &str = "refs/heads/main";

/// Appends a commit in the format of `git fast-import`.
pub(crate) fn commit(
    history: &mut String,
    number: usize,
    files: impl Iterator<Item = (String, String)>,
) {
    let seconds = 1_780_000_000 + number;
    // Writing to a `String` cannot fail.
    let _ = write!(
        history,
        "commit {BRANCH}\ncommitter B <b@example.com> {seconds} +0000\ndata 6\nchange\n"
    );
    for (path, text) in files {
        let _ = write!(
            history,
            "M 100644 inline {path}\ndata {}\n{text}\n",
            text.len()
        );
    }
}

/// Reads a history into an empty repository.
pub(crate) fn import(repository: &Repository, history: &str) -> anyhow::Result<()> {
    let mut child = git(repository)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("git has no input")?
        .write_all(history.as_bytes())?;
    ensure!(child.wait()?.success(), "git fast-import failed");
    Ok(())
}

/// Returns a command of git in a repository.
pub(crate) fn git(repository: &Repository) -> Command {
    let mut command = Command::new("git");
    command.arg("--git-dir").arg(repository.bare());
    command
}

/// Runs a command and returns its output.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "git failed");
    Ok(String::from_utf8(output.stdout)?)
}

impl Random {
    /// Returns about 14 kB of text, with `leak` in the middle.
    pub(crate) fn text(&mut self, leak: &str) -> String {
        let mut text = String::new();
        for line in 0..260 {
            let (name, value) = (self.next() % 3000, self.next() % 100_000);
            let _ = writeln!(
                text,
                "    let field_{name} = settings.get({value}).or(other);"
            );
            if line == 130 && !leak.is_empty() {
                let _ = writeln!(text, "    let key = \"{leak}\";");
            }
        }
        text
    }
}
