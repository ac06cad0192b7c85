//! Property-based tests over arbitrary formats, keys and texts.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;

use super::shape;
use super::{Alphabet, ChecksumState, FormatSet, KeyFormat, Verdict};

const CHECKSUMS: [&str; 5] = [
    "",
    r#"checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }"#,
    r#"checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "preceding" }"#,
    r#"checksum = { algorithm = "crc32", encoding = "hex", length = 8, over = "body" }"#,
    r#"checksum = { algorithm = "crc32", encoding = "hex", length = 8, over = "preceding" }"#,
];

/// Generates a set with one secret format that can mint.
fn minting_set() -> impl Strategy<Value = FormatSet> {
    (
        select(Alphabet::ALL.as_slice()),
        32..80usize,
        select(CHECKSUMS.as_slice()),
        "[a-zA-Z0-9_-]{3,12}",
    )
        .prop_map(|(alphabet, length, checksum, prefix)| {
            let text = format!(
                "[[format]]\nid = \"f\"\nvisibility = \"secret\"\nprefix = \"{prefix}\"\n\
                 body = {{ alphabet = \"{}\", length = {length} }}\n{checksum}\n",
                alphabet.name()
            );
            FormatSet::parse(&[("f.toml", &text)]).unwrap()
        })
}

fn regex_format(regex: &str) -> KeyFormat {
    let text = format!(
        "[[format]]\nid = \"f\"\nvisibility = \"secret\"\nanchor = \"ab7\"\nregex = '{regex}'\n"
    );
    FormatSet::parse(&[("f.toml", &text)])
        .unwrap()
        .get("f")
        .unwrap()
        .clone()
}

/// Generates a regular expression, the alphabet of its keys, and one of its keys.
fn regex_and_key() -> impl Strategy<Value = ((&'static str, &'static str), String)> {
    select(vec![
        ("[ab7_]{4}ab7[ab]{2}", "ab7_"),
        ("[ab]{0,3}ab7[ab7]{0,4}", "ab7"),
        ("(?:_|ab_)ab7_{1,2}", "ab7_"),
        ("ab7(?:ab7)?", "ab7"),
        ("[ab7]{0,2}_ab7", "ab7_"),
        ("(?:a|b_7)ab7b{0,3}", "ab7_"),
    ])
    .prop_flat_map(|described| {
        let key = proptest::string::string_regex(described.0).unwrap();
        (Just(described), key)
    })
}

/// Returns the expected result of `match_at` by trying every stretch of the text that contains the
/// literal.
fn stretch_around(
    shape: &Regex,
    alphabet: &str,
    text: &str,
    literal_at: usize,
) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let in_alphabet =
        |byte: Option<&u8>| byte.is_some_and(|byte| alphabet.as_bytes().contains(byte));
    (0..=literal_at)
        .flat_map(|start| {
            (literal_at + 3..=text.len())
                .rev()
                .map(move |end| start..end)
        })
        .find(|range| {
            shape.is_match(&text[range.clone()])
                && !in_alphabet(bytes[..range.start].last())
                && !in_alphabet(bytes.get(range.end))
        })
}

/// Generates a regular expression over `a`, `b` and `c` that matches at most five characters.
fn small_regex() -> impl Strategy<Value = String> {
    let piece = (
        select(vec!["a", "b", "[ab]", "[bc]", "(?:ab|c)", "."]),
        0..3u32,
        0..3u32,
    )
        .prop_map(|(atom, least, more)| format!("{atom}{{{least},{}}}", least + more));
    vec(piece, 1..4)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("too long", |regex| {
            let hir = regex_syntax::parse(&regex.replace('.', "x")).unwrap();
            hir.properties()
                .maximum_len()
                .is_some_and(|length| length <= 5)
        })
}

/// Returns all strings of at most five characters out of `a`, `b` and `c`.
fn small_strings() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut shorter = 0;
    while all[shorter].len() < 5 {
        for letter in ["a", "b", "c"] {
            all.push(format!("{}{letter}", all[shorter]));
        }
        shorter += 1;
    }
    all
}

