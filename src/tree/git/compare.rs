//! Comparison of folders with what was there before.
//!
//! Git's own comparisons list every path, and so do not end where a few folders that hold each other several times name
//! more files than can be counted. Here a folder is read once, or a few times if it is compared with several others.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::vec;

use super::command::Repository;
use super::folder::{Entries, EntryKind, extend, hexadecimal};
use super::lost::LACKS;
use super::objects::{Answer, Lookup, READ_MAX};
use super::wanted::Wanted;
use super::{Engine, HistoryError, Outlet, Stop};
use crate::scan::{Finding, GitKind, GitObject, Part, Scanner};
use crate::tree::open::path_of;

/// Maximum depth of folders, as git has it.
const DEPTH_MAX: usize = 2048;
/// Maximum size of all folders on the way to one, in bytes.
const HELD_MAX: usize = 128 << 20;
/// Maximum length of the paths that are told, in bytes. Longer ones are cut.
pub(super) const PATH_MAX: usize = 16 << 10;
/// Maximum number of others that a folder is compared with. Beyond it, all that is in the folder counts as new.
const OTHERS_MAX: u8 = 16;
/// Maximum number of parents that a merge is compared with, so that more counts as new.
pub(super) const PARENTS_MAX: usize = 64;

/// Comparison of any number of folders, which collects the contents that are new.
pub(super) struct Comparison<'a> {
    lookup: Lookup,
    scanner: Scanner<'a>,
    outlet: Outlet<'a>,
    /// Contents that were collected, and folders with what they were compared with, as hashes.
    seen: HashSet<u128>,
    hashers: [RandomState; 2],
    /// For each folder, the number of others that it was compared with.
    others: HashMap<u128, u8>,
    /// Contents that are new, each once.
    pub(super) wanted: Vec<Wanted>,
    /// Reason that not all of what is new is known.
    pub(super) unclear: Option<String>,
}

/// Entry that the folder did not have before.
#[derive(Debug, PartialEq, Eq)]
struct Added {
    kind: EntryKind,
    name: Vec<u8>,
    id: String,
    /// `true` if nothing had this name before.
    is_named_anew: bool,
    /// Folders that had this name before.
    before: Vec<String>,
}

