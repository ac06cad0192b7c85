//! Contents of folders ("trees") as git stores them.

/// Kind of an entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// File or symbolic link.
    File,
    Folder,
    /// Submodule, whose commit belongs to another repository.
    Submodule,
}

impl EntryKind {
    /// Returns the kind with this mode, in octal digits.
    pub(super) fn of_mode(mode: &[u8]) -> Self {
        match mode {
            b"40000" | b"040000" => Self::Folder,
            b"160000" => Self::Submodule,
            _ => Self::File,
        }
    }
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

/// Appends a name to a path.
pub(super) fn extend(path: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    [path, slash, name].concat()
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
        assert_eq!(extend(b"", b"a"), b"a");
        assert_eq!(extend(b"a", b"b"), b"a/b");
    }
}
