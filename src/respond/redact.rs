//! Redaction of texts before they are stored. Callers put keys where they do not belong: into the query of a link,
//! a description, a path.

use crate::keyformat::KeyValue;
use crate::scan::Redactor;
use crate::store::{Key, printable};

/// Maximum length of a stored link, in bytes.
pub const URL_MAX: usize = 2_048;

/// Maximum length of a stored repository name, in bytes.
pub const REPOSITORY_MAX: usize = 512;

/// Maximum length of a stored path, in bytes.
pub const PATH_MAX: usize = 4_096;

/// Maximum lengths of the other stored texts, in bytes.
pub(super) const SOURCE_MAX: usize = 128;
pub(super) const COMMIT_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 4_096;
const OWNER_MAX: usize = 1_024;

/// Length of the beginning of a text that is searched for keys, in bytes. More of it is never kept.
const LOOKED_AT: usize = 8 << 10;

/// Returns a key in the form in which it is logged. Its texts contain no keys since they were stored, so nothing is
/// searched here, where the key is locked.
pub(super) fn logged_form(key: &Key) -> Key {
    let mut key = key.clone();
    key.description = bounded(&key.description, DESCRIPTION_MAX);
    key.owner.id = bounded(&key.owner.id, OWNER_MAX);
    key
}

/// Returns the first `max` bytes of `text` without keys, and an ellipsis if that is not all. It is the same that would
/// be stored of the whole text, for those who should not hold all of it until then.
///
/// If the text itself `is_cut`, its end may be the beginning of a key, which is not recognized as one. So a second
/// result is computed from the first half of the text, and only what both have in common is kept: a key that begins
/// there and is cut would have to be as long as the other half.
pub fn shorten(redactor: &Redactor, text: &str, max: usize, is_cut: bool) -> String {
    let (text, is_cut) = match text.len() {
        ..=LOOKED_AT => (text, is_cut),
        _ => (&text[..text.floor_char_boundary(LOOKED_AT)], true),
    };
    let redacted = redactor.redact(text);
    let mut certain = redacted.len();
    if is_cut {
        let half = redactor.redact(&text[..text.floor_char_boundary(text.len() / 2)]);
        let bytes = redacted.bytes().zip(half.bytes());
        certain = bytes.take_while(|(a, b)| a == b).count();
    }
    let end = redacted.floor_char_boundary(certain.min(max));
    let mut kept = redacted[..end].to_owned();
    if end < redacted.len() || is_cut {
        kept.push('…');
    }
    kept
}

/// Returns what is looked at of `text`, without keys. If there is a `value`, it is taken out, too: it may be a key of a
/// format that is not loaded.
pub(super) fn clean(redactor: &Redactor, text: &str, value: Option<&KeyValue>) -> String {
    match value {
        _ if text.len() > LOOKED_AT => shorten(redactor, text, LOOKED_AT, true),
        Some(value) => redactor.redact_value(text, value).into_owned(),
        None => redactor.redact(text).into_owned(),
    }
}

/// Replaces control characters, and truncates the result to `max` bytes and an ellipsis.
pub(super) fn bounded(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    let mut kept = printable(&text[..end]);
    if end < text.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::clean::stored_form;
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::store::Place;

    #[test]
    fn texts_are_bounded_and_printable() {
        let redactor = Redactor::new(&FormatSet::builtin());
        assert_eq!(bounded("a\u{1b}[31mb\n", 100), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(bounded("äää", 5), "ää…");
        let place = Place {
            source: "partner:github".to_owned(),
            url: Some(String::new()),
            repository: None,
            commit: None,
            path: Some("x".repeat(10_000)),
            line: Some(u64::MAX),
        };
        let kept = stored_form(&place, |text| clean(&redactor, text, None));
        assert_eq!(kept.url, None);
        assert_eq!(kept.path.unwrap().len(), PATH_MAX + '…'.len_utf8());
        assert_eq!(kept.line, Some(9_007_199_254_740_991));
    }

    /// The same text is stored whether it is shortened early or late.
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
            let early = shorten(&redactor, &text, 50, false);
            assert!(early.len() <= 50 + '…'.len_utf8());
            let kept = |text: &str| bounded(&clean(&redactor, text, None), 50);
            assert_eq!(kept(&early), kept(&text));
        }
    }

    /// However long a text is, only its beginning is looked at.
    #[test]
    fn what_is_looked_at_is_bounded() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let start = "x/".repeat(LOOKED_AT / 2 - 10);
        let text = format!("{start}{}", key.expose());
        for kept in [
            shorten(&redactor, &text, usize::MAX, false),
            clean(&redactor, &text, None),
        ] {
            assert_eq!(kept, format!("{}…", "x/".repeat(LOOKED_AT / 4)));
        }
    }

    /// A key that was cut in two is in no redacted text, however much is taken out in front of it and however it is
    /// written.
    #[test]
    fn what_is_cut_keeps_no_part_of_a_key() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let mint = || formats.get("rescind_secret").unwrap().mint().unwrap();
        let percent = |text: &str| {
            text.bytes().fold(String::new(), |mut encoded, byte| {
                let _ = write!(encoded, "%{byte:02X}");
                encoded
            })
        };
        let others: Vec<_> = (0..180).map(|_| mint().expose().to_owned()).collect();
        let start = format!("https://git.example/{}/", others.join("/"));
        let key = mint();
        let forms = [
            key.expose().to_owned(),
            percent(key.expose()),
            percent(&percent(key.expose())),
            hex::encode(key.expose()),
            STANDARD.encode(key.expose()),
        ];
        for form in forms {
            for cut in 1..form.len() {
                let text = format!("{start}{}", &form[..cut]);
                let kept = shorten(&redactor, &text, 1 << 20, true);
                assert!(kept.starts_with("https://git.example/rsc_sk_…"), "{kept}");
                assert!(kept.len() < start.len() / 4);
                let after = kept.rsplit('/').next().unwrap();
                assert!(after.len() < 24, "{after}");
                assert!(cut < 12 || !kept.contains(&form[..12]), "{kept}");
            }
        }
    }
}
