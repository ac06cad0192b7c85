//! Lines and columns of places in a text that is seen through a moving window.

use std::ops::Range;

use memchr::{memchr_iter, memrchr};

/// Counter of line breaks, which counts only as far as needed.
///
/// Lines end in a line feed. In a text that is UTF-16 as a whole, a line feed is a code unit and so is a column;
/// otherwise, a column is a byte. A byte order mark at the start of the text is not counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::scan) struct Lines {
    unit: Unit,
    /// Number of line breaks before `counted_to`.
    breaks: u64,
    /// End of the counted part, in bytes from the start of the text.
    counted_to: u64,
    /// Start of the line that contains `counted_to`, in bytes from the start of the text.
    line_start: u64,
    /// Number of bytes or code units between `line_start` and `counted_to` that continue a character.
    continued: u64,
}

/// Place in a text. All fields count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scan) struct Spot {
    pub(in crate::scan) line: u64,
    /// Column in bytes, or in UTF-16 code units.
    pub(in crate::scan) column: u64,
    /// Column in characters.
    pub(in crate::scan) character: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte,
    LowByteFirst,
    HighByteFirst,
}

/// Returns the number of bytes that continue a character in UTF-8. Sums of up to 255 fit in a byte, so that a vector of
/// bytes is summed at once: a text may be one line of gigabytes.
fn continuation_bytes(text: &[u8]) -> usize {
    let continues = |byte: &u8| u8::from((0x80..0xc0).contains(byte));
    let sums = text.chunks(usize::from(u8::MAX));
    sums.map(|part| usize::from(part.iter().map(continues).sum::<u8>()))
        .sum()
}

impl Lines {
    /// Creates a counter for a text that begins with `start`.
    pub(in crate::scan) fn of(start: &[u8]) -> Self {
        let (unit, mark) = match start {
            [0xff, 0xfe, ..] => (Unit::LowByteFirst, 2),
            [0xfe, 0xff, ..] => (Unit::HighByteFirst, 2),
            [0xef, 0xbb, 0xbf, ..] => (Unit::Byte, 3),
            // Without a mark, most texts in UTF-16 begin with two ASCII characters.
            [1..=0xff, 0, 1..=0xff, 0, ..] => (Unit::LowByteFirst, 0),
            [0, 1..=0xff, 0, 1..=0xff, ..] => (Unit::HighByteFirst, 0),
            _ => (Unit::Byte, 0),
        };
        Self {
            unit,
            breaks: 0,
            counted_to: 0,
            line_start: mark,
            continued: 0,
        }
    }

    /// Returns the width of a column in bytes.
    pub(in crate::scan) fn unit_bytes(self) -> u64 {
        match self.unit {
            Unit::Byte => 1,
            Unit::LowByteFirst | Unit::HighByteFirst => 2,
        }
    }

    /// Continues counting up to the place `to` of the window, which starts `base` bytes into the text.
    pub(in crate::scan) fn count_to(&mut self, window: &[u8], base: u64, to: usize) {
        let from = usize::try_from(self.counted_to.saturating_sub(base)).unwrap_or(usize::MAX);
        if from >= to {
            return;
        }
        let passed = &window[from..to];
        let (breaks, last) = match self.unit {
            Unit::Byte => (
                memchr_iter(b'\n', passed).count(),
                memrchr(b'\n', passed).map(|at| at + 1),
            ),
            Unit::LowByteFirst | Unit::HighByteFirst => self.unit_breaks(window, base, from, to),
        };
        self.breaks += breaks as u64;
        self.counted_to = base + to as u64;
        if let Some(after) = last {
            self.line_start = base + (from + after) as u64;
            self.continued = 0;
        }
        let line = self.line_start.saturating_sub(base);
        let line = usize::try_from(line).map_or(to, |line| line.clamp(from, to));
        self.continued += self.continuing(window, base, line..to);
    }

    /// Returns the number of bytes or code units starting in `range` that continue a character.
    fn continuing(self, window: &[u8], base: u64, range: Range<usize>) -> u64 {
        let count = match self.unit {
            Unit::Byte => continuation_bytes(&window[range]),
            Unit::LowByteFirst | Unit::HighByteFirst => {
                let high = usize::from(self.unit == Unit::LowByteFirst);
                let first =
                    range.start + usize::from(!(base + range.start as u64).is_multiple_of(2));
                let units = (first..range.end).step_by(2);
                // Second half of a surrogate pair.
                let second = |byte: &u8| (0xdc..0xe0).contains(byte);
                units
                    .filter(|unit| window.get(unit + high).is_some_and(second))
                    .count()
            }
        };
        count as u64
    }

