//! Finds up to [`MOST`] short literals with the vector searcher of `aho-corasick` (Teddy).
//!
//! Of each literal a part of [`WIDTH`] bytes is looked for, the rarest, and around it the whole is compared. Literals in
//! base64 are looked for by two parts that no line break can divide both, so that the same search finds those that
//! a line break divides. With very short literals, or with too many, there is one part to each, and what lines
//! divide is left to [`super::folded`].

use std::collections::BTreeMap;

use aho_corasick::{Span, packed};

use super::folded::Fold;
use super::frequency;
use super::literal::{Form, Literal, every_sequence};
use super::search::Hit;

/// The most parts that the searcher takes.
const MOST: usize = 64;

/// The length of a part, in bytes. The searcher looks at no more of it before it compares.
const WIDTH: usize = 4;

/// The most sequences of bytes that one part may be.
const MOST_FORMS: usize = 4;

/// A set of literals, prepared for being searched for.
#[derive(Debug)]
pub(super) struct Packed {
    searcher: packed::Searcher,
    literals: Vec<Literal>,
    /// For each sequence that the searcher looks for, which literals it is part of, and where.
    parts: Vec<Vec<Part>>,
    width: usize,
    finds_folded: bool,
    /// How far from a hit the text is looked at.
    reach: usize,
}

/// A part by which a literal is found, `at` bytes after its start.
#[derive(Debug, Clone, Copy)]
struct Part {
    literal: usize,
    at: usize,
    /// Where there is another part, which finds the literal unless a line break divides that one.
    first: Option<usize>,
}

impl Packed {
    /// `None` if there are too many literals, or the processor lacks the instructions.
    pub(super) fn new(literals: &[Literal], reach: usize) -> Option<Self> {
        let shortest = literals.iter().map(|literal| literal.bytes.len()).min()?;
        let width = shortest.min(WIDTH);
        let (sequences, finds_folded) = sequences(literals, width, true)
            .map(|sequences| (sequences, true))
            .or_else(|| Some((sequences(literals, width, false)?, false)))?;
        Some(Self {
            searcher: packed::Searcher::new(sequences.keys())?,
            literals: literals.to_vec(),
            parts: sequences.into_values().collect(),
            width,
            finds_folded,
            reach,
        })
    }

    /// Returns whether it finds literals that a line break divides.
    pub(super) fn finds_folded(&self) -> bool {
        self.finds_folded
    }

    /// Calls `found` for each literal in `text`, once for each place where it stands, in no order.
    pub(super) fn search<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        let mut rest = Span::from(0..text.len());
        while let Some(part) = self.searcher.find_in(text, rest) {
            for known in &self.parts[part.pattern().as_usize()] {
                self.compare(text, part.start(), *known, found);
            }
            // The next one may overlap it.
            rest.start = part.start() + 1;
        }
    }

    fn compare<'a>(
        &'a self,
        text: &[u8],
        place: usize,
        part: Part,
        found: &mut dyn FnMut(Hit<'a>),
    ) {
        let literal = &self.literals[part.literal];
        let start = place.checked_sub(part.at);
        let at = match start.filter(|start| literal.stands_at(text, *start)) {
            Some(start) => part.first.is_none().then_some(start + literal.lead),
            None if self.finds_folded && matches!(literal.form, Form::Base64(_)) => {
                self.across_fold(text, place, part)
            }
            None => None,
        };
        if let Some(at) = at {
            found(Hit { literal, at });
        }
    }

    /// The place of the literal of which a part stands at `place`, if a line break divides it.
    fn across_fold(&self, text: &[u8], place: usize, part: Part) -> Option<usize> {
        let literal = &self.literals[part.literal];
        let end_of_part = part.at + self.width;
        let after = || {
            let rest = literal.bytes.len() - end_of_part;
            let (fold, away) = Fold::after(text, place + self.width, rest)?;
            Some((fold, end_of_part + away))
        };
        let before = || {
            let (fold, away) = Fold::before(text, place, part.at)?;
            Some((fold, part.at - away))
        };
        let (fold, split) = match part.first {
            None => after().or_else(before)?,
            // Else the first part is whole, and found it.
            Some(first) => {
                before().filter(|(_, split)| (first + 1..first + self.width).contains(split))?
            }
        };
        fold.divides(literal, split, text, self.reach)
    }
}

