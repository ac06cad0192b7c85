//! Keys within a string that a reporter calls a key.

use std::ops::Range;

use crate::keyformat::KeyValue;
use crate::scan::{Candidate, Engine, Scanner};

/// Maximum length of a string that is looked up without what surrounds it although no format knows it, in bytes.
const MAX_TRIMMED: usize = 1 << 10;

/// Kind of a string that a reporter calls a key.
pub(super) enum Told {
    /// A candidate, as it is.
    Candidate,
    /// A candidate, but for white space, quotation marks and other characters around it that are neither letters nor
    /// digits.
    Surrounded(KeyValue),
    /// Something else, which may hold candidates. If it is a key of a format that nobody knows, and white space or
    /// quotation marks are around that, it is this one.
    Other(Option<KeyValue>),
}

/// Returns the key that a string is, but for white space, quotation marks and other characters around it that are neither
/// letters nor digits. Returns `None` if there are none, or the string holds something else.
///
/// The string itself is always looked up as it was sent. Only where that is nobody's, what is within it matters: whoever
/// reports a key with the line break behind it has reported the key.
pub fn key_within(engine: &Engine, text: &str) -> Option<KeyValue> {
    match told(engine, text) {
        Told::Candidate => None,
        Told::Surrounded(key) => Some(key),
        Told::Other(key) => key,
    }
}

/// Returns what a string is that a reporter calls a key.
pub(super) fn told(engine: &Engine, text: &str) -> Told {
    let mut only = None;
    let mut found = 0_usize;
    Scanner::new(engine).scan_text(text.as_bytes(), &mut |candidate| {
        found += 1;
        only = (found == 1).then(|| (place_of(&candidate, text), candidate.value));
    });
    let Some((place, value)) = only else {
        return Told::Other(trimmed(text).filter(|_| found == 0).map(KeyValue::new));
    };
    if place.len() == text.len() {
        return Told::Candidate;
    }
    let is_stray = |text: &str| !text.chars().any(char::is_alphanumeric);
    if !place.is_empty() && is_stray(&text[..place.start]) && is_stray(&text[place.end..]) {
        Told::Surrounded(value)
    } else {
        Told::Other(None)
    }
}

/// Returns the place of a candidate that stands in a text as it is. Returns an empty one otherwise.
fn place_of(candidate: &Candidate, text: &str) -> Range<usize> {
    let start = usize::try_from(candidate.offset).unwrap_or(usize::MAX);
    let value = candidate.value.expose();
    let stands_there = text
        .get(start..)
        .is_some_and(|rest| rest.starts_with(value));
    if stands_there {
        start..start + value.len()
    } else {
        0..0
    }
}

/// Returns a string of which no format is known without what belongs to no key, if there is any of that around it.
fn trimmed(text: &str) -> Option<&str> {
    let is_stray = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(
                c,
                '"' | '\'' | '`' | '\u{ab}' | '\u{bb}' | '\u{200b}'..='\u{200f}' | '\u{2018}'..='\u{201f}' | '\u{2060}'
                    | '\u{feff}' | char::REPLACEMENT_CHARACTER
            )
    };
    let inner = text.trim_matches(is_stray);
    let is_other = inner.len() < text.len() && !inner.is_empty() && inner.len() <= MAX_TRIMMED;
    is_other.then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;

    #[test]
    fn a_key_is_found_in_what_surrounds_it() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        let mint = || formats.get("rescind_secret").unwrap().mint().unwrap();
        let (key, other) = (mint(), mint());
        let (key, other) = (key.expose(), other.expose());
        let exposed = |value: &KeyValue| value.expose().to_owned();
        let whole = |text: &str| key_within(&engine, text).as_ref().map(exposed);
        let is_other = |text: &str| matches!(told(&engine, text), Told::Other(_));
        for text in [
            " K\n",
            "\"K\"",
            "K\u{fffd}",
            "\u{feff}K\0",
            "<K>,",
            "`K`.",
            "\u{201c}K\u{201d}",
        ] {
            assert_eq!(
                whole(&text.replace('K', key)).as_deref(),
                Some(key),
                "{text}"
            );
            assert!(!is_other(&text.replace('K', key)), "{text}");
        }
        assert!(matches!(told(&engine, key), Told::Candidate));
        assert_eq!(whole(key), None);
        for text in ["key=K", "K K", "a K", "ä:K"] {
            assert_eq!(whole(&text.replace('K', key)), None, "{text}");
            assert!(is_other(&text.replace('K', key)), "{text}");
        }
        let both = format!("{key} {other}");
        assert!(whole(&both).is_none() && is_other(&both));
        // Of a key of an unknown format, as imported ones have, only what belongs to no key goes.
        assert_eq!(whole(" \"foreign-1\"\n").as_deref(), Some("foreign-1"));
        assert!(is_other(" \"foreign-1\"\n") && is_other("foreign-1"));
        for text in ["", "foreign", "\"", "<foreign>"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
