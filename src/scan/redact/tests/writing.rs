//! Ways to write a key down, ordinary and odd ones.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

pub(super) fn wide(text: &str, low_first: bool) -> Vec<u8> {
    let units = text.encode_utf16();
    units
        .flat_map(|unit| {
            if low_first {
                unit.to_le_bytes()
            } else {
                unit.to_be_bytes()
            }
        })
        .collect()
}

pub(super) fn each_byte(text: &str, mut write: impl FnMut(&mut String, u8)) -> String {
    text.bytes().fold(String::new(), |mut written, byte| {
        write(&mut written, byte);
        written
    })
}

pub(super) fn percent(text: &str, all: bool) -> String {
    each_byte(text, |written, byte| {
        if all || !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            let _ = write!(written, "%{byte:02x}");
        } else {
            written.push(char::from(byte));
        }
    })
}

pub(super) fn broken(text: &str, width: usize, by: &str) -> String {
    let lines = text.as_bytes().chunks(width).map(String::from_utf8_lossy);
    lines.collect::<Vec<_>>().join(by)
}

/// Number of ways to encode a text in [`write_down`].
pub(super) const WAYS: usize = 24;

pub(super) fn write_down(text: &str, way: usize) -> String {
    let nothing_of_it = |byte: u8| byte.is_ascii_alphanumeric() && !byte.is_multiple_of(3);
    match way {
        0 => STANDARD.encode(text),
        1 => STANDARD_NO_PAD.encode(text),
        2 => URL_SAFE_NO_PAD.encode(text),
        3 => broken(&STANDARD.encode(text), 20, "\r\n"),
        4 => broken(&STANDARD.encode(text), 3, "\r"),
        5 => broken(&STANDARD.encode(text), 16, "\n\n"),
        6 => broken(&STANDARD.encode(text), 7, "  \n \t\r\n"),
        7 => broken(&URL_SAFE_NO_PAD.encode(text), 1, " "),
        8 => broken(&URL_SAFE_NO_PAD.encode(text), 9, "\u{200b}"),
        9 => STANDARD.encode(wide(text, true)),
        10 => URL_SAFE_NO_PAD.encode(wide(text, false)),
        11 => text.chars().flat_map(|c| [c, '\0']).collect(),
        12 => text.chars().flat_map(|c| ['\0', c]).collect(),
        13 => percent(text, true),
        14 => percent(text, false),
        15 => percent(
            &percent(&percent(&percent(text, false), false), false),
            false,
        ),
        16 => each_byte(text, |written, byte| _ = write!(written, "%u{byte:04X}")),
        17 => each_byte(text, |written, byte| _ = write!(written, "\\u{byte:04x}")),
        18 => each_byte(text, |written, byte| _ = write!(written, "\\x{byte:02x}")),
        19 => each_byte(text, |written, byte| _ = write!(written, "&#{byte};")),
        20 => each_byte(text, |written, byte| {
            let _ = match byte {
                byte if nothing_of_it(byte) => write!(written, "{}", char::from(byte)),
                byte if byte % 2 == 0 => write!(written, "&#x{byte:x};"),
                byte => write!(written, "\\u00{byte:02x}"),
            };
        }),
        21 => hex::encode(text),
        22 => serde_json::to_string(text).unwrap().replace('/', "\\/"),
        23 => broken(&URL_SAFE_NO_PAD.encode(text), 30, "+"),
        _ => unreachable!(),
    }
}

/// Number of ways to write a text in [`write_oddly`].
pub(super) const ODD_WAYS: usize = 24;

/// Writes a text in ASCII in a way that takes a reader who knows it, or a good guess.
pub(super) fn write_oddly(text: &str, way: usize) -> String {
    let each = |write: fn(u8) -> String| text.bytes().map(write).collect::<String>();
    let list = |write: fn(u8) -> String, between: &str| {
        let numbers: Vec<_> = text.bytes().map(write).collect();
        numbers.join(between)
    };
    let digits = |byte: u8| format!("{byte:02x}");
    match way {
        0 => each(|byte| format!("\\{byte:o}")),
        1 => each(|byte| format!("\\0{byte:03o}")),
        2 => each(|byte| match byte {
            b'0'..=b'9' | b'_' => format!("\\{byte:o}"),
            _ => char::from(byte).to_string(),
        }),
        3 => each(|byte| format!("\\{byte:x} ")),
        4 => each(|byte| format!("\\{byte:06x}")),
        5 => each(|byte| format!("={byte:02X}")),
        6 => broken(&each(|byte| format!("={byte:02X}")), 75, "=\r\n"),
        7 => each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("={byte:02X}"),
        }),
        8 => list(digits, ":"),
        9 => list(digits, "_"),
        10 => list(digits, " - "),
        11 => list(|byte| format!("0x{byte:02X}"), ", "),
        12 => list(|byte| byte.to_string(), ", "),
        13 => list(|byte| format!("chr({byte})"), "+"),
        14 => list(|byte| format!("{byte:08b}"), ""),
        15 => base32(text.as_bytes()),
        16 => base32(text.as_bytes()).to_lowercase(),
        17 => broken(&base32(text.as_bytes()), 8, "-"),
        18 => each(full_width),
        19 => each(bold),
        20 => broken(text, 5, "-"),
        21 => text.replace('_', "."),
        22 => broken(text, 11, "_"),
        23 => broken(&STANDARD.encode(text), 4, "."),
        _ => unreachable!(),
    }
}

