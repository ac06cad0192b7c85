//! Decoding of escaped characters.

use super::draft::{Draft, FOREIGN};
use super::widths::pair;

/// Names in HTML of the ASCII characters that occur in keys and their encodings.
const NAMED: [(&[u8], u8); 18] = [
    (b"amp", b'&'),
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"percnt", b'%'),
    (b"bsol", b'\\'),
    (b"num", b'#'),
    (b"semi", b';'),
    (b"lowbar", b'_'),
    (b"UnderBar", b'_'),
    (b"plus", b'+'),
    (b"sol", b'/'),
    (b"equals", b'='),
    (b"hyphen", b'-'),
    (b"period", b'.'),
    (b"NewLine", b'\n'),
    (b"Tab", b'\t'),
];

/// Maximum length of a character's name in HTML, in bytes.
const LONGEST_NAME: usize = 31;

/// Escapes to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those with the number of a character: `%72`, `%u0072`, `\x72`, `\u0072`, `\162`, `&#114;`.
    Numbers,
    /// A backslash before the character itself, or before a letter that stands for white space. In a Windows path
    /// it is neither.
    Letters,
    Both,
    /// A backslash before one to three octal digits, as in C: `\72` is a colon. Before `0`, three more may follow, as
    /// in `printf %b`.
    Octal,
    /// A backslash before up to six hexadecimal digits and a blank, as in CSS: `\72 ` is an `r`.
    Css,
    /// Any punctuation mark before two hexadecimal digits: `=72` of quoted-printable, `\72` of LDAP. Some use `.`, `!`
    /// or `~` so.
    Marked,
}

impl Kind {
    /// Returns whether what this kind decodes is, in most texts, no escape.
    pub(super) fn is_odd(self) -> bool {
        matches!(self, Self::Octal | Self::Css | Self::Marked)
    }
}

/// Copies the draft's source with the escapes of this kind decoded once. Returns whether there are any that could be
/// part of a text.
pub(super) fn unescape(draft: &mut Draft<'_>, kind: Kind) -> bool {
    let text = draft.source();
    let mut done = 0;
    let mut is_of_use = false;
    // The high byte of an escape that ends where the next one starts.
    let mut lead = None;
    let mut decode = |at: usize| {
        // The end of an escape is not the start of another one.
        if at < done {
            return;
        }
        if let Some((length, code)) = escape(&text[at..], kind) {
            if done == 0 {
                draft.bytes.reserve_exact(text.len());
            }
            draft.copy(done..at);
            draft.push_code(code, at..at + length);
            is_of_use |= match u8::try_from(code) {
                Ok(0 | b'\t' | b'\n' | b'\r' | b' '..=b'~') => true,
                Ok(0x80..0xc0) => lead == Some(at),
                _ => false,
            };
            lead = (0xc2..0xf5).contains(&code).then_some(at + length);
            done = at + length;
        }
    };
    match kind {
        Kind::Numbers | Kind::Both => {
            memchr::memchr3_iter(b'%', b'\\', b'&', text).for_each(decode);
        }
        Kind::Letters | Kind::Octal | Kind::Css => {
            memchr::memchr_iter(b'\\', text).for_each(decode);
        }
        Kind::Marked => {
            let pairs = text.windows(2).enumerate();
            let marks = pairs
                .filter(|(_, pair)| MARKS[usize::from(pair[0])] && pair[1].is_ascii_hexdigit());
            marks.for_each(|(at, _)| decode(at));
        }
    }
    if done == 0 || kind == Kind::Marked && !is_of_use {
        return false;
    }
    draft.copy(done..text.len());
    true
}

/// Returns the length of the escape at the start of `text`, and the number of its character.
fn escape(text: &[u8], kind: Kind) -> Option<(usize, u32)> {
    match kind {
        Kind::Numbers => number(text),
        Kind::Letters => letter(text),
        Kind::Both => number(text).or_else(|| letter(text)),
        Kind::Octal => octal(text),
        Kind::Css => css(text),
        Kind::Marked => Some((3, value(text.get(1..3)?, 16)?)),
    }
}

