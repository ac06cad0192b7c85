//! Decoding of lists of numbers: `114, 115, 99`, `0x72 0x73`, `chr(114) + chr(115)`. They are those of bytes, of
//! characters or of code units of UTF-16.

use std::ops::Range;

use super::draft::Draft;
use super::widths::{may_be_form, pair};

/// Maximum distance between two numbers, in bytes.
const APART: usize = 12;

/// Radices, each with the number of digits that every visible character takes at least.
const RADICES: [(u8, usize); 4] = [(2, 6), (8, 2), (10, 2), (16, 2)];

/// Value of each digit.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value as usize];
        digits[digit as usize] = value;
        digits[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
};

/// List of numbers in a text.
#[derive(Debug, Clone)]
pub(super) struct List {
    radix: u8,
    start: usize,
    count: usize,
}

/// Passes every list of at least `least` numbers in `text` to `found`. Numbers of characters that are not ASCII ones,
/// nor forms of these, end a list, as in most lists that are no text.
pub(super) fn lists(text: &[u8], least: usize, found: &mut dyn FnMut(List)) {
    // Most texts have too few digits, whatever the radix.
    let decimals = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let hexadecimals = text.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
    for (radix, digits) in RADICES {
        let present = if radix > 10 { hexadecimals } else { decimals };
        if present < least * digits {
            continue;
        }
        let mut list = List {
            radix,
            start: 0,
            count: 0,
        };
        let mut end = 0;
        for (code, place) in numbers(text, 0, radix) {
            let may_be_text = may_be_form(code);
            if place.start - end > APART || !may_be_text {
                pass(&mut list, least, found);
            }
            end = place.end;
            if may_be_text {
                if list.count == 0 {
                    list.start = place.start;
                }
                list.count += 1;
            }
        }
        pass(&mut list, least, found);
    }
}

fn pass(list: &mut List, least: usize, found: &mut dyn FnMut(List)) {
    if list.count >= least {
        found(list.clone());
    }
    list.count = 0;
}

impl List {
    /// Writes the bytes and characters whose numbers are in the list.
    pub(super) fn write(&self, draft: &mut Draft<'_>) -> bool {
        let numbers = numbers(draft.source(), self.start, self.radix);
        let mut numbers = numbers.take(self.count).peekable();
        while let Some((mut code, mut place)) = numbers.next() {
            if let Some((both, second)) = numbers
                .peek()
                .and_then(|(second, place)| Some((pair(code, *second)?, place.end)))
            {
                (code, place.end) = (both, second);
                numbers.next();
            }
            draft.push_code(code, place);
        }
        true
    }
}

/// Returns the numbers in `text` from `at`, and their places. A zero before a letter, as in `0x72`, is no number.
fn numbers(text: &[u8], mut at: usize, radix: u8) -> impl Iterator<Item = (u32, Range<usize>)> {
    let digit = move |byte: u8| Some(DIGITS[usize::from(byte)]).filter(|digit| *digit < radix);
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].iter().position(|byte| digit(*byte).is_some())?;
            let mut value = 0_u32;
            at = start;
            while let Some(digit) = text.get(at).and_then(|byte| digit(*byte)) {
                value = value
                    .saturating_mul(u32::from(radix))
                    .saturating_add(u32::from(digit));
                at += 1;
            }
            let is_prefix =
                text[start..at] == *b"0" && text.get(at).is_some_and(u8::is_ascii_alphabetic);
            if !is_prefix {
                return Some((value, start..at));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::widths::narrow;
    use super::*;

    fn decoded(text: &str) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        lists(text.as_bytes(), 4, &mut |list| {
            let mut draft = Draft::of(text.as_bytes());
            assert!(list.write(&mut draft));
            all.push(draft.bytes);
        });
        all
    }

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
            let all = decoded(list);
            assert!(all.iter().any(|bytes| bytes == b"rsc_"), "{list}: {all:?}");
        }
        for list in [
            "65330, 65331, 65315, 65343",
            "U+FF32 U+FF33 U+FF23 U+FF3F",
            "0xd835, 0xdc11, 0xD835, 0xDC12, 0xff23, 0xff3f",
            "119825 119826 119810 95",
        ] {
            let all = decoded(list);
            let folded = |bytes: &Vec<u8>| {
                let mut draft = Draft::of(bytes);
                narrow(&mut draft) && draft.bytes == b"RSC_"
            };
            assert!(all.iter().any(folded), "{list}: {all:?}");
        }
        for text in [
            "1, 2, 3",
            "20013, 114, 115, 99, 9999999",
            "114 many other words 115, 99, 95",
        ] {
            let all = decoded(text);
            assert!(!all.iter().any(|bytes| bytes.starts_with(b"rsc")), "{text}");
        }
    }
}
