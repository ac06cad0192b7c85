//! Comparison of the engine with an oracle: the plainest program that finds the same candidates, by decoding the
//! whole text in every encoding at every offset and matching a regular expression.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use proptest::prelude::*;
use regex::bytes::Regex;

use super::super::{Candidate, Encoding, Encodings, Engine, Scanner};
use super::LONG_LINE;
use crate::fuzzing::fuzz;
use crate::keyformat::{FormatSet, KeyFormat, Verdict};

/// Offset, encoding and value of a candidate.
type Place = (u64, Encoding, String);

const CHECKED: &str = r#"
[[format]]
id = "checked"
visibility = "secret"
prefix = "rsc_sk_"
body = { alphabet = "base62", length = 22 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }
"#;

const OTHERS: &str = r#"
[[format]]
id = "bare"
visibility = "secret"
prefix = "a?>"
body = { alphabet = "hex", length = 32 }

[[format]]
id = "anchored"
visibility = "secret"
anchor = "mid"
regex = 'k[0-9a-f]{4,8}mid[0-9a-z]{3}'

[[format]]
id = "public"
visibility = "public"
prefix = "rsc_pk_"
body = { alphabet = "base62", length = 22 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }
"#;

static FORMATS: LazyLock<FormatSet> =
    LazyLock::new(|| FormatSet::parse(&[("a.toml", CHECKED), ("b.toml", OTHERS)]).unwrap());
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(&FORMATS, Encodings::ALL));
/// One engine for each kind of search.
static ENGINES: LazyLock<Vec<Engine>> = LazyLock::new(|| Engine::every(&FORMATS, Encodings::ALL));
/// The same for the one format whose literal is long enough to be found across line breaks by each of them.
static OF_CHECKED: LazyLock<Vec<Engine>> = LazyLock::new(|| {
    let checked = FormatSet::parse(&[("a.toml", CHECKED)]).unwrap();
    Engine::every(&checked, Encodings::ALL)
});

/// Shapes of the same formats, written by hand.
static SHAPES: LazyLock<[(&KeyFormat, Regex); 3]> = LazyLock::new(|| {
    [
        ("checked", r"(?-u)rsc_sk_[0-9A-Za-z]{28}"),
        ("bare", r"(?-u)a\?>[0-9a-f]{32}"),
        ("anchored", r"(?-u)k[0-9a-f]{4,8}mid[0-9a-z]{3}"),
    ]
    .map(|(id, shape)| (FORMATS.get(id).unwrap(), Regex::new(shape).unwrap()))
});
/// A line break with blanks, and with the mark of a line as well.
static FOLDS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    [
        r"(?-u)^\r?\n[ \t]*",
        r"(?-u)^\r?\n[ \t]*(?:[+-][ \t]*|>[> \t]*)?",
    ]
    .map(|fold| Regex::new(fold).unwrap())
});
/// Shape of a wide margin, and the line breaks in it.
static BETWEEN: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    [r"(?-u)^(?:\\[nrt]|[^0-9A-Za-z_=])+", r"(?-u)[\r\n]|\\[nr]"]
        .map(|between| Regex::new(between).unwrap())
});

/// Returns the length of a wide margin at the start of a text, of whose last marks so many are none of base64.
fn wide(text: &[u8], marks: usize) -> usize {
    let [between, line_break] = &*BETWEEN;
    let run = between.find(text).map_or(&b""[..], |run| run.as_bytes());
    if run.len() > 64 || !line_break.is_match(run) {
        return 0;
    }
    let is_mark = |byte: &&u8| b"+/-".contains(byte);
    let trailing = run.iter().rev().take_while(is_mark).count();
    run.len() - trailing + trailing.min(marks)
}

/// Returns the characters of base64 in a text and their offsets, in every reading of its lines.
fn readings(text: &[u8]) -> impl Iterator<Item = Vec<(usize, u8)>> {
    let single = FOLDS
        .iter()
        .flat_map(|fold| runs(text, |rest| fold.find(rest).map_or(0, |found| found.end())));
    single.chain(
        [0, 1, 2, 64]
            .into_iter()
            .flat_map(|marks| runs(text, |rest| wide(rest, marks))),
    )
}

/// Returns all candidates in a text that is not encoded, including overlapping ones.
fn plain(text: &[u8]) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (format, shape) in &*SHAPES {
        let mut from = 0;
        while let Some(found) = shape.find_at(text, from) {
            from = found.start() + 1;
            let alone = format.checksum().is_some() || {
                let part = |byte: &u8| match format.id() {
                    "bare" => b"0123456789abcdef".contains(byte),
                    _ => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
                };
                !text[..found.start()].last().is_some_and(part)
                    && !text[found.end()..].first().is_some_and(part)
            };
            if alone && matches!(format.judge(found.as_bytes()), Verdict::Match { .. }) {
                let value = String::from_utf8(found.as_bytes().to_vec()).unwrap();
                all.push((found.start(), value));
            }
        }
    }
    all
}

