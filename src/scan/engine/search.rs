//! Choice of the fastest searcher for a set of literals, combined with the search for divided ones.

use super::folded::Folded;
use super::literal::{Hit, Literal};
use super::packed::Packed;
use super::sieve::Sieve;

/// Set of literals, prepared for a search.
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
    /// Returns the fastest search for `literals` in a text that is examined up to `reach` bytes from a hit, or
    /// `None` if there are no literals.
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
        (!literals.is_empty())
            .then(|| Self::of_sieve(Sieve::new(literals.to_vec()), literals, reach))
    }

    fn of_sieve(sieve: Sieve, literals: &[Literal], reach: usize) -> Self {
        Self {
            searcher: Searcher::Sieve(sieve),
            folded: Folded::new(literals, reach),
        }
    }

    /// Returns every kind of search that is possible with these literals.
    #[cfg(test)]
    pub(super) fn every(literals: &[Literal], reach: usize) -> Vec<Self> {
        let sieves = Sieve::every(literals).map(|sieve| Self::of_sieve(sieve, literals, reach));
        let packed = Self::packed(literals, reach).into_iter();
        packed.chain(sieves).collect()
    }

    /// Calls `found` once for each occurrence of a literal in `text`, in no particular order.
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
