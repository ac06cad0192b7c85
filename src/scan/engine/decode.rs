//! Decoding of the text around a hit, in the hit's encoding.

use zeroize::Zeroize as _;

use super::literal::{Alignment, base64_value};
use super::margin::Margin;

/// Decoded piece of a text, with the origin of each byte. One is used for all hits in a text, so that a hit takes no
/// memory of its own.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    /// For each decoded byte, and for the end, the offset in the text of the character or code unit with its first
    /// bits.
    pub(super) origins: Vec<usize>,
    /// Offset of the literal in `bytes`.
    pub(super) literal_at: usize,
    /// Values and offsets of the characters that are being decoded.
    characters: Vec<(u8, usize)>,
}

/// Maximum numbers of bytes to decode before a literal, and from its start on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// Replacement of a UTF-16 code unit beyond Latin-1: a byte that no key format allows.
const FOREIGN: u8 = 0xff;

/// UTF-16 around a literal whose first code unit is at `at`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Utf16 {
    pub(super) at: usize,
    pub(super) low_byte_first: bool,
}

/// Base64 of either alphabet around a literal with this alignment, whose first whole character is at `at`. Padding is
/// not required. What stands between two lines is skipped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base64 {
    pub(super) at: usize,
    pub(super) alignment: Alignment,
    pub(super) margin: Margin,
}

impl Utf16 {
    /// Returns the decoded bytes before the literal, beginning with the nearest one.
    pub(super) fn before(self, text: &[u8]) -> impl Iterator<Item = u8> {
        let units = text[..self.at].rchunks_exact(2);
        units.map(move |unit| self.byte(unit))
    }

    /// Returns the decoded bytes from the literal on.
    pub(super) fn from(self, text: &[u8]) -> impl Iterator<Item = u8> {
        let units = text[self.at..].chunks_exact(2);
        units.map(move |unit| self.byte(unit))
    }

    fn byte(self, unit: &[u8]) -> u8 {
        let (low, high) = if self.low_byte_first {
            (unit[0], unit[1])
        } else {
            (unit[1], unit[0])
        };
        if high == 0 { low } else { FOREIGN }
    }
}

impl Base64 {
    /// Returns the decoded bytes before the literal, beginning with the nearest one.
    pub(super) fn before(self, text: &[u8]) -> impl Iterator<Item = u8> {
        let mut characters = characters_before(text, self.at, self.margin);
        // The last character before may end in bits of the literal.
        let mut surplus =
            self.alignment.first_whole_character() * 6 - self.alignment.first_byte() * 8;
        let (mut bits, mut count) = (0_u32, 0);
        std::iter::from_fn(move || {
            while count < 8 {
                let (value, _) = characters.next()?;
                bits |= u32::from(value >> surplus) << count;
                count += 6 - surplus;
                surplus = 0;
            }
            let [byte, ..] = bits.to_le_bytes();
            bits >>= 8;
            count -= 8;
            Some(byte)
        })
    }

    /// Returns the decoded bytes from the literal on, without its first `literal` bytes.
    pub(super) fn after(self, text: &[u8], literal: usize) -> impl Iterator<Item = u8> {
        let mut characters = characters_from(text, self.at, self.margin);
        // The first byte of the literal may begin in the character before.
        let begun = self.alignment.first_whole_character() * 6 - self.alignment.first_byte() * 8;
        let mut surplus = literal * 8 - begun;
        let (mut bits, mut count) = (0_u32, 0);
        std::iter::from_fn(move || {
            while count < 8 {
                let (value, _) = characters.next()?;
                if surplus >= 6 {
                    surplus -= 6;
                    continue;
                }
                bits = bits << 6 | u32::from(value) & (0x3f >> surplus);
                count += 6 - surplus;
                surplus = 0;
            }
            count -= 8;
            let [byte, ..] = (bits >> count).to_le_bytes();
            Some(byte)
        })
    }
}

impl Decoded {
    /// Decodes around the literal.
    pub(super) fn utf16(&mut self, text: &[u8], encoded: Utf16, reach: Reach) {
        let before = (encoded.at / 2).min(reach.before);
        let start = encoded.at - before * 2;
        self.bytes.clear();
        self.bytes.extend(encoded.before(text).take(before));
        self.bytes.reverse();
        self.bytes.extend(encoded.from(text).take(reach.after));
        self.origins.clear();
        let units = 0..=self.bytes.len();
        self.origins.extend(units.map(|unit| start + unit * 2));
        self.literal_at = before;
    }

