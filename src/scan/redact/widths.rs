//! Other forms of ASCII characters: fullwidth, mathematical, circled, superscript.

use unicode_normalization::char::decompose_compatible;

use super::blanks::character;
use super::draft::Draft;

/// Forms of ASCII characters without an accent in Latin-1, where a byte stands for the character with its number.
const LATIN: [(u8, u8); 5] = [
    (0xaa, b'a'),
    (0xb2, b'2'),
    (0xb3, b'3'),
    (0xb9, b'1'),
    (0xba, b'o'),
];

/// Returns whether the character or code unit of UTF-16 with this number is an ASCII one, or may be a form of one, part
/// of a form, or invisible: whether it is one of the 256 neighbors of such.
pub(super) const fn may_be_form(code: u32) -> bool {
    matches!(
        code >> 8,
        0..=0x03
            | 0x06
            | 0x16
            | 0x18
            | 0x1d..=0x22
            | 0x24
            | 0x2a
            | 0x2c
            | 0x30
            | 0x32
            | 0x33
            | 0xa7
            | 0xd8
            | 0xdb..=0xdf
            | 0xfb
            | 0xfe
            | 0xff
            | 0x107
            | 0x1cc
            | 0x1d4..=0x1d7
            | 0x1f1
            | 0x1fb
            | 0xe00..=0xe0f
    )
}

/// Returns the number of the character that two code units of UTF-16 stand for, if they are a pair.
pub(super) fn pair(first: u32, second: u32) -> Option<u32> {
    let is_pair = matches!((first, second), (0xd800..0xdc00, 0xdc00..0xe000));
    is_pair.then(|| 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

/// Copies the draft's source with each character that is a form of an ASCII one, or of several, replaced by it, as
/// Unicode's normalization form NFKC does. Accents are left out. Returns whether there is one.
///
/// A byte that is not UTF-8 is one of Latin-1. With an accent it is left: it may as well be a part of a character.
pub(super) fn narrow(draft: &mut Draft<'_>) -> bool {
    let text = draft.source();
    let mut done = 0;
    let mut at = 0;
    while let Some(ascii) = text[at..].iter().position(|byte| !byte.is_ascii()) {
        at += ascii;
        let Some(c) = character(&text[at..]) else {
            if let Some((_, form)) = LATIN.iter().find(|(byte, _)| *byte == text[at]) {
                draft.copy(done..at);
                draft.push(*form, at..at + 1);
                done = at + 1;
            }
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
    use super::super::blanks::is_blank;
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
        let mut latin = Draft::with_origins(b"a\xb2\xb3\xb9\xaa\xba\xe9");
        assert!(narrow(&mut latin));
        assert_eq!(latin.bytes, b"a231ao\xe9");
        assert_eq!(latin.origin(1..3), 1..3);
    }

    #[test]
    fn no_form_is_passed_over() {
        for c in '\0'..=char::MAX {
            let mut is_form = false;
            decompose_compatible(c, |part| is_form |= part.is_ascii_graphic());
            if is_form || is_blank(c) {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                let mut codes = units.into_iter().map(u32::from).chain([c.into()]);
                assert!(codes.all(may_be_form), "{c:?}");
            }
        }
    }

    #[test]
    fn two_units_are_a_pair_in_their_order() {
        assert_eq!(pair(0xd835, 0xdc2b), Some(0x1_d42b));
        for (first, second) in [(0xdc2b, 0xd835), (0xd835, 0x72), (0xd835, 0xd835)] {
            assert_eq!(pair(first, second), None);
        }
    }
}
