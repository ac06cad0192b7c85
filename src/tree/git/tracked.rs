//! Files that git tracks in the repository of a working tree.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::command::Repository;
use super::{HistoryError, lines};
use crate::tree::open::path_of;

const LIST: &str = "list what it tracks";

/// Maximum number of tracked files, and folders with such, that are known of all repositories within each other, in up to
/// 75 MiB. Beyond it, everything counts as tracked.
const PATHS_MAX: usize = 3_600_000;

/// Maximum size of all lists of what is tracked, in bytes, as two million files have. Beyond it, everything counts as
/// tracked.
const LISTED_MAX: u64 = 256 << 20;

/// Maximum number of files and folders that are looked at in all repositories, and 4,000 for each of these. Beyond it,
/// everything counts as tracked.
const LOOKED_MAX: usize = 8 << 20;

/// Number of files for which each repository counts in that: git is started several times.
const OF_EACH: usize = 4_000;

/// Maximum length of a path, in bytes. The system takes no longer ones.
const PATH_MAX: usize = 4_096;

/// Maximum number of repositories that one is in. Beyond it, everything counts as tracked.
const DEPTH_MAX: usize = 16;

/// Room for what is known of all repositories that a walk comes through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<Used>);

#[derive(Debug, Default)]
struct Used {
    /// Number of paths that are known of those that are being walked through.
    paths: AtomicUsize,
    /// Size of all lists that were read, in bytes.
    listed: AtomicU64,
    /// Number of files and folders that were looked at in all repositories before git was asked.
    looked_at: AtomicUsize,
}

/// Repository of a working tree, and which files it tracks, once somebody asks.
#[derive(Debug)]
pub(crate) struct Tracked {
    top: PathBuf,
    /// Repository in whose working tree this one is. It may track files here as well.
    around: Option<Arc<Tracked>>,
    /// Number of repositories that it is in.
    depth: usize,
    room: Room,
    paths: OnceLock<Paths>,
}

#[derive(Debug)]
enum Paths {
    Known(Known),
    /// Any file may be tracked.
    Unknown,
}

/// Hashes of paths. Two paths with the same one have more scanned, not less.
#[derive(Debug)]
struct Known {
    hasher: RandomState,
    hashes: HashSet<u64>,
    room: Room,
}

impl Tracked {
    /// Creates the repository of the working tree with this top folder, an absolute path.
    pub(crate) fn of(top: PathBuf, around: Option<Arc<Self>>, room: &Room) -> Self {
        Self {
            top,
            depth: around.as_ref().map_or(0, |around| around.depth + 1),
            around,
            room: room.clone(),
            paths: OnceLock::new(),
        }
    }

    /// Returns whether git tracks a file, or anything in a folder. The path is absolute. If that cannot be told, `tell`
    /// is called once, with the top folder and the reason.
    pub(crate) fn has(&self, path: &Path, tell: &mut dyn FnMut(&Path, String)) -> bool {
        let paths = self.paths.get_or_init(|| self.list(tell));
        let is_here = match (paths, path.strip_prefix(&self.top)) {
            (_, Err(_)) => false,
            (Paths::Known(known), Ok(path)) => known.has(path.as_os_str().as_encoded_bytes()),
            (Paths::Unknown, Ok(_)) => true,
        };
        is_here || (self.around.as_ref()).is_some_and(|around| around.has(path, tell))
    }

    fn list(&self, tell: &mut dyn FnMut(&Path, String)) -> Paths {
        let reason = match self.try_list() {
            Ok(Ok(known)) => return Paths::Known(known),
            // What is called `.git` need not be a repository. One that this git cannot read is one all the same.
            Err(HistoryError::NotARepository { complaint }) if complaint.starts_with(NONE) => {
                return Paths::Known(Known::new(&self.room));
            }
            // Where there is no git, its files are obeyed as those of any other folder.
            Err(error @ HistoryError::NoGit) => {
                let what = "files that ignore files list are left out even if git tracks them";
                tell(&self.top, format!("{what}: {error}"));
                return Paths::Known(Known::new(&self.room));
            }
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
        let what = "which files git tracks cannot be told, so that none is left out";
        tell(&self.top, format!("{what}: {reason}"));
        Paths::Unknown
    }

    /// Returns the paths relative to the top folder, or the reason that they cannot be told.
    fn try_list(&self) -> Result<Result<Known, String>, HistoryError> {
        if self.depth > DEPTH_MAX {
            let reason = format!("more than {DEPTH_MAX} repositories are within each other");
            return Ok(Err(reason));
        }
        let used = &self.room.0;
        if used.looked_at.load(Ordering::Relaxed) > LOOKED_MAX
            || used.listed.load(Ordering::Relaxed) > LISTED_MAX
        {
            return Ok(Err("there is too much in all repositories".to_owned()));
        }
        used.looked_at.fetch_add(OF_EACH, Ordering::Relaxed);
        let repository = Repository::open(&self.top)?;
        let entries = repository.looked().entries;
        used.looked_at.fetch_add(entries, Ordering::Relaxed);
        if !self.is_top_of(&repository)? {
            return Ok(Err("its working tree is another folder".to_owned()));
        }
        // A folder that a sparse index has as a whole may have more in it than can be listed. Versions of git before 2.36
        // do not know the option.
        match self.read(&repository, &["ls-files", "-z", "--cached", "--sparse"]) {
            Err(HistoryError::Failed { .. }) => {
                self.read(&repository, &["ls-files", "-z", "--cached"])
            }
            listed => listed,
        }
    }

    /// Returns whether paths of a repository are relative to the top folder: its configuration can name another one.
    fn is_top_of(&self, repository: &Repository) -> Result<bool, HistoryError> {
        let top = repository.ask(&["rev-parse", "--show-toplevel"])?;
        let top = top.map_err(|complaint| HistoryError::Failed {
            what: LIST,
            complaint,
        })?;
        let real = |path: &Path| path.canonicalize().map_err(HistoryError::Unreadable);
        Ok(real(&path_of(&top))? == real(&self.top)?)
    }

    /// Returns the paths that a command lists, and those of the folders above them, or the reason that there is no room
    /// for them.
    fn read(
        &self,
        repository: &Repository,
        arguments: &[&str],
    ) -> Result<Result<Known, String>, HistoryError> {
        let mut list = repository.start(LIST, arguments, Stdio::null())?;
        let mut output = BufReader::new(list.listen(&[]).map_err(broken)?);
        let mut known = Known::new(&self.room);
        let mut path = Vec::new();
        while let Some(is_whole) =
            lines::next(&mut output, 0, PATH_MAX, &mut path).map_err(broken)?
        {
            let size = path.len() as u64;
            let listed = self.room.0.listed.fetch_add(size, Ordering::Relaxed) + size;
            // What is cut off cannot be on the disk, or not so deep that the walk gets there.
            let has_room = !is_whole || known.add(&path);
            if !has_room || listed > LISTED_MAX {
                return Ok(Err("there are too many".to_owned()));
            }
        }
        list.finish()?;
        Ok(Ok(known))
    }
}

impl Known {
    fn new(room: &Room) -> Self {
        Self {
            hasher: RandomState::new(),
            hashes: HashSet::new(),
            room: room.clone(),
        }
    }

