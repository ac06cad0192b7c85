//! Redaction of texts before they are stored. Callers put keys where they do not belong: into the query of a link,
//! a description, a path.

use crate::scan::Redactor;
use crate::store::{Key, Place};

/// Maximum length of a stored link, in bytes.
pub const URL_MAX: usize = 2_048;

/// Maximum length of a stored repository name, in bytes.
pub const REPOSITORY_MAX: usize = 512;

/// Maximum length of a stored path, in bytes.
pub const PATH_MAX: usize = 4_096;

/// Maximum lengths of the other stored texts, in bytes.
const SOURCE_MAX: usize = 128;
const COMMIT_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 4_096;
const OWNER_MAX: usize = 1_024;

/// Returns a place in the form in which it is stored: without keys and control characters, and with bounded length.
/// Two sightings at the same place have the same form.
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
        // Canonical JSON represents integers exactly up to this value (RFC 8785, section 3.2.2.3).
        line: place.line.map(|line| line.min((1 << 53) - 1)),
    }
}

/// Returns a key in the form in which it is logged.
pub(super) fn clean_key(redactor: &Redactor, key: &Key) -> Key {
    let mut key = key.clone();
    key.description = clean(redactor, &key.description, DESCRIPTION_MAX);
    key.owner.id = clean(redactor, &key.owner.id, OWNER_MAX);
    key
}

/// Returns `text` without keys, at most `max` bytes of it and an ellipsis: what is kept of it in the end, for those
/// who would otherwise hold all of it until then.
///
/// If it is the beginning of a longer text, a key may stand across its end, and what is there of it is not known for
/// one, in whatever encoding. So only that is kept which comes out the same when half as much is known: a
/// key that begins there would have to take up the other half to be cut.
pub fn shorten(redactor: &Redactor, text: &str, max: usize, is_cut: bool) -> String {
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

/// Redacts keys, replaces control characters and truncates the result to `max` bytes and an ellipsis.
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
    use std::fmt::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

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
            assert_eq!(clean(&redactor, &early, 50), clean(&redactor, &text, 50));
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