    /// Decodes as much around the literal as belongs together.
    ///
    /// Returns `None` if nothing before or at the literal can be decoded.
    pub(super) fn base64(&mut self, text: &[u8], encoded: Base64, reach: Reach) -> Option<()> {
        let Base64 {
            at,
            alignment,
            margin,
        } = encoded;
        let characters = &mut self.characters;
        characters.clear();
        // The characters at the ends may hold parts of bytes only.
        characters.extend(characters_before(text, at, margin).take(reach.before * 4 / 3 + 4));
        let before = characters.len();
        characters.reverse();
        characters.extend(characters_from(text, at, margin).take(reach.after * 4 / 3 + 4));

        // Position of the first of `characters` in its group of four.
        let first = (alignment.first_whole_character() + 4 - before % 4) % 4;
        let first_byte = (first * 6).div_ceil(8);
        let last_byte = (first + characters.len()) * 6 / 8;
        self.bytes.clear();
        self.origins.clear();
        for byte in first_byte..last_byte {
            let character = byte * 8 / 6 - first;
            let (high, origin) = characters[character];
            let (low, _) = characters[character + 1];
            let pair = u16::from(high) << 6 | u16::from(low);
            self.bytes
                .push((pair >> (4 - byte * 8 % 6)).to_be_bytes()[1]);
            self.origins.push(origin);
        }
        // What is left of the characters is no whole byte, and may belong to something else.
        let used = (last_byte * 8).div_ceil(6).checked_sub(first)?;
        let (_, last) = characters.get(used.checked_sub(1)?)?;
        self.origins.push(last + 1);
        let group = (first + before - alignment.first_whole_character()) / 4;
        self.literal_at = (group * 3 + alignment.first_byte()).checked_sub(first_byte)?;
        Some(())
    }
}

impl Drop for Decoded {
    fn drop(&mut self) {
        self.bytes.zeroize();
        self.characters.zeroize();
    }
}

/// Returns the values and offsets of the base64 characters from `at` on.
fn characters_from(text: &[u8], at: usize, margin: Margin) -> impl Iterator<Item = (u8, usize)> {
    let mut at = at;
    std::iter::from_fn(move || {
        let value = base64_value(*text.get(at)?).or_else(|| {
            at += margin.fold(&text[at..]);
            base64_value(*text.get(at)?)
        })?;
        at += 1;
        Some((value, at - 1))
    })
}

/// Returns the values and offsets of the base64 characters before `at`, beginning with the nearest one.
fn characters_before(text: &[u8], at: usize, margin: Margin) -> impl Iterator<Item = (u8, usize)> {
    let mut at = at;
    std::iter::from_fn(move || {
        at -= margin.fold_before(text, at);
        let value = base64_value(*text[..at].last()?)?;
        at -= 1;
        Some((value, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;
    use crate::scan::engine::literal::{Form, forms};

    fn alignments() -> Vec<(Alignment, Vec<Vec<u8>>, usize)> {
        let formats = FormatSet::builtin();
        forms(0, formats.get("rescind_secret").unwrap(), Encodings::ALL)
            .into_iter()
            .filter_map(|literal| match literal.form {
                Form::Base64(alignment) => Some((alignment, literal.bytes, literal.lead)),
                _ => None,
            })
            .collect()
    }

    fn decode(encoded: &str) -> (String, usize) {
        for (alignment, bytes, lead) in alignments() {
            let at = encoded.as_bytes().windows(bytes.len()).position(|window| {
                window
                    .iter()
                    .zip(&bytes)
                    .all(|(byte, known)| known.contains(byte))
            });
            if let Some(at) = at {
                let text = encoded.as_bytes();
                let encoded = Base64 {
                    at: at + lead,
                    alignment,
                    margin: Margin::Blank,
                };
                let mut decoded = Decoded::default();
                let reach = Reach {
                    before: 100,
                    after: 100,
                };
                decoded.base64(text, encoded, reach).unwrap();
                let (before, from) = decoded.bytes.split_at(decoded.literal_at);
                let rest = encoded.after(text, 7).collect::<Vec<_>>();
                assert_eq!(rest, from[7..]);
                assert!(encoded.before(text).eq(before.iter().rev().copied()));
                let origin = decoded.origins[decoded.literal_at];
                return (String::from_utf8(from.to_vec()).unwrap(), origin);
            }
        }
        panic!("no literal in {encoded}");
    }

    #[test]
    fn base64_is_read_from_whatever_stands_before_it() {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

        for before in ["", "a", "ab", "abc", "{\"key\":\"", "\u{ff}\u{fe}?>~~~"] {
            let text = format!("{before}rsc_sk_0123456789abc");
            for encoded in [
                STANDARD.encode(&text),
                STANDARD_NO_PAD.encode(&text),
                URL_SAFE.encode(&text),
            ] {
                for around in ["", "=", " ", "x: ", "not base64, a/b/cd ", "ä"] {
                    let (value, origin) = decode(&format!("{around}{encoded}"));
                    assert!(value.starts_with("rsc_sk_0123456789a"), "{value}");
                    assert_eq!(origin, around.len() + before.len() * 8 / 6);
                }
            }
        }
    }

    #[test]
    fn base64_is_read_across_line_breaks() {
        for line_break in ["\n", "\r\n", "\n    ", "\r\n\t"] {
            let encoded = "YWJjZGVm|cnNjX3NrXzAx|MjM0NTY3".replace('|', line_break);
            let (value, origin) = decode(&encoded);
            assert_eq!(value, "rsc_sk_01234567");
            assert_eq!(origin, 8 + line_break.len());
        }
        // A space without a line break, or an empty line, ends the base64.
        assert_eq!(decode("cnNjX3NrXzAx MjM0").0, "rsc_sk_01");
        assert_eq!(
            decode("MDEw\n\ncnNjX3NrXzAx\r\n\nMjM0"),
            ("rsc_sk_01".to_owned(), 6)
        );
    }
}
