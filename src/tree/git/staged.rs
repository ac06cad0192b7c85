//! Scan of the changes staged for the next commit.

use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;

use super::command::Repository;
use super::compare::Comparison;
use super::folder::{ByName, EntryKind, PATH_MAX, cut, hexadecimal, told};
use super::{Closed, Counters, Engine, Event, HistoryError, Outlet, Stop, lines, links, shallow};
use crate::scan::LostObject;

const LIST: &str = "list what is staged";

/// Maximum length of an entry of the index that is looked at, in bytes. Beyond it, the rest of its path is not scanned.
const ENTRY_MAX: usize = 1 << 20;

/// Maximum size of the list of the index, in bytes. Ten million files take as much.
const LIST_MAX: u64 = 2 << 30;

/// Names of the empty contents, with which a file is staged that `git add --intent-to-add` only announced.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// Scans the staged contents of every file that the index of a repository adds or changes relative to `HEAD`, or of
/// all its files if there is no commit yet, and reports to `counters` and `events`. Paths are relative to the top
/// folder. Both sides of a file with conflicts are scanned.
///
/// The repository is the one that contains `path`, or if `path` is `None` the one that `git` itself uses in the
/// current folder. The environment that git sets for its hooks, such as a temporary index, is respected.
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if git is not installed, there is no such repository, it has no index, or git fails.
pub fn scan_staged(
    path: Option<&Path>,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), HistoryError> {
    let repository = Repository::around(path)?;
    let bare = ask(&repository, &["rev-parse", "--is-bare-repository"])?;
    if bare == b"true" {
        return Err(HistoryError::NothingStaged);
    }
    // Staged contents have no parents, but git reads the list of truncated commits even so.
    let outlet = Outlet { counters, events };
    shallow::see_through(&repository, outlet)?;
    let mut comparison = Comparison::new(&repository, engine, outlet)?;
    let mut index = Index::default();
    let head = repository.commit("HEAD")?;
    index.head.open(&mut comparison, head.as_deref())?;
    let listed = index.compare(&repository, &mut comparison);
    if let Some((reason, id)) = comparison.unclear.take().zip(head) {
        // What the commit has is unknown, so that all that is staged there counts as new.
        let reason = format!("its folders cannot be read: {reason}");
        let named = outlet.lost(LostObject { kind: "commit", id }, None, reason);
        if named.is_err() {
            return Ok(());
        }
    }
    // A failure must not hide what was listed before it.
    Stop::end(comparison.scan_wanted().and(listed))
}

/// Comparison of the index with `HEAD`.
#[derive(Default)]
struct Index {
    head: Head,
    /// Path of the last entry.
    last: Vec<u8>,
    /// Set once git listed an entry.
    is_started: bool,
}

/// Entry of the index.
#[derive(Debug, PartialEq, Eq)]
struct Staged<'a> {
    kind: EntryKind,
    id: &'a str,
    /// Path from the top folder.
    path: &'a [u8],
}

impl Index {
    /// Compares every entry of the index.
    fn compare(
        &mut self,
        repository: &Repository,
        comparison: &mut Comparison<'_>,
    ) -> Result<(), Stop> {
        // Folders that a sparse index has as a whole are not to be listed file by file. Versions of git before 2.36
        // do not know the option.
        match self.compare_list(repository, comparison, &["--sparse"]) {
            Err(Stop::Failed(HistoryError::Failed { .. })) if !self.is_started => {
                self.compare_list(repository, comparison, &[])
            }
            compared => compared,
        }
    }

