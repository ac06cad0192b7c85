//! Ignore files (`.gitignore`, `.ignore`, …).
//!
//! The owner of a folder owns its ignore files as well, so they are read like any other input from a stranger:
//! regular files only, without following links, up to a maximum size, and with a budget for everything in memory at
//! a time. A file that exceeds these limits is not obeyed, so that more is scanned.

mod glob;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::open::{Links, open, path_of};
use glob::{Exhausted, Pattern, Steps};

/// Maximum size of an ignore file that is obeyed, in bytes.
const SIZE_MAX: usize = 1 << 20;
/// Maximum number of lines of an ignore file that is obeyed.
const LINES_MAX: usize = 10_000;
/// Maximum memory of the patterns that a walk holds at a time, in bytes.
const HELD_MAX: usize = 16 << 20;
/// Maximum number of steps to decide whether a path is listed: some hundred microseconds, about the time that it
/// takes to scan a file. Thousands of lines without wildcards stay well below it.
const STEPS_MAX: u32 = 1 << 18;
/// Maximum length of the path of a repository in a file named `.git`, in bytes.
const LINK_MAX: usize = 8 << 10;

/// Reason that an ignore file is not obeyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not a regular file")]
    NotAFile,
    #[error("larger than {} MiB", SIZE_MAX >> 20)]
    TooLarge,
    #[error("more than {LINES_MAX} lines")]
    TooManyLines,
    #[error("the ignore files of the folders that are being walked take more than {} MiB", HELD_MAX >> 20)]
    TooMuch,
    #[error("{0}")]
    Unreadable(#[from] io::Error),
}

/// Decision of the ignore files on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Listed,
    NotListed,
    /// The decision takes too long.
    Unclear,
}

/// Memory taken by the patterns of a walk, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Arc<AtomicUsize>);

/// Patterns of the ignore files of a folder and of all folders above it.
#[derive(Debug)]
pub(crate) struct Ignored {
    above: Option<Arc<Ignored>>,
    /// Lists by precedence: a list of an earlier kind decides, whichever folder it is in.
    lists: [Option<List>; KINDS],
}

/// Number of kinds: `.ignore`, `.gitignore`, `.git/info/exclude`, and the file named in the user's git
/// configuration.
const KINDS: usize = 4;
const IGNORE: usize = 0;
const GITIGNORE: usize = 1;
const EXCLUDE: usize = 2;
const USERS: usize = 3;

/// Patterns of one ignore file.
#[derive(Debug)]
struct List {
    /// Folder that the patterns are relative to, with a trailing slash.
    folder: Vec<u8>,
    patterns: Vec<Pattern>,
    weight: usize,
    held: Held,
}

impl Drop for List {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

/// Reader of ignore files, which reports those that are not obeyed.
pub(crate) struct Reader<'a> {
    pub(crate) held: &'a Held,
    pub(crate) tell: &'a mut dyn FnMut(&Path, Refusal),
}

impl Reader<'_> {
    /// Returns the patterns of the user's ignore file and of those above `root`, which is absolute.
    pub(crate) fn above(&mut self, root: &Path) -> Option<Arc<Ignored>> {
        let mut ignored = self.users();
        let mut folders: Vec<&Path> = root.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders {
            ignored = self.within(folder, folder, &|_| true, ignored);
        }
        ignored
    }

    /// Returns the patterns that apply within a folder: those of `above` and its own. `shown` is the path shown to
    /// the user, and `has` returns whether the folder may have an entry of that name.
    pub(crate) fn within(
        &mut self,
        folder: &Path,
        shown: &Path,
        has: &dyn Fn(&str) -> bool,
        above: Option<Arc<Ignored>>,
    ) -> Option<Arc<Ignored>> {
        let mut lists = [const { None }; KINDS];
        for (kind, name) in [(IGNORE, ".ignore"), (GITIGNORE, ".gitignore")] {
            if has(name) {
                lists[kind] = self.list(folder, &shown.join(name), Links::Refused);
            }
        }
        if has(".git")
            && let Some(repository) = repository(&shown.join(".git"))
        {
            let path = repository.join("info/exclude");
            lists[EXCLUDE] = self.list(folder, &path, Links::Refused);
        }
        if lists.iter().all(Option::is_none) {
            return above;
        }
        Some(Arc::new(Ignored { above, lists }))
    }

    /// Returns the patterns of the file named in the user's own git configuration. The configuration of a
    /// repository cannot name one here.
    fn users(&mut self) -> Option<Arc<Ignored>> {
        let path = ignore::gitignore::gitconfig_excludes_path()?;
        let folder = std::env::current_dir().ok()?;
        // A relative path may point into the scanned folder.
        let links = if path.is_absolute() {
            Links::Followed
        } else {
            Links::Refused
        };
        let mut lists = [const { None }; KINDS];
        lists[USERS] = Some(self.list(&folder, &path, links)?);
        Some(Arc::new(Ignored { above: None, lists }))
    }

    fn list(&mut self, folder: &Path, path: &Path, links: Links) -> Option<List> {
        let read = read(path, SIZE_MAX, links).and_then(|text| match text {
            Some(text) => self.parse(folder, &text),
            None => Ok(None),
        });
        read.unwrap_or_else(|why| {
            (self.tell)(path, why);
            None
        })
    }

    fn parse(&self, folder: &Path, text: &[u8]) -> Result<Option<List>, Refusal> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|byte| *byte == b'\n').count();
        if lines > LINES_MAX + usize::from(text.ends_with(b"\n")) {
            return Err(Refusal::TooManyLines);
        }
        // Upper bound of the memory of the patterns, known before they are created.
        let weight = size_of::<List>() + folder.as_os_str().len() + 2 * text.len();
        let weight = weight + lines * (size_of::<Pattern>() + ALLOCATION);
        let before = self.held.0.fetch_add(weight, Ordering::Relaxed);
        let mut base = slashed(folder).into_owned();
        if !base.ends_with(b"/") {
            base.push(b'/');
        }
        let mut list = List {
            folder: base,
            patterns: Vec::new(),
            weight,
            held: self.held.clone(),
        };
        if before + weight > HELD_MAX {
            return Err(Refusal::TooMuch);
        }
        let patterns = text.split(|byte| *byte == b'\n').filter_map(Pattern::parse);
        list.patterns = patterns.collect();
        list.patterns.shrink_to_fit();
        Ok((!list.patterns.is_empty()).then_some(list))
    }
}

