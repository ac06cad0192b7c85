//! A reader who tries every decoding, and shares no code with the redactor.

use std::collections::HashSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use memchr::memmem;
use regex::bytes::{Captures, Regex};

use crate::keyformat::KeyValue;

/// Returns whether the middle of the key appears in `text` for somebody who tries every decoding, one after
/// another. It does not use the code under test.
pub(super) fn is_readable(text: &[u8], key: &KeyValue) -> bool {
    let middle = &key.expose().as_bytes()[7..key.expose().len() - 4];
    let mut seen = HashSet::new();
    let mut waiting = vec![text.to_vec()];
    while let Some(text) = waiting.pop() {
        if memmem::find(&text, middle).is_some() {
            return true;
        }
        for next in decoded(&text) {
            if next.len() >= middle.len() && next != text && seen.insert(next.clone()) {
                assert!(seen.len() < 5_000, "there is no end to it");
                waiting.push(next);
            }
        }
    }
    false
}

pub(super) fn decoded(text: &[u8]) -> Vec<Vec<u8>> {
    static ESCAPES: LazyLock<[(Regex, u32); 4]> = LazyLock::new(|| {
        [
            (r"(?-u)%([0-9a-fA-F]{2})", 16),
            (r"(?-u)(?:%u|\\u|\\x)((?:00)?[0-9a-fA-F]{2})", 16),
            (r"(?-u)&#x([0-9a-f]+);", 16),
            (r"(?-u)&#([0-9]+);", 10),
        ]
        .map(|(escape, radix)| (Regex::new(escape).unwrap(), radix))
    });
    static BACKSLASHES: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?-u)\\([/"\\nrt])"#).unwrap());
    static BLANKS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        [r"(?-u)\x00", r"(?:\s|\u200b)", r"\+"].map(|blank| Regex::new(blank).unwrap())
    });
    static RUN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("(?-u)[A-Za-z0-9+/_-]{50,}").unwrap());
    static HEX: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("(?-u)(?:[0-9a-f]{2}){36,}").unwrap());
    let mut all = Vec::new();
    for (escape, radix) in &*ESCAPES {
        let replaced = escape.replace_all(text, |found: &Captures<'_>| {
            let digits = std::str::from_utf8(&found[1]).unwrap();
            vec![u8::from_str_radix(digits, *radix).unwrap()]
        });
        all.push(replaced.into_owned());
    }
    let replaced = BACKSLASHES.replace_all(text, |found: &Captures<'_>| match found[1][0] {
        b'n' | b'r' | b't' => vec![b' '],
        c => vec![c],
    });
    all.push(replaced.into_owned());
    for blank in &*BLANKS {
        all.push(blank.replace_all(text, &b""[..]).into_owned());
    }
    let lenient = NO_PAD.with_decode_allow_trailing_bits(true);
    let lenient = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    for run in RUN.find_iter(text) {
        let run = String::from_utf8_lossy(run.as_bytes())
            .replace('+', "-")
            .replace('/', "_");
        for skip in 0..4 {
            let run = &run[skip..];
            let run = &run[..run.len() - usize::from(run.len() % 4 == 1)];
            // Bytes that are not text do not encode text either.
            let decoded = lenient.decode(run).unwrap();
            let texts = decoded.utf8_chunks().map(|chunk| chunk.valid());
            all.extend(texts.map(|text| text.as_bytes().to_vec()));
        }
    }
    all.extend(
        HEX.find_iter(text)
            .map(|run| hex::decode(run.as_bytes()).unwrap()),
    );
    all
}
