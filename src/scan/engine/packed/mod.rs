//! Finds literals with the vector searcher of `aho-corasick` (Teddy), which takes some hundred short sequences.
//!
//! Of each literal a part of [`WIDTH`] bytes is looked for, and around it the whole is compared ([`parts`]). Literals
//! in base64 are looked for by two parts that no line break can divide both, so that the same search finds those that a
//! line break divides. With very short literals, or with too many, there is one part to each, and what lines divide is
//! left to [`super::folded`].

mod order;
mod parts;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, Match, Span, packed};

use super::folded::Fold;
use super::literal::Hit;
use super::literal::{Form, Literal};
use parts::{Part, WIDTH};

/// Distance in bytes within which another part is expected after one. The vector searcher takes as long to begin as to
/// pass some thousand bytes, and whoever writes a text can fill it with parts.
const NEAR: usize = 256;

/// Set of literals, prepared for a search.
#[derive(Debug)]
pub(super) struct Packed {
    searcher: packed::Searcher,
    /// Searcher for the same, one byte after another: slower, but it goes on after a part at no cost.
    closely: AhoCorasick,
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
        let closely = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .prefilter(false)
            .build(&sequences);
        Some(Self {
            searcher: searcher.extend(sequences).build()?,
            closely: closely.ok()?,
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
            self.compare_all(text, part, found);
            // The next part may overlap this one.
            rest.start = part.start() + 1;
            self.search_closely(text, &mut rest, found);
        }
    }

    /// Searches from the start of `rest` on for as long as there are parts every now and then, and moves it.
    fn search_closely<'a>(&'a self, text: &[u8], rest: &mut Span, found: &mut dyn FnMut(Hit<'a>)) {
        let mut is_close = true;
        while is_close && rest.len() >= self.width {
            is_close = false;
            let end = rest.end.min(rest.start + NEAR);
            let input = Input::new(text).span(rest.start..end);
            for part in self.closely.find_overlapping_iter(input) {
                is_close = true;
                self.compare_all(text, part, found);
            }
            // Those that begin here are not complete.
            rest.start = end + 1 - self.width;
        }
    }

    fn compare_all<'a>(&'a self, text: &[u8], part: Match, found: &mut dyn FnMut(Hit<'a>)) {
        for known in &self.parts[part.pattern().as_usize()] {
            self.compare(text, part.start(), *known, found);
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
        let divides = |(fold, split): (Fold, usize)| fold.divides(literal, split, text, self.reach);
        let before =
            Fold::before(literal, part.at, text, place).map(|(fold, away)| (fold, part.at - away));
        match part.first {
            None => Fold::after(literal, end_of_part, text, place + self.width)
                .map(|(fold, away)| (fold, end_of_part + away))
                .chain(before)
                .find_map(divides),
            // Otherwise, the first part is undivided and found the literal.
            Some(first) => before
                .filter(|(_, split)| (first + 1..first + self.width).contains(split))
                .find_map(divides),
        }
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
        let short = |literal: Literal| {
            let bytes = literal.bytes[2..2 + WIDTH].to_vec();
            Literal::new(literal.format, literal.form, bytes, literal.lead)
        };
        let short: Vec<_> = literals.into_iter().map(short).collect();
        if let Some(packed) = Packed::new(&short, 100) {
            assert!(!packed.finds_folded());
        }
    }
}