/// The sequences of bytes by which the literals are found, each with its parts. `None` if they are too many,
/// or if some literal in base64 has no two parts that `folded` ones need.
fn sequences(
    literals: &[Literal],
    width: usize,
    folded: bool,
) -> Option<BTreeMap<Vec<u8>, Vec<Part>>> {
    let mut sequences: BTreeMap<Vec<u8>, Vec<Part>> = BTreeMap::new();
    for (index, literal) in literals.iter().enumerate() {
        let places = if folded && matches!(literal.form, Form::Base64(_)) {
            let (first, second) = two_parts(&literal.bytes, width)?;
            vec![(first, None), (second, Some(first))]
        } else {
            vec![(rarest(&literal.bytes, width, 0)?.1, None)]
        };
        for (at, first) in places {
            let part = Part {
                literal: index,
                at,
                first,
            };
            for sequence in every_sequence(&literal.bytes[at..at + width]) {
                sequences.entry(sequence).or_default().push(part);
            }
        }
        if sequences.len() > MOST {
            return None;
        }
    }
    Some(sequences)
}

/// What a part costs: one of fewer forms is better, then a rarer one.
type Cost = (usize, f64);

/// The best part of `bytes` that starts at `from` or later.
fn rarest(bytes: &[Vec<u8>], width: usize, from: usize) -> Option<(Cost, usize)> {
    let parts = bytes.windows(width).enumerate().skip(from);
    let parts = parts.map(|(at, part)| {
        let cost = (frequency::forms(part), frequency::of_sequence(part));
        (cost, at)
    });
    parts
        .filter(|((forms, _), _)| *forms <= MOST_FORMS)
        .min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
}

/// The best two parts that have at most one byte in common: no line break divides both.
fn two_parts(bytes: &[Vec<u8>], width: usize) -> Option<(usize, usize)> {
    let pairs = (0..bytes.len()).filter_map(|first| {
        let part = bytes.get(first..first + width)?;
        let ((forms, rate), second) = rarest(bytes, width, first + width - 1)?;
        let cost = (
            frequency::forms(part) + forms,
            frequency::of_sequence(part) + rate,
        );
        (frequency::forms(part) <= MOST_FORMS).then_some((cost, (first, second)))
    });
    let best = pairs.min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    best.map(|(_, parts)| parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;
    use crate::scan::engine::literal::forms;

    fn exactly(bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().map(|byte| vec![*byte]).collect()
    }

    /// Else another pass looks for what line breaks divide, and takes as long.
    #[test]
    fn finds_what_lines_divide_of_the_formats_that_are_shipped() {
        let formats = FormatSet::builtin();
        let literals: Vec<_> = formats
            .secret()
            .flat_map(|(_, format)| forms(0, format, Encodings::ALL))
            .collect();
        if let Some(packed) = Packed::new(&literals, 100) {
            assert!(packed.finds_folded());
        }
        let short = |literal: Literal| Literal {
            bytes: literal.bytes[2..2 + WIDTH].to_vec(),
            ..literal
        };
        let short: Vec<_> = literals.into_iter().map(short).collect();
        if let Some(packed) = Packed::new(&short, 100) {
            assert!(!packed.finds_folded());
        }
    }

    #[test]
    fn looks_for_what_is_rare() {
        let (_, at) = rarest(&exactly(b"test_kq9z_"), WIDTH, 0).unwrap();
        assert_eq!(&b"test_kq9z_"[at..at + WIDTH], b"kq9z");
    }

    #[test]
    fn no_line_break_divides_both_parts() {
        for length in 0..20 {
            let parts = two_parts(&exactly(&b"abcdefghijklmnopqrst"[..length]), WIDTH);
            assert_eq!(parts.is_some(), length >= 2 * WIDTH - 1, "{length}");
            if let Some((first, second)) = parts {
                assert!(first + WIDTH - 1 <= second && second + WIDTH <= length);
            }
        }
    }
}
