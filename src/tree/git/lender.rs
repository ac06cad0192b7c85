//! Empty repository that lends the objects of another one.
//!
//! Commands that read contents see only the folder of objects of the scanned repository, and never its
//! configuration: no version of git fetches the missing objects of a partial clone, and no program that a
//! configuration can name is run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Empty repository in a temporary folder, and the folder of objects that it reads.
#[derive(Debug)]
pub(super) struct Lender {
    folder: TempDir,
    objects: PathBuf,
}

impl Lender {
    /// Creates the repository. `object_format` is the hash function of object names: `sha1` or `sha256`.
    pub(super) fn new(objects: PathBuf, object_format: &str) -> io::Result<Self> {
        let folder = TempDir::with_prefix("rescind-")?;
        let root = folder.path();
        fs::create_dir(root.join("objects"))?;
        fs::create_dir(root.join("refs"))?;
        fs::write(root.join("HEAD"), "ref: refs/heads/none\n")?;
        let config = match object_format {
            "sha256" => {
                "[core]\nrepositoryFormatVersion = 1\nbare = true\n[extensions]\nobjectFormat = sha256\n"
            }
            _ => "[core]\nrepositoryFormatVersion = 0\nbare = true\n",
        };
        fs::write(root.join("config"), config)?;
        Ok(Self { folder, objects })
    }

    /// Writes a list of commits without parents, one per line, and returns its path.
    pub(super) fn shallow(&self, commits: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join("commits-without-parents");
        fs::write(&path, commits)?;
        Ok(path)
    }

    /// Returns the folder of the repository.
    pub(super) fn git_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the folder of the objects.
    pub(super) fn objects(&self) -> &Path {
        &self.objects
    }
}
