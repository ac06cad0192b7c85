//! Decoding of runs of characters that hold a few bits each: base64, base32, hexadecimal and binary digits.

use std::ops::Range;

use super::draft::Draft;
use super::stretches::stretches;
use super::wide::{Wide, wides};

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
    text: Text,
}

/// Place of a text among the bytes of a run.
#[derive(Debug, Clone)]
enum Text {
    Utf8(Range<usize>),
    Utf16(Wide),
}

/// Passes every stretch of at least `least` bytes of text that `text` encodes in one of these ways to `found`, for
/// every character at which the first byte can start. Keys are text, and so are all of their encodings: other bytes
/// mean that the run is not encoded, or not in this way. The text is UTF-8, or UTF-16 with others than ASCII
/// characters.
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
        let mut pass = |text: Text| {
            found(Packed {
                code: self,
                start: run.start,
                text,
            });
        };
        wides(count, byte, least, &mut |wide| pass(Text::Utf16(wide)));
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
                    pass(Text::Utf8(start..start + chunk.valid().len()));
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
        let byte = |at: usize| self.code.byte(digits, at);
        let place = |bytes: Range<usize>| {
            let first = self.start + bytes.start * 8 / self.code.bits;
            first..self.start + (bytes.end * 8).div_ceil(self.code.bits)
        };
        match &self.text {
            Text::Utf8(text) => {
                draft.bytes.reserve_exact(text.len());
                for at in text.clone() {
                    draft.push(byte(at), place(at..at + 1));
                }
            }
            Text::Utf16(wide) => wide.write(draft, byte, place),
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
}
