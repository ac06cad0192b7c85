//! Decoding of escaped characters.

use super::view::{Draft, View};

/// Replacement of a character that occurs in no key.
const FOREIGN: u8 = 0xff;

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
}

/// Returns `view` with the escapes of this kind decoded once, or `None` if there are none.
pub(super) fn unescape(view: &View<'_>, kind: Kind) -> Option<View<'static>> {
    let text = &*view.bytes;
    let mut draft = None;
    let mut done = 0;
    for at in memchr::memchr3_iter(b'%', b'\\', b'&', text) {
        // The end of an escape is not the start of another one.
        if at < done {
            continue;
        }
        if let Some((length, byte)) = escape(&text[at..], kind) {
            let draft = draft.get_or_insert_with(|| Draft::of(view));
            draft.copy(done..at);
            draft.push(byte, at..at + length);
            done = at + length;
        }
    }
    let mut draft = draft?;
    draft.copy(done..text.len());
    let mut view = draft.into_view();
    view.layers += 1;
    Some(view)
}

/// Returns the length of the escape at the start of `text`, and the byte that it stands for.
fn escape(text: &[u8], kind: Kind) -> Option<(usize, u8)> {
    let number =
        || number(text).map(|(length, code)| (length, u8::try_from(code).unwrap_or(FOREIGN)));
    match kind {
        Kind::Numbers => number(),
        Kind::Letters => letter(text),
        Kind::Both => number().or_else(|| letter(text)),
    }
}

/// Returns the length of the escape at the start of `text`, and the number of its character.
fn number(text: &[u8]) -> Option<(usize, u32)> {
    let exactly = |start, count| {
        let digits = text.get(start..start + count)?;
        Some((start + count, value(digits, 16)?))
    };
    match text {
        [b'%', b'u' | b'U', ..] => exactly(2, 4),
        [b'%', ..] => exactly(1, 2),
        [b'\\', b'x' | b'u', b'{', ..] => {
            ended(text, 3, 16, b'}').filter(|(length, _)| text[length - 1] == b'}')
        }
        [b'\\', b'x', ..] => exactly(2, 2),
        [b'\\', b'u', ..] => exactly(2, 4),
        [b'\\', b'U', ..] => exactly(2, 8),
        [b'\\', b'0'..=b'3', ..] => Some((4, value(text.get(1..4)?, 8)?)),
        [b'&', b'#', b'x' | b'X', ..] => ended(text, 3, 16, b';'),
        [b'&', b'#', ..] => ended(text, 2, 10, b';'),
        [b'&', ..] => named(text),
        _ => None,
    }
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

fn letter(text: &[u8]) -> Option<(usize, u8)> {
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
    Some((2, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str, kind: Kind) -> Option<String> {
        let view = View::of(text.as_bytes()).unwrap();
        let view = unescape(&view, kind)?;
        Some(view.bytes.iter().copied().map(char::from).collect())
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
            ("%u20ac\\u20ac&#99999999999;", "\u{ff}\u{ff}\u{ff}"),
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
    fn places_are_those_of_the_escapes() {
        let view = View::of(b"ab%25%2572c").unwrap();
        let view = unescape(&view, Kind::Numbers).unwrap();
        assert_eq!(&*view.bytes, b"ab%%72c");
        assert_eq!(view.place(2..3), 2..5);
        let view = unescape(&view, Kind::Numbers).unwrap();
        assert_eq!(&*view.bytes, b"ab%rc");
        assert_eq!(
            (view.place(3..4), view.place(3..5), view.layers),
            (5..10, 5..11, 2)
        );
        assert_eq!(view.place(5..5), 0..0);
    }
}