fn utf16(text: &[u8]) -> BTreeSet<Place> {
    let mut all = BTreeSet::new();
    for (encoding, low) in [(Encoding::Utf16Le, 0), (Encoding::Utf16Be, 1)] {
        for start in [0, 1] {
            let bytes: Vec<u8> = text[start.min(text.len())..]
                .chunks_exact(2)
                .map(|unit| if unit[1 - low] == 0 { unit[low] } else { 0xff })
                .collect();
            for (at, value) in plain(&bytes) {
                all.insert(((start + at * 2) as u64, encoding, value));
            }
        }
    }
    // The same string in the other byte order is no second candidate: code units start at even offsets.
    let doubled = |(offset, encoding, value): &Place| {
        let other = match encoding {
            Encoding::Utf16Le => (offset.checked_sub(1), Encoding::Utf16Be),
            _ => (Some(offset + 1), Encoding::Utf16Le),
        };
        offset % 2 == 1
            && other
                .0
                .is_some_and(|at| all.contains(&(at, other.1, value.clone())))
    };
    all.iter()
        .filter(|place| !doubled(place))
        .cloned()
        .collect()
}

/// Returns the characters of base64 in a text and their offsets, in runs that only what stands between lines divides.
fn runs(text: &[u8], fold: impl Fn(&[u8]) -> usize) -> Vec<Vec<(usize, u8)>> {
    let is_base64 = |at: usize| {
        let byte = text.get(at);
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte))
    };
    let mut runs = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        if is_base64(at) {
            let standard = match text[at] {
                b'-' => b'+',
                b'_' => b'/',
                byte => byte,
            };
            runs.last_mut().unwrap().push((at, standard));
            at += 1;
            continue;
        }
        let folded = fold(&text[at..]);
        // What is a mark of a line is one whatever was before.
        at += folded.max(1);
        if folded == 0 || !is_base64(at) {
            runs.push(Vec::new());
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn in_base64(text: &[u8]) -> BTreeSet<Place> {
    let mut all = BTreeSet::new();
    for characters in readings(text) {
        for missing in 0..4 {
            // Characters added before and after to complete groups of four, and the bytes that they add.
            let mut encoded = vec![b'A'; missing];
            encoded.extend(characters.iter().map(|(_, byte)| *byte));
            let padding = (4 - encoded.len() % 4) % 4;
            encoded.extend(std::iter::repeat_n(b'A', padding));
            let bytes = STANDARD.decode(&encoded).unwrap();
            let first = (missing * 6).div_ceil(8);
            let last = (bytes.len() - padding).max(first);
            for (at, value) in plain(&bytes[first..last]) {
                let origin = characters[(first + at) * 8 / 6 - missing].0;
                let is_seen = literals(&value).any(|literal| {
                    let start = (first + at + literal.start) * 8 / 6 - missing;
                    let end = ((first + at + literal.end) * 8 - 1) / 6 - missing;
                    (start..end).all(|last| is_whole_or_long(text, &characters, last))
                });
                if is_seen {
                    all.insert((origin as u64, Encoding::Base64, value));
                }
            }
        }
    }
    all
}

/// Returns the places in a key of the literal by which its format is found.
fn literals(value: &str) -> impl Iterator<Item = Range<usize>> {
    let known = ["rsc_sk_", "a?>", "mid"];
    let all = known.into_iter().flat_map(|literal| {
        let places = value.match_indices(literal);
        places.map(move |(at, _)| at..at + literal.len())
    });
    all.filter(|place| place.start == 0 || value.starts_with('k'))
}

/// Returns whether no line ends after this character, or the line that does is long enough.
fn is_whole_or_long(text: &[u8], characters: &[(usize, u8)], last: usize) -> bool {
    let (end, next) = (characters[last].0 + 1, characters[last + 1].0);
    let line = end.checked_sub(LONG_LINE).map(|start| &text[start..end]);
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    next == end || line.is_some_and(|line| line.iter().all(is_base64))
}

fn oracle(text: &[u8]) -> BTreeSet<Place> {
    let mut all: BTreeSet<_> = plain(text)
        .into_iter()
        .map(|(at, value)| (at as u64, Encoding::Utf8, value))
        .collect();
    all.extend(utf16(text));
    all.extend(in_base64(text));
    all
}

fn places(candidates: &[Candidate]) -> BTreeSet<Place> {
    candidates
        .iter()
        .map(|found| {
            (
                found.offset,
                found.encoding,
                found.value.expose().to_owned(),
            )
        })
        .collect()
}

/// Reader that yields the text in pieces of this size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.1.min(buffer.len());
        self.0.read(&mut buffer[..piece])
    }
}

fn key() -> impl Strategy<Value = String> {
    let minted = |id: &'static str| {
        Just(id).prop_map(|id| FORMATS.get(id).unwrap().mint().unwrap().expose().to_owned())
    };
    prop_oneof![
        minted("checked"),
        minted("bare"),
        minted("public"),
        "k[0-9a-f]{4,8}mid[0-9a-z]{3}",
        // Near misses.
        "rsc_sk_[0-9A-Za-z]{0,30}",
        "a\\?>[0-9a-f]{31,33}",
        "k[0-9a-f]{2,9}midmid[0-9a-z]{0,4}",
    ]
}

