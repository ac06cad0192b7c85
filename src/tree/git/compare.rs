//! Comparison of folders with what was there before.
//!
//! Git's own comparisons list every path, and so do not end where a few folders that hold each other several times name
//! more files than can be counted. Here a folder is read once, or a few times if it is compared with several others.
//!
//! The memory held has a bound, whatever is compared: the folders on the way to one, one that they are compared with, a
//! path that is told, and contents that are new until there are some thousands of them, which are then scanned.

use std::rc::Rc;

use super::additions::{Addition, Additions};
use super::budget::Budget;
use super::command::Repository;
use super::folder::{ByName, Entries, EntryKind, extend, hexadecimal, told};
use super::lost::LACKS;
use super::objects::{Answer, Lookup, READ_MAX};
use super::seen::Seen;
use super::wanted::{self, WANTED_MAX, Wanted};
use super::{Engine, HistoryError, Outlet, Stop};
use crate::scan::{Finding, GitKind, GitObject, Part, Scanner};

/// Maximum depth of folders, as git has it.
const DEPTH_MAX: usize = 2048;
/// Maximum size of all folders on the way to one, in bytes.
const HELD_MAX: usize = 88 << 20;
/// Size of all that is remembered and of all folders, in bytes. Where more is remembered, folders have less room. What
/// is remembered may double within a folder, by up to 76 MiB, which the 256 MiB of a scan leave beside half of the rest.
const ROOM: usize = 176 << 20;
/// Maximum number of contents and folders that are remembered, which take 151 MiB. An ordinary commit has about four.
/// Beyond it, folders are not compared, which is told.
const SEEN_MAX: usize = 14_000_000;
/// Size of a folder, in bytes, up to which it is not kept for whatever else is compared with it.
const SMALL: usize = 64 << 10;
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
    pub(super) outlet: Outlet<'a>,
    /// Contents that were collected, folders with what they were compared with and how often, and candidates in names.
    seen: Seen,
    /// The last large folder that others were compared with.
    last: Option<(String, Rc<ByName>)>,
    /// For reading what others are compared with, and what was read before. Once it is spent, all counts as new.
    pub(super) budget: Budget,
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
            seen: Seen::new(SEEN_MAX),
            last: None,
            budget: Budget::new(),
            wanted: Vec::new(),
            wanted_bytes: 0,
            unclear: None,
        })
    }

    /// Reads up to `max` bytes of a commit, which has none if there is no such commit. Each is read once.
    pub(super) fn commit(&mut self, id: &str, max: u64) -> Result<Vec<u8>, HistoryError> {
        let (text, size) = self.start_of_commit(id, max)?;
        self.budget.earn(size);
        Ok(text)
    }

    /// Reads up to `max` bytes of a commit that another one is compared with.
    pub(super) fn other_commit(&mut self, id: &str, max: u64) -> Result<Vec<u8>, HistoryError> {
        let (text, size) = self.start_of_commit(id, max)?;
        self.budget.spend(size);
        Ok(text)
    }

    fn start_of_commit(&mut self, id: &str, max: u64) -> Result<(Vec<u8>, u64), HistoryError> {
        Ok(match self.lookup.get(id, max)? {
            Answer::Read(GitKind::Commit, text, size) => (text, size),
            Answer::Read(_, _, size) => (Vec::new(), size),
            Answer::Missing => (Vec::new(), 0),
        })
    }

    /// Reads a folder. If it cannot be read, what is new is unclear.
    fn folder(&mut self, id: &str) -> Result<Option<Vec<u8>>, HistoryError> {
        let max = READ_MAX.min(self.room() as u64 * 2 / 5);
        let reason = match self.lookup.get(id, max)? {
            Answer::Read(GitKind::Tree, text, size) if size <= max => return Ok(Some(text)),
            Answer::Read(kind, _, size) => {
                // Git wrote it out all the same.
                self.budget.spend(size);
                if kind == GitKind::Tree {
                    format!("a folder has more than {} MiB: tree {id}", max >> 20)
                } else {
                    format!("what should be a folder is none: {id}")
                }
            }
            Answer::Missing => format!("{LACKS}: tree {id}"),
        };
        self.unclear.get_or_insert(reason);
        Ok(None)
    }

    /// Reads a folder that others are compared with, while folders of `held` bytes are held. If it cannot be read, what is
    /// new is unclear. The last large one is kept, which any number of others may be compared with.
    pub(super) fn other(
        &mut self,
        id: &str,
        held: usize,
    ) -> Result<Option<Rc<ByName>>, HistoryError> {
        if let Some((_, folder)) = self.last.as_ref().filter(|(last, _)| last == id) {
            return Ok(Some(Rc::clone(folder)));
        }
        self.make_room(held);
        let Some(text) = self.folder(id)? else {
            return Ok(None);
        };
        let is_large = text.len() > SMALL;
        self.budget.spend(text.len() as u64);
        let folder = Rc::new(ByName::new(text, id.len() / 2));
        if is_large && held + folder.held() <= self.held_max() {
            self.last = Some((id.to_owned(), Rc::clone(&folder)));
        }
        Ok(Some(folder))
    }

    /// Returns the maximum size of all folders on the way to one, in bytes.
    pub(super) fn held_max(&self) -> usize {
        HELD_MAX.min(self.room() / 2)
    }

    /// Returns the room for folders, in bytes: a half for those on the way to one, and two fifths for the text of one
    /// that they are compared with, whose order takes a sixth of that.
    fn room(&self) -> usize {
        ROOM.saturating_sub(self.seen.held())
    }

    /// Forgets the last large folder unless there is room for it beside `held` bytes, or it is among those.
    pub(super) fn make_room(&mut self, held: usize) {
        let max = self.held_max();
        let takes_too_much = |(_, folder): &(String, Rc<ByName>)| {
            Rc::strong_count(folder) == 1 && held + folder.held() > max
        };
        if self.last.as_ref().is_some_and(takes_too_much) {
            self.last = None;
        }
    }

    /// Collects what the folder `id` at `path` has and none of the folders `before` had at the same place. A file that
    /// one of them had, with the same contents and name, is not new. Folders of `held` bytes are held meanwhile.
    pub(super) fn compare(
        &mut self,
        id: &str,
        before: Vec<String>,
        mut path: Vec<u8>,
        commit: Option<&str>,
        mut held: usize,
    ) -> Result<(), Stop> {
        let width = id.len() / 2;
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
        if !self.seen.insert(&id) {
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
            seen,
            ..
        } = self;
        // Once for all of its candidates, of which it has as many as there is room for. Most names have none, and the path
        // of each may be long.
        let mut place = None;
        let mut listening = Ok(());
        scanner.scan_text(name, &mut |candidate| {
            let place = *place.get_or_insert_with(|| seen.hash(&(path, name)));
            let key = (place, candidate.value.expose(), &candidate.format);
            if listening.is_err() || !seen.insert(&key) {
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
        before.truncate(PARENTS_MAX);
        if self.seen.is_full() {
            let reason = format!("more than {SEEN_MAX} files and folders are new: tree {id}");
            self.unclear.get_or_insert(reason);
            return Ok(None);
        }
        let is_first = !self.seen.contains(&(id, 0_u8));
        if !self.tells_more(id, &mut before) {
            return Ok(None);
        }
        let Some(text) = self.folder(id)? else {
            return Ok(None);
        };
        if is_first {
            self.budget.earn(text.len() as u64);
        } else {
            self.budget.spend(text.len() as u64);
        }
        if *held + text.len() > self.held_max() {
            return Ok(self.too_much(id));
        }
        let width = id.len() / 2;
        let mut additions = Additions::of(&text, width);
        for id in before {
            // One at a time: each may be as large as this one.
            let beside = *held + text.len() + additions.held();
            if !self.budget.is_spent()
                && let Some(other) = self.other(&id, beside)?
            {
                self.budget.spend(text.len() as u64);
                additions.compare(&text, &other);
            }
        }
        let size = size_of::<Level>() + text.len() + additions.held();
        if *held + size > self.held_max() {
            return Ok(self.too_much(id));
        }
        self.make_room(*held + size);
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

    /// Returns whether a folder may tell more than it did, compared with `before`, from which all are taken that it is
    /// not to be compared with.
    fn tells_more(&mut self, id: &str, before: &mut Vec<String>) -> bool {
        let whole = (id, &[] as &[String]);
        if self.seen.contains(&whole) {
            return false;
        }
        if self.budget.is_spent() {
            before.clear();
        }
        if before.is_empty() {
            return self.seen.insert(&whole);
        }
        // Most folders are compared once. That is all that is remembered of them: what they were compared with is from
        // the second time on, so that one may be read once more than needed.
        if self.seen.insert(&(id, 0_u8)) {
            return true;
        }
        if self.seen.contains(&(id, before.as_slice())) {
            return false;
        }
        if (1..OTHERS_MAX).any(|time| self.seen.insert(&(id, time))) {
            return self.seen.insert(&(id, before.as_slice()));
        }
        before.clear();
        self.seen.insert(&whole)
    }

    /// Notes that a folder is not read, since those on the way to it take too much.
    fn too_much(&mut self, id: &str) -> Option<Level> {
        let max = self.held_max() >> 20;
        let reason = format!("folders take more than {max} MiB: tree {id}");
        self.unclear.get_or_insert(reason);
        None
    }
}
