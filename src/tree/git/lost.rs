//! Identification of objects that a repository should have but lacks, or that are damaged.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::command::Repository;
use super::folder::{Entries, EntryKind, extended, hexadecimal, told};
use super::objects::{Contents, READ_MAX, hash, top_folder};
use super::trail::Trail;
use super::{Closed, HistoryError, Outlet, links};
use crate::scan::{GitKind, LostObject};

/// Reason that an object was not scanned.
pub(super) const LACKS: &str = "the repository lacks this object";

/// Maximum number of missing objects that are identified. A partial clone may lack millions.
const EXPLAINED_MAX: usize = 100_000;

/// Maximum size of their paths that are held, in bytes. All may be in one folder, whose path is long.
const PATHS_MAX: usize = 4 << 20;

/// Missing objects, and what is known of them from the objects that refer to them.
#[derive(Debug, Default)]
pub(super) struct Lost {
    ids: BTreeSet<String>,
    known: BTreeMap<String, (&'static str, Option<PathBuf>)>,
    /// Reasons of those that are there and cannot be read.
    damaged: BTreeMap<String, String>,
    /// Size of the paths, in bytes.
    paths: usize,
}

impl Lost {
    /// Records a missing object, or reports it at once if there are too many.
    pub(super) fn add(&mut self, id: String, outlet: Outlet<'_>) -> Result<(), Closed> {
        // Git prints this for a reference that it cannot read, and reports it elsewhere.
        if id.bytes().all(|digit| digit == b'0') {
            return Ok(());
        }
        if self.ids.len() < EXPLAINED_MAX {
            self.ids.insert(id);
            return Ok(());
        }
        let kind = "object";
        outlet.lost(LostObject { kind, id }, None, LACKS)
    }

    /// Records an object that git cannot read, for this reason.
    pub(super) fn add_damaged(
        &mut self,
        id: String,
        why: String,
        outlet: Outlet<'_>,
    ) -> Result<(), Closed> {
        if self.ids.len() < EXPLAINED_MAX {
            self.damaged.insert(id.clone(), why);
        }
        self.add(id, outlet)
    }

    /// Records a missing commit.
    pub(super) fn add_commit(&mut self, id: String) {
        self.known.insert(id.clone(), ("commit", None));
        self.ids.insert(id);
    }

    /// Reports all missing objects, with their type and path if they can be determined from the objects that refer
    /// to them.
    pub(super) fn report(
        mut self,
        repository: &Repository,
        outlet: Outlet<'_>,
    ) -> Result<(), Closed> {
        if self.ids.iter().any(|id| !self.known.contains_key(id)) {
            let _ = self.explain(repository);
        }
        for id in self.ids {
            let (kind, path) = self.known.remove(&id).unwrap_or(("object", None));
            let why = self.damaged.remove(&id);
            let why = why.unwrap_or_else(|| LACKS.to_owned());
            outlet.lost(LostObject { kind, id }, path, why)?;
        }
        Ok(())
    }

    /// Searches every existing commit, folder and tag for references to the missing objects.
    fn explain(&mut self, repository: &Repository) -> Result<(), HistoryError> {
        let mut contents = Contents::of_references(repository)?;
        let mut trail = Trail::default();
        while let Some(entry) = contents.next()? {
            let text = contents.text(READ_MAX)?;
            match entry.kind {
                Some(GitKind::Tree) => {
                    let place = trail.place(&hash(&entry.id));
                    self.look_into_folder(&text, entry.id.len() / 2, place.path.as_deref());
                    trail.enter(place.path.as_deref(), text);
                }
                Some(GitKind::Commit) => {
                    self.look_into_commit(&text);
                    if let Some(top) = top_folder(&text) {
                        trail.begin(&entry.id, top);
                    }
                }
                Some(GitKind::Tag) => self.look_into_tag(&text),
                Some(GitKind::Blob | GitKind::Reference) | None => {}
            }
        }
        contents.finish().map(drop)
    }

    fn know(&mut self, id: &str, kind: &'static str, path: Option<PathBuf>) {
        if self.ids.contains(id)
            && let MapEntry::Vacant(place) = self.known.entry(id.to_owned())
        {
            let held = self.paths + path.as_ref().map_or(0, |path| path.as_os_str().len());
            let path = path.filter(|_| held <= PATHS_MAX);
            if path.is_some() {
                self.paths = held;
            }
            place.insert((kind, path));
        }
    }

