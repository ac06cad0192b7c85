//! Repair of JSON that others wrote, so that one odd character or value costs nothing but itself.

use memchr::memchr;

/// Depth of nesting below which everything becomes the elements of one list. Messages of forges have some ten levels,
/// parsers stop at a hundred or a little more.
const DEEPEST: usize = 100;

/// Largest number that every parser takes. Larger ones become null.
const LARGEST: f64 = 1e308;

/// Number of digits above which a number may be too large without an exponent.
const MANY_DIGITS: usize = 300;

/// The replacement character of Unicode as an escape, without the backslash: as long as what it replaces.
const REPLACED: &[u8] = b"ufffd";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns JSON as a text, with all characters of it such as JSON allows. What is not, is replaced in place, so that
/// the text takes no memory of its own: a byte order mark and control characters by spaces, bytes that are not valid
/// UTF-8 and backslashes that begin no escape by `?`. None of these is part of a key.
pub(crate) fn as_text(json: &mut [u8]) -> &str {
    mend(json, false)
}

/// Returns JSON as [`as_text`] does, and with values that every parser takes: halves of surrogate pairs become
/// U+FFFD, numbers that are out of range null, and what is nested more than 100 deep the elements of one list.
pub(crate) fn as_json(json: &mut [u8]) -> &str {
    mend(json, true)
}

/// Replaces the escapes of JSON by what they stand for, wherever they are, for a text that is no JSON after all. Halves of
/// surrogate pairs become U+FFFD.
pub(crate) fn unescape(text: &mut Vec<u8>) {
    let (mut read, mut written) = (0, 0);
    while read < text.len() {
        let mut bytes = [0; 4];
        let (taken, plain): (usize, &[u8]) = if let Some((taken, c)) = unescaped(&text[read..]) {
            (taken, c.encode_utf8(&mut bytes).as_bytes())
        } else {
            bytes[0] = text[read];
            (1, &bytes[..1])
        };
        // No character is longer than its escape.
        text[written..written + plain.len()].copy_from_slice(plain);
        written += plain.len();
        read += taken;
    }
    text.truncate(written);
}

/// Piece of a text in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'t> {
    /// Text without an escape.
    Plain(&'t str),
    /// Character of an escape.
    Escaped(char),
    /// Half a surrogate pair, as an escape: no text in UTF-8 can have it.
    Half,
}

/// Returns what a text in JSON says, piece by piece: however long it is, none of it is copied.
pub(crate) fn said(mut text: &str) -> impl Iterator<Item = Said<'_>> {
    std::iter::from_fn(move || {
        // A backslash that begins no escape stands for itself.
        let is_escape = text.starts_with('\\');
        if let Some((taken, c)) = unescaped(text.as_bytes()) {
            let is_half = c == char::REPLACEMENT_CHARACTER && is_half(&text[..taken]);
            text = &text[taken..];
            return Some(if is_half {
                Said::Half
            } else {
                Said::Escaped(c)
            });
        }
        let from = usize::from(is_escape);
        let end = memchr(b'\\', text.get(from..)?.as_bytes()).map_or(text.len(), |at| from + at);
        let (plain, rest) = text.split_at(end);
        text = rest;
        (!plain.is_empty()).then_some(Said::Plain(plain))
    })
}

/// Returns whether an escape that is read as U+FFFD is half a surrogate pair.
fn is_half(escape: &str) -> bool {
    let digits = escape.as_bytes().get(2..).unwrap_or_default();
    code_unit(digits).is_some_and(|unit| (0xd800..0xe000).contains(&unit))
}