pub(super) fn bold(byte: u8) -> String {
    let start = match byte {
        b'A'..=b'Z' => 0x1d400 - u32::from(b'A'),
        b'a'..=b'z' => 0x1d41a - u32::from(b'a'),
        b'0'..=b'9' => 0x1d7ce - u32::from(b'0'),
        _ => 0,
    };
    char::from_u32(start + u32::from(byte)).unwrap().to_string()
}

/// Number of ways to write a text in [`write_in_forms`].
pub(super) const FORMS: usize = 4;

/// Writes a text in other forms of its characters.
pub(super) fn write_in_forms(text: &str, form: usize) -> String {
    let each = |write: fn(u8) -> String| text.bytes().map(write).collect::<String>();
    match form {
        0 => each(full_width),
        1 => each(bold),
        2 => each(|byte| match byte {
            b'A'..=b'Z' => moved(byte, b'A', 0x24b6),
            b'a'..=b'z' => moved(byte, b'a', 0x24d0),
            b'0' => "\u{2070}".to_owned(),
            b'2' => "\u{b2}".to_owned(),
            _ => full_width(byte),
        }),
        3 => text.replace('a', "\u{aa}").replace('1', "\u{b9}"),
        _ => unreachable!(),
    }
}

fn full_width(byte: u8) -> String {
    match byte {
        0x21..=0x7e => moved(byte, 0x21, 0xff01),
        _ => char::from(byte).to_string(),
    }
}

fn moved(byte: u8, from: u8, to: u32) -> String {
    let code = u32::from(byte - from) + to;
    char::from_u32(code).unwrap().to_string()
}

/// Number of ways to encode a text in [`encode_characters`].
pub(super) const CHARACTER_WAYS: usize = 16;

/// Encodes a text with others than ASCII characters.
pub(super) fn encode_characters(text: &str, way: usize) -> String {
    let characters = |write: fn(u32) -> String, between: &str| {
        let numbers: Vec<_> = text.chars().map(|c| write(c.into())).collect();
        numbers.join(between)
    };
    let units = |write: fn(u16) -> String, between: &str| {
        let numbers: Vec<_> = text.encode_utf16().map(write).collect();
        numbers.join(between)
    };
    match way {
        0 => characters(|code| code.to_string(), ", "),
        1 => characters(|code| format!("0x{code:X}"), ", "),
        2 => characters(|code| format!("U+{code:04X}"), " "),
        3 => characters(|code| format!("chr({code})"), "+"),
        4 => units(|unit| unit.to_string(), ","),
        5 => units(|unit| format!("{unit:o}"), " "),
        6 => STANDARD.encode(wide(text, true)),
        7 => URL_SAFE_NO_PAD.encode(wide(text, false)),
        8 => hex::encode(wide(text, true)),
        9 => hex::encode_upper(wide(text, false)),
        10 => base32(&wide(text, true)),
        11 => {
            let bytes = wide(text, false);
            bytes.iter().fold(String::new(), |mut written, byte| {
                let _ = write!(written, "%{byte:02x}");
                written
            })
        }
        12 => STANDARD.encode(text),
        13 => hex::encode(text),
        14 => each_byte(text, |written, byte| _ = write!(written, "{byte} ")),
        15 => units(|unit| format!("\\u{unit:04x}"), ""),
        _ => unreachable!(),
    }
}

pub(super) fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| {
        bytes
            .get(at / 8)
            .is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
    };
    let characters = (0..bytes.len() * 8).step_by(5).map(|start| {
        let value = (start..start + 5).fold(0, |value, at| value << 1 | usize::from(bit(at)));
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[value])
    });
    characters.collect()
}
