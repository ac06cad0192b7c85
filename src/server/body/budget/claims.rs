//! Safety of a budget: whether everything that has begun can be read to its end, one body after the other (the banker's
//! algorithm, E. W. Dijkstra, EWD 623).

use super::held::Held;
use super::state::Waiting;

/// Room that is free, and what the bodies that hold some still miss.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) free: usize,
    /// Room of bodies that miss nothing: it comes back by itself.
    complete: usize,
    /// Bodies that miss something, those that miss the least first.
    open: Vec<Claim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    missing: usize,
    id: u64,
    held: usize,
}

/// Rule on who may pass the first body in line that has to wait.
#[derive(Debug, Default)]
pub(super) struct Passing<'s> {
    first: Option<&'s Waiting>,
    /// A body that may not pass.
    refused: Option<&'s Waiting>,
}

impl<'s> Passing<'s> {
    /// Records that this body has to wait.
    pub(super) fn waits(&mut self, waiting: &'s Waiting) {
        self.first.get_or_insert(waiting);
        if !waiting.is_begun {
            self.refused = Some(waiting);
        }
    }

    /// Returns how much more would have to be free for this body to get its room, or `None` if it may not pass: it has
    /// not begun, and whoever is first would then lack more.
    pub(super) fn lack(&mut self, waiting: &'s Waiting, claims: &Claims) -> Option<usize> {
        let first = self.first.filter(|_| !waiting.is_begun);
        // A body that begins with as much and has to get more is no easier to let pass.
        let is_like =
            |other: &Waiting| waiting.bytes >= other.bytes && waiting.missing >= other.missing;
        if first.is_some() && self.refused.is_some_and(is_like) {
            return None;
        }
        let lack = claims.lack(waiting);
        if let Some(first) = first
            && lack == 0
        {
            let mut then = claims.clone();
            then.grant(waiting);
            if then.lack(first) > claims.lack(first) {
                self.refused = Some(waiting);
                return None;
            }
        }
        Some(lack)
    }
}

impl Claims {
    pub(super) fn of<'s>(free: usize, held: impl Iterator<Item = (&'s u64, &'s Held)>) -> Self {
        let (mut complete, mut open) = (0, Vec::new());
        for (id, held) in held {
            let missing = held.missing();
            if missing == 0 {
                complete += held.bytes;
            } else {
                open.push(Claim {
                    missing,
                    id: *id,
                    held: held.bytes,
                });
            }
        }
        open.sort_unstable();
        Self {
            free,
            complete,
            open,
        }
    }

    /// Returns how much more would have to be free for this body to get its room, such that all that have begun could
    /// still be read to their end. It is never more than the body waits for.
    pub(super) fn lack(&self, waiting: &Waiting) -> usize {
        let after = waiting.missing.saturating_sub(waiting.bytes);
        let mut lack = waiting.bytes.saturating_sub(self.free);
        let mut available = self.free + self.complete;
        // Those that miss more than this body are read after it, with all that it gives back then.
        let less = self.open.iter();
        let less = less.take_while(|claim| claim.missing < after);
        for claim in less.filter(|claim| claim.id != waiting.id) {
            lack = lack.max((claim.missing + waiting.bytes).saturating_sub(available));
            available += claim.held;
        }
        lack.max(waiting.missing.saturating_sub(available))
            .min(waiting.bytes)
    }

    /// Records that this body gets its room.
    pub(super) fn grant(&mut self, waiting: &Waiting) {
        let held = self.take_out(waiting.id) + waiting.bytes;
        self.free = self.free.saturating_sub(waiting.bytes);
        let missing = waiting.missing.saturating_sub(waiting.bytes);
        if missing == 0 {
            self.complete += held;
            return;
        }
        let claim = Claim {
            missing,
            id: waiting.id,
            held,
        };
        let at = self.open.partition_point(|other| *other < claim);
        self.open.insert(at, claim);
    }

    /// Records that this body gives its room back.
    pub(super) fn evict(&mut self, id: u64, held: &Held) {
        if held.missing() == 0 {
            self.complete = self.complete.saturating_sub(held.bytes);
        }
        self.take_out(id);
        self.free += held.bytes;
    }

    fn take_out(&mut self, id: u64) -> usize {
        let at = self.open.iter().position(|claim| claim.id == id);
        at.map_or(0, |at| self.open.remove(at).held)
    }
}