/// Returns the length of the escape at the beginning of `text`, and its character: U+FFFD for half a surrogate pair.
fn unescaped(text: &[u8]) -> Option<(usize, char)> {
    let [b'\\', kind, rest @ ..] = text else {
        return None;
    };
    let c = match kind {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'u' => {
            let unit = code_unit(rest)?;
            let Some(low) = following(rest, unit) else {
                let c = char::from_u32(unit.into());
                return Some((6, c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            };
            let pair = char::decode_utf16([unit, low]).next()?;
            return pair.ok().map(|c| (12, c));
        }
        _ => return None,
    };
    Some((2, c))
}

/// Returns the code unit of the four hexadecimal digits at the beginning of `text`.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..4)?;
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the second half of the surrogate pair that begins with `unit`, the digits of which `text` begins with.
fn following(text: &[u8], unit: u16) -> Option<u16> {
    let is_first = (0xd800..0xdc00).contains(&unit);
    let next = text.get(4..).filter(|_| is_first)?.strip_prefix(b"\\u")?;
    code_unit(next).filter(|low| (0xdc00..0xe000).contains(low))
}

fn mend(json: &mut [u8], values: bool) -> &str {
    if json.starts_with(BYTE_ORDER_MARK) {
        json[..BYTE_ORDER_MARK.len()].fill(b' ');
    }
    as_utf8(json);
    let mut mending = Mending {
        json: &mut *json,
        values,
        depth: 0,
        opened: None,
    };
    let mut at = 0;
    while at < mending.json.len() {
        at = mending.token(at);
    }
    // Only characters of ASCII were replaced, each by another one.
    str::from_utf8(json).unwrap_or_default()
}

/// Replaces each byte that is not valid UTF-8 by a `?`: such bytes would cost all the others, while keys are ASCII.
fn as_utf8(bytes: &mut [u8]) {
    let mut valid = 0;
    while let Err(error) = str::from_utf8(&bytes[valid..]) {
        let begin = valid + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |len| begin + len);
        bytes[begin..end].fill(b'?');
        valid = end;
    }
}

/// Mends JSON from one token to the next.
struct Mending<'j> {
    json: &'j mut [u8],
    values: bool,
    /// Number of brackets that are open.
    depth: usize,
    /// Place of the bracket that was opened just before, below the deepest level.
    opened: Option<usize>,
}

