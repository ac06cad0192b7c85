//! Decoding of the text around a hit, in the hit's encoding.

use super::literal::{Alignment, base64_value};

/// Decoded piece of a text, with the origin of each byte.
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    /// For each decoded byte, and for the end, the offset in the text of the character or code unit with its first
    /// bits.
    pub(super) origins: Vec<usize>,
    /// Offset of the literal in `bytes`.
    pub(super) literal_at: usize,
}

/// Replacement of a UTF-16 code unit beyond Latin-1: a byte that no key format allows.
const FOREIGN: u8 = 0xff;

/// Decodes UTF-16 around the code unit at `at`, up to `reach` code units to either side.
pub(super) fn utf16(text: &[u8], at: usize, low_byte_first: bool, reach: usize) -> Decoded {
    let before = (at / 2).min(reach);
    let start = at - before * 2;
    let units = (text.len() - start) / 2;
    let bytes: Vec<u8> = text[start..]
        .chunks_exact(2)
        .take(units.min(before + reach))
        .map(|unit| {
            let (low, high) = if low_byte_first {
                (unit[0], unit[1])
            } else {
                (unit[1], unit[0])
            };
            if high == 0 { low } else { FOREIGN }
        })
        .collect();
    Decoded {
        origins: (0..=bytes.len()).map(|unit| start + unit * 2).collect(),
        bytes,
        literal_at: before,
    }
}

/// Decodes base64 of either alphabet around a literal with this alignment, whose first whole character is at `at`.
/// Decodes as much of `text` as belongs together. Padding is not required. Single line breaks are skipped, with the
/// indentation after them.
///
/// Returns `None` if nothing before or at the literal can be decoded.
pub(super) fn base64(text: &[u8], at: usize, alignment: Alignment) -> Option<Decoded> {
    let mut characters = characters_before(text, at);
    let before = characters.len();
    characters.extend(characters_from(text, at));

    // Position of the first of `characters` in its group of four.
    let first = (alignment.first_whole_character() + 4 - before % 4) % 4;
    let first_byte = (first * 6).div_ceil(8);
    let last_byte = (first + characters.len()) * 6 / 8;
    let mut decoded = Decoded {
        bytes: Vec::with_capacity(last_byte.saturating_sub(first_byte)),
        origins: Vec::with_capacity(characters.len()),
        literal_at: 0,
    };
    for byte in first_byte..last_byte {
        let character = byte * 8 / 6 - first;
        let (high, origin) = characters[character];
        let (low, _) = characters[character + 1];
        let pair = u16::from(high) << 6 | u16::from(low);
        decoded
            .bytes
            .push((pair >> (4 - byte * 8 % 6)).to_be_bytes()[1]);
        decoded.origins.push(origin);
    }
    let end = characters.last().map(|(_, origin)| origin + 1)?;
    decoded.origins.push(end);
    let group = (first + before - alignment.first_whole_character()) / 4;
    decoded.literal_at = (group * 3 + alignment.first_byte()).checked_sub(first_byte)?;
    Some(decoded)
}

/// Returns the values and offsets of the base64 characters from `at` on.
fn characters_from(text: &[u8], at: usize) -> impl Iterator<Item = (u8, usize)> {
    let mut at = at;
    std::iter::from_fn(move || {
        at += fold(&text[at..]);
        let value = base64_value(*text.get(at)?)?;
        at += 1;
        Some((value, at - 1))
    })
}

/// Returns the values and offsets of the base64 characters before `at`, in the order of the text, with room for all
/// others.
fn characters_before(text: &[u8], at: usize) -> Vec<(u8, usize)> {
    let mut characters = Vec::with_capacity(text.len());
    let mut rest = &text[..at];
    loop {
        rest = &rest[..rest.len() - fold_before(rest)];
        let Some((last, before)) = rest.split_last() else {
            break;
        };
        let Some(value) = base64_value(*last) else {
            break;
        };
        characters.push((value, before.len()));
        rest = before;
    }
    characters.reverse();
    characters
}

/// Returns the length of the line break at the start of `text`, including the indentation of the next line, or 0.
pub(super) fn fold(text: &[u8]) -> usize {
    let line_break = match text {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => return 0,
    };
    let indent = text[line_break..].iter();
    line_break + indent.take_while(|byte| is_blank(**byte)).count()
}

/// Returns the length of the line break at the end of `text`, including the indentation after it, or 0.
pub(super) fn fold_before(text: &[u8]) -> usize {
    let indent = text
        .iter()
        .rev()
        .take_while(|byte| is_blank(**byte))
        .count();
    match &text[..text.len() - indent] {
        [.., b'\r', b'\n'] => indent + 2,
        [.., b'\n'] => indent + 1,
        _ => 0,
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
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
                let decoded = base64(encoded.as_bytes(), at + lead, alignment).unwrap();
                let text = String::from_utf8(decoded.bytes[decoded.literal_at..].to_vec()).unwrap();
                return (text, decoded.origins[decoded.literal_at]);
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
