//! Tests of how much work a text takes.

use super::super::readings::LONGEST_TEXT;
use super::*;

fn work(text: &str) -> usize {
    let whole = Budget::new(text.len(), 1);
    let mut budget = whole;
    let redactor = &*REDACTOR;
    let mut look = |view: &View<'_>| {
        assert!(view.depth <= 24);
        redactor.keys(view);
        Seen::Nothing
    };
    let _ = read(
        text.as_bytes(),
        redactor.shortest,
        &redactor.loose,
        &mut budget,
        &mut look,
    );
    whole.left() - budget.left()
}

/// Work is counted in bytes of what is looked at, so that it is the same on every machine.
#[test]
fn hostile_texts_take_work_in_proportion_to_their_length() {
    let secret = key("rescind_secret");
    let some = secret.expose();
    for piece in [
        "rsc_sk_",
        "%25",
        "%",
        "\\",
        "\\x{0",
        "&#0",
        "&#37;25",
        "cnNjX3Nr",
        "%72",
        "VVFQ",
        "ABEFQRUV +",
        "\\u0025\\\\ %2541&amp;+",
        "4142",
        some,
        "r\0s\0c\0_\0s\0k\0_\0",
        "\n ",
        "=3D\\5c \\134%25",
        "=41-41.5c41 ",
        "\u{ff1d}3D",
        "114,",
        "MFRGGZDF",
        "65330,",
        "U+D835 U+DC2B ",
        "ff32ff13",
        "24b6\u{b2}",
        "/zL/E/8y",
        "\u{ff32}\u{1d42b}\u{b2}",
        "%ff%32\\xff\\x13",
        "77,188,178,255,50,",
        "\\%2B%25a\\25%2B410x41,41=5C0x41,%26amp;=41a",
        "&\\%25\\25\\25\\25",
        "%u0041\\u0041\\n-41\\",
    ] {
        for length in [100, 2 << 10, LONGEST_TEXT] {
            let text = piece.repeat(length.div_ceil(piece.len()));
            let text = &text[..text.floor_char_boundary(length)];
            assert!(work(text) <= 16 * length + (64 << 10), "{piece:?}");
            assert!(!REDACTOR.redact(text).contains(some));
        }
    }
}

/// Ordinary texts take a few views.
#[test]
fn ordinary_texts_take_little_work() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    let link =
        format!("https://github.com/example/app/blob/{id}/src/some/folder/file_name.rs#L10-L20");
    let long = format!("{link}{}", "/and_another-folder/of.it".repeat(80));
    let query = format!("{link}?q=a%20b&c=%7B%22x%22%3A1%7D");
    for (text, views) in [(&link, 4), (&long, 4), (&query, 9)] {
        assert!(
            work(text) <= views * (text.len() + 32),
            "{text}: {}",
            work(text)
        );
        assert_eq!(REDACTOR.redact(text), text.as_str());
    }
}

#[test]
fn what_is_too_long_to_be_read_is_not_assumed_to_be_harmless() {
    let text = "a ".repeat(LONGEST_TEXT / 2);
    assert_eq!(REDACTOR.redact(&text), text);
    let text = format!("{text}a");
    assert_eq!(REDACTOR.redact(&text), UNKNOWN);
    assert!(REDACTOR.holds_key(&text));
}