    fn compare_list(
        &mut self,
        repository: &Repository,
        comparison: &mut Comparison<'_>,
        more: &[&str],
    ) -> Result<(), Stop> {
        let arguments = [
            // `:/`, which names the top folder, is pathspec magic and not a literal path.
            &[
                "--no-literal-pathspecs",
                "ls-files",
                "--stage",
                "-z",
                "--full-name",
            ],
            more,
            &["--", ":/"],
        ];
        let mut list = repository.start(LIST, &arguments.concat(), Stdio::null())?;
        let mut output = BufReader::new(list.listen(&[]).map_err(broken)?);
        let mut entry = Vec::new();
        let mut listed = 0;
        while let Some(is_whole) =
            lines::next(&mut output, 0, ENTRY_MAX, &mut entry).map_err(broken)?
        {
            self.is_started = true;
            let size = entry.len() as u64;
            listed += size;
            if listed > LIST_MAX {
                let complaint = format!("there is more than {} MiB of it", LIST_MAX >> 20);
                return Err(HistoryError::Failed {
                    what: LIST,
                    complaint,
                }
                .into());
            }
            // Its entry in a folder of `HEAD` takes about as many.
            comparison.budget.earn(size);
            if let Some(staged) = Staged::parse(&entry) {
                self.compare_one(comparison, &staged)?;
                if !is_whole {
                    staged.is_cut(comparison.outlet)?;
                }
            }
        }
        list.finish()?;
        Ok(())
    }

    /// Compares an entry. What it has in common with the last one is not looked at again: the folders on the way to
    /// each of many files may be many, and a path is as long as all of them.
    fn compare_one(
        &mut self,
        comparison: &mut Comparison<'_>,
        staged: &Staged<'_>,
    ) -> Result<(), Stop> {
        let path = staged.path;
        if path.len() > PATH_MAX {
            let told = cut(path);
            comparison.name(&told, path, None, None)?;
            return comparison.file(staged.id.to_owned(), &told, None);
        }
        let common = common(&self.last, path);
        self.last.clear();
        self.last.extend_from_slice(path);
        let mut at = self.head.leave(path, common);
        loop {
            let length = memchr::memchr(b'/', &path[at..]);
            let end = length.map_or(path.len(), |length| at + length);
            let name = &path[at..end];
            let before = self.head.entry(name);
            // Both sides of a conflict have the same name.
            if before.is_none() && end > common {
                comparison.name(&path[..end], name, None, None)?;
            }
            let folder = before
                .as_ref()
                .filter(|(kind, _)| *kind == EntryKind::Folder)
                .map(|(_, id)| id.clone());
            if length.is_some() {
                self.head.enter(comparison, end, folder)?;
                at = end + 1;
                continue;
            }
            if before.is_some_and(|before| before == (staged.kind, staged.id.to_owned())) {
                return Ok(());
            }
            return match staged.kind {
                EntryKind::Submodule => Ok(()),
                EntryKind::Folder => {
                    let before = folder.into_iter().collect();
                    let held = self.head.held;
                    comparison.compare(staged.id, before, path.to_owned(), None, held)
                }
                EntryKind::File if EMPTY.contains(&staged.id) => Ok(()),
                EntryKind::File => comparison.file(staged.id.to_owned(), path, None),
            };
        }
    }
}

/// Returns the length of the path that is the same as, or leads to, both of these.
fn common(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let ends = |path: &[u8]| path.get(same).is_none_or(|byte| *byte == b'/');
    if ends(one) && ends(other) {
        return same;
    }
    memchr::memrchr(b'/', &other[..same]).unwrap_or_default()
}

impl<'a> Staged<'a> {
    /// Parses an entry: mode, object, stage; a tab; the path. Of a file with conflicts both sides are entries, and
    /// stage 1, their common ancestor, is none.
    fn parse(entry: &'a [u8]) -> Option<Self> {
        let tab = memchr::memchr(b'\t', entry)?;
        let words = std::str::from_utf8(&entry[..tab]).ok()?;
        let [mode, id, stage] = words.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let path = &entry[tab + 1..];
        (stage != "1").then(|| Staged {
            kind: EntryKind::of_mode(mode.as_bytes()),
            id,
            // A folder ends in a slash.
            path: path.strip_suffix(b"/").unwrap_or(path),
        })
    }

