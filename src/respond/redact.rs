//! Callers put keys where they do not belong: into a link's query, a description, a path. Nothing
//! that is kept may hold one.

use crate::scan::Redactor;
use crate::store::{Key, Place};

/// The longest link that is kept, in bytes.
pub const URL_MAX: usize = 2_048;

/// The longest name of a repository that is kept, in bytes.
pub const REPOSITORY_MAX: usize = 512;

/// The longest path that is kept, in bytes.
pub const PATH_MAX: usize = 4_096;

/// The longest of the other texts that are kept, in bytes.
const SOURCE_MAX: usize = 128;
const COMMIT_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 4_096;
const OWNER_MAX: usize = 1_024;

/// A place as it is kept: without keys, without control characters, of bounded length. Two sightings
/// at the same place become the same text.
pub(super) fn clean_place(redactor: &Redactor, place: &Place) -> Place {
    let optional = |text: &Option<String>, max| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| clean(redactor, text, max))
    };
    Place {
        source: clean(redactor, &place.source, SOURCE_MAX),
        url: optional(&place.url, URL_MAX),
        repository: optional(&place.repository, REPOSITORY_MAX),
        commit: optional(&place.commit, COMMIT_MAX),
        path: optional(&place.path, PATH_MAX),
        // Canonical JSON keeps whole numbers exact up to here (RFC 8785, 3.2.2.3).
        line: place.line.map(|line| line.min((1 << 53) - 1)),
    }
}

/// A key as the log tells of it.
pub(super) fn clean_key(redactor: &Redactor, key: &Key) -> Key {
    let mut key = key.clone();
    key.description = clean(redactor, &key.description, DESCRIPTION_MAX);
    key.owner.id = clean(redactor, &key.owner.id, OWNER_MAX);
    key
}

/// `text` without keys, at most `max` bytes of it and an ellipsis: what is kept of it in the end, for those
/// who would otherwise hold all of it until then. If the text itself was cut, its last `open_end` bytes may
/// be the beginning of a key; they are dropped.
pub fn shorten(redactor: &Redactor, text: &str, max: usize, open_end: Option<usize>) -> String {
    let redacted = redactor.redact(text);
    let certain = redacted.len().saturating_sub(open_end.unwrap_or(0));
    let end = redacted.floor_char_boundary(certain.min(max));
    let mut kept = redacted[..end].to_owned();
    if end < redacted.len() || open_end.is_some() {
        kept.push('…');
    }
    kept
}

/// Keys out, control characters replaced, the rest cut after `max` bytes.
fn clean(redactor: &Redactor, text: &str, max: usize) -> String {
    let redacted = redactor.redact(text);
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
    use crate::keyformat::FormatSet;

    #[test]
    fn texts_are_bounded_and_printable() {
        let redactor = Redactor::new(&FormatSet::builtin());
        assert_eq!(
            clean(&redactor, "a\u{1b}[31mb\n", 100),
            "a\u{fffd}[31mb\u{fffd}"
        );
        assert_eq!(clean(&redactor, "äää", 5), "ää…");
        let place = Place {
            source: "partner:github".to_owned(),
            url: Some(String::new()),
            repository: None,
            commit: None,
            path: Some("x".repeat(10_000)),
            line: Some(u64::MAX),
        };
        let kept = clean_place(&redactor, &place);
        assert_eq!(kept.url, None);
        assert_eq!(kept.path.unwrap().len(), PATH_MAX + '…'.len_utf8());
        assert_eq!(kept.line, Some(9_007_199_254_740_991));
    }

    /// Shortened early or late, the same is kept.
    #[test]
    fn shortening_changes_nothing_of_what_is_kept() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        for length in 0..60 {
            let text = format!(
                "{}ä€{}\n{}",
                "x".repeat(length),
                key.expose(),
                "y".repeat(40)
            );
            let early = shorten(&redactor, &text, 50, None);
            assert!(early.len() <= 50 + '…'.len_utf8());
            assert_eq!(clean(&redactor, &early, 50), clean(&redactor, &text, 50));
        }
        // A key that was cut in two is in no redacted text.
        let text = format!("path/{}", &key.expose()[..30]);
        let shortened = shorten(&redactor, &text, 50, Some(43));
        assert_eq!(shortened, "…");
    }
}
