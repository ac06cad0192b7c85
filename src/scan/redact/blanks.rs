//! Removal of characters that most decoders skip, white space and invisible characters, and of whatever occurs in no
//! key.

use super::draft::Draft;

/// Copies the draft's source without blanks, and without plus signs if `without_plus` is set, since these stand for
/// blanks in the query of a URL. Returns whether there is anything to remove.
///
/// Bytes that are not UTF-8 are removed as well, since they are absent wherever such a text is shown. So are the
/// zeros of UTF-16.
pub(super) fn join(draft: &mut Draft<'_>, without_plus: bool) -> bool {
    let text = draft.source();
    if without_plus && !text.contains(&b'+') {
        return false;
    }
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !(without_plus && *byte == b'+');
    let mut done = 0;
    let mut at = 0;
    while let Some(plain) = text[at..].iter().position(|byte| !is_plain(byte)) {
        at += plain;
        let (is_left_out, length) = if text[at].is_ascii() {
            (true, 1)
        } else {
            match character(&text[at..]) {
                Some(c) => (is_blank(c), c.len_utf8()),
                None => (true, 1),
            }
        };
        if is_left_out {
            draft.copy(done..at);
            done = at + length;
        }
        at += length;
    }
    if done > 0 {
        draft.copy(done..text.len());
    }
    done > 0
}

/// Returns whether there is anything to remove.
pub(super) fn has_blanks(text: &[u8]) -> bool {
    !text.iter().all(u8::is_ascii_graphic) && join(&mut Draft::of(text), false)
}

/// Returns the character at the start of `text`, or `None` if there is none.
pub(super) fn character(text: &[u8]) -> Option<char> {
    let start = &text[..text.len().min(4)];
    start.utf8_chunks().next()?.valid().chars().next()
}

/// Copies the bytes of the draft's source that are to be kept. Returns whether there are others.
pub(super) fn loosen(draft: &mut Draft<'_>, is_kept: impl Fn(u8) -> bool) -> bool {
    let text = draft.source();
    let Some(first) = text.iter().position(|byte| !is_kept(*byte)) else {
        return false;
    };
    draft.copy(0..first);
    draft.keep(first, is_kept);
    true
}

/// Returns whether a character is white space, a control character, invisible, or the replacement of an invalid
/// byte.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fffd}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &[u8], without_plus: bool) -> Option<String> {
        let mut draft = Draft::of(text);
        join(&mut draft, without_plus).then(|| String::from_utf8(draft.bytes).unwrap())
    }

    #[test]
    fn blanks_are_left_out() {
        let text = "a b\t\r\n\u{b}c\0d\u{200b}e\u{a0}ä\u{202e}+\u{feff}f";
        assert_eq!(joined(text.as_bytes(), false).as_deref(), Some("abcdeä+f"));
        assert_eq!(joined(text.as_bytes(), true).as_deref(), Some("abcdeäf"));
        assert_eq!(joined(b"a\xffb\xc3", false).as_deref(), Some("ab"));
        for text in ["", "ab/c+", "äb"] {
            assert_eq!(joined(text.as_bytes(), false), None);
        }
        assert_eq!(joined(b"a b", true), None);
    }

    #[test]
    fn places_are_those_of_what_stays() {
        let mut draft = Draft::with_origins("ä b\n\nc".as_bytes());
        assert!(join(&mut draft, false));
        assert_eq!(draft.origin(2..3), 3..4);
        assert_eq!(draft.origin(2..4), 3..7);
    }
}
