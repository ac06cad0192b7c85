//! Order of the bodies that wait: whose turn is next, and who has to go when too many wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::ask::Sender;
use super::limits::{Limits, MOST_WAITING, part};
use super::waiting::Waiting;
use crate::server::client::crowds::Crowds;
use crate::server::client::standing::Standing;

/// Bodies that wait, by their identifiers.
pub(super) type AllWaiting = HashMap<u64, Waiting>;

/// Sort key of a body in the queue, the smallest first: the time of its turn, and its identifier.
type Rank = (Instant, u64);

/// Bodies that wait, in order.
pub(super) struct Line {
    proved: BinaryHeap<Reverse<Rank>>,
    others: BinaryHeap<Reverse<Rank>>,
    /// `true` once those that have not begun have to wait for one before them.
    is_held_up: bool,
    /// `true` if more is held since the turns were computed, so that some come later.
    is_stale: bool,
}

/// Body whose turn is next.
pub(super) struct Next<'s> {
    pub(super) waiting: &'s Waiting,
    pub(super) turn: Instant,
    /// `true` if it comes before all that are not proved.
    pub(super) is_before_all: bool,
}

impl Line {
    /// Lines up those that have not been told to make room themselves.
    pub(super) fn of(waiting: &AllWaiting, holders: &Crowds, limits: &Limits) -> Self {
        let (mut proved, mut others) = (Vec::new(), Vec::new());
        for (id, waiting) in waiting {
            if waiting.progress.is_turned_out() {
                continue;
            }
            let side = if waiting.sender.is_proved() {
                &mut proved
            } else {
                &mut others
            };
            side.push(Reverse((turn(holders, waiting, limits), *id)));
        }
        Self {
            proved: proved.into(),
            others: others.into(),
            is_held_up: false,
            is_stale: false,
        }
    }

    /// Takes the next body out of the line, given the bytes that proved senders hold by then.
    pub(super) fn next<'s>(
        &mut self,
        of_proved: usize,
        waiting: &'s AllWaiting,
        holders: &Crowds,
        limits: &Limits,
    ) -> Option<Next<'s>> {
        loop {
            let proved = self.proved.peek().map(|Reverse(first)| *first);
            let other = self.others.peek().map(|Reverse(first)| *first);
            let first = proved.and_then(|(_, id)| waiting.get(&id));
            let has_part = first.is_some_and(|first| has_part(first, of_proved, limits));
            let side = if has_part || comes_before(proved, other) {
                &mut self.proved
            } else {
                &mut self.others
            };
            let Reverse((place, id)) = side.pop()?;
            let Some(waiting) = waiting.get(&id) else {
                continue;
            };
            let turn = if self.is_stale {
                turn(holders, waiting, limits)
            } else {
                place
            };
            // Whoever got room since has its turn later.
            if turn > place {
                side.push(Reverse((turn, id)));
                continue;
            }
            return Some(Next {
                waiting,
                turn,
                is_before_all: has_part,
            });
        }
    }

    /// Records that a body got its room: turns are computed anew from here on.
    pub(super) fn was_granted(&mut self) {
        self.is_stale = true;
    }

    /// Lets none that has not begun pass a body that lacks free room: what becomes free is for it. Those that have
    /// begun pass it: it may be waiting for them.
    pub(super) fn hold_up(&mut self, waiting: &AllWaiting) {
        if self.is_held_up {
            return;
        }
        self.is_held_up = true;
        let is_begun = |id: &u64| waiting.get(id).is_some_and(|other| other.want.is_begun);
        for side in [&mut self.proved, &mut self.others] {
            side.retain(|Reverse((_, id))| is_begun(id));
        }
    }
}

/// Returns whether the body fits into what proved senders have before all others, of which they hold `of_proved` bytes.
fn has_part(waiting: &Waiting, of_proved: usize, limits: &Limits) -> bool {
    of_proved + waiting.want.bytes <= limits.of_proved
}

fn comes_before(one: Option<Rank>, other: Option<Rank>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one < other,
        (one, _) => one.is_some(),
    }
}

/// Returns the identifier of the body that has to go because too many wait: a random one among those that have not
/// begun. It is random so that nobody is kept out for having come last, and the more probable the more wait of its
/// range, network and client, and the worse its standing is. Proved senders have a part of the places to themselves,
/// and so have all others.
pub(super) fn last(waiting: &AllWaiting, waiters: &Crowds) -> Option<u64> {
    let proved = waiting
        .values()
        .filter(|waiting| waiting.sender.is_proved());
    let is_proved = proved.count() > part(MOST_WAITING);
    let among = |is_proved| {
        let some = waiting.iter().filter(move |(_, waiting)| {
            !waiting.want.is_begun && waiting.sender.is_proved() == is_proved
        });
        let lots = some.map(|(id, waiting)| (lot(waiting.sender, waiters), *id));
        lots.min_by(|(one, _), (other, _)| one.total_cmp(other))
    };
    let last = among(is_proved).or_else(|| among(!is_proved));
    last.map(|(_, id)| id)
}

/// Draws a lot for a waiting body: the lowest one has to go.
fn lot(sender: Sender, waiters: &Crowds) -> f64 {
    let counts = waiters.counts(sender.client).map(f64::from);
    let weight = counts.iter().product::<f64>() * suspicion(sender.standing);
    let chance: f64 = rand::random();
    -(1.0 - chance).ln() / weight.max(1.0)
}

/// Returns the time of a waiting body's turn. Bodies that have begun go before all that have not: what becomes free
/// would else be used up by beginnings, and who is to make room for them could not go on.
fn turn(holders: &Crowds, waiting: &Waiting, limits: &Limits) -> Instant {
    let lag = limits.grace.saturating_mul(lag(waiting.sender.standing));
    if waiting.want.is_begun {
        let since = waiting.since.checked_sub(limits.patience);
        return since.unwrap_or(waiting.since) + lag;
    }
    let client = waiting.sender.client;
    let bytes = (holders.of_client(client).bytes + waiting.weight) as u128;
    let of_bytes = limits.weight.as_micros() * bytes / limits.total.max(1) as u128;
    let of_bytes = Duration::from_micros(u64::try_from(of_bytes).unwrap_or(u64::MAX));
    let of_bodies = limits.grace.saturating_mul(holders.weight(client));
    let wait = of_bytes.saturating_add(of_bodies).saturating_add(lag);
    waiting.since.checked_add(wait).unwrap_or(waiting.since)
}

/// Returns how much later the turn of a sender of this standing is than that of the best, as a multiple of the time
/// that any body may take. A difference of a few seconds lets strangers pass a crowd that is being recognized. As it is
/// finite, nobody is kept out who merely has bad neighbors.
fn lag(standing: Standing) -> u32 {
    match standing {
        Standing::Neighbor => 0,
        // Beyond their part, proved senders are as strangers are.
        Standing::Known | Standing::Unknown => 1,
        Standing::Slow => 3,
        Standing::Suspect => 5,
    }
}

/// Returns how much more probable it is that a sender of this standing has to go than one of the best.
fn suspicion(standing: Standing) -> f64 {
    match standing {
        Standing::Known | Standing::Neighbor => 1.0,
        Standing::Unknown => 2.0,
        Standing::Slow => 4.0,
        Standing::Suspect => 16.0,
    }
}
