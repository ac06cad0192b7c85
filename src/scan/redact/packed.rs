//! Reads runs of characters that stand for a few bits each: base64 and hexadecimal digits.

use std::ops::Range;

use super::view::{Draft, View};
use crate::scan::engine::base64_value;

/// A way in which bytes are written with characters of fewer bits.
struct Code {
    /// How many bits a character has: more than half of a byte's, so that two of them hold a byte.
    bits: usize,
    value: fn(u8) -> Option<u8>,
    /// At how many neighbouring characters a byte can start.
    starts: usize,
}

const CODES: [Code; 2] = [
    Code {
        bits: 6,
        value: base64_value,
        starts: 4,
    },
    Code {
        bits: 4,
        value: hex_value,
        starts: 2,
    },
];

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

/// Gives `found` every stretch of at least `least` bytes of text that `view` says in base64 or hexadecimal
/// digits, wherever the first byte starts. Keys are text, and so is all that they can be encoded in: other
/// bytes say that what stands there is not encoded, or not so.
pub(super) fn unpack(view: &View<'_>, least: usize, found: &mut dyn FnMut(View<'static>)) {
    for code in &CODES {
        let mut at = 0;
        while at < view.bytes.len() {
            let run = view.bytes[at..].iter();
            let run = run.take_while(|byte| (code.value)(**byte).is_some());
            let end = at + run.count();
            if (end - at) * code.bits / 8 >= least {
                for start in at..at + code.starts {
                    code.unpack(view, start..end, least, found);
                }
            }
            at = end + 1;
        }
    }
}

/// Returns where in `bytes` there is text: UTF-8, of which ASCII is a part.
fn texts(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    bytes.utf8_chunks().map(move |chunk| {
        let start = end;
        end += chunk.valid().len() + chunk.invalid().len();
        start..start + chunk.valid().len()
    })
}

impl Code {
    /// Gives `found` the bytes of a run whose first character is the first of a byte.
    fn unpack(
        &self,
        view: &View<'_>,
        run: Range<usize>,
        least: usize,
        found: &mut dyn FnMut(View<'static>),
    ) {
        let count = run.len() * self.bits / 8;
        let bytes: Vec<u8> = (0..count).map(|at| self.byte(view, &run, at).0).collect();
        for text in texts(&bytes).filter(|text| text.len() >= least) {
            let mut draft = Draft::of(view);
            for at in text {
                draft.push(bytes[at], self.byte(view, &run, at).1);
            }
            found(draft.into_view());
        }
    }

    /// The `at`th byte of a run, and its characters.
    fn byte(&self, view: &View<'_>, run: &Range<usize>, at: usize) -> (u8, Range<usize>) {
        let first = run.start + at * 8 / self.bits;
        let value = |at: usize| u16::from((self.value)(view.bytes[at]).unwrap_or(0));
        let pair = value(first) << self.bits | value(first + 1);
        let behind = 2 * self.bits - 8 - at * 8 % self.bits;
        ((pair >> behind).to_be_bytes()[1], first..first + 2)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn unpacked(text: &str, least: usize) -> Vec<(String, Range<usize>)> {
        let mut all = Vec::new();
        unpack(&View::of(text.as_bytes()).unwrap(), least, &mut |view| {
            all.push((
                String::from_utf8(view.bytes.to_vec()).unwrap(),
                view.whole(),
            ));
        });
        all
    }

    #[test]
    fn text_is_found_wherever_it_starts() {
        let text = "Some words?> that are ~~ plain text\n";
        for around in ["", "a", "ab", "abc", "abcd", "ä"] {
            for encoded in [
                STANDARD.encode(text),
                URL_SAFE_NO_PAD.encode(text),
                hex::encode(text),
                hex::encode_upper(text),
            ] {
                let all = unpacked(&format!("{around}{encoded}="), text.len());
                let end = around.len() + encoded.trim_end_matches('=').len();
                // What stands before it may be read as text, too.
                let whole = |(said, place): &(String, Range<usize>)| {
                    said.ends_with(text) && place.end == end
                };
                assert!(all.iter().any(whole), "{all:?}");
            }
        }
    }

    #[test]
    fn other_bytes_divide_it() {
        let encoded = STANDARD.encode(b"one and more\xe4two and more");
        let all = unpacked(&encoded, 12);
        assert_eq!(all[0], ("one and more".to_owned(), 0..16));
        assert_eq!(all[1], ("two and more".to_owned(), 17..34));
        assert_eq!(unpacked(&encoded, 13), []);
        assert_eq!(
            unpacked("/usr/share/doc/some_package-1/README/and/so/on", 12),
            []
        );
    }
}
