//! State of a budget: the bodies that hold room, those that wait for it, and their order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::held::Held;
use super::{Budget, MOST_WAITING, Reading, Sender};
use crate::server::crowds::Crowds;
use crate::server::standing::{Standing, range};

/// Multiple of the patience for which a body that wants the whole budget lets smaller ones of equals go first.
const WEIGHT: u128 = 2;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) used: usize,
    next: u64,
    pub(super) held: HashMap<u64, Held>,
    pub(super) holders: Crowds,
    pub(super) waiting: Vec<Waiting>,
    waiters: Crowds,
}

/// Body that waits for room: for all that it needs, or for more than it has.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    /// Time of the request for room, and the time from which the turn is computed.
    pub(super) asked: Instant,
    since: Instant,
    /// Time of the turn among equals. Cached, since there may be very many to choose from.
    turn: Instant,
    pub(super) sender: Sender,
    range: IpAddr,
    pub(super) bytes: usize,
    is_begun: bool,
    pub(super) reading: Arc<Reading>,
    go: oneshot::Sender<()>,
}

impl State {
    /// Enqueues a new body, unless there is room for it at once, and returns its identifier.
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

    /// Enqueues a body that is being read and needs more room.
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

    /// Enqueues a body, grants room to those whose turn it is, and refuses one body if too many wait.
    fn wait(&mut self, budget: &Budget, mut waiting: Waiting) {
        let id = waiting.id;
        waiting.turn = turn(&self.holders, &waiting, budget);
        self.waiters.add(waiting.sender.client, 0);
        self.waiting.push(waiting);
        let first = self.grant(budget);
        if self.waiting.len() > MOST_WAITING {
            self.thin_out();
        } else if first.is_some_and(|first| self.waiting[first].id == id) {
            self.make_room(budget);
        }
        budget.changed.notify_one();
    }

    /// Recomputes the turns of all waiting bodies that the bodies of this client count against.
    fn reckon(&mut self, client: IpAddr, budget: &Budget) {
        let range = range(client);
        for waiting in &mut self.waiting {
            if waiting.range == range {
                waiting.turn = turn(&self.holders, waiting, budget);
            }
        }
    }

    fn first(&self) -> Option<usize> {
        (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].place())
    }

    /// Grants room in turn for as long as there is enough. Returns the index of the first body that has to go on
    /// waiting.
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
            // If nobody listens anymore, the share is about to be dropped, and these bytes with it.
            let _ = next.go.send(());
            budget.changed.notify_one();
        }
    }

    /// Refuses a random body that has not begun, among those of the worst standing from the range, network and client
    /// with the most waiting bodies. It is random so that nobody is kept out for having come last.
    fn thin_out(&mut self) {
        let among = |at: &usize| !self.waiting[*at].is_begun;
        let last = (0..self.waiting.len()).filter(among).max_by_key(|at| {
            let Sender { client, standing } = self.waiting[*at].sender;
            let counts = self.waiters.counts(client);
            (Reverse(standing), counts, rand::random::<u32>())
        });
        if let Some(last) = last {
            self.dismiss(last);
        }
    }

    /// Removes a body from the queue.
    fn dismiss(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.swap_remove(at);
        self.waiters.remove(waiting.sender.client, 0);
        waiting
    }

    /// Releases what a body holds beyond `keep` bytes.
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

    /// Removes a body, whether it holds room, waits, or both.
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

impl Waiting {
    /// Returns the sort key of the body in the queue, the smallest first.
    pub(super) fn place(&self) -> (Reverse<Standing>, Instant, u64) {
        (Reverse(self.sender.standing), self.turn, self.id)
    }
}

/// Returns the time of a waiting body's turn among equals. A body that is being read goes before those that began to
/// wait after it began.
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
