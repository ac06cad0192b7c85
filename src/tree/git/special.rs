//! Looks for what git would wait for without end, before git is started.
//!
//! Whoever owns a repository can put a named pipe or a device, or a link to one, where git expects a file, and git
//! opens that. So the folders that git finds are looked through first, in the way in which git finds them. What is
//! beyond the bounds here, or what only a configuration names, is left to [`silence`](super::silence).

use std::collections::HashSet;
use std::fs::{self, FileType};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::HistoryError;
use super::start::Start;
use crate::tree::open::{Kind, path_of};

/// The most files that are looked at.
const ENTRIES_MAX: usize = 1 << 20;
/// The most folders of objects that others borrow from.
const ALTERNATES_MAX: usize = 1_000;
/// The most of a file that names another folder, in bytes.
const NAMING_MAX: u64 = 1 << 20;

/// Folders in a repository that are not git's own, or that the commands here do not read.
const NOT_READ: [&str; 5] = ["hooks", "lfs", "annex", "modules", "fsmonitor--daemon"];
/// Socket that git itself creates there. No command that is run here connects to it.
const ASKED_BY_NOBODY: &str = "fsmonitor--daemon.ipc";
/// Files of a working tree that git reads for itself.
const IN_TREE: [&str; 2] = [".gitattributes", ".gitmodules"];

/// Looks through the repository that git would find at a place. Returns how much is in it.
///
/// # Errors
/// Returns [`HistoryError::Special`] for what is neither a file nor a folder.
pub(super) fn refuse(start: &Start) -> Result<Looked, HistoryError> {
    let mut search = Search::default();
    match start {
        Start::At(folder) => search.looks_like_one(folder).map(drop),
        Start::Around(folder) => search.above(folder),
        Start::Told => search.told(),
    }?;
    let is_whole = search.entries <= ENTRIES_MAX;
    Ok(Looked {
        entries: search.entries,
        packs: if is_whole { search.packs } else { usize::MAX },
    })
}

/// Numbers of files that a search came across in a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// Number of files and folders.
    pub(super) entries: usize,
    /// Number of files in its folders of packs, or the greatest number if there is too much in it to be counted.
    pub(super) packs: usize,
}

#[derive(Default)]
struct Search {
    entries: usize,
    /// Number of files in folders of packs, as far as these were looked at.
    packs: usize,
    alternates: usize,
    /// Folders that were looked through, as far as links can lead to them again.
    seen: HashSet<PathBuf>,
}

impl Search {
    /// Looks where the environment says that a repository is.
    fn told(&mut self) -> Result<(), HistoryError> {
        let told = |name| std::env::var_os(name).map(PathBuf::from);
        for name in ["GIT_INDEX_FILE", "GIT_SHALLOW_FILE"] {
            if let Some(path) = told(name) {
                expect_file(&path)?;
            }
        }
        if let Some(objects) = told("GIT_OBJECT_DIRECTORY") {
            self.objects(&objects, 0)?;
        }
        let lent = std::env::var_os("GIT_ALTERNATE_OBJECT_DIRECTORIES");
        for objects in std::env::split_paths(&lent.unwrap_or_default()) {
            self.objects(&objects, 1)?;
        }
        if let Some(common) = told("GIT_COMMON_DIR") {
            self.repository(&common)?;
        }
        match told("GIT_DIR") {
            Some(folder) => self.repository(&folder),
            None => match std::env::current_dir() {
                Ok(folder) => self.above(&folder),
                Err(error) => Err(HistoryError::Unreadable(error)),
            },
        }
    }