proptest! {
    #[test]
    fn minted_keys_are_recognized_and_a_changed_character_is_not(
        formats in minting_set(),
        place in any::<prop::sample::Index>(),
        other in 0x20..0x7f_u8,
    ) {
        let format = formats.get("f").unwrap();
        let key = format.mint().unwrap();
        let key = key.expose().as_bytes();
        let state =
            format.checksum().map_or(ChecksumState::None, |_| ChecksumState::Valid);
        prop_assert_eq!(format.judge(key), Verdict::Match { checksum: state });
        prop_assert!(formats.identify(std::str::from_utf8(key).unwrap()).is_some());
        prop_assert_eq!(key.len(), format.max_len());
        prop_assert_eq!(format.match_at(key, 0), Some(0..key.len()));

        let mut changed = key.to_vec();
        let place = place.index(key.len());
        prop_assume!(changed[place] != other);
        changed[place] = other;
        let verdict = format.judge(&changed);
        if format.checksum().is_some() {
            prop_assert!(matches!(verdict, Verdict::WrongShape | Verdict::WrongChecksum));
        } else if place < format.literal().len() {
            prop_assert_eq!(verdict, Verdict::WrongShape);
        }
    }

    #[test]
    fn explanations_agree_with_the_verdict(formats in minting_set(), text in "\\PC{0,60}", cut in 0..40usize) {
        let format = formats.get("f").unwrap();
        let key = format.mint().unwrap();
        let shorter = &key.expose()[..key.expose().len().saturating_sub(cut)];
        for candidate in [key.expose(), shorter, &text, &format!("{}{text}", format.literal())] {
            let all_ok = format.explain(candidate).iter().all(|step| step.ok);
            let matched = matches!(format.judge(candidate.as_bytes()), Verdict::Match { .. });
            prop_assert_eq!(all_ok, matched);
        }
    }

    #[test]
    fn any_text_loads_or_is_refused_without_panic(text in "\\PC{0,200}") {
        let _ = FormatSet::parse(&[("any.toml", &text)]);
    }

    #[test]
    fn any_values_load_or_are_refused_without_panic(
        id in "\\PC{0,8}",
        literal in "\\PC{0,8}",
        regex in "[a-c0-9.*+?{},()|\\[\\]^$\\\\-]{0,24}",
        alphabet in "(base62|base58|hex|x)",
        number in any::<i64>(),
        small in -2..70i64,
    ) {
        // The debug output of a string is close enough to a TOML string; where it is not, it makes
        // another broken file.
        for length in [number, small] {
            let text = format!(
                "[[format]]\nid = {id:?}\nvisibility = \"secret\"\nprefix = {literal:?}\n\
                 body = {{ alphabet = {alphabet:?}, length = {length} }}\n\
                 [[format]]\nid = \"regex\"\nvisibility = \"public\"\nanchor = \"abc\"\nregex = '{regex}'\n\
                 [[format]]\nid = \"anchored\"\nvisibility = \"public\"\nanchor = \"abc\"\nregex = 'abc{regex}'\n"
            );
            if let Err(error) = FormatSet::parse(&[("any.toml", &text)]) {
                prop_assert!(!error.problems.is_empty());
            }
        }
    }

    #[test]
    fn any_literal_hit_in_any_text_is_judged_without_panic(text in vec(any::<u8>(), 0..300), at in 0..320usize) {
        for format in FormatSet::builtin().iter() {
            let mut text = text.clone();
            prop_assert_eq!(format.match_at(&text, at), None);
            let at = at.min(text.len());
            text.splice(at..at, format.literal().bytes());
            let _ = format.match_at(&text, at);
        }
    }

    #[test]
    fn regex_formats_find_the_leftmost_longest_stretch(
        ((regex, alphabet), key) in regex_and_key(),
        before in "[ab7_]{0,6}[ ]{0,2}",
        after in "[ ]{0,2}[ab7_]{0,6}",
    ) {
        let format = regex_format(regex);
        let shape = Regex::new(&format!("^(?:{regex})$")).unwrap();
        let text = format!("{before}{key}{after}");
        // If the literal occurs several times, it is enough that one of the hits leads to the key.
        let hits = || text.match_indices("ab7").map(|(at, _)| at);
        let expected = hits().find_map(|at| stretch_around(&shape, alphabet, &text, at));
        let found = hits().find_map(|at| format.match_at(text.as_bytes(), at));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn overlap_is_decided_exactly(first in small_regex(), second in small_regex()) {
        let oracle = |regex: &str| Regex::new(&format!("^(?:{regex})$")).unwrap();
        let (first_oracle, second_oracle) = (oracle(&first), oracle(&second));
        let common = small_strings()
            .iter()
            .any(|text| first_oracle.is_match(text) && second_oracle.is_match(text));
        let automaton = |regex: &str| shape::compile(regex).unwrap();
        prop_assert_eq!(automaton(&first).intersects(&automaton(&second)), common);
    }
}
