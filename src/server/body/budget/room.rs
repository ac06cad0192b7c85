//! Selection of the bodies that have to make room.

use std::cmp::Reverse;
use std::time::Instant;

use super::Budget;
use super::held::{Held, Leeway};
use super::order::Line;
use super::state::{State, Waiting};

/// Number of waiting bodies from which on those that are being read have to be faster.
const MANY: usize = 256;

/// Time before its turn at which a body is not in a hurry, as a multiple of the time that any may take.
const EARLY: u32 = 3;

/// Body that can be evicted.
struct Staying<'s> {
    id: u64,
    held: &'s Held,
    /// `true` if it is too slow for its equals and better ones; `is_very_slow` if it is so for others, too.
    is_slow: bool,
    is_very_slow: bool,
}

/// Search for room on behalf of one body.
#[derive(Clone, Copy)]
struct Search<'s> {
    budget: &'s Budget,
    waiting: &'s Waiting,
    /// `true` if the body comes before all that are not proved.
    is_before_all: bool,
    /// `true` if its turn is still some seconds away.
    is_early: bool,
    leeway: Leeway,
}

impl State {
    /// Evicts bodies in favor of every waiting body whose turn it would be then. Returns the time at which more of them
    /// become late, or `None` if that takes another change.
    pub(super) fn make_room(&self, budget: &Budget) -> Option<Instant> {
        let leaving = self.held.values().filter(|held| held.is_leaving());
        let leaving = leaving.fold([0, 0], |[all, proved], held| {
            [all + held.bytes, proved + held.sender.proved(held.bytes)]
        });
        let mut free = (budget.total + leaving[0]).saturating_sub(self.used);
        let mut of_proved = self.of_proved.saturating_sub(leaving[1]);
        let mut line = Line::of(&self.waiting);
        let mut others = None;
        while let Some((waiting, is_before_all)) = line.next(of_proved, budget) {
            let search = Search {
                budget,
                waiting,
                is_before_all,
                is_early: !is_before_all && waiting.turn > Instant::now() + EARLY * budget.grace,
                leeway: self.leeway(),
            };
            if free < waiting.bytes {
                // Whom one in line leaves in peace, those behind it do, too, until the next search.
                let others = others.get_or_insert_with(|| self.staying(budget).into_iter());
                for held in search.evict(others, waiting.bytes - free) {
                    free += held.bytes;
                    of_proved -= held.sender.proved(held.bytes);
                }
            }
            if free < waiting.bytes {
                return search.next_late(self);
            }
            free -= waiting.bytes;
            of_proved += waiting.sender.proved(waiting.bytes);
        }
        None
    }

    /// Returns the bodies that can be evicted, in the order in which they have to make room.
    fn staying(&self, budget: &Budget) -> Vec<Staying<'_>> {
        let (leeway, now) = (self.leeway(), Instant::now());
        let staying = self.held.iter().filter(|(_, held)| held.is_staying());
        let mut staying: Vec<_> = staying
            .map(|(id, held)| {
                let is_late = |leeway| held.late_at(budget, leeway).is_some_and(|at| at <= now);
                Staying {
                    id: *id,
                    held,
                    is_slow: is_late(leeway),
                    is_very_slow: is_late(leeway.more_for(held.sender)),
                }
            })
            .collect();
        staying.sort_unstable_by_key(|body| {
            let standing = body.held.sender.standing;
            (standing, !body.is_slow, Reverse(body.held.bytes), body.id)
        });
        staying
    }

    fn leeway(&self) -> Leeway {
        if self.waiting.len() > MANY {
            Leeway::Little
        } else {
            Leeway::Usual
        }
    }
}

impl Search<'_> {
    /// Evicts bodies that hold `wanted` bytes, as far as there are enough, and returns them. Those of better standing
    /// are evicted only if there are enough with them: a large body that waits for others like it would else cost many
    /// smaller ones for nothing.
    fn evict<'s>(
        &self,
        others: &mut impl Iterator<Item = Staying<'s>>,
        wanted: usize,
    ) -> Vec<&'s Held> {
        let (mut bytes, mut worse, mut to_go) = (0, 0, Vec::new());
        while bytes < wanted
            && let Some(other) = others.next()
        {
            let held = other.held;
            let is_slow = if self.is_worse_than(held) || self.is_early {
                other.is_very_slow
            } else {
                other.is_slow
            };
            let has_to_go = is_slow || self.waits_too_long_for(held) || self.passes(held);
            if other.id != self.waiting.id && has_to_go {
                bytes += held.bytes;
                to_go.push((held, is_slow));
                // The better ones come last.
                worse += usize::from(!self.is_worse_than(held));
            }
        }
        if bytes < wanted {
            to_go.truncate(worse);
        }
        for (held, is_slow) in &to_go {
            held.turn_out(*is_slow);
            let standing = held.sender.standing;
            self.budget.shortage.turned_out(standing, *is_slow);
        }
        to_go.into_iter().map(|(held, _)| held).collect()
    }

    fn is_worse_than(&self, held: &Held) -> bool {
        self.waiting.sender.standing < held.sender.standing
    }

    /// Returns whether a body has to make room at once for one of better standing: it would have had to let it pass, had
    /// both been there.
    fn passes(&self, held: &Held) -> bool {
        held.sender.standing < self.waiting.sender.standing
            && (self.is_before_all || self.waiting.turn < held.turn)
    }

    /// Returns whether a body that is itself waiting had enough time to make progress.
    fn waits_too_long_for(&self, held: &Held) -> bool {
        let patience = self.leeway_of(held).of(self.budget.grace);
        held.is_waiting() && self.waiting.asked.elapsed() >= patience
    }

    /// Returns how long a body may take. One of better standing has more time, and any has for a crowd that waits for
    /// itself: its turn is far away.
    fn leeway_of(&self, held: &Held) -> Leeway {
        if self.is_worse_than(held) || self.is_early {
            self.leeway.more_for(held.sender)
        } else {
            self.leeway
        }
    }

    /// Returns the time at which another body may have to make room.
    fn next_late(&self, state: &State) -> Option<Instant> {
        let now = Instant::now();
        let again = now + self.budget.grace / 4;
        let others = state.held.iter();
        let others = others.filter(|(id, held)| **id != self.waiting.id && held.is_staying());
        let late = others.filter_map(|(_, held)| {
            let leeway = self.leeway_of(held);
            let late = if held.is_waiting() {
                self.waiting.asked.checked_add(leeway.of(self.budget.grace))
            } else {
                held.late_at(self.budget, leeway)
            };
            // One that stays although it is late goes as soon as there is enough with what ends by itself.
            late.map(|late| if late > now { late } else { again })
        });
        late.min()
    }
}
