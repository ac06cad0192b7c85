//! Cache of blobs without candidates, which need not be scanned again: forks and mirrors push the same ones.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::fetch::{ObjectId, ShortId};

/// Number of blobs per generation. Two generations take about 8 MiB.
pub(super) const GENERATION: usize = 100_000;

/// Ids of the blobs without candidates that were seen most recently. The ids are valid for one engine, that is, for
/// one set of key formats; an engine with other formats starts with an empty list. A blob with a candidate is never
/// listed: it must be reported from every place where it appears.
#[derive(Debug, Default)]
pub(super) struct CleanBlobs {
    generations: Mutex<Generations>,
    /// Blobs that have not been written to the database yet.
    unwritten: Mutex<VecDeque<ObjectId>>,
    more: Notify,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<ShortId>,
    old: HashSet<ShortId>,
}

/// Maximum number of clean blobs that are remembered per work item. The others are scanned again when they reappear: a
/// push of a great many tiny files must neither evict everything else nor fill the database.
const OF_ONE_ITEM: usize = 10_000;

/// Maximum number of blobs that wait to be written to the database.
const UNWRITTEN_MAX: usize = 50_000;

impl CleanBlobs {
    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        let (generations, id) = (self.lock(), ShortId::from(id));
        generations.young.contains(&id) || generations.old.contains(&id)
    }

    /// Adds a blob. Returns whether it was not in the current generation yet.
    pub(super) fn add(&self, id: ObjectId) -> bool {
        // Objects crafted to collide have no id of their own.
        if id.is_null() {
            return false;
        }
        let mut generations = self.lock();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(ShortId::from(&id))
    }

    /// Adds a blob of a work item; `item` lists the blobs of the item that are remembered already.
    pub(super) fn add_of(&self, item: &mut Vec<ObjectId>, id: ObjectId) {
        if item.len() >= OF_ONE_ITEM {
            self.leave_out(1);
        } else if self.add(id) {
            item.push(id);
        }
    }

    /// Schedules blobs to be written to the database in the background. Blobs for which there is no room are left out.
    pub(super) fn write_later(&self, ids: &[ObjectId]) {
        let mut unwritten = self.unwritten();
        let room = UNWRITTEN_MAX.saturating_sub(unwritten.len()).min(ids.len());
        let left_out = ids.len() - room;
        unwritten.extend(&ids[..room]);
        drop(unwritten);
        if left_out > 0 {
            self.leave_out(left_out as u64);
        }
        self.more.notify_one();
    }

    /// Waits until there are blobs to be written.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// Takes up to `most` blobs that are to be written.
    pub(super) fn take_unwritten(&self, most: usize) -> Vec<ObjectId> {
        let mut unwritten = self.unwritten();
        let count = unwritten.len().min(most);
        unwritten.drain(..count).collect()
    }

    /// Counts blobs that are not remembered.
    pub(super) fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the number of blobs that were left out since the last call.
    pub(super) fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        let generations = &self.generations;
        generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> MutexGuard<'_, VecDeque<ObjectId>> {
        let unwritten = &self.unwritten;
        unwritten.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn no_item_is_remembered_beyond_its_share() {
        let clean = CleanBlobs::default();
        let mut item = Vec::new();
        for number in 1..=OF_ONE_ITEM + 5 {
            clean.add_of(&mut item, id(number));
        }
        assert_eq!(item.len(), OF_ONE_ITEM);
        assert_eq!(clean.take_left_out(), 5);
        assert!(clean.contains(&id(OF_ONE_ITEM)));
        assert!(!clean.contains(&id(OF_ONE_ITEM + 1)), "it is scanned again");
    }

    #[test]
    fn no_more_wait_to_be_written_than_there_is_room_for() {
        let clean = CleanBlobs::default();
        for start in [1, 40_001] {
            clean.write_later(&(start..start + 40_000).map(id).collect::<Vec<_>>());
        }
        assert_eq!(clean.take_left_out(), 30_000);
        assert_eq!(clean.take_left_out(), 0);
        assert_eq!(
            clean.take_unwritten(512),
            (1..=512).map(id).collect::<Vec<_>>()
        );
        assert_eq!(clean.take_unwritten(usize::MAX).len(), UNWRITTEN_MAX - 512);
    }
}
