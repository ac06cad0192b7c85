//! Repositories of the forge, and pushes to them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use gix_hash::Kind as HashKind;

use super::{bare_folder, git};
use crate::fetch::{ObjectId, RepositoryName};

/// Change of a reference by a push, as reported in a `PushEvent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Name of the reference, `refs/…`.
    pub reference: String,
    /// Object that it pointed to before; all zeros if it did not exist.
    pub before: ObjectId,
    /// Object that it points to now; all zeros if it was deleted.
    pub after: ObjectId,
}

/// Bare repository served by the forge, with a work tree to fill it from. Every method that runs git blocks.
#[derive(Debug, Clone)]
pub struct Repository {
    name: String,
    hash: HashKind,
    bare: PathBuf,
    work: PathBuf,
}

impl Repository {
    pub(super) fn create(root: &Path, name: &str, hash: HashKind) -> anyhow::Result<Self> {
        let checked = RepositoryName::parse(name)?;
        let bare = bare_folder(root, &checked);
        let work = root
            .join(".work")
            .join(checked.owner())
            .join(checked.name());
        std::fs::create_dir_all(&bare)?;
        std::fs::create_dir_all(&work)?;
        let repository = Self {
            name: checked.to_string(),
            hash,
            bare,
            work,
        };
        let format = format!("--object-format={hash}");
        let init = ["init", "--quiet", "--initial-branch=main", &format];
        repository.run_in(&repository.bare, &[&init[..], &["--bare"]].concat())?;
        repository.run_in(&repository.work, &init)?;
        Ok(repository)
    }

    /// Returns the name, `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder of the bare repository.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// Returns the folder of the work tree.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Runs git in the work tree and returns its trimmed output.
    ///
    /// # Errors
    /// Returns an error if git cannot be run or fails, with what it wrote to standard error.
    pub fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_in(&self.work, arguments)
    }

    /// Writes a file of the work tree, creating missing folders.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>, contents: &[u8]) -> anyhow::Result<()> {
        let path = self.work.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Commits the whole work tree and returns the commit.
    ///
    /// # Errors
    /// Returns an error if git fails.
    pub fn commit(&self, message: &str) -> anyhow::Result<ObjectId> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message])?;
        self.resolve("HEAD")
    }

    /// Force-pushes the work tree's `HEAD` to a branch of the bare repository.
    ///
    /// # Errors
    /// Returns an error if git fails.
    pub fn push(&self, branch: &str) -> anyhow::Result<Pushed> {
        self.push_to("HEAD", &format!("refs/heads/{branch}"))
    }

    /// Force-pushes a revision of the work tree to a reference of the bare repository. An empty revision deletes
    /// the reference.
    ///
    /// # Errors
    /// Returns an error if git fails.
    pub fn push_to(&self, revision: &str, reference: &str) -> anyhow::Result<Pushed> {
        let before = self.tip(reference)?;
        let bare = self.bare.to_string_lossy();
        let refspec = format!("+{revision}:{reference}");
        self.git(&["push", "--quiet", &bare, &refspec])?;
        Ok(Pushed {
            reference: reference.to_owned(),
            before,
            after: self.tip(reference)?,
        })
    }

    /// Returns the object that a revision of the work tree names.
    ///
    /// # Errors
    /// Returns an error if there is no such revision.
    pub fn resolve(&self, revision: &str) -> anyhow::Result<ObjectId> {
        parse_id(&self.git(&["rev-parse", "--verify", revision])?)
    }

    /// Returns the object that a reference of the bare repository points to, or all zeros if it does not exist.
    fn tip(&self, reference: &str) -> anyhow::Result<ObjectId> {
        let pattern = ["for-each-ref", "--format=%(objectname)", reference];
        let found = self.run_in(&self.bare, &pattern)?;
        if found.is_empty() {
            return Ok(ObjectId::null(self.hash));
        }
        parse_id(&found)
    }

    fn run_in(&self, folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let output = git()
            .current_dir(folder)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot run git; is it installed?")?;
        if !output.status.success() {
            bail!(
                "git {} failed in {}: {}",
                arguments.first().copied().unwrap_or_default(),
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn parse_id(hex: &str) -> anyhow::Result<ObjectId> {
    ObjectId::from_hex(hex.as_bytes()).with_context(|| format!("git names no object id: {hex}"))
}
