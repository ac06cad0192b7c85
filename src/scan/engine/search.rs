//! Which searcher finds a set of literals fastest, and how they are found together with those that lines divide.

use super::folded::Folded;
use super::literal::Literal;
use super::packed::Packed;
use super::sieve::Sieve;

/// A literal in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) literal: &'a Literal,
    /// The place by which the hit is known: see [`Literal::lead`].
    pub(super) at: usize,
}

/// A set of literals, prepared for being searched for.
#[derive(Debug)]
pub(super) struct Search {
    searcher: Searcher,
    folded: Option<Folded>,
}

#[derive(Debug)]
enum Searcher {
    Packed(Packed),
    Sieve(Sieve),
}

impl Search {
    /// The fastest search for `literals`, if there are any, in a text that is looked at as far as `reach` from a hit.
    ///
    /// Vector instructions, where they take so many literals, are up to three times as fast as the sieve, which takes
    /// any number. `benches/scan_engine.rs` has the comparison.
    pub(super) fn new(literals: &[Literal], reach: usize) -> Option<Self> {
        Self::packed(literals, reach).or_else(|| Self::sieve(literals, reach))
    }

    fn packed(literals: &[Literal], reach: usize) -> Option<Self> {
        let packed = Packed::new(literals, reach)?;
        let is_folded_left = !packed.finds_folded();
        Some(Self {
            searcher: Searcher::Packed(packed),
            folded: is_folded_left
                .then(|| Folded::new(literals, reach))
                .flatten(),
        })
    }

    fn sieve(literals: &[Literal], reach: usize) -> Option<Self> {
        (!literals.is_empty()).then(|| Self {
            searcher: Searcher::Sieve(Sieve::new(literals.to_vec())),
            folded: Folded::new(literals, reach),
        })
    }

    /// Every search that can be chosen for so many literals.
    #[cfg(test)]
    pub(super) fn every(literals: &[Literal], reach: usize) -> Vec<Self> {
        let packed = Self::packed(literals, reach);
        packed
            .into_iter()
            .chain(Self::sieve(literals, reach))
            .collect()
    }

    /// Calls `found` for each literal in `text`, once for each place where it stands, in no order.
    pub(super) fn run<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        match &self.searcher {
            Searcher::Packed(packed) => packed.search(text, found),
            Searcher::Sieve(sieve) => sieve.search(text, found),
        }
        if let Some(folded) = &self.folded {
            folded.search(text, found);
        }
    }
}
