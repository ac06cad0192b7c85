//! Comparison of folders with what was there before.
//!
//! Git's own comparisons list every path, and so do not end where a few folders that hold each other several times name
//! more files than can be counted. Here a folder is read once, or a few times if it is compared with several others.
//!
//! What is held has a bound, whatever is compared: the folders on the way to one, one that they are compared with, a
//! path that is told, and contents that are new until there are some thousands of them, which are then scanned.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};

use super::additions::{Addition, Additions};
use super::command::Repository;
use super::folder::{ByName, Entries, EntryKind, extend, hexadecimal, told};
use super::lost::LACKS;
use super::objects::{Answer, Lookup, READ_MAX};
use super::wanted::{self, Wanted};
use super::{Engine, HistoryError, Outlet, Stop};
use crate::scan::{Finding, GitKind, GitObject, Part, Scanner};

/// Maximum depth of folders, as git has it.
const DEPTH_MAX: usize = 2048;
/// Maximum size of all folders on the way to one, in bytes.
pub(super) const HELD_MAX: usize = 96 << 20;
/// Size of what is known of new contents, in bytes, beyond which these are scanned before more is compared.
const WANTED_MAX: usize = 16 << 20;
/// Maximum number of others that a folder is compared with. Beyond it, all that is in the folder counts as new.
const OTHERS_MAX: u8 = 16;
/// Maximum number of parents that a merge is compared with, so that more counts as new.
pub(super) const PARENTS_MAX: usize = 64;

/// Comparison of any number of folders, which scans the contents that are new.
pub(super) struct Comparison<'a> {
    repository: &'a Repository,
    engine: &'a Engine,
    lookup: Lookup,
    scanner: Scanner<'a>,
    outlet: Outlet<'a>,
    /// Contents that were collected, and folders with what they were compared with, as hashes.
    seen: HashSet<u128>,
    hashers: [RandomState; 2],
    /// For each folder, the number of others that it was compared with.
    others: HashMap<u128, u8>,
    /// Contents that are new and were not scanned yet. Each is new once.
    wanted: Vec<Wanted>,
    /// Size of what is known of them, in bytes.
    wanted_bytes: usize,
    /// Reason that not all of what is new is known.
    pub(super) unclear: Option<String>,
}

/// Folder that is being read.
struct Level {
    id: String,
    text: Vec<u8>,
    additions: Additions,
    /// Length of its path, as far as that is told.
    path: usize,
    /// Number of the next entry, and where it begins.
    next: (usize, usize),
    /// Number of bytes that it holds.
    held: usize,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        engine: &'a Engine,
        outlet: Outlet<'a>,
    ) -> Result<Self, HistoryError> {
        Ok(Self {
            repository,
            engine,
            lookup: Lookup::new(repository)?,
            scanner: Scanner::new(engine),
            outlet,
            seen: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
            others: HashMap::new(),
            wanted: Vec::new(),
            wanted_bytes: 0,
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
        mut path: Vec<u8>,
        commit: Option<&str>,
    ) -> Result<(), Stop> {
        let width = id.len() / 2;
        let mut held = 0;
        let first = self.enter(id, before, path.len(), &mut held)?;
        let mut levels: Vec<Level> = first.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let (number, start) = level.next;
            let Some(entry) = Entries::from(&level.text, start, width).next() else {
                held -= level.held;
                levels.pop();
                continue;
            };
            level.next = (number + 1, entry.end);
            path.truncate(level.path);
            let addition = level.additions.of_entry(number);
            if addition == Addition::None {
                continue;
            }
            extend(&mut path, entry.name);
            if addition == Addition::Named {
                self.name(&path, entry.name, Some(&level.id), commit)?;
            }
            let id = hexadecimal(entry.hash);
            match entry.kind {
                EntryKind::Submodule => {}
                EntryKind::File => self.file(id, &path, commit)?,
                EntryKind::Folder => {
                    let before = level.additions.before(number);
                    if levels.len() == DEPTH_MAX {
                        let reason = format!("folders are nested more than {DEPTH_MAX} deep");
                        self.unclear.get_or_insert(reason);
                    } else {
                        levels.extend(self.enter(&id, before, path.len(), &mut held)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Collects the contents of a file, unless they were before.
    pub(super) fn file(
        &mut self,
        id: String,
        path: &[u8],
        commit: Option<&str>,
    ) -> Result<(), Stop> {
        if !self.is_new(&id) {
            return Ok(());
        }
        let wanted = Wanted {
            id,
            path: Some(told(path)),
            commit: commit.map(str::to_owned),
        };
        self.wanted_bytes += wanted.held();
        self.wanted.push(wanted);
        if self.wanted_bytes > WANTED_MAX {
            self.scan_wanted()?;
        }
        Ok(())
    }

    /// Scans the contents that were collected.
    pub(super) fn scan_wanted(&mut self) -> Result<(), Stop> {
        self.wanted_bytes = 0;
        let wanted = std::mem::take(&mut self.wanted);
        wanted::scan(self.repository, &wanted, self.engine, self.outlet)
    }

    /// Scans the name of a file or folder at `path`, as far as that is told, in the folder `id`. A name may repeat a
    /// candidate as often as it has room for, which is told once.
    pub(super) fn name(
        &mut self,
        path: &[u8],
        name: &[u8],
        id: Option<&str>,
        commit: Option<&str>,
    ) -> Result<(), Stop> {
        let Self {
            scanner,
            outlet,
            hashers: [hasher, _],
            ..
        } = self;
        let mut seen = HashSet::new();
        let mut listening = Ok(());
        scanner.scan_text(name, &mut |candidate| {
            let key = hasher.hash_one((candidate.value.expose(), &candidate.format));
            if listening.is_err() || !seen.insert(key) {
                return;
            }
            listening = outlet.found(Finding {
                path: Some(told(path)),
                object: id.map(|id| GitObject {
                    kind: GitKind::Tree,
                    id: id.to_owned(),
                    commit: commit.map(str::to_owned),
                }),
                part: Part::Name,
                candidate,
            });
        });
        Ok(listening?)
    }

    /// Starts reading a folder, unless all that it would tell is known.
    fn enter(
        &mut self,
        id: &str,
        mut before: Vec<String>,
        path: usize,
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
            return Ok(self.too_much(id));
        }
        let width = id.len() / 2;
        let mut additions = Additions::of(&text, width);
        for id in before {
            // One at a time: each may be as large as this one.
            if let Some(before) = self.folder(&id)? {
                additions.compare(&text, &ByName::new(before, width));
            }
        }
        let size = size_of::<Level>() + text.len() + additions.held();
        if *held + size > HELD_MAX {
            return Ok(self.too_much(id));
        }
        *held += size;
        Ok(Some(Level {
            id: id.to_owned(),
            text,
            additions,
            path,
            next: (0, 0),
            held: size,
        }))
    }

    /// Notes that a folder is not read, since those on the way to it take too much.
    fn too_much(&mut self, id: &str) -> Option<Level> {
        let reason = format!("folders take more than {} MiB: tree {id}", HELD_MAX >> 20);
        self.unclear.get_or_insert(reason);
        None
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
