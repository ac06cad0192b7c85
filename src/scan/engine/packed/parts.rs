//! Choice of the parts of literals that are searched for.
//!
//! Parts should be rare, and few: one that several literals share, as where the keys of many brands all end their
//! prefix in `_sk_`, is searched for only once.

use std::collections::{BTreeMap, HashMap};

use super::super::frequency;
use super::super::literal::{Form, Literal, every_sequence};

/// The length of a part, in bytes. The searcher looks at no more of it before it compares.
pub(super) const WIDTH: usize = 4;

/// The most sequences of bytes that the searcher takes.
const MOST: usize = 128;

/// The most literals that are found by one sequence: where it stands, all of them are compared.
const MOST_SHARED: usize = 16;

/// The most sequences of bytes that one part may be.
const MOST_FORMS: usize = 4;

/// The frequency from which on a part costs more time to compare than another one costs to be looked for.
const FREQUENT: f64 = 2e-6;

/// A part by which a literal is found, `at` bytes after its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) literal: usize,
    pub(super) at: usize,
    /// Offset of another part, which finds the literal unless a line break divides that part.
    pub(super) first: Option<usize>,
}

/// Sequences of bytes, each with the parts that it is.
pub(super) type Sequences = BTreeMap<Vec<u8>, Vec<Part>>;

/// Chooses the sequences by which the literals are found. `None` if they are too many, or if some literal in base64 has
/// no two parts for line breaks, as `folded` ones need.
pub(super) fn choose(literals: &[Literal], width: usize, folded: bool) -> Option<Sequences> {
    let mut choice = Choice::among(literals, width);
    for (index, literal) in literals.iter().enumerate() {
        let bytes = &literal.bytes;
        let places = if folded && matches!(literal.form, Form::Base64(_)) {
            let (first, second) = choice.two_parts(bytes)?;
            vec![(first, None), (second, Some(first))]
        } else {
            vec![(choice.best(bytes, 0)?.1, None)]
        };
        for (at, first) in places {
            let part = Part {
                literal: index,
                at,
                first,
            };
            for sequence in every_sequence(&bytes[at..at + width]) {
                choice.chosen.entry(sequence).or_default().push(part);
            }
        }
        if choice.chosen.len() > MOST {
            return None;
        }
    }
    Some(choice.chosen)
}

/// Parts that are chosen, and those that could be.
struct Choice {
    width: usize,
    /// Number of literals that contain each sequence.
    possible: HashMap<Vec<u8>, usize>,
    chosen: Sequences,
}

impl Choice {
    fn among(literals: &[Literal], width: usize) -> Self {
        let mut possible = HashMap::new();
        let parts = literals
            .iter()
            .flat_map(|literal| literal.bytes.windows(width));
        for part in parts.filter(|part| frequency::forms(part) <= MOST_FORMS) {
            for sequence in every_sequence(part) {
                *possible.entry(sequence).or_default() += 1;
            }
        }
        Self {
            width,
            possible,
            chosen: Sequences::new(),
        }
    }

    /// Returns the best part of `bytes` that starts at `from` or later, and its cost.
    fn best(&self, bytes: &[Vec<u8>], from: usize) -> Option<(f64, usize)> {
        let parts = bytes.windows(self.width).enumerate().skip(from);
        parts
            .filter_map(|(at, part)| Some((self.cost(part)?, at)))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
    }

    /// Returns the best two parts that have at most one byte in common: no line break divides both.
    fn two_parts(&self, bytes: &[Vec<u8>]) -> Option<(usize, usize)> {
        let firsts = bytes.windows(self.width).enumerate();
        let pairs = firsts.filter_map(|(first, part)| {
            let (cost, second) = self.best(bytes, first + self.width - 1)?;
            Some((self.cost(part)? + cost, (first, second)))
        });
        let best = pairs.min_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, parts)| parts)
    }

    /// Returns the cost of looking for a part, in sequences that nothing else needs. `None` if it is too many.
    fn cost(&self, part: &[Vec<u8>]) -> Option<f64> {
        if frequency::forms(part) > MOST_FORMS {
            return None;
        }
        let sequences = every_sequence(part);
        let shares = sequences.iter().map(|sequence| self.share(sequence));
        let rate = frequency::of_sequence(part);
        let penalty = if rate > FREQUENT { 2.0 } else { 0.0 };
        Some(shares.sum::<f64>() + penalty + rate)
    }

    /// Returns a literal's share of the cost of a sequence that others may have as well.
    fn share(&self, sequence: &[u8]) -> f64 {
        let taken = self.chosen.get(sequence).map_or(0, Vec::len);
        let possible = self.possible.get(sequence).copied().unwrap_or(1);
        match taken {
            0 => 1.0 / f64::from(u8::try_from(possible.min(MOST_SHARED)).unwrap_or(u8::MAX)),
            1..MOST_SHARED => 0.0,
            _ => 8.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().map(|byte| vec![*byte]).collect()
    }

    fn plain(text: &str) -> Literal {
        Literal::new(0, Form::Plain, exactly(text.as_bytes()), 0)
    }

    #[test]
    fn looks_for_what_is_rare() {
        let chosen = choose(&[plain("test_kq9z_")], WIDTH, false).unwrap();
        assert_eq!(chosen.keys().collect::<Vec<_>>(), [b"kq9z"]);
    }

    #[test]
    fn looks_once_for_what_several_have_in_common() {
        let brands = |count: u8| {
            let letters = (0..count).map(|at| [b'a' + at / 10, b'k' + at % 10]);
            let name = |letters: [u8; 2]| letters.map(char::from).iter().collect::<String>();
            let brand = |letters| plain(&format!("{}ing_sk_", name(letters)));
            letters.map(brand).collect::<Vec<_>>()
        };
        let chosen = choose(&brands(16), WIDTH, false).unwrap();
        assert_eq!(chosen.len(), 1);
        let chosen = choose(&brands(60), WIDTH, false).unwrap();
        let most = chosen.values().map(Vec::len).max();
        assert_eq!(most, Some(MOST_SHARED), "too many would be compared");
        assert_eq!(chosen.values().map(Vec::len).sum::<usize>(), 60);
    }

    #[test]
    fn no_line_break_divides_both_parts() {
        for length in 0..20 {
            let bytes = exactly(&b"abcdefghijklmnopqrst"[..length]);
            let parts = Choice::among(&[], WIDTH).two_parts(&bytes);
            assert_eq!(parts.is_some(), length >= 2 * WIDTH - 1, "{length}");
            if let Some((first, second)) = parts {
                assert!(first + WIDTH - 1 <= second && second + WIDTH <= length);
            }
        }
    }
}
