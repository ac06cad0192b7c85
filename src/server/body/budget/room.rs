//! Selection of the bodies that have to make room.

use std::cmp::Reverse;
use std::time::Instant;

use super::claims::{Claims, Passing};
use super::held::{Held, Leeway};
use super::limits::Limits;
use super::order::{Line, Next};
use super::shortage::Shortage;
use super::state::State;
use super::waiting::Waiting;

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
    limits: &'s Limits,
    waiting: &'s Waiting,
    turn: Instant,
    /// Number of bytes that have to become free.
    lack: usize,
    /// `true` if the body comes before all that are not proved.
    is_before_all: bool,
    /// `true` if its turn is still some seconds away.
    is_early: bool,
    leeway: Leeway,
}

/// Evicts bodies in favor of every waiting body whose turn it would be then. Returns the time at which more of them
/// become late, or `None` if that takes another change.
pub(super) fn make_room(state: &State, limits: &Limits, shortage: &Shortage) -> Option<Instant> {
    if state.waiting.is_empty() {
        return None;
    }
    let leaving = state.held.values().filter(|held| held.is_leaving());
    let leaving = leaving.fold([0, 0], |[all, proved], held| {
        [all + held.bytes, proved + held.sender.proved(held.bytes)]
    });
    let free = (limits.total + leaving[0]).saturating_sub(state.used);
    let mut of_proved = state.of_proved.saturating_sub(leaving[1]);
    let others = state.held.iter().filter(|(_, held)| !held.is_leaving());
    let mut claims = Claims::of(free, limits.for_beginnings(), others);
    let mut line = Line::of(&state.waiting, &state.holders, limits);
    let mut passing = Passing::default();
    let (mut staying, mut in_vain) = (None, None::<Search<'_>>);
    let leeway = leeway(state);
    let mut late = None;
    while let Some(next) = line.next(of_proved, &state.waiting, &state.holders, limits) {
        let (waiting, want) = (next.waiting, next.waiting.want);
        let lack = passing.lack(want, &claims);
        let Some(lack) = lack.filter(|_| !waiting.progress.is_turned_out()) else {
            continue;
        };
        let search = Search::of(&next, lack, leeway, limits);
        if search.lack > 0 && !in_vain.is_some_and(|other| search.finds_no_more_than(&other)) {
            let staying = staying.get_or_insert_with(|| all_staying(state, leeway, limits));
            for (id, held) in search.evict(staying, shortage) {
                claims.evict(id, held);
                of_proved -= held.sender.proved(held.bytes);
            }
            if claims.lack(want) > 0 {
                in_vain = Some(search);
                late = late.into_iter().chain(search.next_late(state)).min();
            }
        }
        if claims.lack(want) == 0 {
            claims.grant(want);
            of_proved += waiting.sender.proved(want.bytes);
            continue;
        }
        passing.waits(want);
        if want.bytes > claims.free {
            line.hold_up(&state.waiting);
        }
    }
    late
}

/// Returns the bodies that can be evicted, in the order in which they have to make room.
fn all_staying<'s>(state: &'s State, leeway: Leeway, limits: &Limits) -> Vec<Staying<'s>> {
    let now = Instant::now();
    let staying = state.held.iter().filter(|(_, held)| held.is_staying());
    let mut staying: Vec<_> = staying
        .map(|(id, held)| {
            let is_late = |leeway| held.late_at(limits, leeway).is_some_and(|at| at <= now);
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

fn leeway(state: &State) -> Leeway {
    if state.waiting.len() > MANY {
        Leeway::Little
    } else {
        Leeway::Usual
    }
}

impl<'s> Search<'s> {
    fn of(next: &Next<'s>, lack: usize, leeway: Leeway, limits: &'s Limits) -> Self {
        let soon = Instant::now() + EARLY * limits.grace;
        Self {
            limits,
            waiting: next.waiting,
            turn: next.turn,
            lack,
            is_before_all: next.is_before_all,
            is_early: !next.is_before_all && next.turn > soon,
            leeway,
        }
    }

    /// Returns whether this search is in vain because another one was, on behalf of a body before this one.
    fn finds_no_more_than(&self, other: &Self) -> bool {
        self.lack >= other.lack
            && self.waiting.sender.standing <= other.waiting.sender.standing
            && self.is_before_all <= other.is_before_all
            && self.is_early >= other.is_early
    }

    /// Evicts bodies that hold what is lacking, as far as there are enough, and returns them. Those of better standing
    /// are evicted only if there are enough with them: a large body that waits for others like it would else cost many
    /// smaller ones for nothing.
    fn evict<'h>(
        &self,
        staying: &mut Vec<Staying<'h>>,
        shortage: &Shortage,
    ) -> Vec<(u64, &'h Held)> {
        let (mut bytes, mut worse, mut to_go) = (0, 0, Vec::new());
        for other in staying.iter() {
            if bytes >= self.lack {
                break;
            }
            let held = other.held;
            let is_slow = if self.is_worse_than(held) || self.is_early {
                other.is_very_slow
            } else {
                other.is_slow
            };
            let has_to_go = is_slow || self.waits_too_long_for(held) || self.passes(held);
            if other.id != self.waiting.want.id && has_to_go {
                bytes += held.bytes;
                to_go.push((other.id, held, is_slow));
                // The better ones come last.
                worse += usize::from(!self.is_worse_than(held));
            }
        }
        if bytes < self.lack {
            to_go.truncate(worse);
        }
        for (_, held, is_slow) in &to_go {
            held.turn_out(*is_slow);
            let standing = held.sender.standing;
            shortage.turned_out(standing, *is_slow);
        }
        staying.retain(|other| other.held.is_staying());
        let gone = to_go.into_iter().map(|(id, held, _)| (id, held));
        gone.collect()
    }

    fn is_worse_than(&self, held: &Held) -> bool {
        self.waiting.sender.standing < held.sender.standing
    }

    /// Returns whether a body has to make room at once for one of better standing: it would have had to let it pass,
    /// had both been there.
    fn passes(&self, held: &Held) -> bool {
        held.sender.standing < self.waiting.sender.standing
            && (self.is_before_all || self.turn < held.turn)
    }

    /// Returns whether a body that is itself waiting, for room elsewhere, had enough time to get it.
    fn waits_too_long_for(&self, held: &Held) -> bool {
        let patience = self.leeway_of(held).of(self.limits.grace);
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
        let again = now + self.limits.grace / 4;
        let others = state.held.iter();
        let others = others.filter(|(id, held)| **id != self.waiting.want.id && held.is_staying());
        let late = others.filter_map(|(_, held)| {
            let leeway = self.leeway_of(held);
            let late = if held.is_waiting() {
                self.waiting.asked.checked_add(leeway.of(self.limits.grace))
            } else {
                held.late_at(self.limits, leeway)
            };
            // One that stays although it is late goes as soon as there is enough with what ends by itself.
            late.map(|late| if late > now { late } else { again })
        });
        late.min()
    }
}
