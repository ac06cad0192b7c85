//! Scan of the whole history of a repository.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::command::Repository;
use super::folder::{Entries, FolderEntry, extended, hexadecimal, told};
use super::lost::Lost;
use super::objects::{self, Contents, Entry, READ_MAX, broken};
use super::seen::Seen;
use super::trail::{Place, Trail};
use super::wanted::{WANTED_MAX, Wanted};
use super::{
    Counters, Engine, Event, HistoryError, Outlet, Stop, damaged, references, shallow, wanted,
};
use crate::scan::{Candidate, Finding, GitKind, GitObject, LostObject, Part, Scanner};

/// Maximum number of candidates in names that are remembered. Beyond it all are forgotten, and may be reported again.
const NAMES_MAX: usize = 900_000;

/// Maximum number of objects under a mode that is none. Beyond it, they are named as not scanned.
const ODD_MAX: usize = 100_000;

/// Scans the whole history of the repository at `path`, and reports to `counters` and `events`: the contents of each
/// object once, whatever leads to it, and the names of references. What is found is told with the first commit that
/// has it.
///
/// Returns early, without an error, once the receiver of `events` is dropped.
///
/// # Errors
/// Returns an error if git is not installed, `path` is not a repository, or git fails. Everything found before the
/// failure has been reported.
pub fn scan_history(
    path: &Path,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> Result<(), HistoryError> {
    let outlet = Outlet { counters, events };
    let repository = Repository::open(path)?;
    let history = History {
        repository: &repository,
        engine,
        scanner: Scanner::new(engine),
        outlet,
        trail: Trail::default(),
        lost: Lost::default(),
        names: Names::default(),
        begun: 0,
        is_within: false,
        odd: Odd {
            seen: Seen::new(ODD_MAX),
            wanted: Vec::new(),
            bytes: 0,
        },
    };
    Stop::end(history.scan(path))
}

/// Scan that is under way.
struct History<'a> {
    repository: &'a Repository,
    engine: &'a Engine,
    scanner: Scanner<'a>,
    outlet: Outlet<'a>,
    trail: Trail,
    lost: Lost,
    names: Names,
    /// Number of objects of the list that were read, or begun to be.
    begun: usize,
    /// `true` while one of them is read.
    is_within: bool,
    odd: Odd,
}

/// Objects that git does not list, since the mode that a folder has of them is none.
struct Odd {
    seen: Seen,
    /// Those that are to be scanned.
    wanted: Vec<Wanted>,
    /// Size of what is known of these, in bytes.
    bytes: usize,
}

/// Candidates in names that were reported. Each change within a folder makes another folder with the same names.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    seen: HashSet<u64>,
}

/// Place of a name. A name may have as many bytes as a folder, and as many candidates as it has room for.
struct Named {
    /// Path, as far as it is told.
    path: PathBuf,
    /// Hash of the whole name and of the path of its folder.
    hash: u64,
}

impl Names {
    fn of(&self, folder: &[u8], entry: Option<&FolderEntry<'_>>) -> Named {
        let name = entry.map_or(&b""[..], |entry| entry.name);
        Named {
            path: told(&extended(folder, name)),
            hash: self.hasher.hash_one((folder, name)),
        }
    }

    fn is_new(&mut self, named: &Named, candidate: &Candidate) -> bool {
        let key = (named.hash, candidate.value.expose(), &candidate.format);
        self.remember(self.hasher.hash_one(key))
    }

    /// Returns whether a candidate was not reported, as far as that is remembered.
    fn remember(&mut self, key: u64) -> bool {
        if self.seen.len() >= NAMES_MAX {
            self.seen.clear();
        }
        self.seen.insert(key)
    }
}