/// Folder that is being read.
struct Level {
    path: Vec<u8>,
    id: String,
    added: vec::IntoIter<Added>,
    /// Size of the folder in bytes.
    held: usize,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        repository: &Repository,
        engine: &'a Engine,
        outlet: Outlet<'a>,
    ) -> Result<Self, HistoryError> {
        Ok(Self {
            lookup: Lookup::new(repository)?,
            scanner: Scanner::new(engine),
            outlet,
            seen: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
            others: HashMap::new(),
            wanted: Vec::new(),
            unclear: None,
        })
    }

    /// Reads up to `max` bytes of an object, which is a commit.
    pub(super) fn commit(&mut self, id: &str, max: u64) -> Result<Option<Vec<u8>>, HistoryError> {
        Ok(match self.lookup.get(id, max)? {
            Answer::Read(GitKind::Commit, text, _) => Some(text),
            _ => None,
        })
    }

    /// Reads a folder. If it cannot be read, what is new is unclear.
    pub(super) fn folder(&mut self, id: &str) -> Result<Option<Vec<u8>>, HistoryError> {
        let reason = match self.lookup.get(id, READ_MAX)? {
            Answer::Read(GitKind::Tree, text, true) => return Ok(Some(text)),
            Answer::Read(GitKind::Tree, _, false) => {
                format!("a folder has more than {} MiB: tree {id}", READ_MAX >> 20)
            }
            Answer::Read(..) => format!("what should be a folder is none: {id}"),
            Answer::Missing => format!("{LACKS}: tree {id}"),
        };
        self.unclear.get_or_insert(reason);
        Ok(None)
    }

    /// Collects what the folder `id` at `path` has and none of the folders `before` had at the same place. A file that
    /// one of them had, with the same contents and name, is not new.
    pub(super) fn compare(
        &mut self,
        id: &str,
        before: Vec<String>,
        path: Vec<u8>,
        commit: Option<&str>,
    ) -> Result<(), Stop> {
        let mut held = 0;
        let mut levels: Vec<Level> = self
            .enter(id, before, path, &mut held)?
            .into_iter()
            .collect();
        while let Some(level) = levels.last_mut() {
            let Some(added) = level.added.next() else {
                held -= level.held;
                levels.pop();
                continue;
            };
            let path = extend(&level.path, &added.name);
            if added.is_named_anew {
                self.name(&path, &added.name, Some(&level.id), commit)?;
            }
            match added.kind {
                EntryKind::Submodule => {}
                EntryKind::File => self.file(added.id, path, commit),
                EntryKind::Folder if levels.len() == DEPTH_MAX => {
                    let reason = format!("folders are nested more than {DEPTH_MAX} deep");
                    self.unclear.get_or_insert(reason);
                }
                EntryKind::Folder => {
                    levels.extend(self.enter(&added.id, added.before, path, &mut held)?);
                }
            }
        }
        Ok(())
    }

    /// Collects the contents of a file, unless they were before.
    pub(super) fn file(&mut self, id: String, mut path: Vec<u8>, commit: Option<&str>) {
        if self.is_new(&id) {
            path.truncate(PATH_MAX);
            self.wanted.push(Wanted {
                id,
                path: Some(path_of(&path)),
                commit: commit.map(str::to_owned),
            });
        }
    }

    /// Scans the name of a file or folder at `path` in the folder `id`.
    pub(super) fn name(
        &mut self,
        path: &[u8],
        name: &[u8],
        id: Option<&str>,
        commit: Option<&str>,
    ) -> Result<(), Stop> {
        let mut found = Vec::new();
        self.scanner
            .scan_text(name, &mut |candidate| found.push(candidate));
        for candidate in found {
            self.outlet.found(Finding {
                path: Some(path_of(&path[..path.len().min(PATH_MAX)])),
                object: id.map(|id| GitObject {
                    kind: GitKind::Tree,
                    id: id.to_owned(),
                    commit: commit.map(str::to_owned),
                }),
                part: Part::Name,
                candidate,
            })?;
        }
        Ok(())
    }

    /// Starts reading a folder, unless all that it would tell is known.
    fn enter(
        &mut self,
        id: &str,
        mut before: Vec<String>,
        path: Vec<u8>,
        held: &mut usize,
    ) -> Result<Option<Level>, HistoryError> {
        before.sort_unstable();
        before.dedup();
        if before.iter().any(|before| before == id) {
            return Ok(None);
        }
        let of_this = self.key(id);
        let others = self.others.entry(of_this).or_default();
        if *others == OTHERS_MAX {
            before.clear();
        }
        let whole = self.key(&(id, &[] as &[String]));
        if self.seen.contains(&whole) || !self.is_new(&(id, before.as_slice())) {
            return Ok(None);
        }
        if let Some(others) = self.others.get_mut(&of_this) {
            *others = others.saturating_add(1).min(OTHERS_MAX);
        }
        let Some(text) = self.folder(id)? else {
            return Ok(None);
        };
        if *held + text.len() > HELD_MAX {
            let reason = format!("folders take more than {} MiB: tree {id}", HELD_MAX >> 20);
            self.unclear.get_or_insert(reason);
            return Ok(None);
        }
        let mut texts = Vec::new();
        for id in before {
            texts.extend(self.folder(&id)?);
        }
        *held += text.len();
        Ok(Some(Level {
            path,
            added: added(&text, &texts, id.len() / 2).into_iter(),
            id: id.to_owned(),
            held: text.len(),
        }))
    }

    fn is_new(&mut self, what: &(impl Hash + ?Sized)) -> bool {
        let key = self.key(what);
        self.seen.insert(key)
    }

    /// Returns a hash that nobody else can compute, so that nobody can have two things take each other's place.
    fn key(&self, what: &(impl Hash + ?Sized)) -> u128 {
        let [high, low] = [0, 1].map(|half: usize| self.hashers[half].hash_one(what));
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Kinds and hashes of the entries of a folder, by their names.
type ByName<'f> = HashMap<&'f [u8], (EntryKind, &'f [u8])>;

/// Returns the entries of a folder that none of the folders before has.
fn added(text: &[u8], before: &[Vec<u8>], width: usize) -> Vec<Added> {
    let before: Vec<ByName<'_>> = before
        .iter()
        .map(|text| {
            let entries = Entries::from(text, 0, width);
            entries
                .map(|entry| (entry.name, (entry.kind, entry.hash)))
                .collect()
        })
        .collect();
    let added = Entries::from(text, 0, width).filter_map(|entry| {
        let before = || before.iter().filter_map(|before| before.get(entry.name));
        if before().any(|before| *before == (entry.kind, entry.hash)) {
            return None;
        }
        let folders = before().filter(|(kind, _)| *kind == EntryKind::Folder);
        Some(Added {
            kind: entry.kind,
            name: entry.name.to_owned(),
            id: hexadecimal(entry.hash),
            is_named_anew: before().next().is_none(),
            before: folders.map(|(_, hash)| hexadecimal(hash)).collect(),
        })
    });
    added.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_those_before_had_is_not_added() {
        let now = b"100644 a\0A100644 b\0B100644 c\0C40000 d\0D100644 e\0E";
        let one = b"100644 a\0A100644 b\0x40000 d\0y".to_vec();
        let two = b"100644 b\0z100755 c\0C40000 d\0w40000 e\0v".to_vec();
        let seen = |before: &[Vec<u8>]| -> Vec<(String, bool, Vec<String>)> {
            let name = |name: Vec<u8>| String::from_utf8(name).unwrap();
            let added = added(now, before, 1).into_iter();
            added
                .map(|added| (name(added.name), added.is_named_anew, added.before))
                .collect()
        };
        let id = |byte: &str| vec![byte.to_owned()];
        assert_eq!(
            seen(&[one, two]),
            [
                ("b".to_owned(), false, vec![]),
                ("d".to_owned(), false, [id("79"), id("77")].concat()),
                ("e".to_owned(), false, id("76")),
            ]
        );
        assert!(seen(&[]).iter().all(|(_, is_named_anew, _)| *is_named_anew));
        assert_eq!(seen(&[]).len(), 5);
    }
}
