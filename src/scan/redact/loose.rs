//! Keys with something in between that occurs in no key: `rsc_sk_ab-cd`, `rsc.sk.abcd`.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::keyformat::{FormatSet, KeyFormat, KeyValue, Verdict};

/// Minimum number of letters and digits in a prefix to look for these alone.
const LEAST_LETTERS: usize = 3;

/// Visible characters of ASCII whose base64 can have others than letters and digits.
const NOT_OF_LETTERS: [u8; 3] = *b">?~";

/// Finder of keys by their letters and digits alone.
#[derive(Debug)]
pub(super) struct Loose {
    /// Table of the bytes that occur in keys, and of all letters and digits.
    kept: [bool; 256],
    formats: Vec<KeyFormat>,
    /// Finds the letters and digits of the prefix of each of `formats`.
    prefixes: Option<AhoCorasick>,
    needs_foreign: bool,
}

impl Loose {
    pub(super) fn new(formats: &FormatSet) -> Self {
        let mut kept = [false; 256];
        for byte in 0..=u8::MAX {
            kept[usize::from(byte)] = byte.is_ascii_alphanumeric()
                || formats.iter().any(|format| format.can_contain(byte));
        }
        let is_of_letters = |format: &&KeyFormat| {
            let body = format.byte_after_prefix();
            body.is_some_and(|body| body.iter().all(u8::is_ascii_alphanumeric))
                && format.checksum().is_some()
                && letters(format.literal()).len() >= LEAST_LETTERS
        };
        let needs_more = |format: &KeyFormat| {
            let is_in_letters = format.checksum().is_none() || is_of_letters(&format);
            !is_in_letters || NOT_OF_LETTERS.iter().any(|byte| format.can_contain(*byte))
        };
        let needs_foreign = formats.iter().any(needs_more);
        let formats: Vec<KeyFormat> = formats.iter().filter(is_of_letters).cloned().collect();
        let prefixes = formats.iter().map(|format| letters(format.literal()));
        Self {
            kept,
            prefixes: AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostFirst)
                .build(prefixes)
                .ok(),
            formats,
            needs_foreign,
        }
    }

    /// Returns whether there are keys with a checksum that are not found by letters and digits alone, or keys with a
    /// character whose base64 has others than these.
    pub(super) fn needs_foreign(&self) -> bool {
        self.needs_foreign
    }

    /// Returns whether a byte occurs in some key, or is a letter or a digit.
    pub(super) fn keeps(&self, byte: u8) -> bool {
        self.kept[usize::from(byte)]
    }

    /// Returns the places of keys in a text of which nothing but letters and digits was kept, and the redacted form
    /// of each. The checksum tells them from other letters.
    pub(super) fn places(&self, text: &[u8]) -> Vec<(Range<usize>, String)> {
        let Some(prefixes) = &self.prefixes else {
            return Vec::new();
        };
        let mut places = Vec::new();
        let mut at = 0;
        while let Some(found) = prefixes.find(Input::new(text).range(at..)) {
            at = found.start() + 1;
            let formats = self.formats.iter();
            places.extend(formats.filter_map(|format| key(format, text, found.start())));
        }
        places
    }
}

/// Returns the place and the redacted form of a key of which nothing but letters and digits stands at `start`.
fn key(format: &KeyFormat, text: &[u8], start: usize) -> Option<(Range<usize>, String)> {
    let mut at = start;
    for letter in format.literal().bytes().filter(u8::is_ascii_alphanumeric) {
        if text.get(at) != Some(&letter) {
            return None;
        }
        at += 1;
    }
    let end = at + format.max_len() - format.literal().len();
    let rest = std::str::from_utf8(text.get(at..end)?).ok()?;
    let key = KeyValue::new([format.literal(), rest].concat());
    let is_key = matches!(format.judge(key.expose().as_bytes()), Verdict::Match { .. });
    is_key.then(|| (start..end, key.redacted(format.display_prefix())))
}

fn letters(literal: &str) -> Vec<u8> {
    let letters = literal.bytes().filter(u8::is_ascii_alphanumeric);
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_digits_are_enough() {
        let formats = FormatSet::builtin();
        let loose = Loose::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let letters = format!("rscsk{}", &key.expose()[7..]);
        let text = format!("abcrscsk{letters}xyz");
        let places = loose.places(text.as_bytes());
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].0, 8..8 + letters.len());
        assert_eq!(places[0].1, format!("rsc_sk_\u{2026}{}", key.last_four()));
        let other = letters.replace("rscsk", "rscsk0");
        assert!(loose.places(other.as_bytes()).is_empty());
        assert!(loose.places(&letters.as_bytes()[..40]).is_empty());
        assert!(loose.keeps(b'_') && loose.keeps(b'z') && !loose.keeps(b'-'));
    }
}