    /// Looks in a folder and those above it until one has a repository.
    fn above(&mut self, folder: &Path) -> Result<(), HistoryError> {
        for folder in folder.ancestors() {
            if self.looks_like_one(folder)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether a folder has a repository, or is one. If so, it was looked through.
    fn looks_like_one(&mut self, folder: &Path) -> Result<bool, HistoryError> {
        let git = folder.join(".git");
        if let Ok(found) = fs::metadata(&git) {
            expect(&git, found.file_type())?;
            for name in IN_TREE {
                expect_file(&folder.join(name))?;
            }
            let is_link = found.is_file();
            let repository = if is_link { named(&git) } else { Some(git) };
            if let Some(repository) = repository {
                self.repository(&repository)?;
                if is_link || is_repository(&repository) {
                    return Ok(true);
                }
            }
        }
        // That is what git asks of every folder that it looks at.
        expect_file(&folder.join("HEAD"))?;
        expect_file(&folder.join("commondir"))?;
        let is_one = is_repository(folder);
        if is_one {
            self.repository(folder)?;
        }
        Ok(is_one)
    }

    /// Looks through a repository, and what it shares with others.
    fn repository(&mut self, folder: &Path) -> Result<(), HistoryError> {
        if !self.tree(folder, &NOT_READ)? {
            return Ok(());
        }
        self.objects(&folder.join("objects"), 0)?;
        match first_line(&folder.join("commondir")) {
            Some(common) => self.repository(&folder.join(path_of(&common))),
            None => Ok(()),
        }
    }

    /// Looks through a folder of objects, and those that it borrows from: git follows five in a row.
    fn objects(&mut self, folder: &Path, depth: usize) -> Result<(), HistoryError> {
        self.tree(folder, &[])?;
        let list = read(&folder.join("info/alternates")).unwrap_or_default();
        for line in list.split(|byte| *byte == b'\n') {
            if depth > 5 || self.alternates == ALTERNATES_MAX {
                break;
            }
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            self.alternates += 1;
            self.objects(&folder.join(path_of(line)), depth + 1)?;
        }
        Ok(())
    }

    /// Looks at everything in a folder but for some folders in it; returns false if that was done before. Links are
    /// followed, as git does.
    fn tree(&mut self, root: &Path, but: &[&str]) -> Result<bool, HistoryError> {
        if !self.is_new(root) {
            return Ok(false);
        }
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            // A folder that cannot be read here cannot be read by git either, and git reports it.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                self.entries += 1;
                self.packs += usize::from(folder.ends_with("pack"));
                if self.entries > ENTRIES_MAX {
                    return Ok(true);
                }
                let (path, name) = (entry.path(), entry.file_name());
                let Ok(mut kind) = entry.file_type() else {
                    continue;
                };
                let is_link = kind.is_symlink();
                if is_link {
                    let Ok(leads_to) = fs::metadata(&path) else {
                        continue;
                    };
                    kind = leads_to.file_type();
                }
                let is_left_out = folder == root && but.iter().any(|but| name == *but);
                if kind.is_dir() {
                    if !is_left_out && (!is_link || self.is_new(&path)) {
                        folders.push(path);
                    }
                } else if name != ASKED_BY_NOBODY {
                    expect(&path, kind)?;
                }
            }
        }
        Ok(true)
    }

    fn is_new(&mut self, folder: &Path) -> bool {
        fs::canonicalize(folder).is_ok_and(|folder| self.seen.insert(folder))
    }
}

/// Returns whether git would take the folder for a repository. Errs on the side of `true`.
fn is_repository(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_dir();
    let has_rest = has("objects") && has("refs") || folder.join("commondir").is_file();
    let is_head = |head: Vec<u8>| head.starts_with(b"ref:") || head.len() >= 40;
    let head = folder.join("HEAD");
    has_rest && (head.is_symlink() || first_line(&head).is_some_and(is_head))
}

/// Returns the repository that a file `.git` names.
fn named(git: &Path) -> Option<PathBuf> {
    let line = first_line(git)?;
    let named = line.strip_prefix(b"gitdir: ")?;
    Some(git.parent()?.join(path_of(named)))
}

fn first_line(path: &Path) -> Option<Vec<u8>> {
    let text = read(path)?;
    let line = text.split(|byte| *byte == b'\n').next()?;
    Some(line.trim_ascii_end().to_owned())
}

/// Reads at most [`NAMING_MAX`] bytes of a regular file. Returns `None` if it is anything else, or cannot be read.
fn read(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    let mut file = fs::File::open(path).ok()?.take(NAMING_MAX);
    file.read_to_end(&mut text).ok()?;
    Some(text)
}

fn expect_file(path: &Path) -> Result<(), HistoryError> {
    match fs::metadata(path) {
        Ok(found) => expect(path, found.file_type()),
        Err(_) => Ok(()),
    }
}

fn expect(path: &Path, kind: FileType) -> Result<(), HistoryError> {
    if kind.is_file() || kind.is_dir() {
        return Ok(());
    }
    Err(HistoryError::Special {
        path: path.to_owned(),
        what: Kind::of(kind).name(),
    })
}