impl History<'_> {
    fn scan(mut self, path: &Path) -> Result<(), Stop> {
        let repository = self.repository;
        let cut = shallow::see_through(repository, self.outlet)?;
        for parent in cut.into_values().flatten() {
            self.lost.add_commit(parent);
        }
        let passed_over = self.read()?;
        let is_damaged = match &passed_over {
            Ok(complaints) => complaints.iter().any(|line| damaged::is_damage(line)),
            Err(_) => true,
        };
        let is_whole = !is_damaged || self.read_on(passed_over.as_ref().err())?;
        self.scan_odd()?;
        // Missing objects are named whether or not git completed.
        self.lost.report(repository, self.outlet)?;
        let complaints = references::scan(repository, &self.scanner, self.outlet)?;
        let passed_over = match passed_over {
            Err(error) if is_whole => vec![error.to_string()],
            told => told?,
        };
        let complaints: BTreeSet<String> = passed_over.into_iter().chain(complaints).collect();
        for complaint in complaints {
            self.outlet.unread(path, complaint)?;
        }
        Ok(())
    }

    /// Reads the objects of the history. Returns what git left out, or the error with which it ended before it came to
    /// their end.
    fn read(&mut self) -> Result<Result<Vec<String>, HistoryError>, Stop> {
        let mut contents = Contents::of_history(self.repository)?;
        loop {
            let read = match contents.next() {
                Ok(None) => return Ok(contents.finish()),
                Ok(Some(entry)) => {
                    (self.begun, self.is_within) = (self.begun + 1, true);
                    self.look_at(&mut contents, entry)
                }
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(()) => self.is_within = false,
                Err(Stop::Failed(error)) if error.is_of_git() => {
                    return Ok(Err(contents.why_it_ended(error)));
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Reads what git did not come to because it failed, with `error` unless it got to its end all the same. Returns
    /// `false` if there is too much in the repository for that.
    fn read_on(&mut self, error: Option<&HistoryError>) -> Result<bool, Stop> {
        let Some(listed) = damaged::listed(self.repository)? else {
            return Ok(false);
        };
        let (begun, left) = listed.split_at(self.begun.min(listed.len()));
        if let (true, Some(id), Some(error)) = (self.is_within, begun.last(), error) {
            let why = error.to_string();
            self.lost.add_damaged(id.clone(), why, self.outlet)?;
        }
        self.read_named(left)?;
        let listed: HashSet<String> = listed.into_iter().collect();
        let Some(others) = damaged::others(self.repository, &listed)? else {
            return Ok(false);
        };
        self.trail.end();
        self.read_named(&others)?;
        Ok(true)
    }

    fn read_named(&mut self, names: &[String]) -> Result<(), Stop> {
        damaged::read_each(self.repository, names, |number, read| match read {
            Ok((contents, entry)) => self.look_at(contents, entry),
            Err(why) => {
                let id = names[number].clone();
                Ok(self.lost.add_damaged(id, why, self.outlet)?)
            }
        })
    }

    fn look_at(&mut self, contents: &mut Contents, entry: Entry) -> Result<(), Stop> {
        let Entry { kind, id } = entry;
        let Some(kind) = kind else {
            return Ok(self.lost.add(id, self.outlet)?);
        };
        match kind {
            GitKind::Commit => {
                let start = objects::start_of_commit(contents)?;
                if let Some(top) = objects::top_folder(&start) {
                    self.trail.begin(&id, top);
                }
                let mut whole = start.as_slice().chain(contents);
                self.scan_text(&mut whole, None, &of_commit(id))
            }
            GitKind::Blob => {
                let Place { path, commit } = self.trail.place(&objects::hash(&id));
                let path = path.map(|path| told(&path));
                self.scan_text(contents, path.as_deref(), &GitObject { kind, id, commit })
            }
            GitKind::Tree => self.scan_folder(contents, id),
            GitKind::Tag | GitKind::Reference => {
                let commit = None;
                self.scan_text(contents, None, &GitObject { kind, id, commit })
            }
        }
    }

    fn scan_text(
        &mut self,
        text: &mut impl io::Read,
        path: Option<&Path>,
        object: &GitObject,
    ) -> Result<(), Stop> {
        wanted::scan_text(&mut self.scanner, text, path, object, self.outlet)
    }

    /// Scans a folder as git stores it: names between hashes.
    fn scan_folder(&mut self, contents: &mut Contents, id: String) -> Result<(), Stop> {
        let place = self.trail.place(&objects::hash(&id));
        let text = contents.text(READ_MAX)?;
        let Self {
            scanner,
            names,
            outlet,
            ..
        } = self;
        let folder = place.path.as_deref().unwrap_or_default();
        let mut entries = Entries::from(&text, 0, id.len() / 2).peekable();
        let mut named = None;
        let mut listening = Ok(());
        scanner.scan_text(&text, &mut |candidate| {
            let is_before = |end: usize| (end as u64) <= candidate.offset;
            while entries.next_if(|entry| is_before(entry.end)).is_some() {
                named = None;
            }
            let named = named.get_or_insert_with(|| names.of(folder, entries.peek()));
            if listening.is_err() || !names.is_new(named, &candidate) {
                return;
            }
            listening = outlet.found(Finding {
                path: Some(named.path.clone()),
                object: Some(GitObject {
                    kind: GitKind::Tree,
                    id: id.clone(),
                    commit: place.commit.clone(),
                }),
                part: Part::Name,
                candidate,
            });
        });
        listening?;
        // What is beyond that is no folder that git itself would walk through in time.
        let rest = io::copy(contents, &mut io::sink()).map_err(broken)?;
        self.outlet.counters.scanned(text.len() as u64);
        if rest > 0 {
            self.trail.lose();
            let reason = format!("a folder of more than {} MiB", READ_MAX >> 20);
            let path = place.path.map(|path| told(&path));
            let object = LostObject { kind: "tree", id };
            return Ok(self.outlet.lost(object, path, reason)?);
        }
        self.collect_odd(&text, id.len() / 2, &place)?;
        self.trail.enter(place.path.as_deref(), text);
        Ok(())
    }

    /// Collects what a folder has under modes that are none.
    fn collect_odd(&mut self, text: &[u8], width: usize, place: &Place) -> Result<(), Stop> {
        for entry in Entries::from(text, 0, width).filter(|entry| entry.is_odd) {
            let id = hexadecimal(entry.hash);
            if !self.odd.seen.insert(&id) {
                continue;
            }
            let folder = place.path.as_deref().unwrap_or_default();
            let path = Some(told(&extended(folder, entry.name)));
            if self.odd.seen.is_full() {
                let object = LostObject { kind: "blob", id };
                self.outlet.lost(object, path, "too many have no mode")?;
                continue;
            }
            let commit = place.commit.clone();
            let wanted = Wanted { id, path, commit };
            self.odd.bytes += wanted.held();
            self.odd.wanted.push(wanted);
            if self.odd.bytes > WANTED_MAX {
                self.scan_odd()?;
            }
        }
        Ok(())
    }

    fn scan_odd(&mut self) -> Result<(), Stop> {
        self.odd.bytes = 0;
        let wanted = std::mem::take(&mut self.odd.wanted);
        if wanted.is_empty() {
            return Ok(());
        }
        wanted::scan(self.repository, &wanted, self.engine, self.outlet)
    }
}

fn of_commit(id: String) -> GitObject {
    GitObject {
        kind: GitKind::Commit,
        commit: Some(id.clone()),
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_in_names_are_forgotten_when_there_are_too_many() {
        let mut names = Names::default();
        let mut most = 0;
        for key in 0..=NAMES_MAX as u64 {
            assert!(names.remember(key));
            most = most.max(names.seen.len());
        }
        assert_eq!((most, names.seen.len()), (NAMES_MAX, 1));
        assert!(!names.remember(NAMES_MAX as u64) && names.remember(0));
    }
}
