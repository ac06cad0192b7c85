//! Engine that finds the candidates in a text.
//!
//! The formats' literals are found in each of their encoded forms ([`literal`]) by the searcher that is fastest for
//! this number of them ([`search`]), even if a line break divides them ([`folded`]). The text is decoded and
//! matched only around such a hit and within fixed bounds, so that the result is the same whether a text is scanned
//! as a whole or in pieces that overlap by those bounds.

mod decode;
mod folded;
mod frequency;
pub(super) mod lines;
mod literal;
mod margin;
#[cfg(test)]
pub(super) mod oracle;
mod packed;
pub(super) mod scanner;
mod search;
mod sieve;

use std::ops::Range;
use std::sync::Arc;

use super::{Candidate, Encoding, Encodings};
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use decode::{Base64, Decoded, Reach, Utf16};
#[cfg(test)]
pub(super) use folded::LONG_LINE;
use lines::Spot;
use literal::Form;
use literal::Hit;
use margin::Margin;
use scanner::Scanner;
use search::Search;

/// Revision of the engine. Incremented when it finds more, or something else, in the same text.
const REVISION: u32 = 4;

/// Size in bytes of the pieces in which a text passes through the searches, so that it stays in the cache between
/// them.
const PIECE: usize = 128 << 10;

/// Scanner for candidates of all secret formats of a set. Public formats are not searched for.
#[derive(Debug)]
pub struct Engine {
    formats: Vec<Hunted>,
    /// `None` if there is nothing to search for.
    search: Option<Search>,
    /// Distance from a hit up to which the text is examined, in bytes to either side.
    reach: usize,
    ruleset: String,
}

#[derive(Debug)]
struct Hunted {
    id: Arc<str>,
    format: KeyFormat,
}

/// Candidate whose line and column are not known yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Range<usize>,
    pub(super) encoding: Encoding,
    pub(super) format: usize,
    pub(super) value: KeyValue,
}

impl Engine {
    /// Creates an engine for the secret formats of `formats`, in UTF-8 and the given encodings.
    pub fn new(formats: &FormatSet, encodings: Encodings) -> Self {
        let hunted = formats.secret().map(|(_, format)| format);
        Self::of(hunted, encodings, formats.ruleset_version())
    }

    /// Creates an engine for secret and public formats in every encoding, for redaction: keys of neither kind may
    /// be shown or stored.
    pub(super) fn of_every_format(formats: &FormatSet) -> Self {
        Self::of(formats.iter(), Encodings::ALL, formats.ruleset_version())
    }