    fn look_into_commit(&mut self, text: &[u8]) {
        if let Some(id) = links::folder(text) {
            self.know(&id, "tree", None);
        }
        for id in links::parents(text) {
            self.know(&id, "commit", None);
        }
    }

    fn look_into_tag(&mut self, text: &[u8]) {
        let Some((id, named)) = links::tagged(text) else {
            return;
        };
        let mut kinds = ["blob", "tree", "commit", "tag"].into_iter();
        if let Some(kind) = kinds.find(|kind| kind.as_bytes() == named) {
            self.know(&id, kind, None);
        }
    }

    fn look_into_folder(&mut self, text: &[u8], width: usize, path: Option<&[u8]>) {
        for entry in Entries::from(text, 0, width) {
            let kind = match entry.kind {
                EntryKind::Folder => "tree",
                EntryKind::File => "blob",
                EntryKind::Submodule => continue,
            };
            let id = hexadecimal(entry.hash);
            if self.ids.contains(&id) {
                let path = extended(path.unwrap_or_default(), entry.name);
                self.know(&id, kind, Some(told(&path)));
            }
        }
    }
}

/// Returns those of the named objects that the repository lacks.
pub(super) fn lacking(
    repository: &Repository,
    names: Vec<String>,
) -> Result<BTreeSet<String>, HistoryError> {
    let mut heads = Contents::heads_of(repository, names)?;
    let mut lacking = BTreeSet::new();
    while let Some(entry) = heads.next()? {
        if entry.kind.is_none() {
            lacking.insert(entry.id);
        }
    }
    heads.finish()?;
    Ok(lacking)
}

/// Reads object names, one per line, from a file of at most `max` bytes that may be anything. A file that does not
/// exist is empty.
pub(super) fn read_names(path: &std::path::Path, max: u64) -> io::Result<BTreeSet<String>> {
    let kind = match std::fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    // A pipe or a device has no end.
    if !kind.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = Vec::new();
    let mut file = std::fs::File::open(path)?.take(max + 1);
    if file.read_to_end(&mut text)? as u64 > max {
        let words = format!("it is larger than {} MiB", max >> 20);
        return Err(io::Error::other(words));
    }
    let text = String::from_utf8_lossy(&text);
    let names = text
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_missing_objects_are_held_as_long_as_there_is_room() {
        let mut lost = Lost::default();
        let path = PathBuf::from("p".repeat(PATHS_MAX / 4));
        for n in 0..6 {
            lost.ids.insert(n.to_string());
            lost.know(&n.to_string(), "blob", Some(path.clone()));
        }
        lost.ids.insert("short".to_owned());
        let named = |lost: &Lost| {
            lost.known
                .values()
                .filter(|(_, path)| path.is_some())
                .count()
        };
        assert_eq!((lost.known.len(), named(&lost)), (6, 4));
        lost.paths -= 1;
        lost.know("short", "blob", Some(PathBuf::from("p")));
        assert_eq!((lost.known.len(), named(&lost)), (7, 5));
    }

    #[test]
    fn what_refers_to_an_object_says_what_it_is() {
        let mut lost = Lost::default();
        let [aa, bb, cc] = ["aa", "bb", "cc"].map(|id| id.repeat(20));
        for id in [&aa, &bb, &cc, "dd", "ee"] {
            lost.ids.insert(id.to_owned());
        }
        let commit = format!("tree {aa}\nparent {bb}\nauthor x\nparent {cc}\n\nparent {cc}\n");
        lost.look_into_commit(commit.as_bytes());
        lost.look_into_tag(format!("object {cc}\ntype tag\ntag v1\n\n").as_bytes());
        lost.look_into_folder(
            b"100644 a b\0\xdd160000 module\x00\xee40000 cut off\0",
            1,
            Some(b"folder"),
        );
        let at = |path: &str| Some(PathBuf::from(path));
        let known: Vec<_> = lost.known.into_iter().collect();
        assert_eq!(
            known,
            [
                (aa, ("tree", None)),
                (bb, ("commit", None)),
                (cc, ("tag", None)),
                ("dd".to_owned(), ("blob", at("folder/a b"))),
            ]
        );
    }
}