/// Table of the bytes that can mark the beginning of an escape. An underscore occurs in keys, and what a percent sign
/// marks is no odd escape.
static MARKS: [bool; 256] = {
    let mut marks = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        marks[byte as usize] = byte.is_ascii_punctuation() && !matches!(byte, b'_' | b'%');
        byte += 1;
    }
    marks
};

fn octal(text: &[u8]) -> Option<(usize, u32)> {
    let most = if let [b'\\', b'0', b'1', ..] = text {
        4
    } else {
        3
    };
    let digits = text[1..].iter().take(most);
    let count = digits
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count();
    Some((1 + count, value(&text[1..=count], 8)?))
}

fn css(text: &[u8]) -> Option<(usize, u32)> {
    let digits = text[1..].iter().take(6);
    let count = digits.take_while(|byte| byte.is_ascii_hexdigit()).count();
    let code = value(&text[1..=count], 16)?;
    let blank = match text[1 + count..] {
        [b'\r', b'\n', ..] => 2,
        [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c', ..] => 1,
        _ => 0,
    };
    Some((1 + count + blank, code))
}

/// Returns the length of the escape at the start of `text`, and the number of its character.
fn number(text: &[u8]) -> Option<(usize, u32)> {
    let exactly = |start, count| {
        let digits = text.get(start..start + count)?;
        Some((start + count, value(digits, 16)?))
    };
    match text {
        [b'%' | b'\\', b'u', ..] | [b'%', b'U', ..] if !text[2..].starts_with(b"{") => unit(text),
        [b'%', ..] => exactly(1, 2),
        [b'\\', b'x' | b'u', b'{', ..] => {
            ended(text, 3, 16, b'}').filter(|(length, _)| text[length - 1] == b'}')
        }
        [b'\\', b'x', ..] => exactly(2, 2),
        [b'\\', b'U', ..] => exactly(2, 8),
        [b'\\', b'0'..=b'3', ..] => Some((4, value(text.get(1..4)?, 8)?)),
        [b'&', b'#', b'x' | b'X', ..] => ended(text, 3, 16, b';'),
        [b'&', b'#', ..] => ended(text, 2, 10, b';'),
        [b'&', ..] => named(text),
        _ => None,
    }
}

/// Parses a mark of two bytes before the number of a code unit of UTF-16, or two of them that are a pair.
fn unit(text: &[u8]) -> Option<(usize, u32)> {
    let unit = |at: usize| value(text.get(at + 2..at + 6)?, 16);
    let first = unit(0)?;
    let second = unit(6).filter(|_| text[..2] == text[6..8]);
    if let Some(code) = second.and_then(|second| pair(first, second)) {
        return Some((12, code));
    }
    Some((6, first))
}

/// Parses a named character of HTML. There are two thousand names, many of them for blanks.
fn named(text: &[u8]) -> Option<(usize, u32)> {
    let name = text[1..].iter().take_while(|c| c.is_ascii_alphanumeric());
    let name = &text[1..=name.take(LONGEST_NAME + 1).count()];
    let ends = text.get(name.len() + 1) == Some(&b';');
    if !ends || !(2..=LONGEST_NAME).contains(&name.len()) {
        return None;
    }
    let known = NAMED.iter().find(|(known, _)| *known == name);
    let code = known.map_or(FOREIGN, |(_, code)| *code);
    Some((name.len() + 2, u32::from(code)))
}

/// Parses a number of any length at `start`, and `end` after it if present. HTML does not require it.
fn ended(text: &[u8], start: usize, radix: u32, end: u8) -> Option<(usize, u32)> {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let count = text[start..].iter().take_while(is_digit).count();
    let code = value(&text[start..start + count], radix)?;
    let ends = text.get(start + count) == Some(&end);
    Some((start + count + usize::from(ends), code))
}

fn value(digits: &[u8], radix: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(value.saturating_mul(radix).saturating_add(digit))
    })
}