    fn of<'f>(
        formats: impl Iterator<Item = &'f KeyFormat>,
        encodings: Encodings,
        version: &str,
    ) -> Self {
        let ruleset = format!(
            "{version}+{REVISION}{}{}",
            if encodings.utf16 { "u" } else { "" },
            if encodings.base64 { "b" } else { "" },
        );
        let formats: Vec<_> = formats
            .map(|format| Hunted {
                id: format.id().into(),
                format: format.clone(),
            })
            .collect();
        let literals = literals(&formats, encodings);
        let longest_key = formats
            .iter()
            .map(|hunted| hunted.format.max_len())
            .max()
            .unwrap_or(0);
        // Twice the length of a key in UTF-16 and a neighbor on either side; in base64, what stands between two lines
        // and the characters that it cuts off.
        let reach = longest_key * 2 + 2 * margin::WIDEST;
        Self {
            search: Search::new(&literals, reach),
            formats,
            reach,
            ruleset,
        }
    }

    /// Creates an engine for each kind of search that is possible with these formats.
    #[cfg(test)]
    pub(super) fn every(formats: &FormatSet, encodings: Encodings) -> Vec<Self> {
        let engine = || Self::new(formats, encodings);
        let searches = Search::every(&literals(&engine().formats, encodings), engine().reach);
        let with = |search| Self {
            search: Some(search),
            ..engine()
        };
        searches.into_iter().map(with).collect()
    }

    /// Returns the version of what the engine finds: two engines of the same version find the same candidates in a
    /// text. It changes with the formats, with the encodings, and when the engine itself learns to find more.
    pub fn ruleset(&self) -> &str {
        &self.ruleset
    }

    /// Returns the formats that are searched for, in the order of their set.
    pub fn formats(&self) -> impl Iterator<Item = &KeyFormat> {
        self.formats.iter().map(|hunted| &hunted.format)
    }

    /// Returns the maximum length of text that one candidate can take up, in bytes.
    pub fn longest_match(&self) -> usize {
        self.reach
    }

    /// Returns all candidates in `text`, in the order of their starts.
    pub fn scan(&self, text: &[u8]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        Scanner::new(self).scan_slice(text, &mut |candidate| candidates.push(candidate));
        candidates
    }

    /// Returns the places of keys in `text`, and the redacted form of each. Of formats without a checksum only if it is
    /// not `only_checked`.
    pub(super) fn places(&self, text: &[u8], only_checked: bool) -> Vec<(Range<usize>, String)> {
        let found = self.find(text, 0, &(0..text.len())).into_iter();
        let shown = |found: &Found| {
            let format = &self.formats[found.format].format;
            found.value.redacted(format.display_prefix())
        };
        let is_certain =
            |found: &Found| !only_checked || self.formats[found.format].format.checksum().is_some();
        found
            .filter(is_certain)
            .map(|found| (found.place.clone(), shown(&found)))
            .collect()
    }

    /// Returns the distance from a hit up to which the text is examined, in bytes to either side.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// Returns the candidates of the hits in `window` within `decided`, in the order of their places. `window`
    /// starts `base` bytes into the text. To be correct, it must extend for [`Self::reach`] bytes to either side of
    /// these hits, or to the end of the text.
    pub(super) fn find(&self, window: &[u8], base: u64, decided: &Range<usize>) -> Vec<Found> {
        let mut all = Vec::new();
        let mut room = Decoded::default();
        for start in decided.clone().step_by(PIECE) {
            let end = decided.end.min(start + PIECE);
            let from = start.saturating_sub(self.reach);
            let piece = &window[from..window.len().min(end + self.reach)];
            let mut decide = |hit: Hit<'_>| {
                let at = hit.at + from;
                if !(start..end).contains(&at) {
                    return;
                }
                for margin in self.margins(window, at, hit.literal.form) {
                    let hit = Hit { at, ..hit };
                    all.extend(self.decide(window, base, hit, margin, &mut room));
                }
            };
            if let Some(search) = &self.search {
                search.run(piece, &mut decide);
            }
        }
        // An anchor that occurs twice in a string finds it twice, and so do both readings of a line in base64.
        all.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        all.dedup_by(|a, b| a.order() == b.order());
        all
    }

    /// Returns the margins that may make a difference around a hit.
    fn margins(&self, window: &[u8], at: usize, form: Form) -> impl Iterator<Item = Margin> {
        let near = match form {
            Form::Base64(_) => {
                &window[at.saturating_sub(self.reach)..window.len().min(at + self.reach)]
            }
            Form::Plain | Form::Utf16 => &[],
        };
        Margin::that_differ(near)
    }

    /// Converts a finding to a candidate, in a text whose columns are `unit_bytes` wide.
    pub(super) fn candidate(
        &self,
        found: Found,
        offset: u64,
        spot: Spot,
        unit_bytes: u64,
    ) -> Candidate {
        let hunted = &self.formats[found.format];
        let characters = found.place.len() as u64 / unit_bytes;
        Candidate {
            format: Arc::clone(&hunted.id),
            display: found.value.redacted(hunted.format.display_prefix()),
            value: found.value,
            offset,
            line: spot.line,
            column: spot.column,
            character: spot.character,
            characters: (found.encoding != Encoding::Base64).then_some(characters),
            encoding: found.encoding,
        }
    }

    /// Returns the candidate around a hit, if there is one. `decoded` has room for what is decoded. A mark of a line may be
    /// a character of base64 as well, so that there can be one for each margin.
    ///
    /// Whoever writes a text decides how many hits are in it. Most of them are no keys, which is known after the
    /// first bytes around the literal.
    fn decide(
        &self,
        window: &[u8],
        base: u64,
        hit: Hit<'_>,
        margin: Margin,
        decoded: &mut Decoded,
    ) -> Option<Found> {
        let start = hit.at.saturating_sub(self.reach);
        let end = window.len().min(hit.at.saturating_add(self.reach));
        let near = &window[start..end];
        let at = hit.at - start;
        let index = hit.literal.format;
        let format = &self.formats[index].format;
        let literal = format.literal().len();
        let (range, encoding, value) = match hit.literal.form {
            Form::Plain => {
                let (before, from) = near.split_at(at);
                let after = from.get(literal..)?.iter().copied();
                if !format.may_stand_between(before.iter().rev().copied(), after) {
                    return None;
                }
                let range = format.match_at(near, at)?;
                (range.clone(), Encoding::Utf8, value(&near[range])?)
            }
            Form::Utf16 => utf16(format, near, at, base + start as u64, decoded)?,
            Form::Base64(alignment) => {
                let encoded = Base64 {
                    at,
                    alignment,
                    margin,
                };
                let (range, value) = base64(format, near, encoded, decoded)?;
                (range, Encoding::Base64, value)
            }
        };
        Some(Found {
            place: range.start + start..range.end + start,
            encoding,
            format: index,
            value,
        })
    }
}

