//! The engine: where in a text stand candidates of which format.
//!
//! The formats' literals are found in every form that encodings give them ([`literal`]) by whichever searcher is
//! fastest for so many ([`search`]), also where a line break divides them ([`folded`]).
//! Only around such a hit the text is decoded and matched, within fixed bounds, so that it makes no
//! difference whether a text is scanned as a whole or in pieces that overlap by those bounds.

mod decode;
mod folded;
mod frequency;
mod literal;
mod packed;
mod search;
mod sieve;

use std::ops::Range;
use std::sync::Arc;

use super::lines::Spot;
use super::scanner::Scanner;
use super::{Candidate, Encoding, Encodings};
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
#[cfg(test)]
pub(super) use folded::LONG_LINE;
use literal::Form;
pub(super) use literal::base64_value;
use search::{Hit, Search};

/// Goes up when the engine finds what it did not find before in the same text.
const REVISION: u32 = 2;

/// The length of the pieces of a text that are looked at in one pass and then in the other, while it is in the cache.
const PIECE: usize = 128 << 10;

/// Finds candidates of all secret formats of a set. Public formats are not even looked for.
#[derive(Debug)]
pub struct Engine {
    formats: Vec<Hunted>,
    /// `None`: there is nothing to look for.
    search: Option<Search>,
    /// The longest key of all formats, in bytes.
    longest_key: usize,
    /// How far from a hit the text is looked at, in bytes to either side.
    reach: usize,
    ruleset: String,
}

#[derive(Debug)]
struct Hunted {
    id: Arc<str>,
    format: KeyFormat,
}

/// A candidate's place in a text, before its line and column are known.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Range<usize>,
    pub(super) encoding: Encoding,
    pub(super) format: usize,
    pub(super) value: KeyValue,
}

impl Engine {
    /// An engine that looks for the secret formats of `formats` in UTF-8 and the given encodings.
    pub fn new(formats: &FormatSet, encodings: Encodings) -> Self {
        let hunted = formats.secret().map(|(_, format)| format);
        Self::of(hunted, encodings, formats.ruleset_version())
    }

