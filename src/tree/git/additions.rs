//! Entries of a folder that others do not have.
//!
//! The others are compared one after the other, and what is kept of them is little beside the folder itself: a merge may
//! have dozens of parents with large folders.

use super::folder::{ByName, Entries, EntryKind, hexadecimal};

/// Maximum number of folders that are kept for the comparison of those within a folder. Beyond it, more counts as new.
const BEFORE_MAX: usize = 1 << 18;

/// Kind of an addition, by what the others have of the name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addition {
    /// Nothing.
    Named,
    /// Something else.
    Changed,
    /// The same.
    None,
}

/// For each entry of a folder, what the others have of its name.
#[derive(Debug)]
pub(super) struct Additions {
    width: usize,
    entries: Vec<Addition>,
    /// Folders that had the name of an entry, and the number of the entry, in its order.
    before: Vec<(u32, [u8; 32])>,
}

impl Additions {
    /// Compares a folder with no other: all of its entries are new. Hashes have `width` bytes.
    pub(super) fn of(text: &[u8], width: usize) -> Self {
        let count = Entries::from(text, 0, width).count();
        Self {
            width,
            entries: vec![Addition::Named; count],
            before: Vec::new(),
        }
    }

    /// Compares the folder with another one.
    pub(super) fn compare(&mut self, text: &[u8], other: &ByName) {
        let entries = Entries::from(text, 0, self.width);
        for (number, (entry, addition)) in (0..).zip(entries.zip(&mut self.entries)) {
            // Each is looked up, not passed: both folders may have one name as often as there is room for.
            if *addition == Addition::None || other.has(&entry) {
                *addition = Addition::None;
                continue;
            }
            if *addition == Addition::Named && other.find(entry.name).next().is_none() {
                continue;
            }
            *addition = Addition::Changed;
            if entry.kind != EntryKind::Folder {
                continue;
            }
            let room = BEFORE_MAX - self.before.len();
            self.before
                .extend(other.folders(entry.name).take(room).map(|before| {
                    let mut hash = [0; 32];
                    hash[..before.hash.len()].copy_from_slice(before.hash);
                    (number, hash)
                }));
        }
        // Stable: what was compared first comes first.
        self.before.sort_by_key(|(number, _)| *number);
    }

    /// Returns what the others have of the name of an entry.
    pub(super) fn of_entry(&self, number: usize) -> Addition {
        self.entries.get(number).copied().unwrap_or(Addition::Named)
    }

    /// Returns the folders that had the name of an entry.
    pub(super) fn before(&self, number: usize) -> Vec<String> {
        let first = self
            .before
            .partition_point(|(of, _)| (*of as usize) < number);
        let of_entry = self.before[first..].iter();
        let of_entry = of_entry.take_while(|(of, _)| *of as usize == number);
        of_entry
            .map(|(_, hash)| hexadecimal(&hash[..self.width]))
            .collect()
    }

    /// Returns the number of bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.entries.len() + size_of_val(self.before.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_those_before_had_is_not_added() {
        let now = b"100644 a\0A100644 b\0B100644 c\0C40000 d\0D100644 e\0E";
        let one = b"100644 a\0A100644 b\0x40000 d\0y".to_vec();
        let two = b"100644 b\0z100755 c\0C40000 d\0w40000 e\0v".to_vec();
        let mut additions = Additions::of(now, 1);
        let seen = |additions: &Additions| -> Vec<(Addition, Vec<String>)> {
            let entries = 0..Entries::from(now, 0, 1).count();
            entries
                .map(|number| (additions.of_entry(number), additions.before(number)))
                .collect()
        };
        let all = seen(&additions);
        assert_eq!(all, vec![(Addition::Named, Vec::new()); 5]);
        for other in [one, two] {
            additions.compare(now, &ByName::new(other, 1));
        }
        let before = ["79", "77"].map(str::to_owned).to_vec();
        assert_eq!(
            seen(&additions),
            [
                (Addition::None, vec![]),
                (Addition::Changed, vec![]),
                (Addition::None, vec![]),
                (Addition::Changed, before),
                (Addition::Changed, vec![]),
            ]
        );
    }
}
