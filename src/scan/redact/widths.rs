//! Other forms of ASCII characters: fullwidth, mathematical, circled, superscript.

use unicode_normalization::char::decompose_compatible;

use super::view::{Draft, View};

/// Returns `view` with each character that is a form of an ASCII one, or of several, replaced by it, as Unicode's
/// normalization form NFKC does. Accents are left out. Returns `None` if there is none.
pub(super) fn narrow(view: &View<'_>) -> Option<View<'static>> {
    let text = &*view.bytes;
    let first = text.iter().position(|byte| !byte.is_ascii())?;
    let mut draft = None;
    let mut done = 0;
    let mut at = first;
    for chunk in text[first..].utf8_chunks() {
        for c in chunk.valid().chars() {
            let end = at + c.len_utf8();
            if !c.is_ascii() {
                decompose_compatible(c, |part| {
                    if part.is_ascii_graphic() {
                        let draft = draft.get_or_insert_with(|| Draft::of(view));
                        if done <= at {
                            draft.copy(done..at);
                        }
                        let [byte, ..] = u32::from(part).to_le_bytes();
                        draft.push(byte, at..end);
                        done = end;
                    }
                });
            }
            at = end;
        }
        at += chunk.invalid().len();
    }
    let mut draft = draft?;
    draft.copy(done..text.len());
    let mut narrow = draft.into_view();
    (narrow.is_joined, narrow.was_wide) = (view.is_joined, view.was_wide);
    Some(narrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_ascii_characters_become_these() {
        for (text, expected) in [
            ("a\u{ff52}\u{ff3f}b", "ar_b"),
            ("\u{1d42b}\u{1d7d8}\u{24d0}\u{b2}", "r0a2"),
            ("\u{fb03}\u{20ac}\u{e4}", "ffi\u{20ac}a"),
        ] {
            let view = View::of(text.as_bytes()).unwrap();
            assert_eq!(narrow(&view).unwrap().bytes, expected.as_bytes());
        }
        let view = View::of("x\u{fb03}y".as_bytes()).unwrap();
        let narrow_view = narrow(&view).unwrap();
        assert_eq!(
            (narrow_view.place(1..2), narrow_view.place(3..5)),
            (1..4, 1..5)
        );
        for text in ["", "abc", "\u{20ac}\u{4e00}"] {
            assert!(narrow(&View::of(text.as_bytes()).unwrap()).is_none());
        }
        let broken = View::of(b"\xff\xef\xbd\x92\xc3").unwrap();
        assert_eq!(&*narrow(&broken).unwrap().bytes, b"\xffr\xc3");
    }
}
