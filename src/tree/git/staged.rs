//! Scan of the changes staged for the next commit.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::SyncSender;

use super::command::Repository;
use super::compare::{Comparison, PATH_MAX};
use super::folder::{Entries, EntryKind, extend, hexadecimal};
use super::lost::headers;
use super::{Counters, Engine, Event, HistoryError, Outlet, Stop, shallow, wanted};
use crate::scan::LostObject;

const LIST: &str = "list what is staged";

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
    shallow::see_through(&repository)?;
    let outlet = Outlet { counters, events };
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
    Stop::end(wanted::scan(&repository, &comparison.wanted, engine, outlet).and(listed))
}

/// Comparison of the index with `HEAD`.
#[derive(Default)]
struct Index {
    head: Head,
    /// Path of the last entry that `HEAD` does not have.
    named: Vec<u8>,
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
        while output.read_until(0, &mut entry).map_err(broken)? > 0 {
            entry.pop_if(|byte| *byte == 0);
            self.is_started = true;
            if let Some(staged) = Staged::parse(&entry) {
                self.compare_one(comparison, &staged)?;
            }
            entry.clear();
        }
        list.finish()?;
        Ok(())
    }

    fn compare_one(
        &mut self,
        comparison: &mut Comparison<'_>,
        staged: &Staged<'_>,
    ) -> Result<(), Stop> {
        if staged.path.len() > PATH_MAX {
            comparison.name(staged.path, staged.path, None, None)?;
            comparison.file(staged.id.to_owned(), staged.path.to_owned(), None);
            return Ok(());
        }
        let mut names = staged.path.split(|byte| *byte == b'/').peekable();
        let mut depth = 0;
        while let Some(name) = names.next() {
            let before = self.head.entry(depth, name);
            depth += 1;
            let path = extend(self.head.path(depth - 1), name);
            // Both sides of a conflict have the same name.
            if before.is_none() && !is_at_or_above(&path, &self.named) {
                comparison.name(&path, name, None, None)?;
                self.named.clone_from(&path);
            }
            let folder = before
                .as_ref()
                .filter(|(kind, _)| *kind == EntryKind::Folder)
                .map(|(_, id)| id.clone());
            if names.peek().is_some() {
                self.head.enter(comparison, depth, path, folder)?;
                continue;
            }
            if before.is_some_and(|before| before == (staged.kind, staged.id.to_owned())) {
                return Ok(());
            }
            match staged.kind {
                EntryKind::Submodule => {}
                EntryKind::Folder => {
                    let before = folder.into_iter().collect();
                    comparison.compare(staged.id, before, path, None)?;
                }
                EntryKind::File if EMPTY.contains(&staged.id) => {}
                EntryKind::File => comparison.file(staged.id.to_owned(), path, None),
            }
        }
        Ok(())
    }
}

/// Returns whether `path` is `other` or a folder above it.
fn is_at_or_above(path: &[u8], other: &[u8]) -> bool {
    let rest = other.strip_prefix(path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
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
}

/// Folders of `HEAD` on the way to an entry of the index, which lists what is in a folder one after the other.
#[derive(Default)]
struct Head {
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    path: Vec<u8>,
    entries: HashMap<Vec<u8>, (EntryKind, String)>,
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
            None => None,
        };
        let text = text.unwrap_or_default();
        let top = headers(&text).find(|(name, _)| *name == "tree");
        let top = top.map(|(_, id)| id.to_owned());
        self.enter(comparison, 0, Vec::new(), top)
    }

    /// Goes on in the folder at `path`, which is `depth` folders below the top and is `id` in `HEAD`.
    fn enter(
        &mut self,
        comparison: &mut Comparison<'_>,
        depth: usize,
        path: Vec<u8>,
        id: Option<String>,
    ) -> Result<(), HistoryError> {
        if self
            .levels
            .get(depth)
            .is_some_and(|level| level.path == path)
        {
            return Ok(());
        }
        self.levels.truncate(depth);
        let mut level = Level {
            path,
            entries: HashMap::new(),
        };
        if let Some(id) = id
            && let Some(text) = comparison.folder(&id)?
        {
            let entries = Entries::from(&text, 0, id.len() / 2);
            level.entries = entries
                .map(|entry| (entry.name.to_owned(), (entry.kind, hexadecimal(entry.hash))))
                .collect();
        }
        self.levels.push(level);
        Ok(())
    }

    fn entry(&self, depth: usize, name: &[u8]) -> Option<(EntryKind, String)> {
        self.levels.get(depth)?.entries.get(name).cloned()
    }

    fn path(&self, depth: usize) -> &[u8] {
        self.levels.get(depth).map_or(&[], |level| &level.path)
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