/// Decodes UTF-16 around a hit. Both byte orders yield the same string, but differ in its start, and in whether
/// its last character or the one before its first is complete. Code units start at even offsets of a text,
/// which determines the byte order to try first.
fn utf16(
    format: &KeyFormat,
    near: &[u8],
    at: usize,
    base: u64,
    decoded: &mut Decoded,
) -> Option<(Range<usize>, Encoding, KeyValue)> {
    let low_first = (Encoding::Utf16Le, Some(at));
    let high_first = (Encoding::Utf16Be, at.checked_sub(1));
    let orders = if (base + at as u64).is_multiple_of(2) {
        [low_first, high_first]
    } else {
        [high_first, low_first]
    };
    orders.into_iter().find_map(|(encoding, unit)| {
        let encoded = Utf16 {
            at: unit?,
            low_byte_first: encoding == Encoding::Utf16Le,
        };
        let after = encoded.from(near).skip(format.literal().len());
        if !format.may_stand_between(encoded.before(near), after) {
            return None;
        }
        decoded.utf16(near, encoded, reach_in(format));
        let (range, value) = matching(format, decoded)?;
        Some((range, encoding, value))
    })
}

/// Decodes base64 around a hit.
fn base64(
    format: &KeyFormat,
    near: &[u8],
    encoded: Base64,
    decoded: &mut Decoded,
) -> Option<(Range<usize>, KeyValue)> {
    let after = encoded.after(near, format.literal().len());
    if !format.may_stand_between(encoded.before(near), after) {
        return None;
    }
    decoded.base64(near, encoded, reach_in(format))?;
    matching(format, decoded)
}

/// Returns how much has to be decoded around a literal: a key, and its neighbors.
fn reach_in(format: &KeyFormat) -> Reach {
    let (before, after) = format.most_around_literal();
    Reach {
        before: before + 1,
        after: format.literal().len() + after + 1,
    }
}

fn literals(formats: &[Hunted], encodings: Encodings) -> Vec<literal::Literal> {
    let formats = formats.iter().enumerate();
    formats
        .flat_map(|(index, hunted)| literal::forms(index, &hunted.format, encodings))
        .collect()
}

impl Found {
    /// Returns the identity of a candidate within the window. Its end is not included: in base64, it depends on how
    /// much of the text after it was decoded.
    fn key(&self) -> (usize, usize, usize, Encoding) {
        let length = self.value.expose().len();
        (self.place.start, length, self.format, self.encoding)
    }

    /// Returns the identity of a candidate and its value: two readings of a text may differ in the last bits of a key.
    fn order(&self) -> ((usize, usize, usize, Encoding), &str) {
        (self.key(), self.value.expose())
    }
}

fn matching(format: &KeyFormat, decoded: &Decoded) -> Option<(Range<usize>, KeyValue)> {
    let range = format.match_at(&decoded.bytes, decoded.literal_at)?;
    let value = value(&decoded.bytes[range.clone()])?;
    Some((
        decoded.origins[range.start]..decoded.origins[range.end],
        value,
    ))
}

/// Keys of every format are ASCII, so a string that is not UTF-8 is not a key.
fn value(key: &[u8]) -> Option<KeyValue> {
    std::str::from_utf8(key).ok().map(KeyValue::new)
}
