//! Things that a scan has seen before.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash, RandomState};

/// Number of sets. Each grows by itself, so that what all of them hold is never there twice.
const PARTS: u64 = 64;

/// Things that were seen, up to a number of them, as hashes of 64 bits.
///
/// The hashes have a random key, so that nobody can have two things take each other's place. By chance, two of
/// 14,000,000 do in one of 190,000 scans.
#[derive(Debug)]
pub(super) struct Seen {
    hasher: RandomState,
    parts: Vec<HashSet<u64>>,
    count: usize,
    max: usize,
}

impl Seen {
    /// Creates it for up to `max` things.
    pub(super) fn new(max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| HashSet::new()).collect(),
            count: 0,
            max,
        }
    }

    /// Adds a thing, unless it is full. Returns whether the thing was not there.
    pub(super) fn insert(&mut self, thing: &(impl Hash + ?Sized)) -> bool {
        let (key, part) = self.key(thing);
        let is_new = !self.parts[part].contains(&key);
        if is_new && !self.is_full() {
            self.parts[part].insert(key);
            self.count += 1;
        }
        is_new
    }

    pub(super) fn contains(&self, thing: &(impl Hash + ?Sized)) -> bool {
        let (key, part) = self.key(thing);
        self.parts[part].contains(&key)
    }

    /// Returns whether nothing more is remembered.
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.max
    }

    /// Returns the number of bytes that it holds: nine for each place, of which at most seven eighths are taken.
    pub(super) fn held(&self) -> usize {
        let places: usize = self.parts.iter().map(HashSet::capacity).sum();
        places * 8 / 7 * (size_of::<u64>() + 1)
    }

    /// Returns the hash of a thing, which can stand for it within others.
    pub(super) fn hash(&self, thing: &(impl Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(thing)
    }

    fn key(&self, thing: &(impl Hash + ?Sized)) -> (u64, usize) {
        let key = self.hash(thing);
        (key, usize::try_from(key % PARTS).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_until_there_is_too_much() {
        let mut seen = Seen::new(1_000);
        for n in 0..1_000_u32 {
            assert!(!seen.is_full());
            assert!(seen.insert(&n) && !seen.insert(&n));
        }
        assert!(seen.is_full());
        let held = seen.held();
        // What comes then is never taken for seen.
        assert!((1_000..5_000_u32).all(|n| seen.insert(&n) && !seen.contains(&n)));
        assert!((0..1_000_u32).all(|n| seen.contains(&n)));
        assert_eq!(seen.held(), held);
    }
}
