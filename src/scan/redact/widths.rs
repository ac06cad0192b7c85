//! Other forms of ASCII characters: fullwidth, mathematical, circled, superscript.

use unicode_normalization::char::decompose_compatible;

use super::blanks::character;
use super::draft::Draft;

/// Copies the draft's source with each character that is a form of an ASCII one, or of several, replaced by it, as
/// Unicode's normalization form NFKC does. Accents are left out. Returns whether there is one.
pub(super) fn narrow(draft: &mut Draft<'_>) -> bool {
    let text = draft.source();
    let mut done = 0;
    let mut at = 0;
    while let Some(ascii) = text[at..].iter().position(|byte| !byte.is_ascii()) {
        at += ascii;
        let Some(c) = character(&text[at..]) else {
            at += 1;
            continue;
        };
        let end = at + c.len_utf8();
        decompose_compatible(c, |part| {
            if part.is_ascii_graphic() {
                if done <= at {
                    draft.copy(done..at);
                }
                let [byte, ..] = u32::from(part).to_le_bytes();
                draft.push(byte, at..end);
                done = end;
            }
        });
        at = end;
    }
    if done > 0 {
        draft.copy(done..text.len());
    }
    done > 0
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
            let mut draft = Draft::of(text.as_bytes());
            assert!(narrow(&mut draft));
            assert_eq!(draft.bytes, expected.as_bytes());
        }
        let mut draft = Draft::with_origins("x\u{fb03}y".as_bytes());
        assert!(narrow(&mut draft));
        assert_eq!((draft.origin(1..2), draft.origin(3..5)), (1..4, 1..5));
        for text in ["", "abc", "\u{20ac}\u{4e00}"] {
            assert!(!narrow(&mut Draft::of(text.as_bytes())));
        }
        let mut broken = Draft::of(b"\xff\xef\xbd\x92\xc3");
        assert!(narrow(&mut broken));
        assert_eq!(broken.bytes, b"\xffr\xc3");
    }
}
