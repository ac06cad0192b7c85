//! Decoding of runs of characters that hold a few bits each: base64, base32, hexadecimal and binary digits.

use std::ops::Range;

use super::view::{Draft, View};
use crate::scan::engine::base64_value;

/// Encoding of bytes as characters that hold fewer bits.
struct Code {
    /// Number of bits per character.
    bits: usize,
    value: fn(u8) -> Option<u8>,
    /// Number of adjacent characters at which a byte can start.
    starts: usize,
}

const CODES: [Code; 4] = [
    Code {
        bits: 6,
        value: base64_value,
        starts: 4,
    },
    Code {
        bits: 5,
        value: base32_value,
        starts: 8,
    },
    Code {
        bits: 4,
        value: hex_value,
        starts: 2,
    },
    Code {
        bits: 1,
        value: binary_value,
        starts: 8,
    },
];

/// RFC 4648, section 6, in either case.
fn base32_value(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a'),
        b'2'..=b'7' => Some(character - b'2' + 26),
        _ => None,
    }
}

fn binary_value(digit: u8) -> Option<u8> {
    matches!(digit, b'0' | b'1').then(|| digit - b'0')
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

/// Passes every stretch of at least `least` bytes of text that `view` encodes in one of these ways to
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
                for start in at..end.min(at + code.starts) {
                    code.unpack(view, start..end, least, found);
                }
            }
            at = end + 1;
        }
    }
}

/// Returns the ranges of `bytes` that are text: UTF-8, which includes ASCII.
pub(super) fn texts(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
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
        let bytes = self.bytes(&view.bytes[run.clone()]);
        for text in texts(&bytes).filter(|text| text.len() >= least) {
            let mut draft = Draft::of(view);
            for at in text {
                let first = run.start + at * 8 / self.bits;
                let end = run.start + (at * 8 + 8).div_ceil(self.bits);
                draft.push(bytes[at], first..end);
            }
            found(draft.into_view());
        }
    }

    /// Returns the bytes that a run encodes.
    fn bytes(&self, run: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(run.len() * self.bits / 8);
        let (mut bits, mut count) = (0_u32, 0);
        for value in run.iter().filter_map(|byte| (self.value)(*byte)) {
            bits = bits << self.bits | u32::from(value);
            count += self.bits;
            if count >= 8 {
                count -= 8;
                let [byte, ..] = (bits >> count).to_le_bytes();
                bytes.push(byte);
            }
        }
        bytes
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