    /// Reports that there is more of its path.
    fn is_cut(&self, outlet: Outlet<'_>) -> Result<(), Closed> {
        let object = LostObject {
            kind: "blob",
            id: self.id.to_owned(),
        };
        let reason = format!("its path has more than {} KiB", ENTRY_MAX >> 10);
        outlet.lost(object, Some(told(&cut(self.path))), reason)
    }
}

/// Folders of `HEAD` on the way to an entry of the index, which lists what is in a folder one after the other.
#[derive(Default)]
struct Head {
    levels: Vec<Level>,
    /// Number of bytes that they hold.
    held: usize,
}

struct Level {
    /// Length of its path.
    path: usize,
    folder: Rc<ByName>,
}

impl Head {
    /// Reads the top folder of a commit, which has nothing if there is no commit.
    fn open(
        &mut self,
        comparison: &mut Comparison<'_>,
        commit: Option<&str>,
    ) -> Result<(), HistoryError> {
        let text = match commit {
            Some(commit) => comparison.commit(commit, 1 << 10)?,
            None => Vec::new(),
        };
        self.enter(comparison, 0, links::folder(&text))
    }

    /// Leaves the folders that are not on the way to `path`, of which the first `common` bytes are those of the path
    /// before. Returns where the first name begins that is not looked at yet.
    fn leave(&mut self, path: &[u8], common: usize) -> usize {
        while let [_, .., last] = self.levels.as_slice()
            && (last.path > common || path.get(last.path) != Some(&b'/'))
        {
            self.held -= last.folder.held();
            self.levels.pop();
        }
        let last = self.levels.last().map_or(0, |level| level.path);
        // A slash follows, except at the top.
        if self.levels.len() > 1 { last + 1 } else { 0 }
    }

    /// Goes on in the folder whose path has so many bytes, and which is `id` in `HEAD`.
    fn enter(
        &mut self,
        comparison: &mut Comparison<'_>,
        path: usize,
        id: Option<String>,
    ) -> Result<(), HistoryError> {
        let mut folder = Rc::default();
        if let Some(id) = id {
            if comparison.budget.is_spent() {
                let reason = || format!("they take too much to read: tree {id}");
                comparison.unclear.get_or_insert_with(reason);
            } else if let Some(read) = comparison.other(&id, self.held)? {
                folder = read;
            }
            let max = comparison.held_max();
            if self.held + folder.held() > max {
                let reason = || format!("folders take more than {} MiB: tree {id}", max >> 20);
                comparison.unclear.get_or_insert_with(reason);
                folder = Rc::default();
            }
        }
        self.held += folder.held();
        comparison.make_room(self.held);
        self.levels.push(Level { path, folder });
        Ok(())
    }

    /// Returns the entry of this name in the last folder.
    fn entry(&self, name: &[u8]) -> Option<(EntryKind, String)> {
        let mut found = self.levels.last()?.folder.find(name);
        let entry = found.next()?;
        Some((entry.kind, hexadecimal(entry.hash)))
    }
}

fn ask(repository: &Repository, arguments: &[&str]) -> Result<Vec<u8>, HistoryError> {
    repository
        .ask(arguments)?
        .map_err(|complaint| HistoryError::Failed {
            what: LIST,
            complaint,
        })
}

fn broken(source: std::io::Error) -> HistoryError {
    HistoryError::Broken { what: LIST, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_whole_names_in_common() {
        for (one, other, length) in [
            ("", "a", 0),
            ("a", "a", 1),
            ("a", "a/b", 1),
            ("a/b", "a", 1),
            ("a/b", "a/b", 3),
            ("a/b", "a/bc", 1),
            ("a/b/c", "a/b.c", 1),
            ("a/b/c", "a/b/d", 3),
            ("ab", "ac", 0),
        ] {
            assert_eq!(
                common(one.as_bytes(), other.as_bytes()),
                length,
                "{one} {other}"
            );
        }
    }
}
