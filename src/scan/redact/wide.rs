//! Decoding of UTF-16 with other forms of ASCII characters.
//!
//! UTF-16 of ASCII characters needs no decoding: [`super::blanks`] removes its zeros.

use std::ops::Range;

use super::draft::Draft;
use super::stretches::stretches;
use super::widths::may_be_form;

/// Stretch of UTF-16 among some bytes.
#[derive(Debug, Clone)]
pub(super) struct Wide {
    bytes: Range<usize>,
    low_first: bool,
}

/// Passes every stretch of at least `least` code units that are ASCII characters or may be forms of these, and not
/// all ASCII, to `found`, for every place at which the first unit can start and either order. `byte` returns each of
/// the `count` bytes.
///
/// Almost any bytes are units of UTF-16, but few are such in a row.
pub(super) fn wides(
    count: usize,
    byte: impl Fn(usize) -> u8,
    least: usize,
    found: &mut dyn FnMut(Wide),
) {
    for first in [0, 1] {
        let high = |index: usize| first + index * 2;
        let may_be_text = |index: usize| may_be_form(u32::from(byte(high(index))) << 8);
        let highs = count.saturating_sub(first).div_ceil(2);
        stretches(highs, least, may_be_text, &mut |stretch| {
            // High bytes are the same in both orders. At an end of the text, the low byte may be missing.
            let (start, end) = (high(stretch.start), high(stretch.end));
            let low_first = start.checked_sub(1).unwrap_or(1)..end - 1;
            let high_first = start..end.min(count - (count - start) % 2);
            for (bytes, low_first) in [(low_first, true), (high_first, false)] {
                let mut units = bytes.clone().step_by(2);
                let is_wide = units.any(|at| unit(&byte, at, low_first) > 0x7f);
                if is_wide && bytes.len() / 2 >= least {
                    found(Wide { bytes, low_first });
                }
            }
        });
    }
}

impl Wide {
    /// Writes the text in UTF-8. `place` returns the origin of a range of bytes.
    pub(super) fn write(
        &self,
        draft: &mut Draft<'_>,
        byte: impl Fn(usize) -> u8,
        place: impl Fn(Range<usize>) -> Range<usize>,
    ) {
        let places = self.bytes.clone().step_by(2);
        let units = places.map(|at| unit(&byte, at, self.low_first));
        let mut at = self.bytes.start;
        for read in char::decode_utf16(units) {
            let c = read.unwrap_or(char::REPLACEMENT_CHARACTER);
            let end = at + c.len_utf16() * 2;
            draft.push_all(c.encode_utf8(&mut [0; 4]).as_bytes(), place(at..end));
            at = end;
        }
    }
}

fn unit(byte: impl Fn(usize) -> u8, at: usize, low_first: bool) -> u16 {
    let bytes = [byte(at), byte(at + 1)];
    if low_first {
        u16::from_le_bytes(bytes)
    } else {
        u16::from_be_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
        let mut all = Vec::new();
        wides(bytes.len(), |at| bytes[at], 4, &mut |wide| {
            let mut draft = Draft::with_origins(bytes);
            wide.write(&mut draft, |at| bytes[at], |place| place);
            let whole = draft.origin(0..draft.bytes.len());
            all.push((String::from_utf8(draft.bytes).unwrap(), whole));
        });
        all
    }

    #[test]
    fn forms_are_found_wherever_they_start_in_either_order() {
        let text = "\u{ff32}s\u{b2}\u{1d42b}\u{200b}_";
        let units: Vec<u16> = text.encode_utf16().collect();
        for before in [&b""[..], b"\x80", b"\x80\x80", b"\x80\x80\x80"] {
            for low_first in [true, false] {
                let bytes = units.iter().flat_map(|unit| {
                    if low_first {
                        unit.to_le_bytes()
                    } else {
                        unit.to_be_bytes()
                    }
                });
                let bytes: Vec<u8> = before.iter().copied().chain(bytes).collect();
                let expected = (text.to_owned(), before.len()..bytes.len());
                let all = decoded(&bytes);
                assert!(all.contains(&expected), "{all:?}");
            }
        }
    }

    #[test]
    fn what_is_ascii_or_another_script_is_left_out() {
        let chinese = "\u{4e00}\u{4e8c}\u{4e09}\u{56db}\u{4e94}";
        for text in ["abcdefgh", "", "\u{ff32}", chinese] {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(decoded(&bytes), []);
            assert_eq!(decoded(text.as_bytes()), []);
        }
        let alone = [0x35, 0xd8].repeat(4);
        assert_eq!(decoded(&alone), [("\u{fffd}".repeat(4), 0..8)]);
    }
}
