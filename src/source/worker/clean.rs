//! Blobs that hold no candidate need not be scanned again: forks and mirrors push the same ones.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fetch::ObjectId;

/// How many blobs a generation remembers. Two of them take about 8 MiB.
pub(super) const GENERATION: usize = 100_000;

/// The ids of blobs without a candidate, those seen last. They hold for one engine, that is for one set of
/// formats; an engine with other formats starts with an empty list. A blob with a candidate is never
/// listed: it is to be reported from every place where it stands.
#[derive(Debug, Default)]
pub(super) struct CleanBlobs(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<ObjectId>,
    old: HashSet<ObjectId>,
}

impl CleanBlobs {
    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        let generations = self.lock();
        generations.young.contains(id) || generations.old.contains(id)
    }

    /// Adds a blob; says whether it is new here.
    pub(super) fn add(&self, id: ObjectId) -> bool {
        // Objects that were made to collide have no id of their own.
        if id.is_null() {
            return false;
        }
        let mut generations = self.lock();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(id)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ObjectId {
        ObjectId::from_hex(format!("{number:040x}").as_bytes()).unwrap()
    }

    #[test]
    fn remembers_the_last_ones() {
        let clean = CleanBlobs::default();
        for number in 1..=2 * GENERATION + 1 {
            clean.add(id(number));
        }
        assert!(!clean.contains(&id(1)));
        assert!(clean.contains(&id(GENERATION + 2)));
        assert!(clean.contains(&id(2 * GENERATION + 1)));
        clean.add(id(0));
        assert!(!clean.contains(&id(0)));
    }
}
