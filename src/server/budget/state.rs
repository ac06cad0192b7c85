//! Who holds what of a budget, who waits for it, whose turn it is, and who has to make room.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Budget, MOST_WAITING, Reading, Sender};
use crate::server::crowds::Crowds;
use crate::server::standing::range;

/// How many times the patience a body waits for smaller ones of equals that would take all of the budget.
const WEIGHT: u128 = 2;

/// How many times in the grace it is looked for those that have to make room.
pub(super) const LOOKS: u32 = 10;

/// How much faster bodies have to come when many wait.
const HURRY: u32 = 2;
const MANY: usize = 256;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) used: usize,
    next: u64,
    pub(super) held: HashMap<u64, Held>,
    pub(super) holders: Crowds,
    pub(super) waiting: Vec<Waiting>,
    waiters: Crowds,
    /// When it was last looked for those that have to make room.
    looked: Option<Instant>,
}

/// What a body holds.
#[derive(Debug)]
pub(super) struct Held {
    sender: Sender,
    pub(super) bytes: usize,
    began: Instant,
    /// What came before it was last given more, and when that was.
    before: usize,
    since: Instant,
    /// `None`: it does not have to make room any more.
    pub(super) reading: Option<Arc<Reading>>,
}

/// What a body waits for: all of it, or more than it has.
#[derive(Debug)]
pub(super) struct Waiting {
    id: u64,
    /// Since when, and from when on its turn is reckoned.
    asked: Instant,
    since: Instant,
    /// When it is its turn among equals. Kept, since there may be very many to choose from.
    turn: Instant,
    sender: Sender,
    range: IpAddr,
    bytes: usize,
    is_begun: bool,
    reading: Arc<Reading>,
    go: oneshot::Sender<()>,
}

impl State {
    /// Has a new body wait, unless there is room for it at once.
    pub(super) fn ask(
        &mut self,
        budget: &Budget,
        sender: Sender,
        bytes: usize,
        reading: Arc<Reading>,
        go: oneshot::Sender<()>,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        let now = Instant::now();
        let waiting = Waiting {
            id,
            asked: now,
            since: now,
            turn: now,
            sender,
            range: range(sender.client),
            bytes: bytes.min(budget.total),
            is_begun: false,
            reading,
            go,
        };
        self.wait(budget, waiting);
        id
    }

    /// Has a body that is being read wait for more.
    pub(super) fn ask_for_more(
        &mut self,
        budget: &Budget,
        id: u64,
        bytes: usize,
        go: oneshot::Sender<()>,
    ) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let Some(reading) = held.reading.clone() else {
            return;
        };
        let waiting = Waiting {
            id,
            asked: Instant::now(),
            since: held.began,
            turn: held.began,
            sender: held.sender,
            range: range(held.sender.client),
            bytes: bytes.min(budget.total).saturating_sub(held.bytes),
            is_begun: true,
            reading,
            go,
        };
        self.wait(budget, waiting);
    }

    /// Adds one that waits, gives room to whom it is due, and refuses one when too many wait.
    fn wait(&mut self, budget: &Budget, mut waiting: Waiting) {
        let id = waiting.id;
        waiting.turn = turn(&self.holders, &waiting, budget);
        self.waiters.add(waiting.sender.client, 0);
        self.waiting.push(waiting);
        let first = self.grant(budget);
        if self.waiting.len() > MOST_WAITING {
            self.thin_out(budget);
        } else if let Some(first) = first
            && self.waiting[first].id == id
        {
            self.make_room(budget, first);
        }
    }

    /// Turns out what has to make room, if it is time to look for that again.
    pub(super) fn look(&mut self, budget: &Budget) {
        let pause = budget.grace / LOOKS;
        if self.looked.is_none_or(|looked| looked.elapsed() >= pause) {
            self.looked = Some(Instant::now());
            if let Some(first) = self.first() {
                self.make_room(budget, first);
            }
        }
    }

    /// Reckons anew whose turn it is when, of all whom the bodies of this client count for.
    fn reckon(&mut self, client: IpAddr, budget: &Budget) {
        let range = range(client);
        for waiting in &mut self.waiting {
            if waiting.range == range {
                waiting.turn = turn(&self.holders, waiting, budget);
            }
        }
    }

    fn first(&self) -> Option<usize> {
        (0..self.waiting.len()).min_by_key(|at| {
            let waiting = &self.waiting[*at];
            let standing = waiting.sender.standing;
            (Reverse(standing), waiting.turn, waiting.id)
        })
    }

    /// Lets those go on for whom there is room, in turn; who is first of the others.
    pub(super) fn grant(&mut self, budget: &Budget) -> Option<usize> {
        loop {
            let at = self.first()?;
            if self.used + self.waiting[at].bytes > budget.total {
                return Some(at);
            }
            let next = self.dismiss(at);
            self.used += next.bytes;
            if let Some(held) = self.held.get_mut(&next.id) {
                let before = held.bytes;
                held.grow(next.bytes);
                self.holders
                    .resize(next.sender.client, before, before + next.bytes);
            } else {
                self.holders.add(next.sender.client, next.bytes);
                self.held.insert(next.id, Held::of(&next));
            }
            self.reckon(next.sender.client, budget);
            next.reading.set_waiting(false);
            // Should nobody listen any more, the share is about to be dropped, and these bytes with it.
            let _ = next.go.send(());
        }
    }

    /// Refuses one that has not begun: of those that stand worst, of the range, the network and the client that wait
    /// most often, any one, so that nobody is kept out for having come last.
    fn thin_out(&mut self, budget: &Budget) {
        let among = |at: &usize| !self.waiting[*at].is_begun;
        let last = (0..self.waiting.len()).filter(among).max_by_key(|at| {
            let Sender { client, standing } = self.waiting[*at].sender;
            let counts = self.waiters.counts(client);
            (Reverse(standing), counts, rand::random::<u32>())
        });
        if let Some(last) = last {
            self.dismiss(last);
        }
        self.look(budget);
    }

    /// Turns out what has to make room for whose turn it is.
    fn make_room(&mut self, budget: &Budget, first: usize) {
        let hurry = self.hurry();
        let first = &self.waiting[first];
        let wants = first.sender.standing;
        let has_waited = first.asked.elapsed() * hurry >= budget.grace;
        let leaving = self.held.values().filter(|held| held.is_leaving());
        let leaving: usize = leaving.map(|held| held.bytes).sum();
        let mut missing = (self.used + first.bytes).saturating_sub(budget.total + leaving);
        if missing == 0 {
            return;
        }
        let mut others: Vec<_> = self
            .held
            .iter()
            .filter(|(id, held)| **id != first.id && held.reading.is_some() && !held.is_leaving())
            .map(|(_, held)| (held.sender.standing, held.is_slow(budget, hurry), held))
            .filter(|(standing, is_slow, held)| {
                let is_late = *is_slow || held.is_waiting();
                *standing < wants || (*standing == wants && has_waited && is_late)
            })
            .collect();
        others.sort_by_key(|(standing, is_slow, held)| (*standing, !is_slow, Reverse(held.bytes)));
        for (_, is_slow, held) in others {
            if missing == 0 {
                return;
            }
            missing = missing.saturating_sub(held.bytes);
            held.turn_out(is_slow);
        }
    }

    fn hurry(&self) -> u32 {
        if self.waiting.len() > MANY { HURRY } else { 1 }
    }

    /// Takes one out of those that wait.
    fn dismiss(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.swap_remove(at);
        self.waiters.remove(waiting.sender.client, 0);
        waiting
    }

    /// Gives back what a body holds beyond `keep` bytes.
    pub(super) fn release(&mut self, id: u64, keep: usize, budget: &Budget) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let client = held.sender.client;
        let after = held.bytes.min(keep);
        let before = std::mem::replace(&mut held.bytes, after);
        self.used -= before - after;
        self.holders.resize(client, before, after);
        self.reckon(client, budget);
    }

    /// Forgets a body, whether it is held, waits, or both.
    pub(super) fn remove(&mut self, id: u64, budget: &Budget) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) {
            self.dismiss(at);
        }
        if let Some(held) = self.held.remove(&id) {
            let client = held.sender.client;
            self.used -= held.bytes;
            self.holders.remove(client, held.bytes);
            self.reckon(client, budget);
        }
    }
}

