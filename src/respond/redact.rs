//! Callers put keys where they do not belong: into a link's query, a description, a path. Nothing
//! that is kept may hold one.

use std::borrow::Cow;

use memchr::memmem;

use crate::keyformat::{FormatSet, KeyFormat};
use crate::store::{Key, Place};

/// The longest texts that are kept, in bytes.
const SOURCE_MAX: usize = 128;
const URL_MAX: usize = 2_048;
const REPOSITORY_MAX: usize = 512;
const COMMIT_MAX: usize = 128;
const PATH_MAX: usize = 4_096;
const DESCRIPTION_MAX: usize = 4_096;
const OWNER_MAX: usize = 1_024;

/// `text` with every key in it, of any format, shortened to what may be shown: `rsc_sk_…wxyz`.
pub fn redact<'a>(formats: &FormatSet, text: &'a str) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for format in formats.iter() {
        if let Some(redacted) = redact_format(format, &text) {
            text = Cow::Owned(redacted);
        }
    }
    text
}

/// `None` when there is no key of the format.
fn redact_format(format: &KeyFormat, text: &str) -> Option<String> {
    let mut redacted = String::new();
    let mut kept_to = 0;
    for at in memmem::find_iter(text.as_bytes(), format.literal()) {
        let Some(range) = format.match_at(text.as_bytes(), at) else {
            continue;
        };
        // A key is made of ASCII, so its ends and last four characters lie on character boundaries.
        let (Some(before), Some(key)) = (text.get(kept_to..range.start), text.get(range.clone()))
        else {
            continue;
        };
        redacted.push_str(before);
        redacted.push_str(format.display_prefix());
        redacted.push('…');
        redacted.push_str(&key[key.len().saturating_sub(4)..]);
        kept_to = range.end;
    }
    if kept_to == 0 {
        return None;
    }
    redacted.push_str(&text[kept_to..]);
    Some(redacted)
}

/// A place as it is kept: without keys, without control characters, of bounded length. Two sightings
/// at the same place become the same text.
pub(super) fn clean_place(formats: &FormatSet, place: &Place) -> Place {
    let optional = |text: &Option<String>, max| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| clean(formats, text, max))
    };
    Place {
        source: clean(formats, &place.source, SOURCE_MAX),
        url: optional(&place.url, URL_MAX),
        repository: optional(&place.repository, REPOSITORY_MAX),
        commit: optional(&place.commit, COMMIT_MAX),
        path: optional(&place.path, PATH_MAX),
        // Canonical JSON keeps whole numbers exact up to here (RFC 8785, 3.2.2.3).
        line: place.line.map(|line| line.min((1 << 53) - 1)),
    }
}

/// A key as the log tells of it.
pub(super) fn clean_key(formats: &FormatSet, key: &Key) -> Key {
    let mut key = key.clone();
    key.description = clean(formats, &key.description, DESCRIPTION_MAX);
    key.owner.id = clean(formats, &key.owner.id, OWNER_MAX);
    key
}

/// Keys out, control characters replaced, the rest cut after `max` bytes.
fn clean(formats: &FormatSet, text: &str, max: usize) -> String {
    let redacted = redact(formats, text);
    let end = redacted.floor_char_boundary(max);
    let mut kept: String = redacted[..end]
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if end < redacted.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stays_in_a_text() {
        let formats = FormatSet::builtin();
        let mintable = formats.iter().filter(|format| format.can_mint());
        let keys: Vec<_> = mintable.map(|format| format.mint().unwrap()).collect();
        assert!(keys.len() >= 2);
        let mut text = String::from("https://example.com/ä?");
        for key in &keys {
            text.push_str(key.expose());
            text.push('&');
            text.push_str(key.expose());
        }
        let redacted = redact(&formats, &text);
        for key in &keys {
            assert!(!redacted.contains(key.expose()), "{redacted}");
            assert!(redacted.contains(key.last_four()), "{redacted}");
        }
        assert!(redacted.starts_with("https://example.com/ä?"));
        assert_eq!(redact(&formats, "rsc_sk_ nothing"), "rsc_sk_ nothing");
    }

    #[test]
    fn texts_are_bounded_and_printable() {
        let formats = FormatSet::builtin();
        assert_eq!(
            clean(&formats, "a\u{1b}[31mb\n", 100),
            "a\u{fffd}[31mb\u{fffd}"
        );
        assert_eq!(clean(&formats, "äää", 5), "ää…");
        let place = Place {
            source: "partner:github".to_owned(),
            url: Some(String::new()),
            repository: None,
            commit: None,
            path: Some("x".repeat(10_000)),
            line: Some(u64::MAX),
        };
        let kept = clean_place(&formats, &place);
        assert_eq!(kept.url, None);
        assert_eq!(kept.path.unwrap().len(), PATH_MAX + '…'.len_utf8());
        assert_eq!(kept.line, Some(9_007_199_254_740_991));
    }
}
