//! Decoding of runs of characters that hold a few bits each: base64 and hexadecimal digits.

use std::ops::Range;

use super::view::{Draft, View};
use crate::scan::engine::base64_value;

/// Encoding of bytes as characters that hold fewer bits.
struct Code {
    /// Number of bits per character: at least half a byte's, so that two characters contain a whole byte.
    bits: usize,
    value: fn(u8) -> Option<u8>,
    /// Number of adjacent characters at which a byte can start.
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

/// Passes every stretch of at least `least` bytes of text that `view` encodes in base64 or hexadecimal digits to
/// `found`, for every character at which the first byte can start. Keys are text, and so are all of their
/// encodings: other bytes mean that the run is not encoded, or not in this way.
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

/// Returns the ranges of `bytes` that are text: UTF-8, which includes ASCII.
fn texts(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    bytes.utf8_chunks().map(move |chunk| {
        let start = end;
        end += chunk.valid().len() + chunk.invalid().len();
        start..start + chunk.valid().len()
    })
}

impl Code {
    /// Passes the text in a run to `found`. The first byte starts at the run's first character.
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

    /// Returns the `at`th byte of a run, and the range of its characters.
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
                // Characters before the text may be decoded as text, too.
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