    /// Adds a path and those of the folders above it. Returns whether there is room. A path that ends in a slash is that
    /// of a folder in which everything is tracked.
    fn add(&mut self, path: &[u8]) -> bool {
        let before = self.hashes.len();
        let (path, is_whole) = match path.strip_suffix(b"/") {
            Some(folder) => (folder, true),
            None => (path, false),
        };
        let hashes = self.hashes_of(path);
        self.hashes
            .extend(hashes.last().filter(|_| is_whole).map(|hash| hash.within));
        // The folders above one that is known are known.
        for hash in hashes.into_iter().rev() {
            if !self.hashes.insert(hash.path) {
                break;
            }
        }
        let new = self.hashes.len() - before;
        self.room.0.paths.fetch_add(new, Ordering::Relaxed) + new <= PATHS_MAX
    }

    fn has(&self, path: &[u8]) -> bool {
        let hashes = self.hashes_of(path);
        let has = |hash: u64| self.hashes.contains(&hash);
        hashes.last().is_some_and(|hash| has(hash.path))
            || hashes.iter().any(|hash| has(hash.within))
    }

    /// Returns the hashes of a path and of all folders above it, from the top. Each byte is hashed once: a path may be as
    /// deep as it is long.
    fn hashes_of(&self, path: &[u8]) -> Vec<Hashes> {
        let mut hasher = self.hasher.build_hasher();
        let names = path.split(|byte| *byte == b'/').map(|name| {
            hasher.write(name);
            let path = hasher.finish();
            hasher.write(b"/");
            Hashes {
                path,
                within: hasher.finish(),
            }
        });
        names.collect()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.room
            .0
            .paths
            .fetch_sub(self.hashes.len(), Ordering::Relaxed);
    }
}

/// Hashes of a path, and of that everything within it is tracked.
struct Hashes {
    path: u64,
    within: u64,
}

/// Beginning of git's complaint that there is no repository, and none that is named. A repository can have git say other
/// things with such words in them.
const NONE: &str = "fatal: not a git repository (or any";

fn broken(source: std::io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_with_the_folders_above_them() {
        let mut known = Known::new(&Room::default());
        for path in ["a/b/c", "a/b/d", "e", "f/g/"] {
            assert!(known.add(path.as_bytes()));
        }
        let has = |path: &str| known.has(path.as_bytes());
        assert!(
            [
                "a", "a/b", "a/b/c", "a/b/d", "e", "f", "f/g", "f/g/h", "f/g/h/i"
            ]
            .into_iter()
            .all(has)
        );
        assert!(
            !["", "b", "a/c", "a/b/c/d", "e/f", "f/h", "f/gh", "g"]
                .into_iter()
                .any(has)
        );
    }

    #[test]
    fn all_repositories_share_the_room_for_paths() {
        let room = Room::default();
        let held = || room.0.paths.load(Ordering::Relaxed);
        let mut outer = Known::new(&room);
        let mut inner = Known::new(&room);
        assert!(outer.add(b"a/b") && inner.add(b"a/c") && inner.add(b"a/c"));
        assert_eq!(held(), 4);
        drop(outer);
        assert_eq!(held(), 2);
        room.0.paths.fetch_add(PATHS_MAX - 3, Ordering::Relaxed);
        assert!(inner.add(b"a/d") && !inner.add(b"a/e"));
        drop(inner);
        assert_eq!(held(), PATHS_MAX - 3);
    }
}
