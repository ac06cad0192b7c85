//! Contents of folders ("trees") as git stores them.

use std::path::PathBuf;

use crate::tree::open::path_of;

/// Maximum length of the paths that are told, in bytes. Longer ones are cut.
pub(super) const PATH_MAX: usize = 16 << 10;

/// Maximum number of folders of one name in a folder that are compared. Git itself makes one.
const FOLDERS_MAX: usize = 16;

/// Stands for the names that were cut off a path. No name has such a byte.
const CUT: u8 = 0;

/// Kind of an entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EntryKind {
    /// File or symbolic link.
    File,
    Folder,
    /// Submodule, whose commit belongs to another repository.
    Submodule,
}

impl EntryKind {
    /// Returns the kind with this mode, in octal digits. As git does, it looks at the bits of the type alone, however
    /// many digits precede them. A mode that git refuses is that of a file, which is scanned.
    pub(super) fn of_mode(mode: &[u8]) -> Self {
        match type_of(mode) {
            Some(0o040_000) => Self::Folder,
            Some(0o160_000) => Self::Submodule,
            _ => Self::File,
        }
    }
}

/// Returns the bits of the type in a mode, or `None` if these are no octal digits.
fn type_of(mode: &[u8]) -> Option<u32> {
    const TYPE: u32 = 0o170_000;
    let mut bits = 0_u32;
    for digit in mode {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        bits = bits << 3 | u32::from(digit - b'0');
    }
    Some(bits & TYPE)
}

/// Returns whether a mode is of no type that git knows: neither of a file, a link, a folder nor a submodule.
fn is_odd(mode: &[u8]) -> bool {
    let known = [0o100_000, 0o120_000, 0o040_000, 0o160_000];
    type_of(mode).is_none_or(|bits| !known.contains(&bits))
}

/// Entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderEntry<'a> {
    pub(super) kind: EntryKind,
    pub(super) name: &'a [u8],
    /// Hash of the object, `width` bytes.
    pub(super) hash: &'a [u8],
    /// End of the entry, in bytes from the start of the folder.
    pub(super) end: usize,
    /// `true` if its mode has no type that git knows. Git takes it for a submodule, and does not list what it has.
    pub(super) is_odd: bool,
}

/// Entries of a folder: a mode, a blank, a name, a zero byte and a hash of `width` bytes each.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a> {
    text: &'a [u8],
    at: usize,
    width: usize,
}

impl<'a> Entries<'a> {
    /// Reads the entries of the folder from the byte `at` on.
    pub(super) fn from(text: &'a [u8], at: usize, width: usize) -> Self {
        Self { text, at, width }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = FolderEntry<'a>;

    fn next(&mut self) -> Option<FolderEntry<'a>> {
        let rest = self.text.get(self.at..)?;
        let name_ends = memchr::memchr(0, rest)?;
        let hash = rest.get(name_ends + 1..name_ends + 1 + self.width)?;
        let blank = memchr::memchr(b' ', &rest[..name_ends]);
        let (mode, name) = rest[..name_ends].split_at(blank.unwrap_or_default());
        self.at += name_ends + 1 + self.width;
        Some(FolderEntry {
            kind: EntryKind::of_mode(mode),
            name: name.strip_prefix(b" ").unwrap_or(name),
            hash,
            end: self.at,
            is_odd: is_odd(mode),
        })
    }
}

/// Returns a hash in hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.collect()
}

/// Returns a path with a name appended, as far as it is told.
pub(super) fn extended(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = path.to_owned();
    extend(&mut path, name);
    path
}

