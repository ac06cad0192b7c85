//! Encoded forms of a format's literal.

use std::ops::Range;

use crate::keyformat::KeyFormat;
use crate::scan::Encodings;

/// Base64 characters by value, RFC 4648 section 4.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Last two characters of the URL-safe alphabet, RFC 4648 section 5.
const URL_SAFE: [u8; 2] = *b"-_";

/// One encoded form of a format's literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    /// Index of its format in the engine.
    pub(super) format: usize,
    pub(super) form: Form,
    /// Possible values of each byte of the form. Most bytes have one. Several are possible at the ends, where only
    /// some of the bits are known, and where the base64 alphabets differ.
    pub(super) bytes: Vec<Vec<u8>>,
    /// Number of `bytes` before the place of a hit, which is the literal's first character, or in base64 the first
    /// character that belongs entirely to the literal.
    pub(super) lead: usize,
    /// The same as `bytes`, for comparisons.
    places: Vec<Values>,
}

/// Occurrence of a literal in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) literal: &'a Literal,
    /// Place of the hit; see [`Literal::lead`].
    pub(super) at: usize,
}

/// Possible values of one byte.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Values {
    /// One of them, in most cases the only one.
    one: u8,
    several: Option<Box<[bool; 256]>>,
}

impl Literal {
    /// Creates a form of a literal. `bytes` has the possible values of each byte.
    pub(super) fn new(format: usize, form: Form, bytes: Vec<Vec<u8>>, lead: usize) -> Self {
        Self {
            places: bytes.iter().map(|known| Values::of(known)).collect(),
            format,
            form,
            bytes,
            lead,
        }
    }

    /// Returns whether the form occurs at `start`, undivided.
    #[inline]
    pub(super) fn stands_at(&self, text: &[u8], start: usize) -> bool {
        self.stretch_stands_at(text, start, 0..self.bytes.len())
    }

    /// Returns whether the bytes of the form at `stretch` occur at `start`.
    #[inline]
    pub(super) fn stretch_stands_at(
        &self,
        text: &[u8],
        start: usize,
        stretch: Range<usize>,
    ) -> bool {
        let known = self.places[stretch].iter();
        let text = text.get(start..).and_then(|text| text.get(..known.len()));
        text.is_some_and(|text| {
            let mut pairs = text.iter().zip(known);
            pairs.all(|(byte, known)| known.can_be(*byte))
        })
    }

    /// Returns whether the byte of the form at `at` can have this value.
    #[inline]
    pub(super) fn can_be(&self, at: usize, byte: u8) -> bool {
        self.places[at].can_be(byte)
    }
}

impl Values {
    fn of(known: &[u8]) -> Self {
        let table = || {
            let mut table = Box::new([false; 256]);
            for byte in known {
                table[usize::from(*byte)] = true;
            }
            table
        };
        Self {
            one: known.first().copied().unwrap_or_default(),
            several: (known.len() != 1).then(table),
        }
    }

    #[inline]
    fn can_be(&self, byte: u8) -> bool {
        match &self.several {
            None => self.one == byte,
            Some(table) => table[usize::from(byte)],
        }
    }
}

/// Returns every sequence of these bytes, each one of several.
pub(super) fn every_sequence(bytes: &[Vec<u8>]) -> Vec<Vec<u8>> {
    bytes.iter().fold(vec![Vec::new()], |sequences, known| {
        let longer = |sequence: Vec<u8>| {
            known
                .iter()
                .map(move |byte| [sequence.as_slice(), &[*byte]].concat())
        };
        sequences.into_iter().flat_map(longer).collect()
    })
}

/// Encoding of a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// Either byte order: without its last zero byte, the little-endian form is part of the big-endian one.
    Utf16,
    Base64(Alignment),
}

/// Position of the literal's start in a group of three bytes, which base64 encodes as four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    bytes_before: usize,
}

impl Alignment {
    const ALL: [Self; 3] = [
        Self { bytes_before: 0 },
        Self { bytes_before: 1 },
        Self { bytes_before: 2 },
    ];

    /// Returns the position in its group of the first character that belongs entirely to the literal.
    pub(super) fn first_whole_character(self) -> usize {
        (self.bytes_before * 8).div_ceil(6)
    }

    /// Returns the position in its group of the literal's first byte.
    pub(super) fn first_byte(self) -> usize {
        self.bytes_before
    }
}

/// Returns the encoded forms of the literal of `format`, which has this `index` in the engine.
pub(super) fn forms(index: usize, format: &KeyFormat, encodings: Encodings) -> Vec<Literal> {
    let literal = format.literal().as_bytes();
    let next = format.byte_after_prefix();
    let mut forms = vec![plain(index, literal, next)];
    if encodings.base64 {
        forms.extend(Alignment::ALL.map(|alignment| base64(index, literal, next, alignment)));
    }
    if encodings.utf16 {
        forms.push(utf16(index, literal));
    }
    forms
}

fn plain(format: usize, literal: &[u8], next: Option<&[u8]>) -> Literal {
    let mut bytes: Vec<_> = literal.iter().map(|byte| vec![*byte]).collect();
    bytes.extend(next.map(<[u8]>::to_vec));
    Literal::new(format, Form::Plain, bytes, 0)
}