impl Mending<'_> {
    /// Mends the token at a place outside of strings, and returns the place behind it.
    fn token(&mut self, at: usize) -> usize {
        let byte = self.json[at];
        if byte.is_ascii_whitespace() || byte.is_ascii_control() {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x7f) {
                self.json[at] = b' ';
            }
            return at + 1;
        }
        let opened = self.opened.take();
        match byte {
            b'"' => return self.string(at + 1),
            b'-' | b'0'..=b'9' => return self.number(at),
            b'[' | b'{' if self.values => self.open(at),
            b']' | b'}' if self.values => self.close(at, opened),
            b':' if self.depth >= DEEPEST => self.json[at] = b',',
            _ => {}
        }
        at + 1
    }

    fn open(&mut self, at: usize) {
        self.depth += 1;
        if self.depth == DEEPEST {
            self.json[at] = b'[';
        } else if self.depth > DEEPEST {
            self.json[at] = b' ';
            self.opened = Some(at);
        }
    }

    fn close(&mut self, at: usize, opened: Option<usize>) {
        if self.depth == DEEPEST {
            self.json[at] = b']';
        } else if self.depth > DEEPEST {
            self.json[at] = b' ';
            // A list has something between any two commas.
            if let Some(opened) = opened {
                self.json[opened] = b'0';
            }
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// Mends a number, and returns the place behind it.
    fn number(&mut self, at: usize) -> usize {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.json[at..].iter().take_while(|byte| is_part(byte));
        let end = at + length.count();
        let number = &mut self.json[at..end];
        let has_exponent = number.iter().any(|byte| matches!(byte, b'e' | b'E'));
        if self.values && (has_exponent || number.len() > MANY_DIGITS) {
            let value = str::from_utf8(number).ok().and_then(|n| n.parse().ok());
            if value.is_some_and(|value: f64| value.abs() > LARGEST) {
                number.fill(b' ');
                number[..4].copy_from_slice(b"null");
            }
        }
        end
    }

    /// Mends the rest of a string, and returns the place behind it.
    fn string(&mut self, mut at: usize) -> usize {
        let is_mark = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
        while let Some(passed) = self.json[at..].iter().position(is_mark) {
            at += passed;
            at = match self.json[at] {
                b'"' => return at + 1,
                b'\\' => self.escape(at),
                _ => {
                    self.json[at] = b' ';
                    at + 1
                }
            };
        }
        self.json.len()
    }

    /// Mends an escape, and returns the place behind it.
    fn escape(&mut self, at: usize) -> usize {
        let escape = &mut self.json[at..];
        match escape.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return at + 2,
            Some(b'u') => {}
            _ => {
                escape[0] = b'?';
                return at + 1;
            }
        }
        let Some(unit) = code_unit(&escape[2..]) else {
            escape[0] = b'?';
            return at + 1;
        };
        if following(&escape[2..], unit).is_some() {
            return at + 12;
        }
        if self.values && (0xd800..0xe000).contains(&unit) {
            escape[1..6].copy_from_slice(REPLACED);
        }
        at + 6
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn characters_are_such_as_json_allows_and_no_text_gets_longer() {
        for (json, expected) in [
            (b"[\"\xff\"]".as_slice(), "[\"?\"]"),
            (b"[\"a\xe2\x82b\"]", "[\"a??b\"]"),
            (b"\xff\xffa\xe2\x82", "??a??"),
            ("[\"ä\"]".as_bytes(), "[\"ä\"]"),
            (b"\xef\xbb\xbf[1]", "   [1]"),
            (b"[\"a\0b\nc\"\n,\x01\t1]", "[\"a b c\"\n, \t1]"),
            (br#"["\q\u12g4\"\\"]"#, r#"["?q?u12g4\"\\"]"#),
            (br#"["\"#, r#"["?"#),
            (br#"["\ud800",1e999]"#, r#"["\ud800",1e999]"#),
        ] {
            assert_eq!(as_text(&mut json.to_vec()), expected);
        }
    }

    #[test]
    fn values_are_such_as_every_parser_takes() {
        for (json, expected) in [
            (
                r#"["\ud800x","\udc00","\ud83d\udd11"]"#,
                r#"["\ufffdx","\ufffd","\ud83d\udd11"]"#,
            ),
            (r#""\ud800\ud800\udc00""#, r#""\ufffd\ud800\udc00""#),
            (r#""\ud800"#, r#""\ufffd"#),
            (
                "[1e999,-2E+400, 1e3, 1e-999]",
                "[null ,null   , 1e3, 1e-999]",
            ),
            (r#"{"a:[{1e999":1}"#, r#"{"a:[{1e999":1}"#),
        ] {
            let mended = as_json(&mut json.as_bytes().to_vec()).to_owned();
            assert_eq!(mended, expected);
        }
        let long = format!("[{}]", "9".repeat(400));
        let mended = as_json(&mut long.into_bytes()).to_owned();
        assert_eq!(
            serde_json::from_str::<Value>(&mended).unwrap()[0],
            Value::Null
        );
    }

    #[test]
    fn what_is_nested_deeper_than_anybody_reads_becomes_one_list() {
        for (deep, texts) in [
            (r#"{"a":"b","c":["d",{}]}"#, 4),
            (r#"[[],[ ],{"a":[[{ }]]},["b"]]"#, 2),
            ("[]", 0),
            ("[[[]]]", 0),
        ] {
            for levels in [98, 99, 100, 5_000] {
                let json = format!(
                    "{}{deep}{}",
                    r#"{"x":["#.repeat(levels / 2),
                    "]}".repeat(levels / 2)
                );
                let mended = as_json(&mut json.clone().into_bytes()).to_owned();
                assert_eq!(mended.len(), json.len());
                let read: Result<Value, _> = serde_json::from_str(&mended);
                assert!(read.is_ok(), "{levels} {deep}: {mended}");
                let found = ["\"a\"", "\"b\"", "\"c\"", "\"d\""].iter();
                assert_eq!(found.filter(|text| mended.contains(**text)).count(), texts);
            }
        }
    }

    #[test]
    fn what_is_well_formed_stays_as_it_is() {
        let json = r#"{"a":[1,-2.5e3,true,null,"\n\u00e4\ud83d\udd11\\"],"b":{"c":{}}}"#;
        assert_eq!(as_json(&mut json.as_bytes().to_vec()), json);
        for broken in ["", "{", "]}", "\"", "[1e]", "\\", "\"\\u", "}}}}[[["] {
            let mended = as_json(&mut broken.as_bytes().to_vec()).to_owned();
            assert_eq!(mended.len(), broken.len());
            assert!(serde_json::from_str::<&RawValue>(&mended).is_err());
        }
    }

    #[test]
    fn escapes_are_undone_wherever_they_are() {
        for (text, expected) in [
            (r#"{"a":"x\nrsc\u005fsk\/\"\\n"#, "{\"a\":\"x\nrsc_sk/\"\\n"),
            (
                r"\ud83d\udd11 \ud800 \u00e4\q\",
                "\u{1f511} \u{fffd} ä\\q\\",
            ),
            (
                r"\udc00\ud800\ud83d\udd11\ud8",
                "\u{fffd}\u{fffd}\u{1f511}\\ud8",
            ),
        ] {
            let said = said(text).map(|piece| match piece {
                Said::Plain(plain) => plain.to_owned(),
                Said::Escaped(c) => c.to_string(),
                Said::Half => char::REPLACEMENT_CHARACTER.to_string(),
            });
            assert_eq!(said.collect::<String>(), expected);
            let mut text = text.as_bytes().to_vec();
            unescape(&mut text);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
        let pieces: Vec<_> = said(r"a\ufffd\udfffb").collect();
        let expected = [
            Said::Plain("a"),
            Said::Escaped('\u{fffd}'),
            Said::Half,
            Said::Plain("b"),
        ];
        assert_eq!(pieces, expected);
    }
}