fn encoded() -> impl Strategy<Value = Vec<u8>> {
    let around = "[ -~]{0,5}";
    (around, key(), around, 0..6u8).prop_map(|(before, key, after, encoding)| {
        let text = format!("{before}{key}{after}");
        match encoding {
            0 => text.into_bytes(),
            1 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            2 => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            3 => STANDARD.encode(text).into_bytes(),
            4 => STANDARD_NO_PAD.encode(text).into_bytes(),
            _ => URL_SAFE.encode(text).into_bytes(),
        }
    })
}

/// Returns base64 in lines of about as many characters as the engine requires.
fn wrapped() -> impl Strategy<Value = Vec<u8>> {
    let line_break = prop_oneof![
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\n\n".to_owned()),
        Just("\n+".to_owned()),
        Just("\r\n-".to_owned()),
        Just("\n+  ".to_owned()),
        Just("\n> > ".to_owned()),
        "[ \"'\\\\,;]{0,3}(\n|\r|\r\n|\\\\n|\\\\r\\\\n|\n\n)[ \t]{0,2}([+-]{0,2}|#|//|[*])[ \"]{0,2}".prop_map(String::from),
    ];
    let around = "[ -~]{0,60}";
    (around, key(), around, 40..80_usize, line_break).prop_map(
        |(before, key, after, width, line_break)| {
            let encoded = STANDARD.encode(format!("{before}{key}{after}"));
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(width).collect();
            lines.join(line_break.as_bytes())
        },
    )
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => encoded(),
        3 => wrapped(),
        2 => "[ \n\t]{1,3}".prop_map(String::into_bytes),
        1 => "(\r\n|\n  |\n[+> -]{1,3}|[\"\\\\]?(\r|\n|\\\\n)[\"/+# ]{0,3}|=|==|\\PC|[A-Za-z0-9+/]{1,9})".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (0..9usize).prop_map(|count| vec![0; count]),
    ];
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_the_oracle_finds(text in text()) {
        let all = oracle(&text);
        let of_checked = all.iter().filter(|(_, _, value)| value.starts_with("rsc_sk_"));
        let of_checked = of_checked.cloned().collect();
        let engines = ENGINES.iter().zip(std::iter::repeat(&all));
        for (engine, expected) in engines.chain(OF_CHECKED.iter().zip(std::iter::repeat(&of_checked))) {
            let found = engine.scan(&text);
            prop_assert_eq!(found.len(), places(&found).len(), "something was found twice");
            prop_assert_eq!(&places(&found), expected);
        }
    }

    #[test]
    fn pieces_make_no_difference(text in text(), piece in 1..700usize, more in 0..700usize, times in 1..6usize) {
        let text = text.repeat(times);
        let mut pieces = Vec::new();
        let read = Scanner::with_small_buffer(&ENGINE, more)
            .scan(&mut Pieces(&text, piece), &mut |candidate| pieces.push(candidate))
            .unwrap();
        prop_assert_eq!(read, text.len() as u64);
        let at = |candidate: &Candidate| {
            (candidate.offset, candidate.encoding, candidate.line, candidate.column, candidate.character, candidate.value.expose().to_owned())
        };
        let mut pieces: Vec<_> = pieces.iter().map(at).collect();
        pieces.sort();
        let mut whole: Vec<_> = ENGINE.scan(&text).iter().map(at).collect();
        whole.sort();
        prop_assert_eq!(pieces, whole);
    }
}

/// Without a checksum, both are keys: that in which the `-` is a mark of the line, and that in which it is a character.
#[test]
fn each_reading_of_a_mark_is_a_candidate() {
    // The last two bits of the key begin the second line.
    let encoded = STANDARD.encode("##a?>0123456789abcdef0123456789abcde1;;;;");
    let (first, second) = encoded.split_at(49);
    let text = format!("{first}\n-{second}");
    let expected = oracle(text.as_bytes());
    assert_eq!(expected.len(), 2);
    for engine in &*ENGINES {
        assert_eq!(places(&engine.scan(text.as_bytes())), expected);
    }
}

#[test]
fn fuzz_engine() {
    let minted = |id: &str| FORMATS.get(id).unwrap().mint().unwrap().expose().to_owned();
    let keys = ["checked", "bare", "public"].map(minted);
    let utf16 = |key: &str| -> Vec<u8> { key.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let of_key = |key: &String| {
        [
            key.clone().into_bytes(),
            STANDARD.encode(key).into_bytes(),
            utf16(key),
        ]
    };
    let words: Vec<Vec<u8>> = keys.iter().flat_map(of_key).collect();
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    fuzz("engine", &words, |text| {
        let expected = oracle(text);
        for engine in &*ENGINES {
            let found = engine.scan(text);
            assert_eq!(
                found.len(),
                places(&found).len(),
                "something was found twice"
            );
            assert_eq!(places(&found), expected);
        }
        let mut pieces = Vec::new();
        Scanner::with_small_buffer(&ENGINE, text.len() % 70)
            .scan(&mut Pieces(text, 1 + text.len() % 60), &mut |found| {
                pieces.push(found);
            })
            .unwrap();
        assert_eq!(places(&pieces), expected);
    });
}