    /// An engine that looks for public formats too, in every encoding: nothing of either kind is to be
    /// shown or kept.
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
        // Twice a key's length in UTF-16, a neighbour on either side, and as much room in base64 for line
        // breaks and what they cut off.
        let reach = longest_key * 2 + 64;
        Self {
            search: Search::new(&literals, reach),
            formats,
            longest_key,
            reach,
            ruleset,
        }
    }

    /// An engine for every search that can be chosen for so many formats.
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

    /// What the engine looks for, as a version: two engines of the same one find the same in a text. It
    /// changes with the formats, with the encodings, and when the engine itself learns to see more.
    pub fn ruleset(&self) -> &str {
        &self.ruleset
    }

    /// The formats whose keys it looks for, in the order of their set.
    pub fn formats(&self) -> impl Iterator<Item = &KeyFormat> {
        self.formats.iter().map(|hunted| &hunted.format)
    }

    /// The length of the longest stretch of text that can be one candidate, in bytes.
    pub fn longest_match(&self) -> usize {
        self.reach
    }

    /// All candidates in `text`, in the order in which they start.
    pub fn scan(&self, text: &[u8]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        Scanner::new(self).scan_slice(text, &mut |candidate| candidates.push(candidate));
        candidates
    }

    /// Where in `text` keys stand, and what of each may be shown.
    pub(super) fn places(&self, text: &[u8]) -> Vec<(Range<usize>, String)> {
        let found = self.find(text, 0, &(0..text.len())).into_iter();
        let shown = |found: &Found| {
            let format = &self.formats[found.format].format;
            found.value.redacted(format.display_prefix())
        };
        found
            .map(|found| (found.place.clone(), shown(&found)))
            .collect()
    }

    /// How far from a hit the text is looked at, in bytes to either side.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// The candidates of those hits in `window` that are in `decided`, in the order of their places.
    /// `window` starts `base` bytes into the text. Its hits are right if it goes on for [`Self::reach`]
    /// bytes to either side of them, or as far as the text does.
    pub(super) fn find(&self, window: &[u8], base: u64, decided: &Range<usize>) -> Vec<Found> {
        let mut all = Vec::new();
        for start in decided.clone().step_by(PIECE) {
            let end = decided.end.min(start + PIECE);
            let from = start.saturating_sub(self.reach);
            let piece = &window[from..window.len().min(end + self.reach)];
            let mut decide = |hit: Hit<'_>| {
                let at = hit.at + from;
                if (start..end).contains(&at) {
                    all.extend(self.decide(window, base, Hit { at, ..hit }));
                }
            };
            if let Some(search) = &self.search {
                search.run(piece, &mut decide);
            }
        }
        // The same string is found twice if its anchor stands in it twice.
        all.sort_unstable_by_key(Found::key);
        all.dedup_by_key(|found| found.key());
        all
    }

    /// The report of what was found, in a text whose columns are `unit_bytes` wide.
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

    /// What stands around a hit, if it is a candidate.
    fn decide(&self, window: &[u8], base: u64, hit: Hit<'_>) -> Option<Found> {
        let start = hit.at.saturating_sub(self.reach);
        let end = window.len().min(hit.at.saturating_add(self.reach));
        let near = &window[start..end];
        let at = hit.at - start;
        let index = hit.literal.format;
        let format = &self.formats[index].format;
        let (range, encoding, value) = match hit.literal.form {
            Form::Plain => {
                let range = format.match_at(near, at)?;
                (range.clone(), Encoding::Utf8, value(&near[range])?)
            }
            Form::Utf16 => self.utf16(format, near, at, base + start as u64)?,
            Form::Base64(alignment) => {
                let decoded = decode::base64(near, at, alignment)?;
                let (range, value) = matching(format, &decoded)?;
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

    /// Both byte orders read the same string out of UTF-16. They differ in where it starts, and in whether
    /// its last character or the one before its first is complete. Code units start at even places of a
    /// text, which tells the right one; unless that one gives nothing.
    fn utf16(
        &self,
        format: &KeyFormat,
        near: &[u8],
        at: usize,
        base: u64,
    ) -> Option<(Range<usize>, Encoding, KeyValue)> {
        let low_first = (Encoding::Utf16Le, Some(at));
        let high_first = (Encoding::Utf16Be, at.checked_sub(1));
        let orders = if (base + at as u64).is_multiple_of(2) {
            [low_first, high_first]
        } else {
            [high_first, low_first]
        };
        orders.into_iter().find_map(|(encoding, unit)| {
            let low_byte_first = encoding == Encoding::Utf16Le;
            let decoded = decode::utf16(near, unit?, low_byte_first, self.longest_key + 1);
            let (range, value) = matching(format, &decoded)?;
            Some((range, encoding, value))
        })
    }
}

fn literals(formats: &[Hunted], encodings: Encodings) -> Vec<literal::Literal> {
    let formats = formats.iter().enumerate();
    formats
        .flat_map(|(index, hunted)| literal::forms(index, &hunted.format, encodings))
        .collect()
}

impl Found {
    /// What tells it from the other candidates of the window. The end is not it: in base64 that depends
    /// on how much of what follows was decoded.
    fn key(&self) -> (usize, usize, usize, Encoding) {
        let length = self.value.expose().len();
        (self.place.start, length, self.format, self.encoding)
    }
}

fn matching(format: &KeyFormat, decoded: &decode::Decoded) -> Option<(Range<usize>, KeyValue)> {
    let range = format.match_at(&decoded.bytes, decoded.literal_at)?;
    let value = value(&decoded.bytes[range.clone()])?;
    Some((
        decoded.origins[range.start]..decoded.origins[range.end],
        value,
    ))
}

/// Keys are ASCII in every format; what is not UTF-8 is none.
fn value(key: &[u8]) -> Option<KeyValue> {
    std::str::from_utf8(key).ok().map(KeyValue::new)
}
