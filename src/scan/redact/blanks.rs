//! Removal of characters that most decoders skip, white space and invisible characters, and of whatever occurs in no
//! key.

use super::view::{Draft, View};

/// Returns `view` without blanks, and without plus signs if `without_plus` is set, since these stand for blanks in
/// the query of a URL. Returns `None` if there is nothing to remove.
///
/// Bytes that are not UTF-8 are removed as well, since they are absent wherever such a text is shown. So are the
/// zeros of UTF-16.
pub(super) fn join(view: &View<'_>, without_plus: bool) -> Option<View<'static>> {
    let text = &*view.bytes;
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !(without_plus && *byte == b'+');
    let first = text.iter().position(|byte| !is_plain(byte))?;
    if without_plus && !text.contains(&b'+') {
        return None;
    }
    let mut draft = Draft::of(view);
    let mut done = 0;
    let mut at = first;
    let mut leave_out = |from: usize, to: usize| {
        draft.copy(done..from);
        done = to;
    };
    for chunk in text[first..].utf8_chunks() {
        for c in chunk.valid().chars() {
            let end = at + c.len_utf8();
            if is_blank(c) || without_plus && c == '+' {
                leave_out(at, end);
            }
            at = end;
        }
        let end = at + chunk.invalid().len();
        if end > at {
            leave_out(at, end);
        }
        at = end;
    }
    if done == 0 {
        return None;
    }
    draft.copy(done..text.len());
    let mut joined = draft.into_view();
    joined.is_joined = true;
    joined.was_wide = memchr::memchr(0, text).is_some();
    Some(joined)
}

/// Returns `view` without the bytes that are not to be kept, or `None` if there are none.
pub(super) fn loosen(view: &View<'_>, is_kept: impl Fn(u8) -> bool) -> Option<View<'static>> {
    let text = &*view.bytes;
    let first = text.iter().position(|byte| !is_kept(*byte))?;
    let mut draft = Draft::of(view);
    let mut done = 0;
    for (at, byte) in text.iter().enumerate().skip(first) {
        if !is_kept(*byte) {
            draft.copy(done..at);
            done = at + 1;
        }
    }
    draft.copy(done..text.len());
    let mut loose = draft.into_view();
    loose.is_loose = true;
    Some(loose)
}

/// Returns whether a character is white space, a control character, invisible, or the replacement of an invalid
/// byte.
fn is_blank(c: char) -> bool {
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
        let joined = join(&View::of(text).unwrap(), without_plus)?;
        Some(String::from_utf8(joined.bytes.into_owned()).unwrap())
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
        let view = join(&View::of("ä b\n\nc".as_bytes()).unwrap(), false).unwrap();
        assert_eq!(view.place(2..3), 3..4);
        assert_eq!(view.place(2..4), 3..7);
    }
}
