//! Order of the bodies that wait: whose turn is next, and who has to go when too many wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::state::{State, Waiting};
use super::{Budget, MOST_WAITING, Sender, part};
use crate::server::client::crowds::Crowds;
use crate::server::client::standing::Standing;

/// Sort key of a body in the queue, the smallest first.
type Place = (Instant, u64);

/// Bodies that wait, in order.
pub(super) struct Line<'s> {
    waiting: &'s [Waiting],
    proved: BinaryHeap<Reverse<(Place, usize)>>,
    others: BinaryHeap<Reverse<(Place, usize)>>,
    /// `true` once those that have not begun have to wait for one before them.
    is_held_up: bool,
}

/// Body whose turn is next.
pub(super) struct Next<'s> {
    pub(super) at: usize,
    pub(super) waiting: &'s Waiting,
    /// `true` if it comes before all that are not proved.
    pub(super) is_before_all: bool,
}

impl<'s> Line<'s> {
    /// Lines up those that have not been told to make room themselves.
    pub(super) fn of(waiting: &'s [Waiting]) -> Self {
        let staying = waiting.iter().enumerate();
        let staying = staying.filter(|(_, waiting)| !waiting.reading.is_turned_out());
        let (mut proved, mut others) = (Vec::new(), Vec::new());
        for (at, waiting) in staying {
            let side = if waiting.sender.is_proved() {
                &mut proved
            } else {
                &mut others
            };
            side.push(Reverse((waiting.place(), at)));
        }
        Self {
            waiting,
            proved: proved.into(),
            others: others.into(),
            is_held_up: false,
        }
    }

    /// Takes the next body out of the line, given the bytes that proved senders hold by then.
    pub(super) fn next(&mut self, of_proved: usize, budget: &Budget) -> Option<Next<'s>> {
        let proved = self.proved.peek().map(|Reverse(first)| *first);
        let other = self.others.peek().map(|Reverse(first)| *first);
        let has_room = proved.is_some_and(|(_, at)| self.waiting[at].has_part(of_proved, budget));
        let is_proved = has_room || comes_before(proved, other);
        let side = if is_proved {
            &mut self.proved
        } else {
            &mut self.others
        };
        let Reverse((_, at)) = side.pop()?;
        Some(Next {
            at,
            waiting: &self.waiting[at],
            is_before_all: has_room,
        })
    }

    /// Lets none that has not begun pass a body that lacks free room: what becomes free is for it. Those that have begun
    /// pass it: it may be waiting for them.
    pub(super) fn is_held_up_by(&mut self, waiting: &Waiting, claims: &Claims) {
        if self.is_held_up || waiting.bytes <= claims.free {
            return;
        }
        self.is_held_up = true;
        let all = self.waiting;
        for side in [&mut self.proved, &mut self.others] {
            side.retain(|Reverse((_, at))| all[*at].is_begun);
        }
    }
}

impl State {
    /// Returns the index of the body that has to go because too many wait: a random one among those that have not
    /// begun. It is random so that nobody is kept out for having come last, and the more probable the more wait of its
    /// range, network and client, and the worse its standing is. Proved senders have a part of the places to
    /// themselves, and so have all others.
    pub(super) fn last(&self) -> Option<usize> {
        let proved = self
            .waiting
            .iter()
            .filter(|waiting| waiting.sender.is_proved());
        let is_proved = proved.count() > part(MOST_WAITING);
        let among = |is_proved| {
            let waiting = self.waiting.iter().enumerate();
            let some = waiting.filter(move |(_, waiting)| {
                !waiting.is_begun && waiting.sender.is_proved() == is_proved
            });
            let lots = some.map(|(at, waiting)| (self.lot(waiting.sender), at));
            lots.min_by(|(one, _), (other, _)| one.total_cmp(other))
        };
        let last = among(is_proved).or_else(|| among(!is_proved));
        last.map(|(_, at)| at)
    }

    /// Draws a lot for a waiting body: the lowest one has to go.
    fn lot(&self, sender: Sender) -> f64 {
        let counts = self.waiters.counts(sender.client).map(f64::from);
        let weight = counts.iter().product::<f64>() * suspicion(sender.standing);
        let chance: f64 = rand::random();
        -(1.0 - chance).ln() / weight.max(1.0)
    }
}

impl Waiting {
    fn place(&self) -> Place {
        (self.turn, self.id)
    }

    /// Returns whether the body fits into what proved senders have before all others, of which they hold `of_proved`
    /// bytes.
    fn has_part(&self, of_proved: usize, budget: &Budget) -> bool {
        of_proved + self.bytes <= budget.of_proved
    }
}

impl Sender {
    pub(super) fn is_proved(self) -> bool {
        self.standing == Standing::Known
    }

    /// Returns how many of these bytes of the sender count as those of a proved one.
    pub(super) fn proved(self, bytes: usize) -> usize {
        if self.is_proved() { bytes } else { 0 }
    }
}

fn comes_before(one: Option<(Place, usize)>, other: Option<(Place, usize)>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one < other,
        (one, _) => one.is_some(),
    }
}

/// Returns the time of a waiting body's turn. A body that is being read goes before those that began to wait after it
/// began.
pub(super) fn turn(holders: &Crowds, waiting: &Waiting, budget: &Budget) -> Instant {
    let lag = budget.grace.saturating_mul(lag(waiting.sender.standing));
    if waiting.is_begun {
        return waiting.since.checked_add(lag).unwrap_or(waiting.since);
    }
    let client = waiting.sender.client;
    let bytes = (holders.of_client(client).bytes + waiting.weight) as u128;
    let of_bytes = budget.weight.as_micros() * bytes / budget.total.max(1) as u128;
    let of_bytes = Duration::from_micros(u64::try_from(of_bytes).unwrap_or(u64::MAX));
    let of_bodies = budget.grace.saturating_mul(holders.weight(client));
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
