//! Selection of the bodies that have to make room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::Budget;
use super::held::Held;
use super::state::{State, Waiting};

/// Factor by which bodies have to be faster when more than [`MANY`] wait.
const HURRY: u32 = 2;
const MANY: usize = 256;

impl State {
    /// Evicts bodies in favor of every waiting body whose turn it would be then. Returns the time at which more of them
    /// become late, or `None` if that takes another change.
    pub(super) fn make_room(&self, budget: &Budget) -> Option<Instant> {
        let hurry = self.hurry();
        let now = Instant::now();
        let leaving = self.held.values().filter(|held| held.is_leaving());
        let leaving: usize = leaving.map(|held| held.bytes).sum();
        let mut free = (budget.total + leaving).saturating_sub(self.used);
        let waiting =
            (0..self.waiting.len()).filter(|at| !self.waiting[*at].reading.is_turned_out());
        let mut waiting: BinaryHeap<_> = waiting
            .map(|at| (Reverse(self.waiting[at].place()), at))
            .collect();
        let mut others = None;
        while let Some((_, at)) = waiting.pop() {
            let waiting = &self.waiting[at];
            if free < waiting.bytes {
                // A body that the first in line cannot evict cannot be evicted by those behind it either.
                let others = others.get_or_insert_with(|| self.others(budget, now).into_iter());
                for (id, is_slow, held) in others {
                    if id != waiting.id && has_to_go(waiting, held, is_slow, budget, hurry) {
                        held.turn_out(is_slow);
                        budget.shortage.turned_out(held.sender.standing, is_slow);
                        free += held.bytes;
                    }
                    if free >= waiting.bytes {
                        break;
                    }
                }
            }
            if free < waiting.bytes {
                return self.next_late(waiting, budget);
            }
            free -= waiting.bytes;
        }
        None
    }

    /// Returns the bodies that can be evicted and whether each is too slow, in the order in which they have to make
    /// room.
    fn others(&self, budget: &Budget, now: Instant) -> Vec<(u64, bool, &Held)> {
        let hurry = self.hurry();
        let staying = self.held.iter().filter(|(_, held)| held.is_staying());
        let mut others: Vec<_> = staying
            .map(|(id, held)| {
                let late_at = held.late_at(budget, hurry);
                (*id, late_at.is_some_and(|late_at| late_at <= now), held)
            })
            .collect();
        others.sort_unstable_by_key(|(id, is_slow, held)| {
            let standing = held.sender.standing;
            (standing, !is_slow, Reverse(held.bytes), *id)
        });
        others
    }

    /// Returns the time at which another body may have to make room for this one.
    fn next_late(&self, waiting: &Waiting, budget: &Budget) -> Option<Instant> {
        let hurry = self.hurry();
        let equals = self.held.iter().filter(|(id, held)| {
            **id != waiting.id
                && held.is_staying()
                && held.sender.standing == waiting.sender.standing
        });
        let late = equals.filter_map(|(_, held)| {
            if held.is_waiting() {
                waiting.asked.checked_add(budget.grace / hurry)
            } else {
                held.late_at(budget, hurry)
            }
        });
        late.min()
    }

    fn hurry(&self) -> u32 {
        if self.waiting.len() > MANY { HURRY } else { 1 }
    }
}

/// Returns whether a body has to make room: at once for one of better standing, and for an equal when it is late. A
/// body that is itself waiting has some time to make progress.
fn has_to_go(waiting: &Waiting, held: &Held, is_slow: bool, budget: &Budget, hurry: u32) -> bool {
    let (wants, has) = (waiting.sender.standing, held.sender.standing);
    let has_waited = || waiting.asked.elapsed() * hurry >= budget.grace;
    has < wants || (has == wants && (is_slow || (held.is_waiting() && has_waited())))
}
