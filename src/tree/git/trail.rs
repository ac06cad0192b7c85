//! Paths of the objects of a history, told by their order.
//!
//! Git lists each object once: after the first commit that has it, and after the folder in which it stands, in the
//! order of the folder. So the path of an object is found by going on in the folders that were read last. A list of
//! paths that git prints itself cuts names at line breaks.

use super::folder::{Entries, EntryKind, extend};

/// Maximum size of the folders on the way to an object, in bytes. Where they are larger, objects have no path.
const HELD_MAX: usize = 128 << 20;

/// The folders from the top one to the one that was read last.
#[derive(Debug, Default)]
pub(super) struct Trail {
    commit: Option<String>,
    /// Top folder of the commit, until it comes.
    top: Option<Vec<u8>>,
    levels: Vec<Level>,
    /// Path of the last level, as far as it is told, of which those of the others are beginnings.
    path: Vec<u8>,
    held: usize,
    /// Set when the rest of the commit's objects have no path.
    is_lost: bool,
    /// Set once there was a second commit.
    is_second: bool,
    /// Set once objects come in another order.
    is_over: bool,
}

/// Folder that was read, and how far its entries have come.
#[derive(Debug)]
struct Level {
    /// Length of its path, as far as that is told.
    path: usize,
    text: Vec<u8>,
    at: usize,
}

/// Place of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Path of the object, as far as it is told. `None` if it is unknown, or no commit has the object.
    pub(super) path: Option<Vec<u8>>,
    /// First commit that has it. `None` if a reference names it directly.
    pub(super) commit: Option<String>,
}

impl Trail {
    /// Starts with the objects of a commit, whose top folder has this hash.
    pub(super) fn begin(&mut self, commit: &str, top: Vec<u8>) {
        if self.is_over {
            return;
        }
        self.is_second = self.commit.is_some();
        self.commit = Some(commit.to_owned());
        self.top = Some(top);
        self.levels.clear();
        self.held = 0;
        self.is_lost = false;
    }

    /// Returns the place of the next object of the list.
    pub(super) fn place(&mut self, hash: &[u8]) -> Place {
        if self.top.as_deref() == Some(hash) {
            self.top = None;
            self.levels.clear();
            self.held = 0;
            return self.at(Some(Vec::new()));
        }
        // What references name without a commit comes after the first commit, before its top folder.
        if self.top.is_some() && !self.is_second {
            return Place {
                path: self.find(hash),
                commit: None,
            };
        }
        let path = self.find(hash);
        self.at(path)
    }

    /// Goes on within the folder of the list that was placed last, which is at this path.
    pub(super) fn enter(&mut self, path: Option<&[u8]>, text: Vec<u8>) {
        if self.is_lost || self.held + text.len() > HELD_MAX {
            self.lose();
            return;
        }
        self.held += text.len();
        self.path.clear();
        self.path.extend_from_slice(path.unwrap_or_default());
        self.levels.push(Level {
            path: self.path.len(),
            text,
            at: 0,
        });
    }

    /// Says that a folder cannot be entered, so that the places of what follows are unknown.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
        self.levels.clear();
        self.held = 0;
    }

    /// Says that what follows comes in no order that tells its places.
    pub(super) fn end(&mut self) {
        self.lose();
        (self.commit, self.top, self.is_over) = (None, None, true);
    }

    fn at(&self, path: Option<Vec<u8>>) -> Place {
        Place {
            path,
            commit: self.commit.clone(),
        }
    }

    /// Goes on to the entry with this hash. Each entry is passed once.
    fn find(&mut self, hash: &[u8]) -> Option<Vec<u8>> {
        while let Some(level) = self.levels.last_mut() {
            let mut entries = Entries::from(&level.text, level.at, hash.len());
            let found =
                entries.find(|entry| entry.hash == hash && entry.kind != EntryKind::Submodule);
            if let Some(entry) = found {
                level.at = entry.end;
                self.path.truncate(level.path);
                extend(&mut self.path, entry.name);
                return Some(self.path.clone());
            }
            self.held -= level.text.len();
            self.levels.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_placed_in_the_order_in_which_git_lists_them() {
        let mut trail = Trail::default();
        trail.begin("c1", vec![b'T']);
        let place = |path: Option<&[u8]>, commit: Option<&str>| Place {
            path: path.map(<[u8]>::to_vec),
            commit: commit.map(str::to_owned),
        };
        // A tag names it.
        assert_eq!(trail.place(b"d"), place(None, None));
        let top = trail.place(b"T");
        assert_eq!(top, place(Some(b""), Some("c1")));
        trail.enter(
            top.path.as_deref(),
            b"100644 a\nb\0a40000 sub\0S100644 z\0z".to_vec(),
        );
        assert_eq!(trail.place(b"a"), place(Some(b"a\nb"), Some("c1")));
        let sub = trail.place(b"S");
        trail.enter(sub.path.as_deref(), b"100644 x\0x".to_vec());
        assert_eq!(trail.place(b"x"), place(Some(b"sub/x"), Some("c1")));
        assert_eq!(trail.place(b"z"), place(Some(b"z"), Some("c1")));
        trail.begin("c2", vec![b'U']);
        assert_eq!(trail.place(b"U"), place(Some(b""), Some("c2")));
        trail.enter(Some(b""), b"40000 far\0F".to_vec());
        trail.lose();
        assert_eq!(trail.place(b"F"), place(None, Some("c2")));
        trail.end();
        trail.begin("c3", vec![b'V']);
        assert_eq!(trail.place(b"V"), place(None, None));
        trail.enter(None, b"100644 x\0x".to_vec());
        assert_eq!(trail.place(b"x"), place(None, None));
    }
}
