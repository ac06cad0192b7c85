//! Decoding of lists of numbers: `114, 115, 99`, `0x72 0x73`, `chr(114) + chr(115)`.

use std::ops::Range;

use super::packed::texts;
use super::view::{Draft, View};

/// Maximum distance between two numbers, in bytes.
const APART: usize = 12;

const RADICES: [u32; 4] = [2, 8, 10, 16];

/// Passes every stretch of at least `least` bytes of text that `view` holds as a list of their numbers to `found`.
pub(super) fn unlist(view: &View<'_>, least: usize, found: &mut dyn FnMut(View<'static>)) {
    for radix in RADICES {
        let mut list: Vec<(u8, Range<usize>)> = Vec::new();
        let mut end = 0;
        for (byte, place) in numbers(&view.bytes, radix) {
            let is_near = place.start - end <= APART;
            end = place.end;
            if !is_near || byte.is_none() {
                pass(view, &list, least, found);
                list.clear();
            }
            list.extend(byte.map(|byte| (byte, place)));
        }
        pass(view, &list, least, found);
    }
}

/// Returns the numbers in `text`, and their places. A zero before a letter, as in `0x72`, is no number. What is more
/// than a byte is `None`.
fn numbers(text: &[u8], radix: u32) -> impl Iterator<Item = (Option<u8>, Range<usize>)> {
    let digit = move |byte: u8| char::from(byte).to_digit(radix);
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].iter().position(|byte| digit(*byte).is_some())?;
            let digits = text[start..].iter().map_while(|byte| digit(*byte));
            let (mut value, mut count) = (0_u32, 0);
            for digit in digits {
                value = value.saturating_mul(radix).saturating_add(digit);
                count += 1;
            }
            at = start + count;
            let is_prefix =
                text[start..at] == *b"0" && text.get(at).is_some_and(u8::is_ascii_alphabetic);
            if !is_prefix {
                return Some((u8::try_from(value).ok(), start..at));
            }
        }
    })
}

fn pass(
    view: &View<'_>,
    list: &[(u8, Range<usize>)],
    least: usize,
    found: &mut dyn FnMut(View<'static>),
) {
    if list.len() < least {
        return;
    }
    let bytes: Vec<u8> = list.iter().map(|(byte, _)| *byte).collect();
    for text in texts(&bytes).filter(|text| text.len() >= least) {
        let mut draft = Draft::of(view);
        for (byte, place) in &list[text] {
            draft.push(*byte, place.clone());
        }
        found(draft.into_view());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_characters_are_read_in_any_radix() {
        for list in [
            "[114, 115,99,95]",
            "0x72, 0x73, 0x63, 0x5f",
            "U+0072 U+0073 U+0063 U+005F",
            "chr(114).chr(115).chr(99).chr(95)",
            "162 163 143 137",
            "0o162, 0o163, 0o143, 0o137",
            "01110010 01110011 01100011 01011111",
        ] {
            let mut all = Vec::new();
            let view = View::of(list.as_bytes()).unwrap();
            unlist(&view, 4, &mut |view| all.push(view.bytes.into_owned()));
            assert!(all.contains(&b"rsc_".to_vec()), "{list}: {all:?}");
        }
        for text in [
            "1, 2, 3",
            "300, 114, 115, 99, 400",
            "114 many other words 115, 99, 95",
        ] {
            unlist(&View::of(text.as_bytes()).unwrap(), 4, &mut |view| {
                assert!(!view.bytes.starts_with(b"rsc"), "{text}");
            });
        }
    }
}
