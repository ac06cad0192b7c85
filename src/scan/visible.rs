//! Escaping of texts written by others, so that they cannot deceive a reader at a terminal.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Characters that a terminal obeys or renders as nothing: control characters, among them the escape character and
/// the C1 set; format characters, among them those that reverse the direction of the text (Unicode Technical Report
/// #36, section 2.5); line and paragraph separators; and default ignorable code points.
static STEERING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]")
        .expect("a test compiles it")
});

/// Returns `text` on one line, with every character that controls a terminal escaped as in Rust: `\n` or
/// `\u{202e}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    visible_but(text, |_| false)
}

/// Like [`visible`], but keeps line feeds, for messages of several lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    visible_but(text, |c| c == '\n')
}

/// Like [`visible`], for a file name. Bytes that are not UTF-8 are shown as `\xff`.
pub fn visible_name(name: &OsStr) -> String {
    let mut shown = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        shown.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Returns an equivalent JSON text, with every character that controls a terminal escaped. Only strings are
/// changed.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // JSON does not allow ASCII control characters in strings (RFC 8259, section 7), and has line feeds between
    // them.
    if json.is_ascii() && !json.contains('\u{7f}') {
        return Cow::Borrowed(json);
    }
    replace(json, |c, shown| {
        if c < ' ' {
            shown.push(c);
            return;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    })
}

/// Like [`visible`], but keeps the characters for which `stays` returns `true`.
pub fn visible_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    replace(text, |c, shown| {
        if stays(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    })
}

fn replace(text: &str, show: impl Fn(char, &mut String)) -> Cow<'_, str> {
    STEERING.replace_all(text, |found: &Captures<'_>| {
        let mut shown = String::new();
        for c in found[0].chars() {
            show(c, &mut shown);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_shown() {
        for (text, shown) in [
            ("plain ä 日本 \"\\", "plain ä 日本 \"\\"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\u{1b}[31m\u{9b}31m\u{7f}", "\\u{1b}[31m\\u{9b}31m\\u{7f}"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            (
                "\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}",
                "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}",
            ),
            (
                "\u{200b}\u{200d}\u{feff}\u{ad}\u{3164}",
                "\\u{200b}\\u{200d}\\u{feff}\\u{ad}\\u{3164}",
            ),
            ("\u{2028}\u{2029}\u{e0041}", "\\u{2028}\\u{2029}\\u{e0041}"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_lines("a\nb\u{202e}"), "a\nb\\u{202e}");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_shown() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = OsStr::from_bytes(b"odd\xff\xc3\xa4\n");
        assert_eq!(visible_name(name), "odd\\xffä\\n");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"a\u{202e}": ["\u{e0041}\u{7f}\n ä", 1]});
        for json in [
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let shown = visible_json(&json);
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                value
            );
            assert!(
                !shown.contains(['\u{202e}', '\u{e0041}', '\u{7f}']),
                "{shown}"
            );
            assert!(
                shown.contains("\\u202e")
                    && shown.contains("\\udb40\\udc41")
                    && shown.contains('ä')
            );
        }
    }
}