fn utf16(format: usize, literal: &[u8]) -> Literal {
    let mut bytes: Vec<_> = literal
        .iter()
        .flat_map(|byte| [vec![*byte], vec![0]])
        .collect();
    bytes.pop();
    Literal::new(format, Form::Utf16, bytes, 0)
}

fn base64(format: usize, literal: &[u8], next: Option<&[u8]>, alignment: Alignment) -> Literal {
    let any: Vec<u8> = (0..=u8::MAX).collect();
    // Three bytes are encoded as four characters: the bits of a character come from one byte or from two adjacent
    // ones.
    let mut bytes: Vec<&[u8]> = vec![&any; alignment.bytes_before];
    bytes.extend(literal.iter().map(std::slice::from_ref));
    let literal_ends = bytes.len();
    bytes.push(next.unwrap_or(&any));
    let first = alignment.bytes_before * 8 / 6;
    let last = (literal_ends * 8 - 1) / 6;
    Literal::new(
        format,
        Form::Base64(alignment),
        (first..=last).map(|at| characters(&bytes, at)).collect(),
        alignment.first_whole_character() - first,
    )
}

/// Returns the possible values of the `at`th base64 character, if each byte is one of its possible values in
/// `bytes`.
fn characters(bytes: &[&[u8]], at: usize) -> Vec<u8> {
    let byte = at * 6 / 8;
    let shift = 10 - at * 6 % 8;
    let second = bytes.get(byte + 1).copied().unwrap_or(&[0]);
    let mut characters: Vec<u8> = bytes[byte]
        .iter()
        .flat_map(|high| {
            second
                .iter()
                .map(move |low| u16::from_be_bytes([*high, *low]))
        })
        .flat_map(|pair| {
            let value = usize::from(pair >> shift & 0x3f);
            let url_safe = value.checked_sub(62).map(|at| URL_SAFE[at]);
            [Some(BASE64[value]), url_safe]
        })
        .flatten()
        .collect();
    characters.sort_unstable();
    characters.dedup();
    characters
}

/// Value of what is no base64 character.
const NO_VALUE: u8 = 0xff;

static VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NO_VALUE; 256];
    let mut value = 0u8;
    while value < 64 {
        values[BASE64[value as usize] as usize] = value;
        value += 1;
    }
    values[URL_SAFE[0] as usize] = 62;
    values[URL_SAFE[1] as usize] = 63;
    values
}

/// Returns the six bits that a character of either base64 alphabet encodes, or `None` for any other character.
#[inline]
pub(super) fn base64_value(character: u8) -> Option<u8> {
    let value = VALUES[usize::from(character)];
    (value != NO_VALUE).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    fn matches(literal: &Literal, text: &[u8]) -> Vec<usize> {
        text.windows(literal.bytes.len())
            .enumerate()
            .filter(|(_, window)| {
                window
                    .iter()
                    .zip(&literal.bytes)
                    .all(|(byte, known)| known.contains(byte))
            })
            .map(|(at, _)| at + literal.lead)
            .collect()
    }

    #[test]
    fn base64_forms_are_what_an_encoder_writes() {
        // The characters of these prefixes are encoded differently in the two alphabets.
        for prefix in ["rsc_sk_", "a?>", "~~~?o>_"] {
            for before in 0..7 {
                let text = format!("{}{prefix}0aZ", &"\u{7f}x~ 1?z"[..before]);
                let aligned = Alignment::ALL[before % 3];
                let expected = before / 3 * 4 + aligned.first_whole_character();
                for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                    for next in [None, Some(b"0aZ".as_slice())] {
                        for alignment in Alignment::ALL {
                            let form = base64(0, prefix.as_bytes(), next, alignment);
                            let found = matches(&form, encoded.as_bytes());
                            let wanted: &[usize] = if alignment == aligned {
                                &[expected]
                            } else {
                                &[]
                            };
                            assert_eq!(found, wanted, "{text} {encoded} {alignment:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn knows_the_characters_at_the_ends() {
        let form = base64(0, b"rsc_sk_", Some(b"0aZ"), Alignment::ALL[1]);
        // The first character holds two bits of an arbitrary byte, the last one two bits of `0`, `a` or `Z`.
        assert_eq!(form.bytes[0], b"3HXn");
        assert_eq!(form.bytes[9], b"89");
        assert!(form.bytes[1..9].iter().all(|known| known.len() == 1));
        assert_eq!(form.lead, 1);
    }

    #[test]
    fn values_are_the_places_in_the_alphabet() {
        for (value, character) in BASE64.iter().enumerate() {
            assert_eq!(base64_value(*character).map(usize::from), Some(value));
        }
        assert_eq!(base64_value(b'-').zip(base64_value(b'_')), Some((62, 63)));
        assert_eq!(base64_value(b'='), None);
    }

    #[test]
    fn knows_every_sequence() {
        let bytes = [vec![b'a', b'b'], vec![b'c'], vec![b'd', b'e']];
        let forms = [b"acd", b"ace", b"bcd", b"bce"].map(|form| form.to_vec());
        assert_eq!(every_sequence(&bytes), forms);
    }
}
