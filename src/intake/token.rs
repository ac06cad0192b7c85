//! Keys within a string that a reporter calls a key.

use std::ops::Range;

use crate::keyformat::KeyValue;
use crate::scan::{Candidate, Engine, Scanner};

/// Maximum length of a string that is looked up without what surrounds it although no format knows it, in bytes.
const MAX_TRIMMED: usize = 1 << 10;

/// Returns the key that a string is, but for white space, quotation marks and other characters around it that are neither
/// letters nor digits. Returns `None` if there are none, or the string holds something else.
pub fn key_within(engine: &Engine, text: &str) -> Option<KeyValue> {
    within(engine, text, &mut |_| ())
}

/// Likewise. Passes each key that the string holds beside something else to `part`.
///
/// The string itself is always looked up as it was sent. Only where that is nobody's, what is within it matters: whoever
/// reports a key with the line break behind it has reported the key.
pub(super) fn within(
    engine: &Engine,
    text: &str,
    part: &mut dyn FnMut(KeyValue),
) -> Option<KeyValue> {
    let mut first: Option<(KeyValue, Range<usize>)> = None;
    let mut are_several = false;
    Scanner::new(engine).scan_text(text.as_bytes(), &mut |candidate| {
        if are_several {
            part(candidate.value);
        } else if let Some((value, _)) = first.take() {
            are_several = true;
            part(value);
            part(candidate.value);
        } else {
            let place = place_of(&candidate, text);
            first = Some((candidate.value, place));
        }
    });
    if are_several {
        return None;
    }
    let Some((value, place)) = first else {
        return trimmed(text).map(KeyValue::new);
    };
    if place.len() == text.len() {
        return None;
    }
    let is_stray = |text: &str| !text.chars().any(char::is_alphanumeric);
    if !place.is_empty() && is_stray(&text[..place.start]) && is_stray(&text[place.end..]) {
        return Some(value);
    }
    part(value);
    None
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
        let parts = |text: &str| {
            let mut parts: Vec<String> = Vec::new();
            within(&engine, text, &mut |part| parts.push(exposed(&part)));
            parts
        };
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
            assert!(parts(&text.replace('K', key)).is_empty(), "{text}");
        }
        assert_eq!((whole(key), parts(key)), (None, Vec::new()));
        for text in ["key=K", "K K", "a K", "ä:K"] {
            assert_eq!(whole(&text.replace('K', key)), None, "{text}");
            assert_eq!(parts(&text.replace('K', key))[0], key, "{text}");
        }
        let both = format!("{key} {other}");
        assert_eq!(
            (whole(&both), parts(&both)),
            (None, vec![key.to_owned(), other.to_owned()])
        );
        // Of a key of an unknown format, as imported ones have, only what belongs to no key goes.
        assert_eq!(whole(" \"foreign-1\"\n").as_deref(), Some("foreign-1"));
        for text in ["", "foreign", "\"", "<foreign>"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
