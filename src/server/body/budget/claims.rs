//! Safety of a budget: whether everything that has begun can be read to its end, one body after the other (the banker's
//! algorithm, E. W. Dijkstra, EWD 623).
//!
//! There may be hundreds of bodies that have begun, and for each of more than a thousand that wait the question is
//! asked again. So the sums over those that have begun are kept, and an answer takes one binary search.

use super::held::Held;
use super::waiting::Want;

/// Room that is free, and what the bodies that hold some still miss.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) free: usize,
    /// Room of bodies that miss nothing: it comes back by itself.
    complete: usize,
    /// Room of bodies that miss more than they hold, and the most that it may be for another one to begin.
    early: usize,
    early_max: usize,
    /// Bodies that miss something, those that miss the least first.
    open: Vec<Claim>,
    /// Sums over the bodies before each of `open`, and over all of them.
    before: Vec<Sums>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    missing: usize,
    id: u64,
    held: usize,
}

impl Claim {
    /// Returns the room that it holds if it misses more than that.
    fn early(self) -> usize {
        if self.missing > self.held {
            self.held
        } else {
            0
        }
    }
}

/// Sums over the bodies that miss the least.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Bytes that they hold, and give back when they were read.
    held: usize,
    /// Most bytes that one of them misses beyond what those before it give back.
    short: usize,
}

/// Rule on who may pass the first body in line that has to wait.
#[derive(Debug, Default)]
pub(super) struct Passing {
    first: Option<Want>,
    /// A body that may not pass.
    refused: Option<Want>,
}

impl Passing {
    /// Records that this body has to wait.
    pub(super) fn waits(&mut self, want: Want) {
        self.first.get_or_insert(want);
        if !want.is_begun {
            self.refused = Some(want);
        }
    }

    /// Returns how much more would have to be free for this body to get its room, or `None` if it may not pass: it has
    /// not begun, and whoever is first would then lack more.
    pub(super) fn lack(&mut self, want: Want, claims: &Claims) -> Option<usize> {
        let first = self.first.filter(|_| !want.is_begun);
        // A body that begins with as much and has to get more is no easier to let pass.
        let is_like = |other: Want| want.bytes >= other.bytes && want.missing >= other.missing;
        if first.is_some() && self.refused.is_some_and(is_like) {
            return None;
        }
        let lack = claims.lack(want);
        if let Some(first) = first
            && lack == 0
        {
            let mut then = claims.clone();
            then.grant(want);
            if then.lack(first) > claims.lack(first) {
                self.refused = Some(want);
                return None;
            }
        }
        Some(lack)
    }
}