/// Appends a name to a path, unless it becomes too long to be told, as it stays then: a name may have as many bytes as a
/// folder. What is left out are whole names, of which the beginning could be that of a key.
pub(super) fn extend(path: &mut Vec<u8>, name: &[u8]) {
    if is_cut(path) {
        return;
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    if path.len() + name.len() <= PATH_MAX {
        path.extend_from_slice(name);
    } else {
        path.push(CUT);
    }
}

/// Returns a path without the names that make it too long to be told.
pub(super) fn cut(path: &[u8]) -> Vec<u8> {
    let Some(told) = path.get(..PATH_MAX).filter(|_| path.len() > PATH_MAX) else {
        return path.to_owned();
    };
    let folder = memchr::memrchr(b'/', told).map_or(&b""[..], |slash| &told[..=slash]);
    [folder, &[CUT]].concat()
}

/// Returns a path as it is told.
pub(super) fn told(path: &[u8]) -> PathBuf {
    match path.strip_suffix(&[CUT]) {
        Some(folder) => path_of(&[folder, "…".as_bytes()].concat()),
        None => path_of(path),
    }
}

fn is_cut(path: &[u8]) -> bool {
    path.last() == Some(&CUT)
}

/// Folder whose entries are found by their names.
///
/// It holds little more than the text: a folder that compresses well may have millions of entries.
#[derive(Debug, Default)]
pub(super) struct ByName {
    text: Vec<u8>,
    width: usize,
    /// Starts of the entries, in the order of their names, kinds and hashes. Whoever writes a folder need not keep the
    /// order of names, and may repeat a name as often as there is room for.
    starts: Vec<u32>,
}

impl ByName {
    /// Creates it of the text of a folder of less than 4 GiB, whose hashes have `width` bytes.
    pub(super) fn new(text: Vec<u8>, width: usize) -> Self {
        let mut starts = Vec::new();
        let mut start = 0;
        for entry in Entries::from(&text, 0, width) {
            starts.push(u32::try_from(start).unwrap_or(u32::MAX));
            start = entry.end;
        }
        let order = |start: u32| entry_at(&text, start, width).map(order_of);
        starts.sort_unstable_by(|a, b| order(*a).cmp(&order(*b)));
        Self {
            text,
            width,
            starts,
        }
    }

    /// Returns the entries of this name.
    pub(super) fn find<'f>(&'f self, name: &'f [u8]) -> impl Iterator<Item = FolderEntry<'f>> {
        self.from(name, EntryKind::File)
    }

    /// Returns the folders of this name. If there are many, these are only some of them.
    pub(super) fn folders<'f>(&'f self, name: &'f [u8]) -> impl Iterator<Item = FolderEntry<'f>> {
        let folders = self.from(name, EntryKind::Folder);
        let folders = folders.take_while(|entry| entry.kind == EntryKind::Folder);
        folders.take(FOLDERS_MAX)
    }

    /// Returns whether it has an entry with the same name, kind and hash.
    pub(super) fn has(&self, entry: &FolderEntry<'_>) -> bool {
        let wanted = Some(order_of(*entry));
        let order = |start: &u32| self.entry(*start).map(order_of);
        let found = self
            .starts
            .binary_search_by(|start| order(start).cmp(&wanted));
        found.is_ok()
    }

    /// Returns the entries of this name, from those of a kind on.
    fn from<'f>(
        &'f self,
        name: &'f [u8],
        kind: EntryKind,
    ) -> impl Iterator<Item = FolderEntry<'f>> {
        let wanted = Some((name, kind, &[][..]));
        let is_before = |start: &u32| self.entry(*start).map(order_of) < wanted;
        let first = self.starts.partition_point(is_before);
        let entries = self.starts[first..].iter();
        let entries = entries.filter_map(|start| self.entry(*start));
        entries.take_while(move |entry| entry.name == name)
    }

    fn entry(&self, start: u32) -> Option<FolderEntry<'_>> {
        entry_at(&self.text, start, self.width)
    }

    /// Returns the number of bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.text.len() + size_of_val(self.starts.as_slice())
    }
}

fn entry_at(text: &[u8], start: u32, width: usize) -> Option<FolderEntry<'_>> {
    Entries::from(text, start as usize, width).next()
}