    /// Returns the number of line breaks that start in `from..to`, and the end of the last one, relative to `from`.
    fn unit_breaks(
        self,
        window: &[u8],
        base: u64,
        from: usize,
        to: usize,
    ) -> (usize, Option<usize>) {
        let (low, high) = if self.unit == Unit::LowByteFirst {
            (0, 1)
        } else {
            (1, 0)
        };
        let mut breaks = 0;
        let mut last = None;
        for at in memchr_iter(b'\n', &window[from..(to + low).min(window.len())]) {
            let Some(unit) = (from + at).checked_sub(low) else {
                continue;
            };
            if unit >= from
                && (base + unit as u64).is_multiple_of(2)
                && window.get(unit + high) == Some(&0)
            {
                breaks += 1;
                last = Some(unit + 2 - from);
            }
        }
        (breaks, last)
    }

    /// Returns the position of the place `at` of the window. Calls must be in ascending order of places.
    pub(in crate::scan) fn locate(&mut self, window: &[u8], base: u64, at: usize) -> Spot {
        self.count_to(window, base, at);
        let bytes = (base + at as u64).saturating_sub(self.line_start);
        let column = bytes / self.unit_bytes();
        Spot {
            line: self.breaks + 1,
            column: column + 1,
            character: column.saturating_sub(self.continued) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate_all(text: &[u8], split: usize) -> Vec<(u64, u64)> {
        let mut lines = Lines::of(text);
        lines.count_to(text, 0, split);
        (split..text.len())
            .map(|at| lines.locate(&text[split..], split as u64, at - split))
            .map(|spot| (spot.line, spot.column))
            .collect()
    }

    #[test]
    fn counts_lines_and_bytes_from_one() {
        let text = b"ab\n\ncd\r\ne";
        let expected = [
            (1, 1),
            (1, 2),
            (1, 3),
            (2, 1),
            (3, 1),
            (3, 2),
            (3, 3),
            (3, 4),
            (4, 1),
        ];
        for split in 0..text.len() {
            assert_eq!(locate_all(text, split), expected[split..]);
        }
        assert_eq!(locate_all(b"\xef\xbb\xbfab", 3), [(1, 1), (1, 2)]);
    }

    #[test]
    fn utf16_line_breaks_are_code_units() {
        // U+4E0A and U+0A4E have a byte in common with a line feed.
        let text: Vec<u16> = "\u{feff}a\u{4e0a}\u{0a4e}\nb\n\n\u{4e0a}c"
            .encode_utf16()
            .collect();
        let low: Vec<u8> = text.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let high: Vec<u8> = text.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for text in [low, high] {
            for split in (2..text.len()).step_by(2) {
                let places = locate_all(&text, split);
                assert_eq!(places.last(), Some(&(4, 2)));
                if split == 2 {
                    assert_eq!(places[0], (1, 1));
                    assert_eq!(places[8], (2, 1));
                }
            }
        }
    }

    #[test]
    fn characters_are_neither_bytes_nor_code_units() {
        let text = "\u{feff}\u{1f511}\nä\u{1f511}€x";
        let units: Vec<u16> = text.encode_utf16().collect();
        let low: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let high: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for (text, x, column) in [
            (text.as_bytes(), text.len() - 1, 10),
            (&low, low.len() - 2, 5),
            (&high, high.len() - 2, 5),
        ] {
            // A window may start at any offset, in UTF-16 at any even one.
            for split in (0..=x).filter(|split| column == 10 || split % 2 == 0) {
                let mut lines = Lines::of(text);
                lines.count_to(text, 0, split);
                let spot = lines.locate(&text[split..], split as u64, x - split);
                let expected = Spot {
                    line: 2,
                    column,
                    character: 4,
                };
                assert_eq!(spot, expected, "cut at {split}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_character() {
        for text in [&b"\xef\xbb\xbfab"[..], b"\xff\xfea\0b\0"] {
            let at = text.len() - if text[0] == 0xef { 1 } else { 2 };
            let spot = Lines::of(text).locate(text, 0, at);
            assert_eq!((spot.column, spot.character), (2, 2));
        }
    }

    #[test]
    fn guesses_utf16_without_a_mark() {
        for (text, unit) in [
            (b"a\0b\0".as_slice(), Unit::LowByteFirst),
            (b"\0a\0b", Unit::HighByteFirst),
            (b"\0\0\0b", Unit::Byte),
            (b"a\0", Unit::Byte),
            (b"", Unit::Byte),
        ] {
            assert_eq!(Lines::of(text).unit, unit, "{text:?}");
        }
    }
}
