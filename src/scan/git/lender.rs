//! A repository of our own that lends another one's objects.
//!
//! What reads contents never sees the scanned repository's configuration, only its folder of objects: a
//! partial clone's objects are not fetched, whichever git it is, and nothing else that a configuration can
//! name is run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An empty repository in a temporary folder, and the folder of objects that it is to read.
#[derive(Debug)]
pub(super) struct Lender {
    folder: TempDir,
    objects: PathBuf,
}

impl Lender {
    /// Makes the repository. `object_format` is how names of objects are made: `sha1` or `sha256`.
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

    /// Writes a list of commits without parents, one a line, and gives its path.
    pub(super) fn shallow(&self, commits: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join("commits-without-parents");
        fs::write(&path, commits)?;
        Ok(path)
    }

    /// Where the repository is.
    pub(super) fn git_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where the objects are.
    pub(super) fn objects(&self) -> &Path {
        &self.objects
    }
}
