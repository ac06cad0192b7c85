//! Decoding of runs of characters that hold a few bits each: base64, base32, hexadecimal and binary digits.

use std::ops::Range;

use super::draft::Draft;

/// Encoding of bytes as characters that hold fewer bits.
#[derive(Debug)]
struct Code {
    /// Number of bits per character.
    bits: usize,
    values: [u8; 256],
    /// Number of adjacent characters at which a byte can start.
    starts: usize,
}

/// Value of a byte that is no character of a code.
const NO_VALUE: u8 = u8::MAX;

/// RFC 4648, either alphabet of base64, and base32 and hexadecimal digits in either case.
static CODES: [Code; 4] = [
    Code {
        bits: 6,
        values: values(&[
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        ]),
        starts: 4,
    },
    Code {
        bits: 5,
        values: values(&[
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
            b"abcdefghijklmnopqrstuvwxyz234567",
        ]),
        starts: 8,
    },
    Code {
        bits: 4,
        values: values(&[b"0123456789ABCDEF", b"0123456789abcdef"]),
        starts: 2,
    },
    Code {
        bits: 1,
        values: values(&[b"01"]),
        starts: 8,
    },
];

const fn values(alphabets: &[&[u8]]) -> [u8; 256] {
    let mut values = [NO_VALUE; 256];
    let mut which = 0;
    while which < alphabets.len() {
        let alphabet = alphabets[which];
        let mut at = 0;
        while at < alphabet.len() {
            values[alphabet[at] as usize] = at.to_le_bytes()[0];
            at += 1;
        }
        which += 1;
    }
    values
}

/// Stretch of text that a run of characters encodes.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    code: &'static Code,
    /// Place of the character at which the first byte of the run starts.
    start: usize,
    /// The bytes of the run that are text.
    text: Range<usize>,
}

/// Passes every stretch of at least `least` bytes of text that `text` encodes in one of these ways to `found`, for
/// every character at which the first byte can start. Keys are text, and so are all of their encodings: other bytes
/// mean that the run is not encoded, or not in this way.
pub(super) fn unpack(text: &[u8], least: usize, found: &mut dyn FnMut(Packed)) {
    for code in &CODES {
        let is_digit = |at: usize| code.values[usize::from(text[at])] != NO_VALUE;
        let characters = (least * 8).div_ceil(code.bits);
        stretches(text.len(), characters, is_digit, &mut |run| {
            for start in run.start..run.end.min(run.start + code.starts) {
                code.texts(text, start..run.end, least, found);
            }
        });
    }
}

/// Passes the longest stretches of at least `least` things for which `is_good` holds to `found`.
///
/// Most things in between are passed over: where one of `least` things in a row is not good, no stretch covers them.
fn stretches(
    count: usize,
    least: usize,
    is_good: impl Fn(usize) -> bool,
    found: &mut dyn FnMut(Range<usize>),
) {
    let least = least.max(1);
    let mut start = 0;
    // What was seen to be good, from `start` on.
    let mut seen = start;
    while start + least <= count {
        let final_one = start + least - 1;
        if let Some(bad) = (seen..=final_one).rev().find(|at| !is_good(*at)) {
            (start, seen) = (bad + 1, final_one + 1);
            seen = seen.max(start);
            continue;
        }
        let end = (final_one + 1..count)
            .find(|at| !is_good(*at))
            .unwrap_or(count);
        found(start..end);
        (start, seen) = (end + 1, end + 1);
    }
}

impl Code {
    /// Passes each stretch of text in a run to `found`. The first byte starts at the run's first character.
    fn texts(
        &'static self,
        text: &[u8],
        run: Range<usize>,
        least: usize,
        found: &mut dyn FnMut(Packed),
    ) {
        let digits = &text[run.clone()];
        let count = digits.len() * self.bits / 8;
        let byte = |at: usize| self.byte(digits, at);
        let is_text = |at: usize| match byte(at) {
            0..0x80 => true,
            0x80..0xc0 => at > 0 && matches!(byte(at - 1), 0x80..0xc0 | 0xc2..0xf5),
            0xc2..0xf5 => at + 1 < count && matches!(byte(at + 1), 0x80..0xc0),
            _ => false,
        };
        stretches(count, least, is_text, &mut |stretch| {
            let bytes: Vec<u8> = stretch.clone().map(byte).collect();
            let mut end = stretch.start;
            for chunk in bytes.utf8_chunks() {
                let start = end;
                end += chunk.valid().len() + chunk.invalid().len();
                if chunk.valid().len() >= least {
                    found(Packed {
                        code: self,
                        start: run.start,
                        text: start..start + chunk.valid().len(),
                    });
                }
            }
        });
    }

    /// Returns the byte at this place among those that `digits` encode.
    fn byte(&self, digits: &[u8], at: usize) -> u8 {
        let end = at * 8 + 8;
        let last = end.div_ceil(self.bits);
        let bits = digits[at * 8 / self.bits..last]
            .iter()
            .fold(0_u32, |bits, digit| {
                bits << self.bits | u32::from(self.values[usize::from(*digit)])
            });
        (bits >> (last * self.bits - end)).to_le_bytes()[0]
    }
}

impl Packed {
    /// Writes the text.
    pub(super) fn write(&self, draft: &mut Draft<'_>) -> bool {
        let digits = &draft.source()[self.start..];
        draft.bytes.reserve_exact(self.text.len());
        for at in self.text.clone() {
            let first = self.start + at * 8 / self.code.bits;
            let end = self.start + (at * 8 + 8).div_ceil(self.code.bits);
            draft.push(self.code.byte(digits, at), first..end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn unpacked(text: &str, least: usize) -> Vec<(String, Range<usize>)> {
        let mut all = Vec::new();
        unpack(text.as_bytes(), least, &mut |packed| {
            let mut draft = Draft::with_origins(text.as_bytes());
            assert!(packed.write(&mut draft));
            let whole = draft.origin(0..draft.bytes.len());
            all.push((String::from_utf8(draft.bytes).unwrap(), whole));
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

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "the stretches are ranges")]
    fn long_stretches_are_found_without_looking_at_all() {
        for (text, expected) in [
            ("aaabaaaa", vec![4..8]),
            ("aaaaaaaaab", vec![0..9]),
            ("baaaabbaaaaa", vec![1..5, 7..12]),
            ("aaa", vec![]),
            ("aabaaabaaabaaaa", vec![11..15]),
        ] {
            let mut all = Vec::new();
            stretches(
                text.len(),
                4,
                |at| text.as_bytes()[at] == b'a',
                &mut |found| {
                    all.push(found);
                },
            );
            assert_eq!(all, expected, "{text}");
        }
        let looked_at = std::cell::Cell::new(0);
        let is_good = |_| {
            looked_at.set(looked_at.get() + 1);
            false
        };
        stretches(1_000, 50, is_good, &mut |_| ());
        assert_eq!(looked_at.get(), 20);
    }
}
