//! Files that git tracks in the repository of a working tree.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use super::HistoryError;
use super::command::Repository;

const LIST: &str = "list what it tracks";

/// Maximum number of tracked files, and folders with such, that are known. Beyond it, everything counts as tracked.
const PATHS_MAX: usize = 8_000_000;

/// Repository of a working tree, and which files it tracks, once somebody asks.
#[derive(Debug)]
pub(crate) struct Tracked {
    top: PathBuf,
    paths: OnceLock<Paths>,
}

#[derive(Debug)]
enum Paths {
    /// Hashes of the paths. Two paths with the same one have more scanned, not less.
    Known(RandomState, HashSet<u64>),
    /// Any file may be tracked.
    Unknown,
}

impl Tracked {
    /// Creates the repository of the working tree with this top folder, an absolute path.
    pub(crate) fn of(top: PathBuf) -> Self {
        Self {
            top,
            paths: OnceLock::new(),
        }
    }

    /// Returns whether git tracks a file, or anything in a folder. The path is absolute. If that cannot be told, `tell`
    /// is called once, with the top folder and the reason.
    pub(crate) fn has(&self, path: &Path, tell: impl FnOnce(&Path, String)) -> bool {
        let paths = self.paths.get_or_init(|| self.list(tell));
        let Ok(path) = path.strip_prefix(&self.top) else {
            return false;
        };
        match paths {
            Paths::Known(hasher, known) => {
                known.contains(&hasher.hash_one(path.as_os_str().as_encoded_bytes()))
            }
            Paths::Unknown => true,
        }
    }

    fn list(&self, tell: impl FnOnce(&Path, String)) -> Paths {
        let hasher = RandomState::new();
        match self.try_list(&hasher) {
            Ok(Some(known)) => Paths::Known(hasher, known),
            // What is called `.git` need not be a repository.
            Err(HistoryError::NotARepository { .. }) => Paths::Known(hasher, HashSet::new()),
            // Where there is no git, its files are obeyed as those of any other folder.
            Err(error @ HistoryError::NoGit) => {
                tell(
                    &self.top,
                    format!(
                        "files that ignore files list are left out even if git tracks them: {error}"
                    ),
                );
                Paths::Known(hasher, HashSet::new())
            }
            Ok(None) => {
                tell(&self.top, format!("{ANY}: there are too many"));
                Paths::Unknown
            }
            Err(error) => {
                tell(&self.top, format!("{ANY}: {error}"));
                Paths::Unknown
            }
        }
    }

    /// Returns the hashes of all paths, relative to the top folder, or `None` if they are too many.
    fn try_list(&self, hasher: &RandomState) -> Result<Option<HashSet<u64>>, HistoryError> {
        let repository = Repository::open(&self.top)?;
        // Folders that a sparse index has as a whole are not on the disk. Versions of git before 2.36 do not know the
        // option.
        match read(
            &repository,
            hasher,
            &["ls-files", "-z", "--cached", "--sparse"],
        ) {
            Err(HistoryError::Failed { .. }) => {
                read(&repository, hasher, &["ls-files", "-z", "--cached"])
            }
            listed => listed,
        }
    }
}

/// Returns the hashes of the paths that a command lists, and of the folders above them, or `None` if they are too many.
fn read(
    repository: &Repository,
    hasher: &RandomState,
    arguments: &[&str],
) -> Result<Option<HashSet<u64>>, HistoryError> {
    let mut list = repository.start(LIST, arguments, Stdio::null())?;
    let mut output = BufReader::new(list.listen(&[]).map_err(broken)?);
    let mut known = HashSet::new();
    let mut path = Vec::new();
    while output.read_until(0, &mut path).map_err(broken)? > 0 {
        path.pop_if(|byte| *byte == 0);
        path.pop_if(|byte| *byte == b'/');
        let mut rest = path.as_slice();
        // The folders above one that is known are known.
        while known.insert(hasher.hash_one(rest)) {
            let Some(slash) = memchr::memrchr(b'/', rest) else {
                break;
            };
            rest = &rest[..slash];
        }
        if known.len() > PATHS_MAX {
            return Ok(None);
        }
        path.clear();
    }
    list.finish()?;
    Ok(Some(known))
}

const ANY: &str = "which files git tracks cannot be told, so that none is left out";

fn broken(source: std::io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}