impl Claims {
    /// Returns the claims of bodies that hold room. `early_max` is the most that those may hold that miss more than
    /// they hold, for another one to begin.
    pub(super) fn of<'s>(
        free: usize,
        early_max: usize,
        held: impl Iterator<Item = (&'s u64, &'s Held)>,
    ) -> Self {
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
        let mut claims = Self {
            free,
            complete,
            early: open.iter().map(|claim| claim.early()).sum(),
            early_max,
            open,
            before: Vec::new(),
        };
        claims.sum_up(0);
        claims
    }

    /// Returns how much more would have to be free for this body to get its room, such that all that have begun could
    /// still be read to their end. It is never more than the body waits for.
    ///
    /// A body that begins leaves the room for others to grow, too: with all of it given to beginnings they would be
    /// read to their end one by one, however fast they come, and however slow ones were among them.
    pub(super) fn lack(&self, want: Want) -> usize {
        let after = want.missing_then();
        // Those that miss more than this body, itself among them, are read after it, with all that it gives back then.
        let less = self.open.partition_point(|claim| claim.missing < after);
        let before = self.before.get(less).copied().unwrap_or_default();
        let available = self.free + self.complete;
        let for_itself = want.bytes.saturating_sub(self.free);
        let for_others = (before.short + want.bytes).saturating_sub(available);
        let to_its_end = want.missing.saturating_sub(available + before.held);
        let is_early = !want.is_begun && after > want.bytes;
        let for_growth = if is_early {
            (self.early + want.bytes).saturating_sub(self.early_max)
        } else {
            0
        };
        let lack = for_itself.max(for_others).max(to_its_end);
        lack.max(for_growth).min(want.bytes)
    }

    /// Records that this body gets its room.
    pub(super) fn grant(&mut self, want: Want) {
        let held = self.take_out(want.id) + want.bytes;
        self.free = self.free.saturating_sub(want.bytes);
        let missing = want.missing_then();
        if missing == 0 {
            self.complete += held;
            return;
        }
        let claim = Claim {
            missing,
            id: want.id,
            held,
        };
        self.early += claim.early();
        let at = self.open.partition_point(|other| *other < claim);
        self.open.insert(at, claim);
        self.sum_up(at);
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
        let Some(at) = self.open.iter().position(|claim| claim.id == id) else {
            return 0;
        };
        let claim = self.open.remove(at);
        self.early -= claim.early();
        self.sum_up(at);
        claim.held
    }

    /// Computes the sums anew from this body on.
    fn sum_up(&mut self, from: usize) {
        self.before.truncate(from + 1);
        let mut sums = self.before.pop().unwrap_or_default();
        self.before.push(sums);
        for claim in &self.open[from..] {
            sums = Sums {
                held: sums.held + claim.held,
                short: sums.short.max(claim.missing.saturating_sub(sums.held)),
            };
            self.before.push(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the same as [`Claims::lack`], by looking at all that have begun.
    fn lack_by_trying(claims: &Claims, want: Want) -> usize {
        let mut lack = want.bytes.saturating_sub(claims.free);
        let mut available = claims.free + claims.complete;
        for claim in &claims.open {
            if claim.missing < want.missing_then() && claim.id != want.id {
                lack = lack.max((claim.missing + want.bytes).saturating_sub(available));
                available += claim.held;
            }
        }
        lack.max(want.missing.saturating_sub(available))
            .min(want.bytes)
    }

    #[test]
    fn beginnings_leave_room_to_grow() {
        let want = |id, bytes, missing, is_begun| Want {
            id,
            bytes,
            missing,
            is_begun,
        };
        let mut claims = Claims::of(100, 20, std::iter::empty());
        claims.grant(want(1, 10, 40, false));
        claims.grant(want(2, 10, 40, false));
        assert_eq!(claims.lack(want(3, 10, 40, false)), 10);
        // One that is read to its end with the next part, or has begun, takes none of it for long.
        assert_eq!(claims.lack(want(3, 10, 20, false)), 0);
        assert_eq!(claims.lack(want(1, 10, 30, true)), 0);
        claims.grant(want(1, 10, 30, true));
        assert_eq!(claims.lack(want(3, 10, 40, false)), 0);
    }

    #[test]
    fn sums_answer_as_looking_at_all_does() {
        for _ in 0..200 {
            let mut claims =
                Claims::of(rand::random_range(0..2000), usize::MAX, std::iter::empty());
            let mut ids: Vec<u64> = Vec::new();
            for id in 0..60 {
                let missing = rand::random_range(1..100);
                let want = Want {
                    id,
                    bytes: rand::random_range(1..=missing),
                    missing,
                    is_begun: false,
                };
                assert_eq!(claims.lack(want), lack_by_trying(&claims, want));
                claims.grant(want);
                ids.push(id);
                if rand::random_ratio(1, 4) {
                    let gone = ids.swap_remove(rand::random_range(0..ids.len()));
                    claims.free += claims.take_out(gone);
                }
                for claim in claims.open.clone() {
                    let more = Want {
                        id: claim.id,
                        bytes: rand::random_range(1..=claim.missing),
                        missing: claim.missing,
                        is_begun: true,
                    };
                    assert_eq!(claims.lack(more), lack_by_trying(&claims, more));
                }
            }
        }
    }
}
