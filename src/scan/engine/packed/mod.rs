//! Finds literals with the vector searcher of `aho-corasick` (Teddy), which takes some hundred short sequences.
//!
//! Of each literal a part of [`WIDTH`] bytes is looked for, and around it the whole is compared ([`parts`]). Literals in
//! base64 are looked for by two parts that no line break can divide both, so that the same search finds those that
//! a line break divides. With very short literals, or with too many, there is one part to each, and what lines
//! divide is left to [`super::folded`].

mod order;
mod parts;

use aho_corasick::{Span, packed};

use super::folded::Fold;
use super::literal::{Form, Literal};
use super::search::Hit;
use parts::{Part, WIDTH};

/// Set of literals, prepared for a search.
#[derive(Debug)]
pub(super) struct Packed {
    searcher: packed::Searcher,
    literals: Vec<Literal>,
    /// For each byte sequence of the searcher, the literals and places of which it is a part.
    parts: Vec<Vec<Part>>,
    width: usize,
    finds_folded: bool,
    /// Distance from a hit up to which the text is examined, in bytes.
    reach: usize,
}

impl Packed {
    /// Prepares a search. Returns `None` if there are too many literals, or the processor lacks the instructions.
    pub(super) fn new(literals: &[Literal], reach: usize) -> Option<Self> {
        let shortest = literals.iter().map(|literal| literal.bytes.len()).min()?;
        let width = shortest.min(WIDTH);
        let (sequences, finds_folded) = parts::choose(literals, width, true)
            .map(|sequences| (sequences, true))
            .or_else(|| Some((parts::choose(literals, width, false)?, false)))?;
        let (sequences, parts): (Vec<_>, Vec<_>) = order::arrange(sequences).into_iter().unzip();
        // Its own limit of 64 is for sequences in any order.
        let mut searcher = packed::Config::new();
        let mut searcher = searcher.heuristic_pattern_limits(false).builder();
        Some(Self {
            searcher: searcher.extend(sequences).build()?,
            literals: literals.to_vec(),
            parts,
            width,
            finds_folded,
            reach,
        })
    }

    /// Returns whether the search finds literals that a line break divides.
    pub(super) fn finds_folded(&self) -> bool {
        self.finds_folded
    }

    /// Calls `found` once for each occurrence of a literal in `text`, in no particular order.
    pub(super) fn search<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        let mut rest = Span::from(0..text.len());
        while let Some(part) = self.searcher.find_in(text, rest) {
            for known in &self.parts[part.pattern().as_usize()] {
                self.compare(text, part.start(), *known, found);
            }
            // The next part may overlap this one.
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

    /// Returns the place of the literal whose part is at `place`, if a line break divides it.
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
            // Otherwise, the first part is undivided and found the literal.
            Some(first) => {
                before().filter(|(_, split)| (first + 1..first + self.width).contains(split))?
            }
        };
        fold.divides(literal, split, text, self.reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;
    use crate::scan::engine::literal::forms;

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
}