fn order_of(entry: FolderEntry<'_>) -> (&[u8], EntryKind, &[u8]) {
    (entry.name, entry.kind, entry.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_entries_up_to_where_they_are_cut_off() {
        let text = b"100644 a b\0\x1d160000 module\x00\xee40000 sub\0\x0f100644 cut off\0";
        let entries: Vec<_> = Entries::from(text, 0, 1).collect();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.kind, entry.name, hexadecimal(entry.hash)))
            .collect();
        assert_eq!(
            seen,
            [
                (EntryKind::File, &b"a b"[..], "1d".to_owned()),
                (EntryKind::Submodule, b"module", "ee".to_owned()),
                (EntryKind::Folder, b"sub", "0f".to_owned()),
            ]
        );
        assert_eq!(Entries::from(text, entries[0].end, 1).count(), 2);
        assert_eq!(extended(b"", b"a"), b"a");
        assert_eq!(extended(b"a", b"b"), b"a/b");
    }

    #[test]
    fn modes_are_read_as_git_reads_them() {
        for (mode, kind) in [
            ("40000", EntryKind::Folder),
            ("040000", EntryKind::Folder),
            ("0040000", EntryKind::Folder),
            ("40755", EntryKind::Folder),
            ("7770000000000040000", EntryKind::Folder),
            ("160000", EntryKind::Submodule),
            ("0160644", EntryKind::Submodule),
            ("100644", EntryKind::File),
            ("120000", EntryKind::File),
            ("140000", EntryKind::File),
            ("4", EntryKind::File),
            ("", EntryKind::File),
            ("4000x", EntryKind::File),
            ("48000", EntryKind::File),
        ] {
            assert_eq!(EntryKind::of_mode(mode.as_bytes()), kind, "{mode}");
        }
        let odd = ["140000", "4", "", "4000x", "20000", "170000"];
        assert!(odd.into_iter().all(|mode| is_odd(mode.as_bytes())));
        let known = ["040000", "0160644", "100644", "120000"];
        assert!(!known.into_iter().any(|mode| is_odd(mode.as_bytes())));
    }

    #[test]
    fn paths_are_cut_where_they_are_no_longer_told() {
        let whole = extended(b"a", &b"b".repeat(PATH_MAX - 2));
        assert_eq!((whole.len(), told(&whole)), (PATH_MAX, path_of(&whole)));
        assert_eq!(cut(&whole), whole);
        let path = extended(b"a", &b"b".repeat(PATH_MAX - 1));
        assert_eq!(told(&path), PathBuf::from("a/…"));
        assert_eq!(extended(&path, b"c"), path);
        assert_eq!(
            told(&extended(b"", &b"b".repeat(PATH_MAX + 1))),
            PathBuf::from("…")
        );
        // A name may look like that.
        let name = extended("a/…".as_bytes(), b"b");
        assert_eq!(told(&name), PathBuf::from("a/…/b"));
        assert_eq!(
            cut(&[b"a/".repeat(PATH_MAX), b"b".to_vec()].concat()).len(),
            PATH_MAX + 1
        );
        assert_eq!(cut(&b"a".repeat(PATH_MAX + 1)), [CUT]);
    }

    #[test]
    fn entries_are_found_by_their_names_whatever_their_order() {
        let text = b"100644 b\0B40000 a\0A100644 c\0C100644 a\0a100644 cut off\0".to_vec();
        let folder = ByName::new(text, 1);
        let hashes = |name: &[u8]| -> Vec<u8> {
            let mut found: Vec<u8> = folder
                .find(name)
                .flat_map(|entry| entry.hash.to_vec())
                .collect();
            found.sort_unstable();
            found
        };
        assert_eq!(hashes(b"a"), b"Aa");
        assert_eq!(hashes(b"b"), b"B");
        assert_eq!(hashes(b"c"), b"C");
        assert!(
            [&b""[..], b"aa", b"cut off", b"d"]
                .iter()
                .all(|name| hashes(name).is_empty())
        );
        assert!(ByName::default().find(b"a").next().is_none());
        let folders: Vec<_> = folder.folders(b"a").map(|entry| entry.hash).collect();
        assert_eq!(folders, [b"A"]);
        assert!(folder.folders(b"b").next().is_none());
        let has = |entry: &[u8]| Entries::from(entry, 0, 1).all(|entry| folder.has(&entry));
        assert!(has(b"100644 a\0a40755 a\0A"));
        assert!(!has(b"100644 a\0A") && !has(b"40000 a\0a") && !has(b"100644 d\0B"));
        let many = ByName::new(b"40000 a\0A".repeat(FOLDERS_MAX * 2), 1);
        assert_eq!(many.folders(b"a").count(), FOLDERS_MAX);
    }
}