/// Overhead of an allocation, in bytes.
const ALLOCATION: usize = 32;

impl Ignored {
    /// Returns whether a path is listed. The path is absolute, and below the folder of these patterns.
    pub(crate) fn verdict(&self, path: &Path, is_folder: bool) -> Verdict {
        match self.decide(path, is_folder, &mut Steps::new(STEPS_MAX)) {
            Ok(true) => Verdict::Listed,
            Ok(false) => Verdict::NotListed,
            Err(Exhausted) => Verdict::Unclear,
        }
    }

    fn decide(&self, path: &Path, is_folder: bool, steps: &mut Steps) -> Result<bool, Exhausted> {
        for kind in 0..KINDS {
            let mut folder = Some(self);
            while let Some(ignored) = folder {
                steps.take(1)?;
                if let Some(list) = &ignored.lists[kind]
                    && let Some(is_listed) = list.decide(path, is_folder, steps)?
                {
                    return Ok(is_listed);
                }
                folder = ignored.above.as_deref();
            }
        }
        Ok(false)
    }
}

impl List {
    /// Returns whether the list decides on a path, and if so, whether it lists the path or takes back that another
    /// list does.
    fn decide(
        &self,
        path: &Path,
        is_folder: bool,
        steps: &mut Steps,
    ) -> Result<Option<bool>, Exhausted> {
        let path = slashed(path);
        let within = match path.strip_prefix(&*self.folder) {
            Some(within) => within,
            // The user's patterns are relative to the current folder, which may be elsewhere.
            None => path.strip_prefix(b"/").unwrap_or(&path),
        };
        for pattern in self.patterns.iter().rev() {
            if pattern.matches(within, is_folder, steps)? {
                return Ok(Some(!pattern.is_negated));
            }
        }
        Ok(None)
    }
}

/// Returns the bytes of a path, with slashes as separators.
fn slashed(path: &Path) -> Cow<'_, [u8]> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if cfg!(windows) {
        let slash = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
        return bytes.iter().map(slash).collect::<Vec<u8>>().into();
    }
    bytes.into()
}

/// Returns what is in a file, if there is one. Waits for nothing: to open a pipe would.
fn read(path: &Path, limit: usize, links: Links) -> Result<Option<Vec<u8>>, Refusal> {
    let found = match links {
        Links::Followed => fs::metadata(path),
        Links::Refused => fs::symlink_metadata(path),
    };
    match found {
        Ok(found) if !found.is_file() => return Err(Refusal::NotAFile),
        Ok(_) => {}
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let file = open(path, links)?;
    // The file may have been replaced by now.
    if !file.metadata()?.is_file() {
        return Err(Refusal::NotAFile);
    }
    let mut text = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut text)?;
    if text.len() > limit {
        return Err(Refusal::TooLarge);
    }
    Ok(Some(text))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the repository that `.git` is, or that it names if it is a file, as in further working trees.
fn repository(git: &Path) -> Option<PathBuf> {
    if !fs::symlink_metadata(git).ok()?.is_file() {
        return Some(git.to_owned());
    }
    let named = first_line(git)?;
    let named = named.strip_prefix(b"gitdir: ")?;
    let tree = git.parent()?.join(path_of(named));
    let common = first_line(&tree.join("commondir"))?;
    Some(tree.join(path_of(&common)))
}

fn first_line(path: &Path) -> Option<Vec<u8>> {
    let text = read(path, LINK_MAX, Links::Refused).ok()??;
    let line = text.split(|byte| *byte == b'\n').next()?;
    Some(line.trim_ascii_end().to_owned())
}