fn letter(text: &[u8]) -> Option<(usize, u32)> {
    let [b'\\', next, ..] = text else {
        return None;
    };
    let byte = match next {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' | b'f' | b'v' | b'0' => b' ',
        b'\n' | b'\r' => *next,
        punctuation if punctuation.is_ascii_punctuation() => *punctuation,
        _ => return None,
    };
    Some((2, u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str, kind: Kind) -> Option<String> {
        let mut draft = Draft::of(text.as_bytes());
        unescape(&mut draft, kind).then(|| draft.bytes.into_iter().map(char::from).collect())
    }

    #[test]
    fn numbers_become_characters() {
        for (text, expected) in [
            ("a%72b", "arb"),
            ("%u0072%U0072", "rr"),
            (r"\x72\u0072\U00000072\162", "rrrr"),
            (r"\u{72}\x{072}", "rr"),
            ("&#114;&#x72;&#X0072&#114a", "rrrra"),
            ("&amp;#114;&lowbar;&Tab;", "&#114;_\t"),
            ("&ZeroWidthSpace;&nbsp;", "\u{ff}\u{ff}"),
            ("%2572", "%72"),
            ("%u20ac&#99999999999;", "\u{e2}\u{82}\u{ac}\u{ff}"),
            (r"\ud835\udc2b", "\u{f0}\u{9d}\u{90}\u{ab}"),
            (r"\ud835\u0072", "\u{ff}r"),
            ("%%72", "%r"),
        ] {
            assert_eq!(
                unescaped(text, Kind::Numbers).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        for text in [
            "%", "%7", "%u007", "%zz", r"\x7", r"\u{72", r"\u{}", "&#;", "&#x;", "&nbsp", "&;",
            "&a;", "& b;", r"\n",
        ] {
            assert_eq!(unescaped(text, Kind::Numbers), None, "{text}");
        }
    }

    #[test]
    fn letters_become_white_space() {
        let text = r"\n\r\t\/\\u0072\_\q";
        let expected = "\n\r\t/\\u0072_\\q";
        assert_eq!(unescaped(text, Kind::Letters).as_deref(), Some(expected));
        assert_eq!(unescaped(r"\u0072", Kind::Letters), None);
        assert_eq!(unescaped(r"\u0072\n", Kind::Both).as_deref(), Some("r\n"));
    }

    #[test]
    fn odd_escapes_are_read_each_in_its_own_way() {
        for (kind, text, expected) in [
            (Kind::Octal, r"\72\162s\0162\60a\8", r":rsr0a\8"),
            (Kind::Css, "\\72 \\73\\000063\r\nx\\5f  \\g", "rscx_ \\g"),
            (Kind::Marked, "=72=5F.73!2d a_72=zz=7", "r_s- a_72=zz=7"),
        ] {
            assert_eq!(unescaped(text, kind).as_deref(), Some(expected), "{text}");
        }
        for kind in [Kind::Octal, Kind::Css, Kind::Marked] {
            assert_eq!(unescaped(r"a\", kind), None);
            assert_eq!(unescaped("_72 = x", kind), None);
        }
    }

    #[test]
    fn places_are_those_of_the_escapes() {
        let mut draft = Draft::with_origins(b"ab%25%2572c");
        assert!(unescape(&mut draft, Kind::Numbers));
        assert_eq!(draft.bytes, b"ab%%72c");
        assert_eq!(draft.origin(2..3), 2..5);
        assert_eq!(draft.origin(3..7), 5..11);
        assert_eq!(draft.origin(5..5), 0..0);
    }

    #[test]
    fn marks_before_what_is_no_text_are_no_escapes() {
        for text in ["a/de/fa-be", "/a1b2c3", "=e2_=80_8b", "/01-1f"] {
            assert_eq!(unescaped(text, Kind::Marked), None, "{text}");
        }
        assert_eq!(
            unescaped("=e2=80=8b", Kind::Marked).as_deref(),
            Some("\u{e2}\u{80}\u{8b}")
        );
    }
}
