//! Messages of errors, which may repeat what a server said.

use crate::fetch::CUT;
use crate::respond::shorten;
use crate::scan::Redactor;

/// Returns a message without keys. A key across the end of what was cut is not known for one, so that less is kept of
/// that.
pub fn redact_message(redactor: &Redactor, message: &str) -> String {
    let parts = message.split_inclusive(CUT);
    parts
        .map(|part| match part.strip_suffix(CUT) {
            Some(cut) => shorten(redactor, cut, usize::MAX, true),
            None => redactor.redact(part).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;

    #[test]
    fn a_key_that_was_cut_off_is_in_no_message() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let start = "no such object ".repeat(30);
        for cut in 1..=key.expose().len() {
            let said = format!("{start}{}", &key.expose()[..cut]);
            let message = format!(
                "the server refused: {said}{CUT}; and {} later",
                key.expose()
            );
            let redacted = redact_message(&redactor, &message);
            assert!(!redacted.contains(&key.expose()[..12]), "{redacted}");
            assert!(
                redacted.starts_with("the server refused: no such"),
                "{redacted}"
            );
            assert!(redacted.contains("; and rsc_sk_…"), "{redacted}");
            // Of what is stored already, no more is taken away.
            assert_eq!(redact_message(&redactor, &redacted), redacted);
        }
    }
}