/// When it is the turn of one that waits among its equals. What is being read goes on before what has not begun in the
/// meantime.
fn turn(holders: &Crowds, waiting: &Waiting, budget: &Budget) -> Instant {
    if waiting.is_begun {
        return waiting.since;
    }
    let client = waiting.sender.client;
    let bytes = (holders.of_client(client).bytes + waiting.bytes) as u128;
    let of_bytes = budget.patience.as_micros() * WEIGHT * bytes / budget.total.max(1) as u128;
    let of_bytes = Duration::from_micros(u64::try_from(of_bytes).unwrap_or(u64::MAX));
    let of_bodies = budget.grace.saturating_mul(holders.weight(client));
    let turn = waiting
        .since
        .checked_add(of_bytes.saturating_add(of_bodies));
    turn.unwrap_or(waiting.since)
}

impl Held {
    fn of(waiting: &Waiting) -> Self {
        let now = Instant::now();
        Self {
            sender: waiting.sender,
            bytes: waiting.bytes,
            began: now,
            before: 0,
            since: now,
            reading: Some(Arc::clone(&waiting.reading)),
        }
    }

    fn grow(&mut self, bytes: usize) {
        self.before = self.arrived();
        self.since = Instant::now();
        self.bytes += bytes;
    }

    fn arrived(&self) -> usize {
        let reading = self.reading.as_ref();
        reading.map_or(0, |reading| reading.arrived())
    }

    /// Returns whether it was told to make room and has not done so yet.
    fn is_leaving(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.is_turned_out())
    }

    /// Returns whether it waits for room itself, here or elsewhere.
    fn is_waiting(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.is_waiting())
    }

    /// Returns whether at its pace, times `hurry`, it takes longer to come than a body of its size may.
    fn is_slow(&self, budget: &Budget, hurry: u32) -> bool {
        let elapsed = self.since.elapsed() * hurry;
        let expected = self.bytes.saturating_sub(self.before) as u128;
        let came = self.arrived().saturating_sub(self.before) as u128;
        let haste = budget.grace.as_micros() + expected * 1_000_000 / budget.rate.max(1);
        let due = expected * elapsed.as_micros() / haste.max(1);
        elapsed >= budget.grace && !self.is_waiting() && came < due.min(expected)
    }

    fn turn_out(&self, is_slow: bool) {
        if let Some(reading) = &self.reading {
            reading.turn_out(is_slow);
        }
    }
}
